//! What we print ourselves: pieces of text, each of which may have a colour.
//!
//! A piece may hold anything, also what a server sent: it is escaped when it is printed, colour is added after that.
//! So there is no text that could reach a terminal without being escaped, and nothing but [`Paint`] can colour it.

use super::color::{Paint, To};
use super::escape::{escaped, one_line};

/// Text for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    paint: Option<Paint>,
    text: String,
}

impl Text {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Begins a line about how it goes.
    pub(crate) fn sentinel() -> Self {
        Self::new().painted(Paint::Faint, "sentinel:").then(" ")
    }

    /// Appends a text.
    #[must_use]
    pub(crate) fn then(mut self, text: impl Into<String>) -> Self {
        self.0.push(Piece { paint: None, text: text.into() });
        self
    }

    /// Appends a text in a colour.
    #[must_use]
    pub(crate) fn painted(mut self, paint: Paint, text: impl Into<String>) -> Self {
        self.0.push(Piece { paint: Some(paint), text: text.into() });
        self
    }

    /// Appends a text in the colour that its word has, if it has one.
    #[must_use]
    pub(crate) fn state(self, word: &str) -> Self {
        match Paint::state(word) {
            Some(paint) => self.painted(paint, word),
            None => self.then(word),
        }
    }

    /// Appends another text.
    #[must_use]
    pub(crate) fn append(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Appends a text whose line ends are shown, for what must be one line.
    #[must_use]
    pub(crate) fn name(self, text: &str) -> Self {
        self.then(one_line(text))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|piece| piece.text.is_empty())
    }

    /// As it goes to a stream: escaped, then coloured where the stream takes colour.
    pub(super) fn render(&self, to: To) -> String {
        let mut shown = String::new();
        for piece in &self.0 {
            let text = escaped(&piece.text);
            match piece.paint {
                Some(paint) => shown.push_str(&paint.on(to, &text)),
                None => shown.push_str(&text),
            }
        }
        shown
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new().then(text)
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::new().then(text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_of_a_text_can_steer_a_terminal() {
        let text =
            Text::sentinel().painted(Paint::Bad, "a\x1b]0;title\x07").then("\u{9b}2J\u{202e}").name("x\ny");
        assert_eq!(text.render(To::Out), "sentinel: a^[]0;title^G\\u{9b}2J\\u{202e}x⏎y");
    }
}
