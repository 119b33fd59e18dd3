//! The token of the API, in a file.

use std::path::Path;

use crate::credentials::CredentialError;
use crate::files;
use crate::http::guard::Secret;
use crate::identity::credentials::MAX_TOKEN;

/// Longest file that holds a token, bytes.
const MAX_SMALL_FILE: u64 = 64 << 10;

/// The digest of the token in a file.
pub(super) fn read_token(path: &Path) -> Result<Secret, CredentialError> {
    const FLAG: &str = "api-token-file";
    let unreadable = |source| CredentialError::Unreadable { flag: FLAG, path: path.to_owned(), source };
    let text = files::read_text(path, MAX_SMALL_FILE).map_err(unreadable)?;
    let token = text.trim();
    let wrong = |found: &str| CredentialError::Content {
        flag: FLAG,
        path: path.to_owned(),
        expected: "a token of 16 or more printable characters without spaces",
        found: found.to_owned(),
    };
    if token.len() < 16 {
        return Err(wrong("it is shorter"));
    }
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("it is longer than 8 KiB, or holds other characters"));
    }
    Ok(Secret::of(token))
}
