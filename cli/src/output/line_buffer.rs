//! Assembles the lines of one stream of one node from the pieces that arrive.
//!
//! A line is buffered until it is complete, so that lines of several nodes never mix. There are two exceptions, both
//! marked: a line of more than [`MAX_LINE`] bytes is split, and after a pause the buffered start of a line is shown (a
//! prompt, a progress bar). Lines are never split inside a character.

/// Maximum length of a part of a line, bytes.
pub(super) const MAX_LINE: usize = 256 << 10;

/// Assembles lines.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    /// The part of the current line that was not returned yet.
    buffered: Vec<u8>,
    /// Bytes of the current part that were returned after a pause.
    returned: usize,
    /// Whether the next part continues a line.
    continues: bool,
}

/// A line, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinePart {
    /// The bytes, without the line end.
    pub(super) bytes: Vec<u8>,
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
    /// Adds bytes; returns the parts that are complete. The parts do not depend on how the bytes are divided.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<LinePart> {
        let mut parts = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ends) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            self.buffered.extend_from_slice(piece);
            while self.returned + self.buffered.len() > MAX_LINE {
                let cut = boundary(&self.buffered, MAX_LINE.saturating_sub(self.returned));
                let rest = self.buffered.split_off(cut);
                parts.push(self.part(PartEnd::TooLong));
                self.buffered = rest;
            }
            if ends {
                parts.push(self.part(PartEnd::Newline));
            }
        }
        parts
    }

    /// Number of bytes that [`LineBuffer::flush_paused`] would return.
    pub(super) fn buffered(&self) -> usize {
        whole(&self.buffered)
    }

    /// The buffered part of the current line, after a pause in the input.
    pub(super) fn flush_paused(&mut self) -> Option<LinePart> {
        let whole = whole(&self.buffered);
        if whole == 0 {
            return None;
        }
        let rest = self.buffered.split_off(whole);
        let part = self.part(PartEnd::Paused);
        self.buffered = rest;
        Some(part)
    }

    /// The rest of a line without an end, at the end of the input.
    pub(super) fn finish(&mut self) -> Option<LinePart> {
        if self.buffered.is_empty() && self.returned == 0 {
            self.continues = false;
            return None;
        }
        Some(self.part(PartEnd::Newline))
    }

    fn part(&mut self, end: PartEnd) -> LinePart {
        let part = LinePart { bytes: std::mem::take(&mut self.buffered), continues: self.continues, end };
        self.returned = if end == PartEnd::Paused { self.returned + part.bytes.len() } else { 0 };
        self.continues = end != PartEnd::Newline;
        part
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

    fn pushed(pieces: &[&[u8]]) -> Vec<LinePart> {
        let mut lines = LineBuffer::default();
        let mut parts: Vec<LinePart> = pieces.iter().flat_map(|piece| lines.push(piece)).collect();
        parts.extend(lines.finish());
        parts
    }

    fn line(text: &[u8]) -> LinePart {
        LinePart { bytes: text.to_vec(), continues: false, end: PartEnd::Newline }
    }

    #[test]
    fn a_line_is_split_only_beyond_the_maximum_length() {
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(pushed(&[&longest, b"\n"]), [line(&longest)]);
        let parts = pushed(&[&longest, b"y\n"]);
        let first = LinePart { bytes: longest, continues: false, end: PartEnd::TooLong };
        assert_eq!(parts, [first, LinePart { bytes: b"y".to_vec(), continues: true, end: PartEnd::Newline }]);
    }

    #[test]
    fn bytes_shown_in_a_pause_count_toward_the_maximum_length() {
        let mut lines = LineBuffer::default();
        assert_eq!(lines.push(b"ab"), []);
        assert_eq!(lines.flush_paused().unwrap().bytes, b"ab");
        assert_eq!(lines.flush_paused(), None);
        let parts = lines.push(&vec![b'x'; MAX_LINE]);
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
            assert_eq!(lines.push(bytes), []);
            assert_eq!(lines.buffered(), shown.len());
            assert_eq!(lines.flush_paused().map(|part| part.bytes).unwrap_or_default(), shown, "{bytes:?}");
        }
    }

    #[test]
    fn a_newline_after_a_pause_ends_the_same_line() {
        let mut lines = LineBuffer::default();
        lines.push(b"go? ");
        lines.flush_paused();
        assert_eq!(
            lines.push(b"\nnext\n"),
            [LinePart { bytes: Vec::new(), continues: true, end: PartEnd::Newline }, line(b"next"),]
        );
        assert_eq!(lines.finish(), None);
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
            let mut parts = Vec::new();
            for (index, piece) in divided(&bytes, &at).into_iter().enumerate() {
                parts.extend(lines.push(piece));
                if pauses >> (index % 32) & 1 == 1 {
                    parts.extend(lines.flush_paused());
                }
            }
            parts.extend(lines.finish());
            let mut joined = Vec::new();
            for part in &parts {
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
