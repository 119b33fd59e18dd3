//! Assembles the lines of one stream of one node from the pieces that arrive.
//!
//! A line is buffered until it is complete, so that lines of several nodes never mix. There are two exceptions, both
//! marked: a line of more than [`MAX_LINE`] bytes is split, and after a pause the buffered start of a line is shown (a
//! prompt, a progress bar). Lines are never split inside a character. What is not buffered is not copied.

use memchr::memchr_iter;

/// Maximum length of a part of a line, bytes.
pub(super) const MAX_LINE: usize = 256 << 10;

/// Capacity of the buffer that is kept from one line to the next, bytes: there is a buffer for each stream of each node.
const KEPT: usize = 8 << 10;

/// Assembles lines.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    /// The part of the current line that was not passed on yet.
    buffered: Vec<u8>,
    /// Bytes of the current part that were passed on after a pause.
    returned: usize,
    /// Whether the next part continues a line.
    continues: bool,
}

/// A line, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinePart<'a> {
    /// The bytes, without the line end.
    pub(super) bytes: &'a [u8],
    /// Whether it continues the previous part.
    pub(super) continues: bool,
    /// Why it ends here.
    pub(super) end: PartEnd,
}

/// Why a part ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartEnd {
    /// The line ends.
    Newline,
    /// The line is longer than a part may be.
    TooLong,
    /// No more of the line has arrived.
    Paused,
}

