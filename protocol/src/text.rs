//! Strings, lists and numbers that are bounded while they are decoded, so that a peer cannot make the other end use
//! unbounded memory.
//!
//! A string for people is truncated and marked as such; a list keeps its first items; a number that only counts is
//! capped. Identifiers (ids, digests, an Inventory) are never truncated: too long ones are rejected.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::MAX_COUNT;

/// The end of a truncated text.
const CUT_MARK: &str = "…";

/// Longest message for people, bytes.
pub const MAX_MESSAGE: usize = 1024;

/// Longest name that only people read (a release, an interface, a mount point), bytes.
pub const MAX_NAME: usize = 128;

/// A message for people, of at most [`MAX_MESSAGE`] bytes.
pub type Message = Text<MAX_MESSAGE>;

/// A name that only people read, of at most [`MAX_NAME`] bytes.
pub type Name = Text<MAX_NAME>;

/// A string of at most `MAX` bytes. A longer one is truncated at a character boundary and ends with `…`.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// The text, truncated if it is longer than `MAX` bytes.
    pub fn new(text: &str) -> Self {
        if text.len() <= MAX {
            return Self(text.to_owned());
        }
        let end = text.floor_char_boundary(MAX.saturating_sub(CUT_MARK.len()));
        let kept = text.get(..end).unwrap_or_default();
        Self([kept, CUT_MARK].concat())
    }

    /// The text as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> From<&str> for Text<MAX> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const MAX: usize> From<String> for Text<MAX> {
    fn from(text: String) -> Self {
        if text.len() <= MAX { Self(text) } else { Self::new(&text) }
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> PartialEq<str> for Text<MAX> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl<const MAX: usize> PartialEq<&str> for Text<MAX> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl<const MAX: usize> PartialEq<String> for Text<MAX> {
    fn eq(&self, other: &String) -> bool {
        self.0 == *other
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cut<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for Cut<MAX> {
            type Value = Text<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            // `visit_str` and not `visit_string`: only the part that is kept is copied.
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text::new(text))
            }
        }
        deserializer.deserialize_str(Cut::<MAX>)
    }
}

/// Decodes a list and keeps its first `MAX` items; the others are skipped without being stored.
pub(crate) fn first<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Items::<T, MAX> { beyond: Beyond::Dropped, item: PhantomData })
}

/// Decodes a list of at most `MAX` items; a longer list is an error.
pub(crate) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Items::<T, MAX> { beyond: Beyond::Refused, item: PhantomData })
}

/// Decodes a number that only counts something, capped at [`MAX_COUNT`].
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    u64::deserialize(deserializer).map(|count| count.min(MAX_COUNT))
}

/// The same for an optional number.
pub(crate) fn maybe_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.map(|count| count.min(MAX_COUNT)))
}

/// Whether a number can be left out of a message because it is the default.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// As [`is_zero`].
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_zero_count(number: &u64) -> bool {
    *number == 0
}

/// Decodes the lower-case hexadecimal form of a SHA-256 digest, or an empty string.
pub(crate) fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = Text::<{ MAX_NAME }>::deserialize(deserializer)?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.is_empty() || (text.len() == 64 && text.bytes().all(is_hex)) {
        return Ok(text.into());
    }
    Err(D::Error::custom(format!(
        "invalid SHA-256 digest {text:?}: expected 64 lower-case hexadecimal digits"
    )))
}

/// What happens to the items of a list beyond its bound.
enum Beyond {
    Dropped,
    Refused,
}

struct Items<T, const MAX: usize> {
    beyond: Beyond,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MAX {
            match items.next_element()? {
                Some(item) => kept.push(item),
                None => return Ok(kept),
            }
        }
        let mut beyond = 0_usize;
        while items.next_element::<IgnoredAny>()?.is_some() {
            beyond += 1;
        }
        match self.beyond {
            Beyond::Refused if beyond > 0 => Err(A::Error::invalid_length(MAX.saturating_add(beyond), &self)),
            _ => Ok(kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncates_at_a_character_boundary_and_marks_it() {
        let text = Text::<10>::new("äöüßäöüß");
        assert_eq!(text, "äöü…");
        assert!(text.len() <= 10);
        assert_eq!(Text::<10>::new("0123456789"), "0123456789");
        assert_eq!(serde_json::from_str::<Text<5>>("\"0123456789\"").unwrap(), "01…");
    }

    #[test]
    fn long_lists_are_truncated_or_rejected() {
        let list = || serde_json::Deserializer::from_str("[1, 2, 3]");
        assert_eq!(first::<_, u8, 2>(&mut list()).unwrap(), [1, 2]);
        assert_eq!(at_most::<_, u8, 3>(&mut list()).unwrap(), [1, 2, 3]);
        let error = at_most::<_, u8, 2>(&mut list()).unwrap_err().to_string();
        assert!(error.contains("at most 2 items"), "{error}");
    }

    #[test]
    fn rejects_malformed_digests() {
        let digest =
            |text: &str| digest(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text));
        assert_eq!(digest("").unwrap(), "");
        assert!(digest(&"a".repeat(64)).is_ok());
        for bad in [&"a".repeat(63), &"A".repeat(64), &"a".repeat(65), &"g".repeat(64)] {
            assert!(digest(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
