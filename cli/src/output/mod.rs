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

/// The text, padded with spaces to a width in columns of a terminal.
pub(crate) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}
