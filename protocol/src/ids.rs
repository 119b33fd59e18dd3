//! Identifiers, each a type of its own so that the compiler rejects mixing them up.
//!
//! A clone shares the text, and two that share it are equal without a comparison: one Run names a thousand nodes many times.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::MAX_ATTEMPT;

/// An identifier that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: {allowed}")]
pub struct InvalidId {
    /// Which kind of identifier was expected.
    pub what: &'static str,
    /// The text, truncated to 64 characters.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

impl InvalidId {
    fn new(what: &'static str, value: &str, allowed: &'static str) -> Self {
        Self { what, value: value.chars().take(64).collect(), allowed }
    }
}

/// The name of a Kubernetes Node (in dev mode, of the machine): an RFC 1123 subdomain, at most 253 characters.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

/// The uid that the API server assigned to a Task; unique over time, unlike a name.
///
/// At most 64 characters of `[0-9A-Za-z-]`, so that it needs no escaping in a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskUid(Arc<str>);

/// SHA-256 of the spec fields that decide what is run and where; 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpecHash(Arc<str>);

/// Random id of a Session, one authenticated connection of an agent to the gateway.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// Random id of a chain of audit records, which one process at a time appends to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(Arc<str>);

/// A SHA-256 digest; 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Hex(Arc<str>);

/// The name of a Kubernetes namespace: an RFC 1123 label, at most 63 characters.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

/// The name of a Task: an RFC 1123 subdomain, at most 253 characters.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName(Arc<str>);

macro_rules! text_id {
    ($name:ident, $what:literal, $allowed:literal, $check:expr) => {
        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// [`InvalidId`] when the text does not follow the rule in the type's description.
            pub fn new(value: impl AsRef<str>) -> Result<Self, InvalidId> {
                let value = value.as_ref();
                let check: fn(&str) -> bool = $check;
                if check(value) {
                    Ok(Self(value.into()))
                } else {
                    Err(InvalidId::new($what, value, $allowed))
                }
            }

            /// The identifier as text.
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
                value.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Parsed(PhantomData))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0).finish()
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
                *self.0 == **other
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Decodes a text without an allocation for it alone.
struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidId>> serde::de::Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
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

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
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
text_id!(ChainId, "chain id", "1 to 64 letters, digits and '-'", is_file_safe);
text_id!(SpecHash, "spec hash", "64 lower-case hexadecimal digits", is_sha256);
text_id!(Sha256Hex, "SHA-256 digest", "64 lower-case hexadecimal digits", is_sha256);

impl From<[u8; 32]> for Sha256Hex {
    fn from(digest: [u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
        let text: String = digest.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect();
        Self(text.into())
    }
}

/// Namespace and name of a Task. Not an identity: a Task can be deleted and created again under the same name.
///
/// Both are validated on construction, so that a reference needs no escaping in a URL, a file name or a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    /// Namespace of the Task.
    pub namespace: Namespace,
    /// Name of the Task.
    pub name: TaskName,
}

impl TaskRef {
    /// Parses namespace and name.
    ///
    /// # Errors
    /// [`InvalidId`] for the first of them that is invalid.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Result<Self, InvalidId> {
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
    /// The next Run.
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

/// The fencing token: it grows with each new leader, and an agent refuses a command with an older one.
///
/// At most [`Epoch::MAX`], which no real fleet reaches (one leader a second for nine million years). A larger number
/// does not decode, and a larger stored one is treated as unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Epoch(u64);

/// A number above [`Epoch::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {0} is out of range: the highest epoch is {max}", max = Epoch::MAX)]
pub struct EpochOutOfRange(pub u64);

impl Epoch {
    /// The epoch before the first leader.
    pub const ZERO: Self = Self(0);

    /// The highest epoch.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// The epoch with this number.
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

    /// The next epoch; `None` after [`Epoch::MAX`].
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).and_then(|number| Self::new(number).ok())
    }

    /// The difference to a lower epoch; 0 when `other` is not lower.
    pub fn above(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// Decodes an epoch from a record written before epochs had a bound: a larger number becomes [`Epoch::MAX`].
    ///
    /// # Errors
    /// When the value is not a number.
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

/// Identifies one try of an Execution, globally and permanently.
///
/// As text: `<task uid>/<run>/<node>/<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    /// The Task.
    pub task: TaskUid,
    /// The Run of that Task.
    pub run: RunNumber,
    /// The Node it runs on.
    pub node: NodeName,
    /// 1 for the first try, 2 for the first retry, up to [`MAX_ATTEMPT`].
    pub attempt: u32,
}

impl AttemptId {
    /// A key whose text order is the numeric order of Attempts: run and attempt are zero-padded.
    pub fn sort_key(&self) -> String {
        format!("{}/{:010}/{}/{:05}", self.task, self.run.0, self.node, self.attempt)
    }

    /// The name of its directory on its node; the node's name is left out.
    pub fn directory_name(&self) -> String {
        format!("{}.{}.{}", self.task, self.run, self.attempt)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.task, self.run, self.node, self.attempt)
    }
}

/// A number from 1 as ids have it. One text for one number: neither `01` nor `+1`.
pub fn canonical_number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.starts_with(|first: char| matches!(first, '1'..='9')))
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
        let number = |part: &str| canonical_number(part).ok_or_else(invalid);
        Ok(Self {
            task: TaskUid::new(task)?,
            run: RunNumber(number(run)?),
            node: NodeName::new(node)?,
            attempt: number(attempt).and_then(|n| if n <= MAX_ATTEMPT { Ok(n) } else { Err(invalid()) })?,
        })
    }
}

impl Serialize for AttemptId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AttemptId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_id_round_trips_through_text() {
        let id: AttemptId = "0b6c-1/7/node-1.example/2".parse().unwrap();
        assert_eq!(id.to_string(), "0b6c-1/7/node-1.example/2");
        assert_eq!(id.to_string().parse::<AttemptId>().unwrap(), id);
        assert_eq!(id.directory_name(), "0b6c-1.7.2");
    }

    #[test]
    fn rejects_invalid_attempt_ids() {
        for text in [
            "",
            "a/1/n",
            "a/0/n/1",
            "a/1/n/0",
            "a/1/n/1/x",
            "a/1/N/1",
            "a/1/n/100000",
            "a/-1/n/1",
            "a/+1/n/1",
            "a/01/n/1",
            "a/1/n/+1",
            "a/1/n/01",
            "../1/n/1",
            "a/1/../1",
        ] {
            assert!(text.parse::<AttemptId>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn rejects_epochs_above_the_maximum() {
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
    fn task_reference_accepts_only_kubernetes_names() {
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
    fn sort_keys_order_attempts_by_number() {
        let key = |run: u32| AttemptId { run: RunNumber(run), ..("u/1/n/1".parse().unwrap()) }.sort_key();
        assert!(key(9) < key(10) && key(99) < key(100));
    }
}
