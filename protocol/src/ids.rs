//! Names of things, each a type of its own so that two of them cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_ATTEMPT;

/// Why a text is not the id it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {allowed}")]
pub struct InvalidId {
    /// Which kind of id was expected.
    pub what: &'static str,
    /// The text seen, cut to 64 characters.
    pub value: String,
    /// What would have been accepted.
    pub allowed: &'static str,
}

impl InvalidId {
    fn new(what: &'static str, value: &str, allowed: &'static str) -> Self {
        Self { what, value: value.chars().take(64).collect(), allowed }
    }
}

/// The name of a Kubernetes Node (in dev mode, of the machine): an RFC 1123 subdomain of at most 253 characters.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// The uid that the API server gave to a Task; unique over time, where a name is not.
///
/// At most 64 characters of `[0-9A-Za-z-]`, so that it can stand in a file name as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskUid(String);

/// Digest of the fields of a spec that decide what is run and where; 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpecHash(String);

/// Random name of one authenticated connection of an agent to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

/// The name of a Kubernetes namespace: an RFC 1123 label of at most 63 characters.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

/// The name of a Task: an RFC 1123 subdomain of at most 253 characters.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskName(String);

macro_rules! text_id {
    ($name:ident, $what:literal, $allowed:literal, $check:expr) => {
        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// [`InvalidId`] when the text breaks the rule in the type's description.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidId> {
                let value = value.into();
                let check: fn(&str) -> bool = $check;
                if check(&value) { Ok(Self(value)) } else { Err(InvalidId::new($what, &value, $allowed)) }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn is_subdomain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

fn is_file_safe(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

text_id!(
    NodeName,
    "node name",
    "lower-case letters, digits, '-' and '.', at most 253 characters, each part beginning and ending with a letter or digit",
    is_subdomain
);
text_id!(
    Namespace,
    "namespace",
    "at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
    |text| text.len() <= 63 && is_label(text)
);
text_id!(
    TaskName,
    "task name",
    "lower-case letters, digits, '-' and '.', at most 253 characters, each part beginning and ending with a letter or digit",
    is_subdomain
);
text_id!(TaskUid, "task uid", "1 to 64 letters, digits and '-'", is_file_safe);
text_id!(SessionId, "session id", "1 to 64 letters, digits and '-'", is_file_safe);
text_id!(SpecHash, "spec hash", "64 lower-case hexadecimal digits", |text| {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
});

/// Where people find a Task: its namespace and name. Not an identity: a Task can be deleted and made again.
///
/// Both are checked when they are made, so that a reference can stand in a URL, a file name or a log line as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    /// Namespace of the Task.
    pub namespace: Namespace,
    /// Name of the Task.
    pub name: TaskName,
}

impl TaskRef {
    /// Parses both.
    ///
    /// # Errors
    /// [`InvalidId`] for the first that breaks its rule.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, InvalidId> {
        Ok(Self { namespace: Namespace::new(namespace)?, name: TaskName::new(name)? })
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Number of a Run within its Task: 1, 2, 3 …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunNumber(pub u32);

impl RunNumber {
    /// The Run after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for RunNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that grows with each new leader; a command with an older one is refused (fencing).
///
/// At most [`Epoch::MAX`]: no honest fleet comes near it (one leader a second for nine million years), so what is
/// beyond was made up. It does not decode, and whatever is stored beyond is treated as unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Epoch(u64);

/// A number that is not an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {0} is out of range: the highest epoch is {max}", max = Epoch::MAX)]
pub struct EpochOutOfRange(pub u64);

impl Epoch {
    /// Before the first leader.
    pub const ZERO: Self = Self(0);

    /// The highest epoch.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// The epoch of that number.
    ///
    /// # Errors
    /// [`EpochOutOfRange`] when it is above [`Epoch::MAX`].
    pub fn new(number: u64) -> Result<Self, EpochOutOfRange> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(EpochOutOfRange(number)) }
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The epoch after this one; `None` after [`Epoch::MAX`].
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).and_then(|number| Self::new(number).ok())
    }

    /// How far this one lies above another; 0 when it does not.
    pub fn above(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// Decodes an epoch from a record that was stored before epochs had a bound: a number beyond it becomes
    /// [`Epoch::MAX`].
    ///
    /// # Errors
    /// When it is not a number.
    pub fn stored<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|number| Self(number.min(Self::MAX.0)))
    }
}

impl From<u32> for Epoch {
    fn from(number: u32) -> Self {
        Self(u64::from(number))
    }
}

impl TryFrom<u64> for Epoch {
    type Error = EpochOutOfRange;
    fn try_from(number: u64) -> Result<Self, EpochOutOfRange> {
        Self::new(number)
    }
}

