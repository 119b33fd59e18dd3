//! Replaces the values of Secrets in output by a mark, also where a value is encoded or arrives in pieces.
//!
//! Every byte that belongs to an occurrence of a value, in one of the [encodings](super::encodings), is covered; each run of covered
//! bytes becomes one [`MARK`]. So the result does not depend on how the output is cut into pieces, and two values that overlap hide each
//! other. A long value is searched for in blocks, so that little has to be held back. The cost of a byte of output has a bound, whatever
//! the values are.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use sentinel_protocol::secret::MIN_MASKED;
use sentinel_secrets::values::{SecretValue, SecretValues};
use zeroize::Zeroizing;

use super::encodings::{Encoding, Next, Reader};

/// What stands in the output for a value.
pub(super) const MARK: &[u8] = b"***";

/// Longest block, bytes.
const BLOCK: usize = 64;

/// Shortest block of a longer value, bytes: none begins within a character.
const LONG_BLOCK: usize = BLOCK - 3;

/// Most bytes at the end of a line that are not held back, although a value may begin with them and continue in the next line.
const LINE_END: usize = 3;

/// What is searched for.
pub(super) struct Patterns {
    /// All values.
    bytes: Zeroizing<Vec<u8>>,
    /// In the order of their bytes, each once.
    blocks: Vec<Block>,
    /// Where among them those with fewer than [`LONG_BLOCK`] bytes are.
    short: Vec<usize>,
    /// Where among them those begin that have this first byte, and where the last ones end.
    by_first: Vec<usize>,
    /// A bit for each two bytes that a block begins with.
    beginnings: Vec<u64>,
    /// For each byte of output, the encodings in which a block may begin with it: bits in the order of [`Encoding::ALL`].
    encodings: Vec<u8>,
}

/// A part of a value: [`MIN_MASKED`] to [`BLOCK`] bytes of [`Patterns::bytes`].
#[derive(Debug, Clone, Copy)]
struct Block {
    start: u32,
    len: u32,
}

/// The blocks that begin with the bytes that were read.
struct Candidates {
    blocks: Range<usize>,
    first: u8,
    /// How many bytes.
    depth: usize,
}

/// What begins at a place of the output.
#[derive(Debug, Default)]
struct Found {
    /// Where the longest block ends.
    end: Option<usize>,
    /// A longer one that this may become.
    begun: Option<Begun>,
}

/// The beginning of a block, at the end of the output.
#[derive(Debug)]
struct Begun {
    /// Whether it is at most half of what it may become.
    is_little: bool,
}

/// What is known about a part of the output.
#[derive(Debug)]
struct Scan {
    /// The runs of covered bytes, in order; they do not touch.
    covered: Vec<Range<usize>>,
    /// Where the longest end begins that may become a block.
    undecided: usize,
    /// Whether no end is more than half of what it may become.
    shows_little: bool,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patterns({})", self.blocks.len())
    }
}

impl Patterns {
    /// Those of these values; `None` when none is long enough.
    pub(super) fn of(values: &SecretValues) -> Option<Self> {
        let values = || {
            values.values().map(SecretValue::without_end_of_line).filter(|value| value.len() >= MIN_MASKED)
        };
        // Never grown: a move would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(values().map(<[u8]>::len).sum()));
        let mut blocks = Vec::new();
        for value in values() {
            let start = bytes.len();
            bytes.extend_from_slice(value);
            blocks.extend(
                cut(value)
                    .into_iter()
                    .map(|block| Block { start: (start + block.start) as u32, len: block.len() as u32 }),
            );
        }
        let of = |block: &Block| &bytes[block.start as usize..][..block.len as usize];
        blocks.sort_unstable_by(|a, b| of(a).cmp(of(b)));
        blocks.dedup_by(|a, b| of(a) == of(b));
        if blocks.is_empty() {
            return None;
        }
        let short = (0..blocks.len()).filter(|at| (blocks[*at].len as usize) < LONG_BLOCK).collect();
        let before = |first: usize| blocks.partition_point(|block| usize::from(of(block)[0]) < first);
        let by_first = (0..=256).map(before).collect();
        let mut beginnings = vec![0; 1 << 10];
        for block in &blocks {
            let bit = pair(of(block)[0], of(block)[1]);
            beginnings[bit >> 6] |= 1 << (bit & 63);
        }
        let mut patterns = Self { bytes, blocks, short, by_first, beginnings, encodings: Vec::new() };
        patterns.encodings = (0..=255).map(|byte| patterns.encodings_of(byte)).collect();
        Some(patterns)
    }

