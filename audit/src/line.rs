//! One line: a record with its place in the chain, and its hash at the end.
//!
//! ```text
//! {"v":1,"chain":"…","seq":7,"time":"2026-11-30T08:15:00.250Z","prev":"…","kind":"Started",…,"hash":"…"}
//! ```
//!
//! The hash is the SHA-256 of the bytes of the line before `,"hash":"`. They contain the previous hash, so `sed` and `sha256sum`
//! are enough to verify a line. No byte of a line can change without changing its hash, which the next line repeats.

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::{ChainId, Sha256Hex};
use sentinel_protocol::time::UnixMillis;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::record::Record;

/// The version of the format.
pub const VERSION: u32 = 1;

/// Longest line, bytes, without its newline. What a message of an operator can contain fits: it has at most 1 MiB.
pub const MAX_LINE: usize = 2 << 20;

/// What is between the content of a line and its hash.
const BEFORE_HASH: &str = ",\"hash\":\"";

/// What is after the hash.
const AFTER_HASH: &str = "\"}";

/// Length of a digest.
const DIGEST: usize = 64;

/// The previous hash of the first record of a chain.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why a line is not one of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is longer than [`MAX_LINE`].
    #[error("it is longer than {MAX_LINE} bytes, which no record is")]
    TooLong,
    /// It does not end with a hash.
    #[error("it does not end with {BEFORE_HASH}, 64 lower-case hexadecimal digits and {AFTER_HASH}")]
    NoHash,
    /// Its content has another hash.
    #[error("it was changed: its content has the hash {actual}, and it ends with {stated}")]
    Changed {
        /// The hash of its content.
        actual: Sha256Hex,
        /// The hash at its end.
        stated: Sha256Hex,
    },
    /// Its content is not a record.
    #[error("it is not a record: {0}")]
    NotARecord(String),
    /// It is of another version of the format.
    #[error("it is of version {0} of the format, and this program reads version {VERSION}")]
    Version(u32),
}

/// A line as it is verified: its place, and what is in it only where verification needs that.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its chain.
    pub chain: ChainId,
    /// Its number.
    pub seq: u64,
    /// When it was written, by the clock of its writer: RFC 3339.
    pub time: String,
    /// The hash of the previous line.
    pub prev: Sha256Hex,
    /// Its own hash.
    pub hash: Sha256Hex,
    /// The name of its kind.
    pub kind: String,
    /// Its record; `None` if its kind or a field of it is none of this release.
    pub record: Option<Record>,
}

impl Line {
    /// What another chain may keep of it.
    pub fn head(&self) -> AuditHead {
        AuditHead { chain: self.chain.clone(), seq: self.seq, hash: self.hash.clone() }
    }
}

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Sha256Hex {
    Sha256Hex::from(<[u8; 32]>::from(Sha256::digest(bytes)))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Content<'a> {
    v: u32,
    chain: &'a ChainId,
    seq: u64,
    time: String,
    prev: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

/// Writes the line, with its newline, that has this number and follows the one with the hash `prev`.
///
/// # Errors
/// The record is too long for a line.
pub fn encode(
    chain: &ChainId,
    seq: u64,
    at: UnixMillis,
    prev: &str,
    record: &Record,
) -> Result<(Vec<u8>, Sha256Hex), LineError> {
    let content = Content { v: VERSION, chain, seq, time: rfc_3339(at), prev, record };
    let mut line = Vec::with_capacity(1 << 10);
    serde_json::to_writer(&mut line, &content).map_err(|error| LineError::NotARecord(error.to_string()))?;
    // The hash is the last field: the object stays open for it.
    line.pop();
    let hash = sha256(&line);
    line.extend_from_slice(BEFORE_HASH.as_bytes());
    line.extend_from_slice(hash.as_bytes());
    line.extend_from_slice(AFTER_HASH.as_bytes());
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    line.push(b'\n');
    Ok((line, hash))
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Deserialize)]
struct Placed {
    chain: ChainId,
    seq: u64,
    time: String,
    prev: Sha256Hex,
    kind: String,
    /// In the content: then a reader of the whole line finds two.
    hash: Option<IgnoredAny>,
}

