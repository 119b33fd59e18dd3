//! The lines of one stream of one node, put together from pieces that come as they come.
//!
//! A line is held back until it is complete, so that lines of several nodes are never mixed. There are two exceptions,
//! and both are marked: a line of more than [`MAX_LINE`] bytes is shown in parts, and what was held back for a moment
//! is shown though its line goes on (a prompt, a progress bar). No part begins or ends inside a character.

/// Longest part of a line, bytes.
pub(super) const MAX_LINE: usize = 256 << 10;

/// Puts lines together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// What is not shown yet of the line that comes.
    held: Vec<u8>,
    /// Bytes that were shown of this part of the line already.
    shown: usize,
    /// Whether what comes next continues a line of which a part was shown.
    continues: bool,
}

/// A part of a line, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Its bytes, without the line end.
    pub(super) bytes: Vec<u8>,
    /// Whether a part of the same line was shown before.
    pub(super) continues: bool,
    /// What follows it.
    pub(super) end: PartEnd,
}

/// What follows a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartEnd {
    /// The line ends here.
    Line,
    /// The line goes on; it is too long to be one part.
    Cut,
    /// The line goes on; no more of it has come so far.
    Open,
}

impl Lines {
    /// Takes bytes in, and gives the parts that can be shown now. The same bytes give the same parts, however they are
    /// divided.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Part> {
        let mut parts = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ends) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            self.held.extend_from_slice(piece);
            while self.shown + self.held.len() > MAX_LINE {
                let cut = boundary(&self.held, MAX_LINE.saturating_sub(self.shown));
                let rest = self.held.split_off(cut);
                parts.push(self.part(PartEnd::Cut));
                self.held = rest;
            }
            if ends {
                parts.push(self.part(PartEnd::Line));
            }
        }
        parts
    }

    /// Bytes that [`Lines::pause`] would show.
    pub(super) fn holding(&self) -> usize {
        whole(&self.held)
    }

    /// What can be shown of the line that has not ended, because nothing has come for a moment.
    pub(super) fn pause(&mut self) -> Option<Part> {
        let whole = whole(&self.held);
        if whole == 0 {
            return None;
        }
        let rest = self.held.split_off(whole);
        let part = self.part(PartEnd::Open);
        self.held = rest;
        Some(part)
    }

    /// What is left of a line that was never ended.
    pub(super) fn finish(&mut self) -> Option<Part> {
        if self.held.is_empty() && self.shown == 0 {
            self.continues = false;
            return None;
        }
        Some(self.part(PartEnd::Line))
    }

    fn part(&mut self, end: PartEnd) -> Part {
        let part = Part { bytes: std::mem::take(&mut self.held), continues: self.continues, end };
        self.shown = if end == PartEnd::Open { self.shown + part.bytes.len() } else { 0 };
        self.continues = end != PartEnd::Line;
        part
    }
}

/// The largest position up to `at` that is not inside a character.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let starts = |position: &usize| bytes.get(*position).is_none_or(|byte| byte & 0xc0 != 0x80);
    // No character is longer than four bytes; what has no beginning within that is not text.
    (at.saturating_sub(3)..=at).rev().find(starts).unwrap_or(at)
}

/// Length of what can be shown: without the beginning of a character at the end, and without a carriage return that
/// may be the first half of a line end.
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

    fn pushed(pieces: &[&[u8]]) -> Vec<Part> {
        let mut lines = Lines::default();
        let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| lines.push(piece)).collect();
        parts.extend(lines.finish());
        parts
    }

    fn line(text: &[u8]) -> Part {
        Part { bytes: text.to_vec(), continues: false, end: PartEnd::Line }
    }

    #[test]
    fn a_line_of_the_longest_length_is_whole_and_one_byte_more_makes_two_parts() {
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(pushed(&[&longest, b"\n"]), [line(&longest)]);
        let parts = pushed(&[&longest, b"y\n"]);
        let first = Part { bytes: longest, continues: false, end: PartEnd::Cut };
        assert_eq!(parts, [first, Part { bytes: b"y".to_vec(), continues: true, end: PartEnd::Line }]);
    }

    #[test]
    fn what_was_shown_in_a_pause_counts_towards_the_longest_part() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"ab"), []);
        assert_eq!(lines.pause().unwrap().bytes, b"ab");
        assert_eq!(lines.pause(), None);
        let parts = lines.push(&vec![b'x'; MAX_LINE]);
        assert_eq!((parts.len(), parts[0].bytes.len(), parts[0].continues), (1, MAX_LINE - 2, true));
    }

    #[test]
    fn a_pause_shows_no_half_of_a_character_or_of_a_line_end() {
        for (bytes, shown) in [
            (&b"Password: "[..], &b"Password: "[..]),
            (b"50%\r", b"50%"),
            ("日本".as_bytes(), "日本".as_bytes()),
            (&"日本".as_bytes()[..5], "日".as_bytes()),
            (b"a\xff\xfe", b"a\xff\xfe"),
            (b"\xf0\x9f\x98", b""),
        ] {
            let mut lines = Lines::default();
            assert_eq!(lines.push(bytes), []);
            assert_eq!(lines.holding(), shown.len());
            assert_eq!(lines.pause().map(|part| part.bytes).unwrap_or_default(), shown, "{bytes:?}");
        }
    }

    #[test]
    fn an_end_after_a_pause_ends_the_line_and_is_not_another_one() {
        let mut lines = Lines::default();
        lines.push(b"go? ");
        lines.pause();
        assert_eq!(
            lines.push(b"\nnext\n"),
            [Part { bytes: Vec::new(), continues: true, end: PartEnd::Line }, line(b"next"),]
        );
        assert_eq!(lines.finish(), None);
    }

    /// Long lines of one to four bytes a character, with line ends here and there; or any bytes.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec!["x", "é", "日", "😀", "\n", "\r\n", "word "]);
        let text = prop::collection::vec((words, 1..40_000_usize), 1..12).prop_map(|runs| {
            runs.into_iter()
                .flat_map(|(word, times)| {
                    // A line end is not repeated: lines are to be long.
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
        fn any_division_of_the_bytes_gives_the_same_parts(
            bytes in output(),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            prop_assert!(pushed(&divided(&bytes, &at)) == pushed(&[&bytes]));
        }

        #[test]
        fn parts_put_together_are_the_output_and_none_is_too_long_or_cuts_a_character(
            bytes in output(),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            pauses in any::<u32>(),
        ) {
            let mut lines = Lines::default();
            let mut parts = Vec::new();
            for (index, piece) in divided(&bytes, &at).into_iter().enumerate() {
                parts.extend(lines.push(piece));
                if pauses >> (index % 32) & 1 == 1 {
                    parts.extend(lines.pause());
                }
            }
            parts.extend(lines.finish());
            let mut joined = Vec::new();
            for part in &parts {
                prop_assert!(part.bytes.len() <= MAX_LINE);
                prop_assert!(std::str::from_utf8(&bytes).is_err() || std::str::from_utf8(&part.bytes).is_ok());
                joined.extend_from_slice(&part.bytes);
                if part.end == PartEnd::Line {
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
