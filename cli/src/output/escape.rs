//! Output of commands on a terminal: what would steer the terminal is shown instead.
//!
//! A command's bytes are data. On a terminal they could move the cursor, change the title, write to the clipboard
//! or make text look as if we had said it; so every control character but newline and tab, and every character
//! that turns the direction of text, is shown escaped. Anywhere else the bytes pass as they are.

use std::fmt::Write as _;

/// Makes bytes that come in pieces harmless.
#[derive(Debug, Default)]
pub(crate) struct Escaper {
    /// What the last piece cut: the beginning of a character, at most three bytes, or the first half of `\r\n`.
    cut: Vec<u8>,
}

impl Escaper {
    /// The next piece, as it may be shown.
    pub(crate) fn push(&mut self, piece: &[u8]) -> String {
        let mut bytes = [std::mem::take(&mut self.cut), piece.to_vec()].concat();
        if bytes.ends_with(b"\r") {
            bytes.pop();
            self.cut.push(b'\r');
        }
        let mut shown = String::with_capacity(bytes.len());
        let mut rest = &bytes[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    escape_into(&mut shown, text);
                    return shown;
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    escape_into(&mut shown, std::str::from_utf8(valid).unwrap_or(""));
                    let Some(len) = error.error_len() else {
                        self.cut.splice(0..0, broken.iter().copied());
                        return shown;
                    };
                    shown.push(char::REPLACEMENT_CHARACTER);
                    rest = &broken[len..];
                }
            }
        }
    }

    /// What is left when no more comes.
    pub(crate) fn finish(&mut self) -> String {
        match &std::mem::take(&mut self.cut)[..] {
            [] => String::new(),
            b"\r" => "^M".to_owned(),
            _ => char::REPLACEMENT_CHARACTER.to_string(),
        }
    }
}

/// A whole text, as it may be shown.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    escape_into(&mut shown, text);
    shown
}

/// A text on one line, for a name or a cell: line ends are shown too.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text).replace('\n', "⏎").replace('\t', " ")
}

/// Whether no character of the text could steer a terminal.
pub(super) fn is_safe(text: &str) -> bool {
    !text.chars().any(|character| is_unsafe(character) && character != '\n' && character != '\t')
}

/// A JSON text whose strings have JSON's own escapes in place of every character that could steer a terminal. Outside
/// of its strings JSON has none of them but line ends.
pub(super) fn json_escaped(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_unsafe(character) && character != '\n' {
            // Every one of them has at most four hexadecimal digits.
            let _ = write!(shown, "\\u{:04x}", character as u32);
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Control characters, marks and overrides of direction, invisible separators.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

fn escape_into(shown: &mut String, text: &str) {
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => shown.push(character),
            // The end of a line as others write it.
            '\r' if characters.peek() == Some(&'\n') => {}
            '\0'..='\x1f' => {
                shown.push('^');
                shown.push((character as u8 + 0x40) as char);
            }
            '\x7f' => shown.push_str("^?"),
            _ if is_unsafe(character) => {
                let _ = write!(shown, "\\u{{{:x}}}", character as u32);
            }
            _ => shown.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(escaped("a\x1b[31mb\x07\r\n\tc\x7f"), "a^[[31mb^G\n\tc^?");
        assert_eq!(escaped("\u{9b}2J \u{202e}abc"), "\\u{9b}2J \\u{202e}abc");
        assert_eq!(escaped("ä→日"), "ä→日");
    }

    #[test]
    fn a_character_cut_by_a_piece_is_shown_whole() {
        let mut escaper = Escaper::default();
        let bytes = "x日y".as_bytes();
        let shown: String = bytes.iter().map(|byte| escaper.push(&[*byte])).collect();
        assert_eq!(shown, "x日y");
        assert_eq!(escaper.finish(), "");
    }

    #[test]
    fn a_line_may_end_as_others_write_it_and_a_lone_return_is_shown() {
        let mut escaper = Escaper::default();
        let shown: String =
            ["50%\r", "100%\r", "\nend\r"].iter().map(|piece| escaper.push(piece.as_bytes())).collect();
        assert_eq!(shown + &escaper.finish(), "50%^M100%\nend^M");
    }

    #[test]
    fn a_name_is_one_line_and_json_keeps_its_value() {
        assert_eq!(one_line("a\nb\tc\x1b"), "a⏎b c^[");
        let value = serde_json::json!("\x7f\u{9b}\u{202e}\n");
        let text = json_escaped(&value.to_string());
        assert_eq!(text, "\"\\u007f\\u009b\\u202e\\n\"");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn bytes_that_are_no_text_are_one_mark_each() {
        let mut escaper = Escaper::default();
        assert_eq!(escaper.push(b"a\xff\xfeb\xe6\x97"), "a\u{fffd}\u{fffd}b");
        assert_eq!(escaper.finish(), "\u{fffd}");
    }
}
