//! What the node's policy decides about a `Start`, and what of that decision is kept.

use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::text::{Message, Name};
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// What the node's policy decides about a `Start`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// It was not asked, so nothing may run.
    #[default]
    Unchecked,
    /// The node has no policy.
    NoPolicy,
    /// It may run.
    Allowed(Box<Permit>),
    /// It may not.
    Refused {
        /// Id of the rule.
        rule: Name,
        /// Why.
        why: Message,
    },
}

impl PolicyVerdict {
    /// The permit, if there is a policy.
    ///
    /// # Errors
    /// The Refusal, if it may not run.
    pub fn permit(&self) -> Result<Option<&Permit>, Refusal> {
        match self {
            Self::NoPolicy => Ok(None),
            Self::Allowed(permit) => Ok(Some(permit)),
            Self::Refused { rule, why } => {
                Err(Refusal::Policy { rule: rule.clone(), why: Some(why.clone()) })
            }
            Self::Unchecked => Err(Refusal::Policy { rule: "unchecked".into(), why: None }),
        }
    }
}

/// What a policy has allowed. It is kept with the request: the process that executes the command compares it with what it finds by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// Id of the rule that allows it.
    pub rule: Name,
    /// How many may run at a time by this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// What the author of the Task has signed, if the rule asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedPermit>,
    /// The program, or the interpreter of a script.
    pub program: FileIdentity,
    /// The working directory. Permits of earlier agents lack it; a command with such a permit is not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryIdentity>,
    /// The command's user.
    pub uid: u32,
    /// The command's group.
    pub gid: u32,
    /// Its further groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
}

/// A signed statement that was verified. It is used up when the Attempt is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedPermit {
    /// Who signed it.
    pub signer: Name,
    /// Its id.
    pub statement: String,
    /// How many Attempts this node may start by it.
    pub runs: u32,
    /// Until when.
    pub not_after: UnixMillis,
}

/// A directory, whatever names lead to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryIdentity {
    /// Its path without symbolic links.
    pub path: String,
    /// Number of its file system.
    pub device: u64,
    /// Number of its inode.
    pub inode: u64,
}

/// A file as it was. Only root can make another file, or another content, that is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileIdentity {
    /// Its path without symbolic links.
    pub path: String,
    /// Number of its file system.
    pub device: u64,
    /// Number of its inode.
    pub inode: u64,
    /// Its length, bytes.
    pub size: u64,
    /// When its content or its attributes last changed, nanoseconds since the Unix epoch (`ctime`, which cannot be set).
    pub changed_at: i64,
}
