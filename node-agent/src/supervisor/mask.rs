//! Replaces the values of Secrets in output by a mark, also where a value is encoded or arrives in pieces.
//!
//! Every byte that belongs to an occurrence of a value, in one of its [encodings](encodings), is covered; each run of covered bytes
//! becomes one [`MARK`]. So the result does not depend on how the output is cut into pieces, and two values that overlap hide each
//! other. A long value is searched for in blocks, so that little has to be held back and little memory is needed.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use sentinel_protocol::secret::MIN_MASKED;
use sentinel_secrets::values::SecretValues;
use zeroize::Zeroizing;

use super::encodings::encodings;

/// What stands in the output for a value.
pub(super) const MARK: &[u8] = b"***";

/// Longest block, bytes.
const BLOCK: usize = 64;

/// Bits of the filter.
const FILTER_BITS: u32 = 16;

/// What is searched for.
pub(super) struct Patterns {
    /// In order, each once, with [`MIN_MASKED`] to [`BLOCK`] bytes.
    blocks: Vec<Zeroizing<Vec<u8>>>,
    /// Where the blocks are that begin with these bytes.
    by_start: HashMap<u64, Range<usize>>,
    /// A bit for each beginning, so that most positions of the output need no lookup.
    filter: Vec<u64>,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patterns({})", self.blocks.len())
    }
}

impl Patterns {
    /// Those of these values; `None` when none is long enough.
    pub(super) fn of(values: &SecretValues) -> Option<Self> {
        let mut blocks = BTreeSet::new();
        for value in values.values() {
            for pattern in encodings(value.expose()) {
                blocks.extend(cut(&pattern).map(<[u8]>::to_vec));
            }
        }
        let blocks: Vec<Zeroizing<Vec<u8>>> = blocks.into_iter().map(Zeroizing::new).collect();
        let mut by_start: HashMap<u64, Range<usize>> = HashMap::new();
        let mut filter = vec![0; 1 << (FILTER_BITS - 6)];
        for (at, block) in blocks.iter().enumerate() {
            let start = start_of(block)?;
            by_start.entry(start).or_insert(at..at).end = at + 1;
            let bit = filter_bit(start);
            filter[bit >> 6] |= 1 << (bit & 63);
        }
        (!blocks.is_empty()).then_some(Self { blocks, by_start, filter })
    }

    /// The longest block at the beginning of these bytes.
    fn block_at(&self, bytes: &[u8]) -> Option<usize> {
        let start = start_of(bytes)?;
        let bit = filter_bit(start);
        if self.filter[bit >> 6] & 1 << (bit & 63) == 0 {
            return None;
        }
        let candidates = self.by_start.get(&start)?.clone();
        let blocks = self.blocks[candidates].iter();
        blocks.filter(|block| bytes.starts_with(block)).map(|block| block.len()).max()
    }

    /// The blocks that begin with these bytes.
    fn beginning_with<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let first = self.blocks.partition_point(|block| block[..] < *bytes);
        self.blocks[first..].iter().map(|block| &block[..]).take_while(move |block| block.starts_with(bytes))
    }

    /// Where the longest end of these bytes begins that may become a block.
    fn undecided_from(&self, bytes: &[u8]) -> usize {
        let may_become_one = |at: &usize| {
            self.beginning_with(&bytes[*at..]).take(2).any(|block| block.len() > bytes.len() - at)
        };
        let ends = bytes.len().saturating_sub(BLOCK - 1)..bytes.len();
        ends.into_iter().find(may_become_one).unwrap_or(bytes.len())
    }

    /// Whether no end of these bytes is more than half of what it may become.
    fn shows_little(&self, bytes: &[u8]) -> bool {
        // A shorter end is at most half of any block.
        (0..bytes.len().saturating_sub(MIN_MASKED / 2)).all(|at| {
            let len = bytes.len() - at;
            self.beginning_with(&bytes[at..]).all(|block| 2 * len <= block.len())
        })
    }
}

