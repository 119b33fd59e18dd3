//! What the author of a Task has signed, as it travels to the nodes. Operators carry it and decide nothing by it.

use serde::{Deserialize, Deserializer, Serialize};

/// The annotation of a Task that has it, as JSON.
pub const ANNOTATION: &str = "sentinelnode.dev/signed";

/// Longest statement, bytes: one with the largest request.
pub const MAX_STATEMENT: usize = 640 << 10;

/// Longest signature, bytes.
pub const MAX_SIGNATURE: usize = 8 << 10;

/// A statement and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// The statement: JSON, exactly as it was signed.
    #[serde(deserialize_with = "bounded::<_, MAX_STATEMENT>")]
    pub statement: String,
    /// The signature in the form of OpenSSH (`PROTOCOL.sshsig`), as `ssh-keygen -Y sign` writes it.
    #[serde(deserialize_with = "bounded::<_, MAX_SIGNATURE>")]
    pub signature: String,
}

/// A longer text is an error: a part of it would not be what was signed.
fn bounded<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() <= MAX {
        return Ok(text);
    }
    Err(serde::de::Error::custom(format!("it has {} bytes; at most {MAX} are allowed", text.len())))
}