/// Reads a line, without its newline, and checks its own hash.
///
/// # Errors
/// [`LineError`].
pub fn decode(line: &[u8]) -> Result<Line, LineError> {
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    let (content, hash) = parts(line).ok_or(LineError::NoHash)?;
    let actual = sha256(content);
    if actual != hash {
        return Err(LineError::Changed { actual, stated: hash });
    }
    let not_a_record = |error: serde_json::Error| LineError::NotARecord(error.to_string());
    let object = [content, b"}"].concat();
    let Versioned { v } = serde_json::from_slice(&object).map_err(not_a_record)?;
    if v != VERSION {
        return Err(LineError::Version(v));
    }
    let Placed { chain, seq, time, prev, kind, hash: other } =
        serde_json::from_slice(&object).map_err(not_a_record)?;
    if other.is_some() {
        return Err(LineError::NotARecord("it has two hashes".to_owned()));
    }
    if seq == 0 {
        return Err(LineError::NotARecord("its number is 0, and the first one is 1".to_owned()));
    }
    let record = serde_json::from_slice(&object).ok();
    Ok(Line { chain, seq, time, prev, hash, kind, record })
}

/// The most bytes that the line of a record has, whatever its number; of one that is too long for a line, `u64::MAX`.
pub fn greatest_length(record: &Record) -> u64 {
    // The ids of chains are UUIDs.
    let chain = "0".repeat(36);
    let line = ChainId::new(chain)
        .ok()
        .and_then(|chain| encode(&chain, u64::MAX, UnixMillis::LAST, NO_HASH, record).ok());
    line.map_or(u64::MAX, |(line, _)| line.len() as u64)
}

/// The content of a line, and its hash.
fn parts(line: &[u8]) -> Option<(&[u8], Sha256Hex)> {
    let content = line.len().checked_sub(BEFORE_HASH.len() + DIGEST + AFTER_HASH.len())?;
    let (content, rest) = line.split_at(content);
    let hash = rest.strip_prefix(BEFORE_HASH.as_bytes())?.strip_suffix(AFTER_HASH.as_bytes())?;
    let hash = Sha256Hex::new(std::str::from_utf8(hash).ok()?).ok()?;
    Some((content, hash))
}

/// A time for people and for programs that collect records, in UTC.
///
/// Source of the calendar: <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn rfc_3339(at: UnixMillis) -> String {
    let millis = at.0.clamp(0, UnixMillis::LAST.0);
    let (days, of_day) = (millis / 86_400_000, millis % 86_400_000);
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z - era * 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-5, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc_3339(UnixMillis(millis)), text);
        }
    }

    #[test]
    fn a_line_ends_with_the_hash_of_what_is_before_it() {
        let chain = ChainId::new("c-1").unwrap();
        let record = Record::Gap { lost: 3, why: "a\nb\"\u{7f}".into() };
        let (line, hash) = encode(&chain, 7, UnixMillis(5), NO_HASH, &record).unwrap();
        let text = String::from_utf8(line).unwrap();
        let content = text.split(",\"hash\"").next().unwrap();
        assert_eq!(sha256(content.as_bytes()), hash);
        assert_eq!(text, format!("{content},\"hash\":\"{hash}\"}}\n"));
        let read = decode(text.trim_end().as_bytes()).unwrap();
        assert_eq!((read.seq, read.kind.as_str(), read.record.as_ref()), (7, "Gap", Some(&record)));
        // Of an id of 36 characters, and a number of 20 digits.
        assert_eq!(greatest_length(&record), text.len() as u64 + 33 + 19);
    }

    #[test]
    fn what_a_later_release_records_is_still_of_the_chain() {
        let seal = |content: &str| format!("{content},\"hash\":\"{}\"}}", sha256(content.as_bytes()));
        let content = |v: u32, seq: u64| {
            format!(r#"{{"v":{v},"chain":"c","seq":{seq},"time":"","prev":"{NO_HASH}","kind":"Later","x":1"#)
        };
        let line = decode(seal(&content(1, 2)).as_bytes()).unwrap();
        assert_eq!((line.kind.as_str(), line.record), ("Later", None));
        assert_eq!(decode(seal(&content(2, 2)).as_bytes()), Err(LineError::Version(2)));
        assert!(matches!(decode(seal(&content(1, 0)).as_bytes()), Err(LineError::NotARecord(_))));
        assert!(matches!(decode(seal("[1").as_bytes()), Err(LineError::NotARecord(_))));
        // What a reader of JSON may take for the hash of the line.
        let two = format!("{},\"hash\":\"{NO_HASH}\"", content(1, 2));
        assert!(matches!(decode(seal(&two).as_bytes()), Err(LineError::NotARecord(_))));
        assert_eq!(decode(&vec![b'x'; MAX_LINE + 1]), Err(LineError::TooLong));
        assert_eq!(decode(b"{\"v\":1}"), Err(LineError::NoHash));
    }
}
