//! Secrets in files: the URLs of the stores, the token of the API.

use std::path::Path;

use super::error::ConfigError;
use crate::files;
use crate::http::guard::Secret;
use crate::identity::credentials::MAX_TOKEN;

/// Longest file that holds one URL or token, bytes.
const MAX_SMALL_FILE: u64 = 64 << 10;

/// The digest of the token in a file.
pub(super) fn read_token(path: &Path) -> Result<Secret, ConfigError> {
    const FLAG: &str = "api-token-file";
    let unreadable = |source| ConfigError::Unreadable { flag: FLAG, path: path.to_owned(), source };
    let text = files::read_text(path, MAX_SMALL_FILE).map_err(unreadable)?;
    let token = text.trim();
    let wrong = |found: &str| ConfigError::Content {
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

/// The URL in a file, with one of these schemes.
pub(super) fn read_url(
    flag: &'static str,
    path: &Path,
    expected: &'static str,
    schemes: &[&str],
) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { flag, path: path.to_owned(), source };
    let text = files::read_text(path, MAX_SMALL_FILE).map_err(unreadable)?;
    let url = text.trim();
    let wrong = |found: String| ConfigError::Content { flag, path: path.to_owned(), expected, found };
    if url.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    if url.lines().count() > 1 {
        return Err(wrong("it has more than one line".to_owned()));
    }
    let Some(rest) = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        // A scheme is not a secret; anything else may be one.
        let scheme = url.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| {
            scheme.len() <= 16
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        return Err(wrong(match scheme {
            Some(scheme) => format!("its scheme is {scheme}://"),
            None => "it has no scheme".to_owned(),
        }));
    };
    if rest.is_empty() || rest.starts_with('/') {
        return Err(wrong("it names no host".to_owned()));
    }
    Ok(url.to_owned())
}
