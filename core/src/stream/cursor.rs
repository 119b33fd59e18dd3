//! How far a reader of several logs is: a position in each, so that it continues exactly there whatever the clocks do.

use std::collections::BTreeMap;

/// Most logs of a cursor.
pub const MAX_LOGS: usize = 256;

/// How far behind the position a line that is open may begin for its rest to be sent by a reader that continues, bytes.
pub const OPEN_WITHIN: u64 = 4 << 20;

/// Bytes that identify a node; of a digest of its name.
pub const KEY: usize = 6;

/// The form of cursors; another one is refused.
const VERSION: u8 = 1;

/// How far a reader is in one log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Every line and gap that begins before it was sent.
    pub position: u64,
    /// Of each stream, where the line begins that was sent before it has ended.
    pub open: [Option<u64>; 2],
}

impl Reached {
    /// A reader that has everything before a position.
    pub fn at(position: u64) -> Self {
        Self { position, open: [None; 2] }
    }

    /// Where a reader that continues has to begin.
    pub fn start(&self) -> u64 {
        self.open.iter().flatten().copied().min().map_or(self.position, |open| open.min(self.position))
    }

    /// The same without open lines that are too far behind.
    fn bounded(self) -> Self {
        let open =
            self.open.map(|open| open.filter(|open| self.position.saturating_sub(*open) <= OPEN_WITHIN));
        Self { open, ..self }
    }
}

/// How far a reader is in each log, by the key of its node and the number of the Attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergeCursor {
    /// Everything before this time was sent, except what came late; microseconds since the Unix epoch.
    pub sent: i64,
    /// The logs that the reader has something of.
    pub logs: BTreeMap<([u8; KEY], u32), Reached>,
}

impl MergeCursor {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.sent.to_be_bytes());
        for ((key, attempt), reached) in &self.logs {
            let reached = reached.bounded();
            let [stdout, stderr] = reached.open;
            let flags = u64::from(stdout.is_some()) | u64::from(stderr.is_some()) << 1;
            bytes.extend_from_slice(key);
            put(&mut bytes, u64::from(*attempt) << 2 | flags);
            put(&mut bytes, reached.position);
            for open in [stdout, stderr].into_iter().flatten() {
                put(&mut bytes, reached.position.saturating_sub(open));
            }
        }
        bytes
    }

    /// The cursor of these bytes, which anyone may have made; `None` unless [`Self::encode`] could have made them.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(9)?;
        let sent = head[1..].try_into().ok()?;
        if head[0] != VERSION {
            return None;
        }
        let mut logs = BTreeMap::new();
        let mut last = None;
        while !rest.is_empty() {
            let (key, more) = rest.split_at_checked(KEY)?;
            rest = more;
            let key: [u8; KEY] = key.try_into().ok()?;
            let number = take(&mut rest)?;
            let attempt = u32::try_from(number >> 2).ok()?;
            let position = take(&mut rest)?;
            let mut open = [None; 2];
            for (bit, open) in open.iter_mut().enumerate() {
                if number >> bit & 1 == 1 {
                    let behind = take(&mut rest)?;
                    *open = Some(position.checked_sub(behind).filter(|_| behind <= OPEN_WITHIN)?);
                }
            }
            let id = (key, attempt);
            if attempt == 0 || last.is_some_and(|last| last >= id) || logs.len() == MAX_LOGS {
                return None;
            }
            last = Some(id);
            logs.insert(id, Reached { position, open });
        }
        Some(Self { sent: i64::from_be_bytes(sent), logs })
    }
}

/// Adds a number, seven bits a byte.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a number; its shortest form only.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return (*byte != 0 || shift == 0).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reached() -> impl Strategy<Value = Reached> {
        let open = || prop::option::of(0..=OPEN_WITHIN);
        (prop_oneof![any::<u64>(), 0..100_000_u64], open(), open()).prop_map(|(position, stdout, stderr)| {
            let begin = |behind: Option<u64>| behind.map(|behind| position.saturating_sub(behind));
            Reached { position, open: [begin(stdout), begin(stderr)] }
        })
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(
            sent in any::<i64>(),
            logs in prop::collection::btree_map((any::<[u8; KEY]>(), 1_u32..), reached(), 0..20),
        ) {
            let cursor = MergeCursor { sent, logs };
            prop_assert_eq!(MergeCursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn any_bytes_are_refused_or_are_a_cursor(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Some(cursor) = MergeCursor::decode(&bytes) {
                prop_assert_eq!(cursor.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_cursor_of_all_logs_is_small() {
        let of =
            |log: u8| (([log; KEY], 1), Reached { position: 1 << 32, open: [Some((1 << 32) - 90), None] });
        let cursor = MergeCursor { sent: 1, logs: (0..=255).map(of).collect() };
        let bytes = cursor.encode();
        assert!(bytes.len() < 4_000, "{} bytes", bytes.len());
        assert_eq!(MergeCursor::decode(&bytes), Some(cursor));
        let more = [bytes, vec![255; KEY], vec![8, 0]].concat();
        assert_eq!(MergeCursor::decode(&more), None);
    }

    #[test]
    fn an_open_line_that_is_far_behind_is_given_up() {
        let far = Reached { position: OPEN_WITHIN + 9, open: [Some(8), Some(9)] };
        let cursor = MergeCursor { sent: 0, logs: [(([0; KEY], 1), far)].into() };
        let read = MergeCursor::decode(&cursor.encode()).unwrap();
        assert_eq!(read.logs.values().next().unwrap().open, [None, Some(9)]);
        assert_eq!(read.logs.values().next().unwrap().start(), 9);
    }
}