impl From<Epoch> for u64 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One try of an Execution, for ever and everywhere: the same four facts name the same Attempt.
///
/// As text it is `<task uid>/<run>/<node>/<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId {
    /// The Task.
    pub task: TaskUid,
    /// The Run of that Task.
    pub run: RunNumber,
    /// The Node it is for.
    pub node: NodeName,
    /// 1 for the first try, 2 for the first retry …, at most [`MAX_ATTEMPT`].
    pub attempt: u32,
}

impl AttemptId {
    /// The key that orders Attempts as they are read: run and attempt padded, so that text order is number order.
    pub fn sort_key(&self) -> String {
        format!("{}/{:010}/{}/{:05}", self.task, self.run.0, self.node, self.attempt)
    }

    /// The name of its directory on its own node, where the node need not be said.
    pub fn directory_name(&self) -> String {
        format!("{}.{}.{}", self.task, self.run, self.attempt)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.task, self.run, self.node, self.attempt)
    }
}

impl FromStr for AttemptId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId::new("attempt id", text, "<task uid>/<run>/<node>/<attempt>");
        let mut parts = text.split('/');
        let (Some(task), Some(run), Some(node), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let number = |part: &str| part.parse::<u32>().ok().filter(|&n| n > 0).ok_or_else(invalid);
        Ok(Self {
            task: TaskUid::new(task)?,
            run: RunNumber(number(run)?),
            node: NodeName::new(node)?,
            attempt: number(attempt).and_then(|n| if n <= MAX_ATTEMPT { Ok(n) } else { Err(invalid()) })?,
        })
    }
}

impl TryFrom<String> for AttemptId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<AttemptId> for String {
    fn from(id: AttemptId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_id_survives_its_text() {
        let id: AttemptId = "0b6c-1/7/node-1.example/2".parse().unwrap();
        assert_eq!(id.to_string(), "0b6c-1/7/node-1.example/2");
        assert_eq!(id.to_string().parse::<AttemptId>().unwrap(), id);
        assert_eq!(id.directory_name(), "0b6c-1.7.2");
    }

    #[test]
    fn what_is_no_attempt_id_is_refused() {
        for text in [
            "",
            "a/1/n",
            "a/0/n/1",
            "a/1/n/0",
            "a/1/n/1/x",
            "a/1/N/1",
            "a/1/n/100000",
            "a/-1/n/1",
            "../1/n/1",
            "a/1/../1",
        ] {
            assert!(text.parse::<AttemptId>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_epoch_beyond_the_highest_does_not_decode_and_has_no_successor() {
        let highest = Epoch::MAX.get();
        assert_eq!(serde_json::from_str::<Epoch>(&highest.to_string()).unwrap(), Epoch::MAX);
        for beyond in [highest + 1, u64::MAX / 2, u64::MAX] {
            let error = serde_json::from_str::<Epoch>(&beyond.to_string()).unwrap_err().to_string();
            assert!(error.contains("out of range"), "{error}");
            assert_eq!(
                Epoch::stored(serde::de::value::U64Deserializer::<serde::de::value::Error>::new(beyond)),
                Ok(Epoch::MAX)
            );
        }
        assert_eq!((Epoch::from(7).next(), Epoch::MAX.next()), (Some(Epoch::from(8)), None));
    }

    #[test]
    fn node_names_follow_rfc_1123() {
        for good in ["n", "node-1", "a.b-c.d", "0"] {
            assert!(NodeName::new(good).is_ok(), "{good:?} was refused");
        }
        for bad in ["", "-a", "a-", "a..b", ".a", "A", "a_b", "a/b"] {
            assert!(NodeName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(NodeName::new("a".repeat(254)).is_err());
    }

    #[test]
    fn a_task_reference_is_made_of_kubernetes_names_alone() {
        assert_eq!(TaskRef::new("ops", "disk.report-1").unwrap().to_string(), "ops/disk.report-1");
        let long = "a".repeat(64);
        for (namespace, name) in [
            ("", "a"),
            ("a", ""),
            ("a.b", "a"),
            ("a/b", "a"),
            ("..", "a"),
            ("a", ".."),
            ("a", "?x"),
            ("a", "x/y"),
            ("a", "x%2fy"),
            ("A", "a"),
            ("a", "a\n"),
            (long.as_str(), "a"),
        ] {
            assert!(TaskRef::new(namespace, name).is_err(), "{namespace:?} {name:?} was accepted");
            let json = serde_json::json!({"namespace": namespace, "name": name});
            assert!(serde_json::from_value::<TaskRef>(json).is_err(), "{namespace:?} {name:?} was decoded");
        }
    }

    #[test]
    fn text_order_of_sort_keys_is_number_order() {
        let key = |run: u32| AttemptId { run: RunNumber(run), ..("u/1/n/1".parse().unwrap()) }.sort_key();
        assert!(key(9) < key(10) && key(99) < key(100));
    }
}