/// The first bytes, as a number.
fn start_of(bytes: &[u8]) -> Option<u64> {
    let first = bytes.first_chunk::<MIN_MASKED>()?;
    Some(first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn filter_bit(start: u64) -> usize {
    (start.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - FILTER_BITS)) as usize
}

/// The blocks of a pattern: together they are all of it. The last one overlaps the one before, so that none is short.
fn cut(pattern: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = pattern.chunks_exact(BLOCK);
    let rest = whole.remainder();
    let last = match rest.len() {
        0 => None,
        _ if pattern.len() < BLOCK => Some(pattern),
        _ => Some(&pattern[pattern.len() - BLOCK..]),
    };
    whole.chain(last)
}

/// Masks one stream.
#[derive(Debug)]
pub(super) struct Masker {
    patterns: Arc<Patterns>,
    /// The end of the output so far that may be the beginning of a block.
    held: Vec<u8>,
    /// How many bytes of it are in the result: as a mark, or because they were [released](Self::release).
    done: usize,
    /// Whether the result ends with a mark that the next covered byte belongs to.
    in_mark: bool,
    marks: u64,
}

impl Masker {
    pub(super) fn new(patterns: Arc<Patterns>) -> Self {
        Self { patterns, held: Vec::new(), done: 0, in_mark: false, marks: 0 }
    }

    /// How many marks are in the result.
    pub(super) fn marks(&self) -> u64 {
        self.marks
    }

    /// Whether output is held back that [`Self::release`] would add.
    pub(super) fn may_release(&self) -> bool {
        self.done < self.held.len() && self.patterns.shows_little(&self.held)
    }

    /// Takes more output, and adds what is decided to the result.
    pub(super) fn feed(&mut self, data: &[u8], result: &mut Vec<u8>) {
        self.held.extend_from_slice(data);
        let undecided = self.patterns.undecided_from(&self.held);
        self.decide(undecided, result);
    }

    /// The stream has ended: adds what was held back.
    pub(super) fn finish(&mut self, result: &mut Vec<u8>) {
        self.decide(self.held.len(), result);
    }

    /// Adds what is held back although it may become a value, so that a prompt is seen: never more than half of a value. The rest of
    /// it is masked if it becomes one.
    pub(super) fn release(&mut self, result: &mut Vec<u8>) {
        if self.may_release() {
            result.extend_from_slice(&self.held[self.done..]);
            self.done = self.held.len();
            self.in_mark = false;
        }
    }

    /// Adds all bytes before `undecided`, and the covered ones that follow.
    fn decide(&mut self, undecided: usize, result: &mut Vec<u8>) {
        let mut at = self.done;
        for covered in self.covered() {
            if covered.start > undecided.max(at) {
                break;
            }
            if covered.end <= at {
                continue;
            }
            self.add_plain(at, covered.start, result);
            if !self.in_mark {
                result.extend_from_slice(MARK);
                self.marks += 1;
            }
            self.in_mark = true;
            at = covered.end;
        }
        self.add_plain(at, undecided, result);
        self.done = at.max(undecided) - undecided;
        self.held.drain(..undecided);
    }

    fn add_plain(&mut self, from: usize, to: usize, result: &mut Vec<u8>) {
        if let Some(plain) = self.held.get(from..to).filter(|plain| !plain.is_empty()) {
            result.extend_from_slice(plain);
            self.in_mark = false;
        }
    }

    /// The runs of covered bytes, in order.
    fn covered(&self) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for at in 0..(self.held.len() + 1).saturating_sub(MIN_MASKED) {
            let Some(len) = self.patterns.block_at(&self.held[at..]) else { continue };
            match runs.last_mut() {
                Some(run) if at <= run.end => run.end = run.end.max(at + len),
                _ => runs.push(at..at + len),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sentinel_protocol::secret::SecretKeyRef;
    use sentinel_secrets::values::SecretValue;

    use super::super::encodings::without_end_of_line;
    use super::*;

    fn values(all: &[&[u8]]) -> SecretValues {
        let mut values = SecretValues::default();
        for (number, value) in all.iter().enumerate() {
            let reference = SecretKeyRef { name: "s".into(), key: number.to_string(), optional: false };
            values.insert(&reference, SecretValue::new(value.to_vec()));
        }
        values
    }

    fn masker(all: &[&[u8]]) -> Masker {
        Masker::new(Arc::new(Patterns::of(&values(all)).unwrap()))
    }

    fn masked(all: &[&[u8]], pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let (mut masker, mut result) = (masker(all), Vec::new());
        for piece in pieces {
            masker.feed(piece, &mut result);
        }
        masker.finish(&mut result);
        (result, masker.marks())
    }

    fn text(all: &[&str], output: &str) -> String {
        let all: Vec<&[u8]> = all.iter().map(|value| value.as_bytes()).collect();
        String::from_utf8(masked(&all, &[output.as_bytes()]).0).unwrap()
    }

    #[test]
    fn a_value_and_its_encodings_become_a_mark() {
        let secret = "hunter2/Ö\"x";
        let encoded = [
            "hunter2/Ö\"x",
            "aHVudGVyMi/DliJ4",
            "aHVudGVyMi_DliJ4",
            "68756e746572322fc3962278",
            "68756E746572322FC3962278",
            "hunter2%2F%C3%96%22x",
            "hunter2%2f%c3%96%22x",
            "hunter2/Ö\\\"x",
            "hunter2\\/Ö\\\"x",
            "hunter2/\\u00d6\\\"x",
            "hunter2/\\u00D6\\\"x",
        ];
        for encoding in encoded {
            assert_eq!(text(&[secret], &format!("a {encoding} b")), "a *** b", "{encoding}");
        }
        assert_eq!(text(&[secret], "hunter2 and hunter2/Ö\" alone"), "hunter2 and hunter2/Ö\" alone");
    }

    #[test]
    fn base64_is_found_wherever_the_value_begins_in_what_was_encoded() {
        use base64::Engine as _;
        for engine in
            [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE_NO_PAD]
        {
            for before in 0..7 {
                for after in 0..4 {
                    let plain = ["x".repeat(before), "s3cr3t-value?>".into(), "y".repeat(after)].concat();
                    let found = text(&["s3cr3t-value?>"], &engine.encode(&plain));
                    assert!(found.contains("***") && found.len() < 21, "{before} {after}: {found}");
                }
            }
        }
    }

    #[test]
    fn base64_is_found_in_lines() {
        use base64::Engine as _;
        let secret: String = (0..300).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&secret);
        for width in [64, 76] {
            let lines: Vec<&str> =
                encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
            assert_eq!(text(&[&secret], &format!("<{}>", lines.join("\n"))), "<***>", "{width}");
        }
    }

    #[test]
    fn values_that_touch_or_overlap_are_one_mark_and_others_are_counted() {
        assert_eq!(text(&["abcdef", "efghij"], "-abcdefghij-"), "-***-");
        assert_eq!(text(&["abcdef", "ghijkl"], "-abcdefghijkl-"), "-***-");
        assert_eq!(text(&["abcdef", "abcdefghi"], "abcdefghi abcdef abcdefgh"), "*** *** ***gh");
        assert_eq!(masked(&[b"abcdef"], &[b"abcdef abc", b"def abcde"]), (b"*** *** abcde".to_vec(), 2));
    }

    #[test]
    fn short_values_are_not_masked_and_an_end_of_line_is_not_part_of_one() {
        assert!(Patterns::of(&values(&[b"", b"abcde", b"abcde\r\n"])).is_none());
        assert_eq!(text(&["abcdef\n"], "abcdef abcdef\n"), "*** ***\n");
        assert_eq!(text(&["abcde", "abcdef"], "abcde"), "abcde");
    }

    #[test]
    fn a_long_value_is_found_in_full_and_little_is_held_back() {
        let secret: Vec<u8> = (0..65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let output = [b"<", &secret[..], b">"].concat();
        let (mut masker, mut result) = (masker(&[&secret]), Vec::new());
        for piece in output.chunks(1000) {
            masker.feed(piece, &mut result);
            assert!(masker.held.len() < BLOCK, "{}", masker.held.len());
        }
        masker.finish(&mut result);
        assert_eq!(result, b"<***>");
    }

    #[test]
    fn a_prompt_is_released_and_never_more_than_half_of_a_value() {
        let mut masker = masker(&[b"password123"]);
        let mut result = Vec::new();
        masker.feed(b"pass", &mut result);
        assert!(result.is_empty());
        masker.release(&mut result);
        assert_eq!(result, b"pass", "as of a prompt");
        masker.feed(b"word", &mut result);
        masker.release(&mut result);
        assert_eq!(result, b"pass");
        masker.feed(b"123 ", &mut result);
        assert_eq!(result, b"pass*** ");
        masker.feed(b"pa", &mut result);
        masker.release(&mut result);
        masker.release(&mut result);
        masker.feed(b"per", &mut result);
        assert_eq!(result, b"pass*** paper");
        assert_eq!(masker.marks(), 1);
    }

    /// Values over few letters, so that they overlap themselves and each other.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(prop::sample::select(b"ab".to_vec()), 6..12),
            prop::collection::vec(prop::sample::select(b"ab\"/ ".to_vec()), 6..90),
            prop::collection::vec(any::<u8>(), 6..300),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

        #[test]
        fn no_value_is_left_however_the_output_is_cut(
            all in prop::collection::vec(value(), 1..4),
            parts in prop::collection::vec((0..4_usize, prop::collection::vec(prop::sample::select(b"ab\"/ x".to_vec()), 0..9)), 0..9),
            cuts in prop::collection::vec((1..40_usize, any::<bool>()), 1..60),
        ) {
            let mut output = Vec::new();
            for (which, between) in &parts {
                output.extend_from_slice(between);
                output.extend_from_slice(all.get(*which).map_or(&[][..], |value| value));
            }
            let all: Vec<&[u8]> = all.iter().map(|value| &value[..]).collect();
            let holds = |result: &[u8]| {
                let trimmed = all.iter().map(|value| without_end_of_line(value));
                trimmed.filter(|value| value.len() >= MIN_MASKED)
                    .any(|value| result.windows(value.len()).any(|window| window == value))
            };
            if Patterns::of(&values(&all)).is_none() { return Ok(()); }
            let (whole, marks) = masked(&all, &[&output]);
            prop_assert!(!holds(&whole), "{:?}", String::from_utf8_lossy(&whole));
            // In pieces, without and with releases in between.
            for releases in [false, true] {
                let (mut masker, mut result, mut rest) = (masker(&all), Vec::new(), &output[..]);
                for (len, release) in cuts.iter().cycle() {
                    let (piece, more) = rest.split_at((*len).min(rest.len()));
                    masker.feed(piece, &mut result);
                    if releases && *release { masker.release(&mut result); }
                    rest = more;
                    if rest.is_empty() { break; }
                }
                masker.finish(&mut result);
                prop_assert!(!holds(&result), "{:?}", String::from_utf8_lossy(&result));
                if !releases { prop_assert_eq!((&result, masker.marks()), (&whole, marks)); }
            }
        }
    }
}
