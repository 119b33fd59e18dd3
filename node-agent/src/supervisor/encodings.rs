//! The ways in which a value may be written in output, and how each is read.
//!
//! Output is decoded, rather than values encoded: an encoder may choose what it escapes, where it ends lines and which case its digits
//! have, and all of that reads as the same bytes. Reading begins anywhere and depends on nothing before, so that it does not matter in
//! which pieces output arrives.

/// A way of writing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// In hexadecimal, with digits of either case.
    Hex,
    /// In either alphabet of base64. The first character has this many bits of what is before.
    Base64 { before: u32 },
    /// As in a URL: any bytes may be escaped.
    Percent,
    /// As in a form, which has `+` for a space.
    Form,
    /// As in a string of JSON: any characters may be escaped.
    Json,
}

impl Encoding {
    pub(super) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Hex,
        Self::Base64 { before: 0 },
        Self::Base64 { before: 2 },
        Self::Base64 { before: 4 },
        Self::Percent,
        Self::Form,
        Self::Json,
    ];

    /// Whether this output may read differently than in another encoding.
    pub(super) fn occurs_in(self, output: &[u8]) -> bool {
        match self {
            Self::Plain | Self::Hex | Self::Base64 { .. } => true,
            Self::Percent => output.contains(&b'%'),
            Self::Form => output.contains(&b'+'),
            Self::Json => output.contains(&b'\\'),
        }
    }
}

/// What is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A byte.
    Byte(u8),
    /// The output ends before a byte is complete: so many of its bits are known.
    Unfinished { bits: u8, count: u32 },
    /// Something that this encoding does not have.
    Other,
}

/// Where what was read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The place in the output.
    pub(super) at: usize,
    /// Whether more padding may follow.
    pub(super) is_open: bool,
}

/// Reads output from one place on.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    encoding: Encoding,
    output: &'a [u8],
    start: usize,
    at: usize,
    /// Digits that were read.
    digits: u32,
    /// The bits that were read and not returned, and their number.
    bits: u32,
    count: u32,
}

/// Whether there are more bits.
enum More {
    Yes,
    Unfinished,
    Other,
}

impl<'a> Reader<'a> {
    pub(super) fn new(encoding: Encoding, output: &'a [u8], start: usize) -> Self {
        Self { encoding, output, start, at: start, digits: 0, bits: 0, count: 0 }
    }

    /// The next byte.
    pub(super) fn next(&mut self) -> Next {
        while self.count < 8 {
            let more = match self.encoding {
                Encoding::Plain => self.plain(),
                Encoding::Hex | Encoding::Base64 { .. } => self.digit(),
                Encoding::Percent | Encoding::Form => self.percent(),
                Encoding::Json => self.json(),
            };
            match more {
                More::Yes => {}
                More::Unfinished => return Next::Unfinished { bits: self.bits as u8, count: self.count },
                More::Other => return Next::Other,
            }
        }
        self.count -= 8;
        let byte = (self.bits >> self.count) as u8;
        self.bits &= (1 << self.count) - 1;
        Next::Byte(byte)
    }

    /// Where the bytes so far end, with the padding of base64.
    pub(super) fn end(&self) -> End {
        let Encoding::Base64 { before } = self.encoding else { return End { at: self.at, is_open: false } };
        let most = match (before / 2 + self.digits) % 4 {
            2 => 2,
            3 => 1,
            _ => 0,
        };
        let padding = self.output[self.at..].iter().take(most).take_while(|byte| **byte == b'=').count();
        let at = self.at + padding;
        End { at, is_open: padding < most && at == self.output.len() }
    }

    fn push(&mut self, bits: u32, count: u32) -> More {
        self.bits = self.bits << count | bits;
        self.count += count;
        More::Yes
    }

    fn plain(&mut self) -> More {
        let Some(byte) = self.output.get(self.at) else { return More::Unfinished };
        self.at += 1;
        self.push(u32::from(*byte), 8)
    }

    fn digit(&mut self) -> More {
        let mut at = self.at;
        if at > self.start {
            // A line may end between two digits.
            match &self.output[at..] {
                [b'\n', ..] => at += 1,
                [b'\r', b'\n', ..] => at += 2,
                [b'\r'] => return More::Unfinished,
                _ => {}
            }
        }
        let Some(byte) = self.output.get(at) else { return More::Unfinished };
        let (values, width, before) = match self.encoding {
            Encoding::Base64 { before } => (&SEXTETS, 6, before),
            _ => (&NIBBLES, 4, 0),
        };
        let value = u32::from(values[usize::from(*byte)]);
        if value == u32::from(NO_DIGIT) {
            return More::Other;
        }
        self.at = at + 1;
        self.digits += 1;
        let known = if self.digits == 1 { width - before } else { width };
        self.push(value & ((1 << known) - 1), known)
    }

    fn percent(&mut self) -> More {
        let nibble = |byte: u8| Some(NIBBLES[usize::from(byte)]).filter(|nibble| *nibble != NO_DIGIT);
        match &self.output[self.at..] {
            [b'%'] => More::Unfinished,
            [b'%', high] => match nibble(*high) {
                Some(high) => {
                    // This is the end: the place does not matter any more.
                    self.push(high.into(), 4);
                    More::Unfinished
                }
                None => More::Other,
            },
            [b'%', high, low, ..] => match (nibble(*high), nibble(*low)) {
                (Some(high), Some(low)) => {
                    self.at += 3;
                    self.push((high << 4 | low).into(), 8)
                }
                _ => More::Other,
            },
            [b'+', ..] if self.encoding == Encoding::Form => {
                self.at += 1;
                self.push(b' '.into(), 8)
            }
            _ => self.plain(),
        }
    }