    /// The encodings in which a block may begin with this byte.
    fn encodings_of(&self, byte: u8) -> u8 {
        let may_begin = |encoding: Encoding| {
            let first = match Reader::new(encoding, &[byte], 0).next() {
                Next::Byte(first) => first..=first,
                Next::Unfinished { bits, count } => completed(bits, count),
                Next::Other => return false,
            };
            !self.narrowed(0..self.blocks.len(), 0, first).is_empty()
        };
        encodings_where(may_begin)
    }

    /// What is covered in this part of the output, and what is undecided at its end.
    fn scan(&self, output: &[u8]) -> Scan {
        let mut scan = Scan { covered: Vec::new(), undecided: output.len(), shows_little: true };
        let occurring = encodings_where(|encoding| encoding.occurs_in(output));
        for (at, byte) in output.iter().enumerate() {
            let mut encodings = self.encodings[usize::from(*byte)] & occurring;
            while encodings != 0 {
                let encoding = Encoding::ALL[encodings.trailing_zeros() as usize];
                encodings &= encodings - 1;
                let Found { end, begun } = self.found(Reader::new(encoding, output, at));
                if let Some(end) = end {
                    scan.cover(at..end);
                }
                if let Some(Begun { is_little }) = begun {
                    scan.undecided = scan.undecided.min(at);
                    scan.shows_little &= is_little;
                }
            }
        }
        scan
    }

    /// What begins where this reader does.
    fn found(&self, mut reader: Reader<'_>) -> Found {
        let mut candidates = Candidates { blocks: 0..self.blocks.len(), first: 0, depth: 0 };
        let mut found = Found::default();
        loop {
            match reader.next() {
                Next::Byte(byte) => {
                    if !self.keep(&mut candidates, byte) {
                        return found;
                    }
                    // The shortest is the first.
                    if self.blocks[candidates.blocks.start].len as usize == candidates.depth {
                        let end = reader.end();
                        found.end = Some(end.at);
                        found.begun = end.is_open.then_some(Begun { is_little: true });
                    }
                }
                Next::Unfinished { bits, count } => {
                    let Candidates { blocks, depth, .. } = candidates;
                    let longer = self.narrowed(blocks, depth, completed(bits, count));
                    if !longer.is_empty() {
                        let shown = depth + usize::from(count > 0);
                        found.begun = Some(Begun { is_little: self.is_little(shown, &longer) });
                    }
                    return found;
                }
                Next::Other => return found,
            }
        }
    }

    /// Keeps the candidates that continue with this byte; false when none does.
    fn keep(&self, candidates: &mut Candidates, byte: u8) -> bool {
        let Candidates { blocks, first, depth } = candidates;
        *blocks = match *depth {
            0 => {
                *first = byte;
                self.by_first[usize::from(byte)]..self.by_first[usize::from(byte) + 1]
            }
            1 if self.beginnings[pair(*first, byte) >> 6] & 1 << (pair(*first, byte) & 63) == 0 => {
                return false;
            }
            _ => self.narrowed(blocks.clone(), *depth, byte..=byte),
        };
        *depth += 1;
        !candidates.blocks.is_empty()
    }

    /// Those of these blocks, which have the same bytes before this place, that have one of these bytes there.
    fn narrowed(&self, blocks: Range<usize>, at: usize, bytes: RangeInclusive<u8>) -> Range<usize> {
        let byte = |block: usize| self.byte(block, at);
        let is_all = |block: Option<usize>| block.and_then(byte).is_some_and(|byte| bytes.contains(&byte));
        // In particular where only one is left.
        if is_all(blocks.clone().next()) && is_all(blocks.clone().next_back()) {
            return blocks;
        }
        // A block that ends at this place is before the others.
        let first = partition(blocks.clone(), |block| byte(block) < Some(*bytes.start()));
        let end = partition(first..blocks.end, |block| byte(block) <= Some(*bytes.end()));
        first..end
    }

    fn byte(&self, block: usize, at: usize) -> Option<u8> {
        #[cfg(test)]
        tests::STEPS.set(tests::STEPS.get() + 1);
        let Block { start, len } = self.blocks[block];
        (at < len as usize).then(|| self.bytes[start as usize + at])
    }

