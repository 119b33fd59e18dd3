//! Escaping of text for a terminal.
//!
//! A command's bytes are data. On a terminal they could move the cursor, change the title, write to the clipboard or
//! imitate our own messages; so every control character but newline and tab, and every character that changes the
//! direction of text, is shown as an escape. In pipes and files the bytes pass unchanged.

use std::fmt::Write as _;

pub(super) use sentinel_protocol::shown::is_safe;
use sentinel_protocol::shown::{escape_into, is_unsafe};
pub(crate) use sentinel_protocol::shown::{escaped, single_line};

/// Escapes bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(crate) struct Escaper {
    /// The incomplete end of the last piece: up to three bytes of a character, or the first half of `\r\n`.
    incomplete: Vec<u8>,
}

impl Escaper {
    /// The next piece, escaped.
    pub(crate) fn push(&mut self, piece: &[u8]) -> String {
        let mut bytes = [std::mem::take(&mut self.incomplete), piece.to_vec()].concat();
        if bytes.ends_with(b"\r") {
            bytes.pop();
            self.incomplete.push(b'\r');
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
                        self.incomplete.splice(0..0, broken.iter().copied());
                        return shown;
                    };
                    shown.push(char::REPLACEMENT_CHARACTER);
                    rest = &broken[len..];
                }
            }
        }
    }

    /// The incomplete rest, at the end of the input.
    pub(crate) fn finish(&mut self) -> String {
        match &std::mem::take(&mut self.incomplete)[..] {
            [] => String::new(),
            b"\r" => "^M".to_owned(),
            _ => char::REPLACEMENT_CHARACTER.to_string(),
        }
    }
}

/// A JSON text with JSON's own escapes for every character that could control a terminal. The value is unchanged:
/// outside of strings, JSON has no such character but line ends.
pub(super) fn json_escaped(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_unsafe(character) && character != '\n' {
            // All of them are in the basic multilingual plane: four hexadecimal digits.
            let _ = write!(shown, "\\u{:04x}", character as u32);
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_split_between_pieces_is_kept() {
        let mut escaper = Escaper::default();
        let bytes = "x日y".as_bytes();
        let shown: String = bytes.iter().map(|byte| escaper.push(&[*byte])).collect();
        assert_eq!(shown, "x日y");
        assert_eq!(escaper.finish(), "");
    }

    #[test]
    fn cr_lf_is_a_line_end_and_a_lone_cr_is_shown() {
        let mut escaper = Escaper::default();
        let shown: String =
            ["50%\r", "100%\r", "\nend\r"].iter().map(|piece| escaper.push(piece.as_bytes())).collect();
        assert_eq!(shown + &escaper.finish(), "50%^M100%\nend^M");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!("\x7f\u{9b}\u{202e}\n");
        let text = json_escaped(&value.to_string());
        assert_eq!(text, "\"\\u007f\\u009b\\u202e\\n\"");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn each_invalid_byte_becomes_a_replacement_character() {
        let mut escaper = Escaper::default();
        assert_eq!(escaper.push(b"a\xff\xfeb\xe6\x97"), "a\u{fffd}\u{fffd}b");
        assert_eq!(escaper.finish(), "\u{fffd}");
    }
}