    fn json(&mut self) -> More {
        let character = match &self.output[self.at..] {
            [b'\\'] => return More::Unfinished,
            [b'\\', b'u', ..] => return self.json_unit(),
            [b'\\', escape, ..] => match escape {
                b'"' | b'\\' | b'/' => *escape,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                _ => return More::Other,
            },
            _ => return self.plain(),
        };
        self.at += 2;
        self.push(character.into(), 8)
    }

    /// A character as `\u` and four digits, or as two of them.
    fn json_unit(&mut self) -> More {
        let mut units = [0; 2];
        let mut at = self.at;
        for number in 0..2 {
            for expected in *b"\\u" {
                match self.output.get(at) {
                    Some(byte) if *byte == expected => at += 1,
                    Some(_) => return More::Other,
                    None => return More::Unfinished,
                }
            }
            for _ in 0..4 {
                let Some(byte) = self.output.get(at) else { return More::Unfinished };
                let digit = NIBBLES[usize::from(*byte)];
                if digit == NO_DIGIT {
                    return More::Other;
                }
                units[number] = units[number] << 4 | u16::from(digit);
                at += 1;
            }
            match char::decode_utf16(units[..=number].iter().copied()).next() {
                Some(Ok(character)) => {
                    self.at = at;
                    let mut utf8 = [0; 4];
                    for byte in character.encode_utf8(&mut utf8).bytes() {
                        self.push(byte.into(), 8);
                    }
                    return More::Yes;
                }
                // The first half of a character.
                Some(Err(_)) if number == 0 && (0xD800..0xDC00).contains(&units[0]) => {}
                _ => return More::Other,
            }
        }
        More::Other
    }
}

/// In place of the value of a digit.
const NO_DIGIT: u8 = 255;
const NIBBLES: [u8; 256] = values(&[b"0123456789abcdef", b"0123456789ABCDEF"]);
const SEXTETS: [u8; 256] = values(&[
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
]);

/// What each byte is as a digit.
const fn values(alphabets: &[&[u8]]) -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut which = 0;
    while which < alphabets.len() {
        let mut value = 0;
        while value < alphabets[which].len() {
            values[alphabets[which][value] as usize] = value as u8;
            value += 1;
        }
        which += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(encoding: Encoding, output: &[u8]) -> (Vec<u8>, Next) {
        let (mut reader, mut bytes) = (Reader::new(encoding, output, 0), Vec::new());
        loop {
            match reader.next() {
                Next::Byte(byte) => bytes.push(byte),
                other => return (bytes, other),
            }
        }
    }

    #[test]
    fn reads_what_encoders_write() {
        let text = "aÖ/\"& 😀";
        for (encoding, output) in [
            (Encoding::Plain, text),
            (Encoding::Hex, "61c3962f222620f09f9880"),
            (Encoding::Hex, "61C3962F22\n2620F09F988\r\n0"),
            (Encoding::Base64 { before: 0 }, "YcOWLyImIPCfmIA="),
            (Encoding::Base64 { before: 0 }, "YcOWLy\nImIPCf\r\nmIA"),
            (Encoding::Base64 { before: 2 }, "2HDli8iJiDwn5iA"),
            (Encoding::Base64 { before: 4 }, "hhw5YvIiYg8J-YgA"),
            (Encoding::Percent, "a%C3%96/%22%26%20%f0%9F%98%80"),
            (Encoding::Percent, "%61Ö%2f\"& 😀"),
            (Encoding::Form, "a%c3%96%2F%22%26+%f0%9F%98%80"),
            (Encoding::Json, "a\\u00d6\\/\\\"\\u0026 \\ud83d\\uDE00"),
            (Encoding::Json, "\\u0061Ö/\\u0022& 😀"),
        ] {
            let (bytes, _) = read(encoding, output.as_bytes());
            assert_eq!(String::from_utf8_lossy(&bytes), text, "{output}");
        }
    }

    #[test]
    fn knows_whether_more_may_follow() {
        let unfinished = |bits, count| Next::Unfinished { bits, count };
        for (encoding, output, next) in [
            (Encoding::Hex, "6", unfinished(6, 4)),
            (Encoding::Hex, "61\r", unfinished(0, 0)),
            (Encoding::Hex, "61 ", Next::Other),
            (Encoding::Hex, "61\n\n61", Next::Other),
            (Encoding::Base64 { before: 4 }, "/", unfinished(3, 2)),
            (Encoding::Percent, "a%", unfinished(0, 0)),
            (Encoding::Percent, "a%C", unfinished(12, 4)),
            (Encoding::Percent, "a%x", Next::Other),
            (Encoding::Json, "a\\u00d", unfinished(0, 0)),
            (Encoding::Json, "\\ud83d\\", unfinished(0, 0)),
            (Encoding::Json, "\\ud83d\\u0041", Next::Other),
            (Encoding::Json, "\\ude00", Next::Other),
            (Encoding::Json, "\\x41", Next::Other),
        ] {
            assert_eq!(read(encoding, output.as_bytes()).1, next, "{output}");
        }
    }
}