    /// Whether so many bytes are at most half of each of these blocks.
    fn is_little(&self, shown: usize, blocks: &Range<usize>) -> bool {
        if 2 * shown <= MIN_MASKED {
            return true;
        }
        let from = self.short.partition_point(|block| *block < blocks.start);
        let mut short = self.short[from..].iter().take_while(|block| **block < blocks.end);
        2 * shown <= LONG_BLOCK && short.all(|block| 2 * shown <= self.blocks[*block].len as usize)
    }
}

impl Scan {
    /// Covers bytes that begin behind the beginning of all others.
    fn cover(&mut self, bytes: Range<usize>) {
        match self.covered.last_mut() {
            Some(run) if bytes.start <= run.end => run.end = run.end.max(bytes.end),
            _ => self.covered.push(bytes),
        }
    }
}

fn encodings_where(holds: impl Fn(Encoding) -> bool) -> u8 {
    let bit = |(at, encoding): (usize, &Encoding)| u8::from(holds(*encoding)) << at;
    Encoding::ALL.iter().enumerate().map(bit).sum()
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// The bytes that begin with so many bits.
fn completed(bits: u8, count: u32) -> RangeInclusive<u8> {
    let rest = 0xFF_u16 >> count;
    let least = (u16::from(bits) << (8 - count)) as u8;
    least..=least | rest as u8
}

/// The first number for which this does not hold; it holds for all smaller ones.
fn partition(mut range: Range<usize>, holds: impl Fn(usize) -> bool) -> usize {
    while !range.is_empty() {
        let middle = range.start + range.len() / 2;
        if holds(middle) {
            range.start = middle + 1;
        } else {
            range.end = middle;
        }
    }
    range.start
}

/// The blocks of a value: together they are all of it. Each overlaps the one before, so that the end of a line between two digits is
/// within one of them, and the last one does so that it is not short. None begins within a character of text, which JSON may escape.
fn cut(value: &[u8]) -> Vec<Range<usize>> {
    let text = std::str::from_utf8(value).ok();
    let is_boundary = |at: &usize| text.is_none_or(|text| text.is_char_boundary(*at));
    let mut blocks = Vec::new();
    let mut start = 0;
    while value.len() - start > BLOCK {
        let end = start + BLOCK;
        blocks.push(start..end);
        start = (start..end).rev().find(is_boundary).unwrap_or(end);
    }
    let last = (value.len().saturating_sub(BLOCK)..start).find(is_boundary).unwrap_or(start);
    blocks.push(last..value.len());
    blocks
}

/// Masks one stream.
#[derive(Debug)]
pub(super) struct Masker {
    patterns: Arc<Patterns>,
    /// The end of the output so far that may be the beginning of a block.
    held: Vec<u8>,
    /// How many bytes of it are in the result: as a mark, or because they were [released](Self::release).
    done: usize,
    /// Whether no end of it is more than half of what it may become.
    shows_little: bool,
    /// Whether the result ends with a mark that the next covered byte belongs to.
    in_mark: bool,
    marks: u64,
}

impl Masker {
    pub(super) fn new(patterns: Arc<Patterns>) -> Self {
        Self { patterns, held: Vec::new(), done: 0, shows_little: true, in_mark: false, marks: 0 }
    }

    /// How many marks are in the result.
    pub(super) fn marks(&self) -> u64 {
        self.marks
    }

    /// Whether output is held back that [`Self::release`] would add.
    pub(super) fn may_release(&self) -> bool {
        self.done < self.held.len() && self.shows_little
    }

    /// Whether only the end of a line is held back: nearly always it is text.
    pub(super) fn holds_end_of_line(&self) -> bool {
        let held = &self.held[self.done..];
        held.strip_suffix(b"\r\n").or(held.strip_suffix(b"\n")).is_some_and(|line| line.len() <= LINE_END)
    }

    /// Takes more output, and adds what is decided to the result.
    pub(super) fn feed(&mut self, data: &[u8], result: &mut Vec<u8>) {
        self.held.extend_from_slice(data);
        let Scan { covered, undecided, shows_little } = self.patterns.scan(&self.held);
        self.shows_little = shows_little;
        self.decide(&covered, undecided, result);
    }

    /// The stream has ended: adds what was held back.
    pub(super) fn finish(&mut self, result: &mut Vec<u8>) {
        let covered = self.patterns.scan(&self.held).covered;
        self.decide(&covered, self.held.len(), result);
    }

    /// Adds what is held back although it may become a value, so that a prompt is seen: never more than half of a value. The rest of
    /// it is masked if it becomes one. A shorter value that is whole within it is masked now.
    pub(super) fn release(&mut self, result: &mut Vec<u8>) {
        if self.may_release() {
            let covered = self.patterns.scan(&self.held).covered;
            self.done = self.add(&covered, self.held.len(), result);
        }
    }

    /// Adds what is decided.
    fn decide(&mut self, covered: &[Range<usize>], undecided: usize, result: &mut Vec<u8>) {
        self.done = self.add(covered, undecided, result) - undecided;
        self.held.drain(..undecided);
    }

    /// Adds all bytes before `undecided`, and the covered ones that follow without a gap: they are covered whatever comes. Returns where
    /// they end.
    fn add(&mut self, covered: &[Range<usize>], undecided: usize, result: &mut Vec<u8>) -> usize {
        // What is before is in the result. That may be more than is decided, after a release or a mark.
        let mut at = self.done;
        for run in covered {
            if run.start > undecided.max(at) {
                // What precedes it is not decided.
                break;
            }
            if run.end <= at {
                continue;
            }
            self.add_plain(at..run.start, result);
            if !self.in_mark {
                result.extend_from_slice(MARK);
                self.marks += 1;
            }
            self.in_mark = true;
            at = run.end;
        }
        self.add_plain(at..undecided, result);
        at.max(undecided)
    }

    /// Adds bytes as they are. The range is empty, or ends before it begins, where the result has them already.
    fn add_plain(&mut self, bytes: Range<usize>, result: &mut Vec<u8>) {
        if !bytes.is_empty() {
            result.extend_from_slice(&self.held[bytes]);
            self.in_mark = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use base64::Engine as _;
    use proptest::prelude::*;
    use sentinel_protocol::secret::SecretKeyRef;
    use sentinel_secrets::values::SecretValue;

    use super::*;

    thread_local! {
        /// How many bytes of blocks were compared.
        pub(super) static STEPS: Cell<u64> = const { Cell::new(0) };
    }

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
            "hunter2/%C3%96%22x",
            "hunter2/Ö\\u0022x",
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
        let secret: String = (0..300).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&secret);
        for (width, end) in [(64, "\n"), (76, "\n"), (76, "\r\n")] {
            let lines: Vec<&str> =
                encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
            assert_eq!(text(&[&secret], &format!("<{}>", lines.join(end))), "<***>", "{width}");
        }
    }

    /// `printf 'machine artifacts.example.com login deploy password %s\n' "$P" | base64` showed all of it, `echo "$P" | base64` the last
    /// characters.
    #[test]
    fn base64_is_found_where_a_line_ends_within_the_value() {
        let engine = base64::engine::general_purpose::STANDARD;
        let in_lines = |plain: &str| {
            let encoded = engine.encode(plain);
            encoded
                .as_bytes()
                .chunks(76)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect::<Vec<_>>()
                .join("\n")
        };
        let short = "correct-horse-battery1";
        let before = "machine artifacts.example.com login deploy password ";
        let encoded = in_lines(&format!("{before}{short}\n"));
        let visible = &engine.encode(before)[..before.len() * 8 / 6];
        let found = text(&[short], &encoded);
        assert!(found.starts_with(visible) && found.len() <= visible.len() + 6, "{encoded} {found}");
        let long: String = (0..92).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
        assert!(text(&[&long], &in_lines(&format!("{long}\n"))).len() <= 6);
    }

    #[test]
    fn encodings_that_escape_more_or_less_are_found() {
        for (secret, encoded) in [
            ("a/b/c d?e=f", "a/b/c%20d%3Fe%3Df"),
            ("a/b/c d?e=f", "a/b/c+d%3Fe%3df"),
            ("a/b/c d?e=f", "a%2Fb%2Fc+d?e=f"),
            ("x&y<z>1", "x\\u0026y\\u003cz\\u003e1"),
            ("x&y/z>1", "x\\u0026y\\/z\\u003E1"),
            ("smile 😀!", "smile \\ud83d\\ude00!"),
        ] {
            assert_eq!(text(&[secret], &format!("<{encoded}>")), "<***>", "{encoded}");
        }
        // Blocks do not end within a character.
        let long = format!("a{}", "Ö".repeat(300));
        assert_eq!(text(&[&long], &format!("<a{}>", "\\u00d6".repeat(300))), "<***>");
    }

    /// Where all blocks of a value began alike, each byte of output cost as much as there are blocks.
    #[test]
    fn the_cost_of_a_byte_has_a_bound_whatever_the_values_are() {
        let alike = |len: usize, first: usize, same: u8| -> Vec<u8> {
            let other = |n: usize| (n as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] | 1;
            (0..len).map(|n| if n % 32 < first { same } else { other(n) }).collect()
        };
        let output = vec![b'0'; 64 << 10];
        for value in
            [alike(65_536, 3, 0), alike(65_536, 20, b'0'), alike(65_536, 31, b'0'), vec![b'0'; 65_536]]
        {
            STEPS.set(0);
            let (result, _) = masked(&[&value, &value[1..], &value[2..]], &[&output]);
            assert!(result.len() == output.len() || result == MARK);
            // At each byte of a block, the first and the last candidate, and where they differ two binary searches in 4096.
            let most = output.len() as u64 * BLOCK as u64 * (2 + 2 * 12);
            assert!((1..most).contains(&STEPS.get()), "{} of {most}", STEPS.get());
        }
    }

    #[test]
    fn a_value_costs_little_more_memory_than_its_bytes() {
        let value: Vec<u8> = (0..65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let patterns = Patterns::of(&values(&[&value, &value, &value])).unwrap();
        assert!(patterns.blocks.len() <= value.len() / (BLOCK - 1) + 1, "equal blocks are kept once");
        assert_eq!(patterns.bytes.capacity(), 3 * value.len());
        assert_eq!(size_of::<Block>(), 8);
    }

    #[test]
    fn the_end_of_a_line_is_not_held_back_for_a_few_bytes() {
        let mut masker = masker(&[b"password123"]);
        let mut result = Vec::new();
        // In base64, the value begins so.
        masker.feed(b"x cGF\n", &mut result);
        assert_eq!((&result[..], &masker.held[..]), (&b"x "[..], &b"cGF\n"[..]));
        assert!(masker.holds_end_of_line() && masker.may_release());
        for more in ["x cGFz\n", "x cGF"] {
            masker.feed(more.as_bytes(), &mut result);
            assert!(!masker.holds_end_of_line(), "{more}");
        }
    }

    #[test]
    fn of_a_long_value_no_more_is_released_than_half_a_block() {
        let secret: String = (0..300).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
        let mut masker = masker(&[secret.as_bytes(), b"short-value"]);
        for (len, is_released) in [(LONG_BLOCK / 2, true), (BLOCK / 2 + 1, false), (BLOCK - 1, false)] {
            masker.held.clear();
            masker.done = 0;
            masker.feed(&secret.as_bytes()[..len], &mut Vec::new());
            assert_eq!(masker.may_release(), is_released, "{len}");
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
            assert!(masker.held.len() < 2 * BLOCK, "{}", masker.held.len());
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

    /// Text as an encoder writes it that makes these choices, one for each character.
    fn escaped(encoding: Encoding, text: &str, choices: &[u8]) -> String {
        let mut choices = choices.iter().cycle();
        text.chars().fold(String::new(), |mut all, c| {
            let choice = choices.next().unwrap() % 4;
            let written = match encoding {
                Encoding::Form if c == ' ' => "+".to_owned(),
                Encoding::Percent | Encoding::Form if c == '%' || c == '+' || choice > 0 => {
                    let escape =
                        |byte: u8| if choice == 1 { format!("%{byte:02x}") } else { format!("%{byte:02X}") };
                    c.encode_utf8(&mut [0; 4]).bytes().map(escape).collect()
                }
                Encoding::Json if c == '"' || c == '\\' || c == '/' && choice > 1 => format!("\\{c}"),
                Encoding::Json if choice > 0 => {
                    let escape = |unit: &u16| {
                        if choice == 1 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") }
                    };
                    c.encode_utf16(&mut [0; 2]).iter().map(escape).collect()
                }
                _ => c.to_string(),
            };
            all.push_str(&written);
            all
        })
    }

    /// The characters that hold bits of these bytes, when what they are in is written with digits of so many bits.
    fn digits_of(bytes: Range<usize>, width: usize) -> Range<usize> {
        bytes.start * 8 / width..(bytes.end * 8).div_ceil(width)
    }

    /// Lines of so many digits, and the same with a mark for the covered ones.
    fn in_lines(digits: &str, covered: &Range<usize>, line: Option<(usize, &str)>) -> [Vec<u8>; 2] {
        let [mut output, mut expected] = [Vec::new(), Vec::new()];
        for (at, digit) in digits.bytes().enumerate() {
            let is_end = |width: usize| at > 0 && at % width == 0;
            let end = line.filter(|(width, _)| is_end(*width)).map_or("", |(_, end)| end);
            output.extend_from_slice(end.as_bytes());
            output.push(digit);
            if at == covered.start {
                expected.extend([end.as_bytes(), MARK].concat());
            } else if !covered.contains(&at) {
                expected.extend_from_slice(end.as_bytes());
                expected.push(digit);
            }
        }
        [output, expected]
    }

    /// It was shown while the longer one was waited for.
    #[test]
    fn a_value_within_the_beginning_of_a_longer_one_is_masked_before_the_longer_one_has_come() {
        let (longer, within) = (b"abbabbbaaaaaaaaaaaaa", b"bbabbb");
        let (mut masker, mut result) = (masker(&[longer, within]), Vec::new());
        masker.feed(b"-abbabbb", &mut result);
        assert_eq!(result, b"-");
        masker.release(&mut result);
        assert_eq!(result, b"-a***");
        masker.feed(b"aaaaaaaaaaaaa-", &mut result);
        masker.finish(&mut result);
        assert_eq!(result, b"-a***-");
        assert_eq!(masker.marks(), 1);
    }

    fn in_pieces(value: &[u8], output: &[u8], cuts: &[usize]) -> Vec<u8> {
        let (mut masker, mut result, mut rest) = (masker(&[value]), Vec::new(), output);
        for len in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*len).min(rest.len()));
            masker.feed(piece, &mut result);
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        masker.finish(&mut result);
        result
    }

    proptest! {
        #[test]
        fn digits_of_a_value_become_one_mark_and_all_others_stay(
            value in prop::collection::vec(any::<u8>(), 12..300),
            before in prop::collection::vec(any::<u8>(), 0..100),
            after in prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..100)],
            encoder in 0..5_usize,
            line in prop::sample::select(vec![None, Some((64, "\n")), Some((76, "\n")), Some((76, "\r\n")), Some((8, "\n"))]),
            cuts in prop::collection::vec(1..90_usize, 1..20),
        ) {
            use base64::engine::general_purpose as base64;
            prop_assume!(!matches!(value.last(), Some(b'\r' | b'\n')));
            let plain = [&before[..], &value, &after].concat();
            let hex = plain.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            let (digits, width) = match encoder {
                0 => (base64::STANDARD.encode(&plain), 6),
                1 => (base64::STANDARD_NO_PAD.encode(&plain), 6),
                2 => (base64::URL_SAFE.encode(&plain), 6),
                3 => (hex.to_uppercase(), 4),
                _ => (hex, 4),
            };
            let covered = digits_of(before.len()..before.len() + value.len(), width);
            let covered = if after.is_empty() { covered.start..digits.len() } else { covered };
            let [output, expected] = in_lines(&digits, &covered, line);
            let result = in_pieces(&value, &output, &cuts);
            prop_assert_eq!(String::from_utf8_lossy(&result), String::from_utf8_lossy(&expected));
        }

        #[test]
        fn an_escaped_value_becomes_one_mark_whatever_is_escaped(
            value in "[a-z0-9A-Z /%+\"\\\\&<>?=\u{e4}\u{20ac}\u{1f600}]{12,200}",
            encoding in prop::sample::select(vec![Encoding::Plain, Encoding::Percent, Encoding::Form, Encoding::Json]),
            choices in prop::collection::vec(any::<u8>(), 1..50),
            cuts in prop::collection::vec(1..90_usize, 1..20),
        ) {
            let encoded = escaped(encoding, &value, &choices);
            let result = in_pieces(value.as_bytes(), format!("(-{encoded}-)").as_bytes(), &cuts);
            prop_assert_eq!(String::from_utf8_lossy(&result), "(-***-)", "{}", encoded);
        }
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
                let trimmed = all.iter().map(|value| SecretValue::new(value.to_vec()));
                trimmed.map(|value| value.without_end_of_line().to_vec()).filter(|value| value.len() >= MIN_MASKED)
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
