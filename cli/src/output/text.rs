//! Our own text: fragments, each with or without a style.
//!
//! A fragment may hold anything, including what a server sent: rendering escapes it first and adds the style after
//! that. So no text reaches a terminal unescaped, and nothing but [`Style`] can color it.

use super::color::{StdStream, Style};
use super::escape::{escaped, single_line};

/// Text for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text {
    fragments: Vec<Fragment>,
    /// Whether line ends in it are shown, as those of a message are: what it is about could otherwise begin a line that imitates
    /// one of ours.
    is_line: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fragment {
    style: Option<Style>,
    text: String,
}

impl Text {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Starts a message with `sentinel:`, which sets it apart from output of commands. It has one line, whatever is appended.
    pub(crate) fn message() -> Self {
        Self { is_line: true, ..Self::advice() }
    }

    /// Starts the same with a text of ours, which may have several lines.
    pub(crate) fn advice() -> Self {
        Self::new().styled(Style::Dim, "sentinel:").plain(" ")
    }

    /// Starts an error message with `sentinel:`.
    pub(crate) fn error() -> Self {
        Self::new().styled(Style::Error, "sentinel:").plain(" ")
    }

    /// Appends a text without a style.
    #[must_use]
    pub(crate) fn plain(mut self, text: impl Into<String>) -> Self {
        self.fragments.push(Fragment { style: None, text: text.into() });
        self
    }

    /// Appends a text with a style.
    #[must_use]
    pub(crate) fn styled(mut self, style: Style, text: impl Into<String>) -> Self {
        self.fragments.push(Fragment { style: Some(style), text: text.into() });
        self
    }

    /// Appends a state, phase or outcome in its style.
    #[must_use]
    pub(crate) fn state(self, state: &str) -> Self {
        match Style::state(state) {
            Some(style) => self.styled(style, single_line(state)),
            None => self.single_line(state),
        }
    }

    /// Appends another text.
    #[must_use]
    pub(crate) fn append(mut self, other: Self) -> Self {
        self.fragments.extend(other.fragments);
        self
    }

    /// Appends a text with its line ends shown, so that it stays on one line.
    #[must_use]
    pub(crate) fn single_line(self, text: &str) -> Self {
        self.plain(single_line(text))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fragments.iter().all(|fragment| fragment.text.is_empty())
    }

    /// The text for a stream: escaped, then styled if the stream is colored.
    pub(super) fn render(&self, stream: StdStream) -> String {
        let mut rendered = String::new();
        for fragment in &self.fragments {
            let text = if self.is_line { single_line(&fragment.text) } else { escaped(&fragment.text) };
            match fragment.style {
                Some(style) => rendered.push_str(&style.render(stream, &text)),
                None => rendered.push_str(&text),
            }
        }
        rendered
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new().plain(text)
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::new().plain(text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fragment_is_escaped() {
        let text = Text::message()
            .styled(Style::Error, "a\x1b]0;title\x07")
            .plain("\u{9b}2J\u{202e}")
            .single_line("x\ny");
        assert_eq!(text.render(StdStream::Out), "sentinel: a^[]0;title^G\\u{9b}2J\\u{202e}x⏎y");
    }

    #[test]
    fn a_message_has_one_line() {
        let text = Text::message().plain("a\nb").append(Text::new().plain("\nc")).state("\nd");
        assert_eq!(text.render(StdStream::Err), "sentinel: a⏎b⏎c⏎d");
        assert_eq!(Text::advice().plain("a\nb").render(StdStream::Err), "sentinel: a\nb");
    }
}
