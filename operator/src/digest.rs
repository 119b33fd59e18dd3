//! Digests in names: short, and the same for the same content.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The first 8 bytes of a hash, as 16 hexadecimal digits: enough to distinguish what belongs together.
pub(crate) fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The same of the hash of a text.
pub(crate) fn short_of(text: &str) -> String {
    short(Sha256::new_with_prefix(text))
}
