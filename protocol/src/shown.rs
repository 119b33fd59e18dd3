//! Text from elsewhere, as it is shown to people. A terminal would follow the control characters in it: they move the cursor,
//! color text, or begin a line that imitates ours.

use std::fmt::Write as _;

/// A whole text, escaped.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    escape_into(&mut shown, text);
    shown
}

/// A text escaped to one line, for a name, a cell or a message: line ends are shown as `⏎`.
pub fn single_line(text: &str) -> String {
    escaped(text).replace('\n', "⏎").replace('\t', " ")
}

/// Whether the text has no character that [`escaped`] would change.
pub fn is_safe(text: &str) -> bool {
    !text.chars().any(|character| is_unsafe(character) && character != '\n' && character != '\t')
}

/// Control characters, direction marks and overrides, invisible separators.
pub fn is_unsafe(character: char) -> bool {
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

/// Appends a text, escaped.
pub fn escape_into(shown: &mut String, text: &str) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if text.as_bytes().iter().all(is_plain) {
        return shown.push_str(text);
    }
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => shown.push(character),
            // CR LF is a line end.
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
    fn control_characters_are_shown_as_escapes() {
        assert_eq!(escaped("a\x1b[31mb\x07\r\n\tc\x7f"), "a^[[31mb^G\n\tc^?");
        assert_eq!(escaped("\u{9b}2J \u{202e}abc"), "\\u{9b}2J \\u{202e}abc");
        assert_eq!(escaped("ä→日"), "ä→日");
    }

    #[test]
    fn a_name_stays_on_one_line() {
        assert_eq!(single_line("a\nb\tc\x1b"), "a⏎b c^[");
    }
}
