//! What people and programs see: tables, JSON and YAML, lines of commands.
//!
//! Results go to standard output, everything about how it goes to standard error; [`sink`] is the only way there.
//! Colour depends on whether the stream is a terminal, each stream for itself. What we print is always escaped; output
//! of commands is where it goes to a terminal.

pub(crate) mod color;
pub(crate) mod escape;
pub(crate) mod format;
mod lines;
pub(crate) mod printer;
pub(crate) mod sink;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod time;

/// A word as a shell would have to be given it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
