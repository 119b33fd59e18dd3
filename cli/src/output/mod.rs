//! What people and programs read: tables, JSON and YAML, output of commands.
//!
//! Results go to standard output, messages about progress to standard error; [`sink`] is the only module that writes.
//! Colors depend on whether the stream is a terminal, separately for each stream. Our own text is always escaped;
//! output of commands is escaped on a terminal.

pub(crate) mod color;
pub(crate) mod escape;
pub(crate) mod format;
mod line_buffer;
pub(crate) mod printer;
pub(crate) mod sink;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod time;

use unicode_width::UnicodeWidthStr as _;

/// An argument quoted for a shell, if it needs quotes.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A number with its noun: `1 node`, `2 nodes`, `3 processes`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ if noun.ends_with('s') => format!("{count} {noun}es"),
        _ => format!("{count} {noun}s"),
    }
}

/// The text, padded with spaces to a width in columns of a terminal.
pub(crate) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_agrees_with_its_number() {
        let texts = [counted(0, "node"), counted(1, "node"), counted(2, "node"), counted(3, "process")];
        assert_eq!(texts, ["0 nodes", "1 node", "2 nodes", "3 processes"]);
        assert_eq!(counted(1, "process"), "1 process");
    }
}
