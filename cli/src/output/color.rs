//! Colors: on a terminal, unless NO_COLOR is set, or as --color requests.

use std::io::IsTerminal as _;

use anstream::AutoStream;
use anstyle::AnsiColor;
use clap::ValueEnum;

/// When to use colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// One of our two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StdStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Sets the choice of --color for the process.
pub(crate) fn choose(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Whether the stream is a terminal.
#[expect(clippy::disallowed_methods, reason = "inspects the streams and writes nothing")]
pub(crate) fn is_terminal(stream: StdStream) -> bool {
    match stream {
        StdStream::Out => std::io::stdout().is_terminal(),
        StdStream::Err => std::io::stderr().is_terminal(),
    }
}

/// Whether text on the stream is colored: by --color, the usual environment variables, and whether it is a terminal.
#[expect(clippy::disallowed_methods, reason = "inspects the streams and writes nothing")]
fn is_colored(stream: StdStream) -> bool {
    let choice = match stream {
        StdStream::Out => AutoStream::choice(&std::io::stdout()),
        StdStream::Err => AutoStream::choice(&std::io::stderr()),
    };
    choice != anstream::ColorChoice::Never
}

/// The style of a text, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Success.
    Success,
    /// Failure.
    Error,
    /// In progress, or needs attention.
    Warning,
    /// Secondary.
    Dim,
    /// Emphasized.
    Bold,
    /// One of [`NODE_COLORS`].
    Node(u8),
}

/// Colors of nodes: readable on dark and light backgrounds. None is red or green, which mean failure and success.
const NODE_COLORS: [AnsiColor; 8] = [
    AnsiColor::Cyan,
    AnsiColor::Blue,
    AnsiColor::Magenta,
    AnsiColor::Yellow,
    AnsiColor::BrightCyan,
    AnsiColor::BrightBlue,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightYellow,
];

impl Style {
    /// The color of a node, derived from its name so that it never changes.
    pub(crate) fn node(name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::Node(((hash ^ (hash >> 32)) % NODE_COLORS.len() as u64) as u8)
    }

    /// The style of a state, phase or outcome.
    pub(crate) fn state(state: &str) -> Option<Self> {
        Some(match state {
            "Succeeded" | "Complete" | "Ready" | "yes" => Self::Success,
            "Running" | "Dispatched" | "Reconciling" | "WaitingForNode" => Self::Warning,
            "" | "-" | "Pending" | "Suspended" | "NotStarted" | "Skipped" => Self::Dim,
            "Failed" | "Signaled" | "StartFailed" | "StartTimedOut" | "TimedOut" | "IdleTimedOut"
            | "OomKilled" | "Cancelled" | "CancelFailed" | "Refused" | "Interrupted" | "Lost" | "Invalid"
            | "no" => Self::Error,
            _ => return None,
        })
    }

    /// The text in this style, if the stream is colored.
    pub(super) fn render(self, stream: StdStream, text: &str) -> String {
        if is_colored(stream) { self.always(text) } else { text.to_owned() }
    }

    fn always(self, text: &str) -> String {
        let style = match self {
            Self::Success => AnsiColor::Green.on_default(),
            Self::Error => AnsiColor::Red.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Dim => anstyle::Style::new().dimmed(),
            Self::Bold => anstyle::Style::new().bold(),
            Self::Node(index) => NODE_COLORS[usize::from(index) % NODE_COLORS.len()].on_default(),
        };
        format!("{style}{text}{style:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_color_and_neighbors_differ() {
        assert_eq!(Style::node("web-1"), Style::node("web-1"));
        let colors: std::collections::BTreeSet<String> =
            (1..=20).map(|n| Style::node(&format!("web-{n}")).always("x")).collect();
        assert!(colors.len() >= 5, "only {} colors for 20 nodes", colors.len());
    }

    #[test]
    fn a_style_is_reset_after_its_text() {
        assert_eq!(Style::Error.always("no"), "\x1b[31mno\x1b[0m");
    }
}