impl LineBuffer {
    /// Adds bytes, and passes on the parts that are complete. They do not depend on how the bytes are divided.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(LinePart<'_>)) {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            let line = &bytes[start..end];
            start = end + 1;
            if self.buffered.is_empty() && self.returned + line.len() <= MAX_LINE {
                self.part(line, PartEnd::Newline, &mut each);
            } else {
                self.buffer(line, &mut each);
                self.whole_part(PartEnd::Newline, &mut each);
            }
        }
        self.buffer(&bytes[start..], &mut each);
    }

    /// Number of bytes that [`LineBuffer::flush_paused`] would pass on.
    pub(super) fn buffered(&self) -> usize {
        whole(&self.buffered)
    }

    /// Passes on the buffered part of the current line, after a pause in the input.
    pub(super) fn flush_paused(&mut self, each: impl FnMut(LinePart<'_>)) {
        let whole = whole(&self.buffered);
        if whole > 0 {
            let rest = self.buffered.split_off(whole);
            self.whole_part(PartEnd::Paused, each);
            self.buffered = rest;
        }
    }

    /// Passes on the rest of a line without an end, at the end of the input.
    pub(super) fn finish(&mut self, each: impl FnMut(LinePart<'_>)) {
        if self.buffered.is_empty() && self.returned == 0 {
            self.continues = false;
        } else {
            self.whole_part(PartEnd::Newline, each);
        }
    }

    /// Buffers a piece of a line, and passes on what is too long.
    fn buffer(&mut self, piece: &[u8], each: &mut impl FnMut(LinePart<'_>)) {
        self.buffered.extend_from_slice(piece);
        while self.returned + self.buffered.len() > MAX_LINE {
            let cut = boundary(&self.buffered, MAX_LINE.saturating_sub(self.returned));
            let rest = self.buffered.split_off(cut);
            self.whole_part(PartEnd::TooLong, &mut *each);
            self.buffered = rest;
        }
    }

    /// Passes on all that is buffered.
    fn whole_part(&mut self, end: PartEnd, each: impl FnMut(LinePart<'_>)) {
        let mut bytes = std::mem::take(&mut self.buffered);
        self.part(&bytes, end, each);
        bytes.clear();
        bytes.shrink_to(KEPT);
        self.buffered = bytes;
    }

    fn part(&mut self, bytes: &[u8], end: PartEnd, mut each: impl FnMut(LinePart<'_>)) {
        each(LinePart { bytes, continues: self.continues, end });
        self.returned = if end == PartEnd::Paused { self.returned + bytes.len() } else { 0 };
        self.continues = end != PartEnd::Newline;
    }
}

/// The largest position up to `at` that does not split a character.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let starts = |position: &usize| bytes.get(*position).is_none_or(|byte| byte & 0xc0 != 0x80);
    // A character has at most four bytes; without a start within them this is not UTF-8.
    (at.saturating_sub(3)..=at).rev().find(starts).unwrap_or(at)
}

/// Length of the bytes without an incomplete character at the end, and without a CR that may belong to a CR LF.
fn whole(bytes: &[u8]) -> usize {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let tail = bytes.len().saturating_sub(3);
    let begun = (tail..bytes.len()).rev().find(|position| bytes[*position] & 0xc0 != 0x80);
    match begun {
        Some(start) => match std::str::from_utf8(&bytes[start..]) {
            Err(error) if error.error_len().is_none() => start,
            _ => bytes.len(),
        },
        None => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Part {
        bytes: Vec<u8>,
        continues: bool,
        end: PartEnd,
    }

    fn parts(each: impl FnOnce(&mut dyn FnMut(LinePart<'_>))) -> Vec<Part> {
        let mut parts = Vec::new();
        each(&mut |LinePart { bytes, continues, end }| {
            parts.push(Part { bytes: bytes.to_vec(), continues, end });
        });
        parts
    }

    fn push(lines: &mut LineBuffer, bytes: &[u8]) -> Vec<Part> {
        parts(|each| lines.push(bytes, each))
    }

    fn flush_paused(lines: &mut LineBuffer) -> Option<Part> {
        parts(|each| lines.flush_paused(each)).pop()
    }

    fn pushed(pieces: &[&[u8]]) -> Vec<Part> {
        let mut lines = LineBuffer::default();
        let mut pushed: Vec<Part> = pieces.iter().flat_map(|piece| push(&mut lines, piece)).collect();
        pushed.extend(parts(|each| lines.finish(each)));
        pushed
    }

    fn line(text: &[u8]) -> Part {
        Part { bytes: text.to_vec(), continues: false, end: PartEnd::Newline }
    }

    #[test]
    fn a_line_is_split_only_beyond_the_maximum_length() {
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(pushed(&[&longest, b"\n"]), [line(&longest)]);
        let parts = pushed(&[&longest, b"y\n"]);
        let first = Part { bytes: longest, continues: false, end: PartEnd::TooLong };
        assert_eq!(parts, [first, Part { bytes: b"y".to_vec(), continues: true, end: PartEnd::Newline }]);
    }

    #[test]
    fn bytes_shown_in_a_pause_count_toward_the_maximum_length() {
        let mut lines = LineBuffer::default();
        assert_eq!(push(&mut lines, b"ab"), []);
        assert_eq!(flush_paused(&mut lines).unwrap().bytes, b"ab");
        assert_eq!(flush_paused(&mut lines), None);
        let parts = push(&mut lines, &vec![b'x'; MAX_LINE]);
        assert_eq!((parts.len(), parts[0].bytes.len(), parts[0].continues), (1, MAX_LINE - 2, true));
    }

    #[test]
    fn a_pause_splits_neither_characters_nor_line_ends() {
        for (bytes, shown) in [
            (&b"Password: "[..], &b"Password: "[..]),
            (b"50%\r", b"50%"),
            ("日本".as_bytes(), "日本".as_bytes()),
            (&"日本".as_bytes()[..5], "日".as_bytes()),
            (b"a\xff\xfe", b"a\xff\xfe"),
            (b"\xf0\x9f\x98", b""),
        ] {
            let mut lines = LineBuffer::default();
            assert_eq!(push(&mut lines, bytes), []);
            assert_eq!(lines.buffered(), shown.len());
            assert_eq!(
                flush_paused(&mut lines).map(|part| part.bytes).unwrap_or_default(),
                shown,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_newline_after_a_pause_ends_the_same_line() {
        let mut lines = LineBuffer::default();
        push(&mut lines, b"go? ");
        flush_paused(&mut lines);
        assert_eq!(
            push(&mut lines, b"\nnext\n"),
            [Part { bytes: Vec::new(), continues: true, end: PartEnd::Newline }, line(b"next"),]
        );
        assert_eq!(parts(|each| lines.finish(each)), []);
    }

    /// Long lines of characters of one to four bytes with some line ends, or any bytes.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec!["x", "é", "日", "😀", "\n", "\r\n", "word "]);
        let text = prop::collection::vec((words, 1..40_000_usize), 1..12).prop_map(|runs| {
            runs.into_iter()
                .flat_map(|(word, times)| {
                    // Line ends are not repeated, so that lines are long.
                    word.repeat(if word.ends_with('\n') { 1 } else { times }).into_bytes()
                })
                .collect()
        });
        prop_oneof![text, prop::collection::vec(any::<u8>(), 0..2000)]
    }

    fn divided<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = at.iter().map(|place| place.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_do_not_depend_on_how_bytes_are_divided(
            bytes in output(),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            prop_assert!(pushed(&divided(&bytes, &at)) == pushed(&[&bytes]));
        }

        #[test]
        fn parts_join_to_the_output_within_the_maximum_length(
            bytes in output(),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            pauses in any::<u32>(),
        ) {
            let mut lines = LineBuffer::default();
            let mut found = Vec::new();
            for (index, piece) in divided(&bytes, &at).into_iter().enumerate() {
                found.extend(push(&mut lines, piece));
                if pauses >> (index % 32) & 1 == 1 {
                    found.extend(flush_paused(&mut lines));
                }
            }
            found.extend(parts(|each| lines.finish(each)));
            let mut joined = Vec::new();
            for part in &found {
                prop_assert!(part.bytes.len() <= MAX_LINE);
                prop_assert!(std::str::from_utf8(&bytes).is_err() || std::str::from_utf8(&part.bytes).is_ok());
                joined.extend_from_slice(&part.bytes);
                if part.end == PartEnd::Newline {
                    joined.push(b'\n');
                }
            }
            let mut expected = bytes.clone();
            if !bytes.is_empty() && !bytes.ends_with(b"\n") {
                expected.push(b'\n');
            }
            prop_assert!(joined == expected);
        }
    }
}
