//! Colour: on a terminal, unless NO_COLOR says no, or as --color says.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use clap::ValueEnum;

/// When to colour.
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
pub(crate) enum To {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// Sets what --color said; the first call holds.
pub(crate) fn choose(choice: ColorChoice) {
    let _ = CHOICE.set(choice);
}

/// Whether the stream is a terminal.
#[expect(clippy::disallowed_methods, reason = "asks about the streams and writes nothing")]
pub(crate) fn is_terminal(to: To) -> bool {
    match to {
        To::Out => std::io::stdout().is_terminal(),
        To::Err => std::io::stderr().is_terminal(),
    }
}

/// Whether to colour what goes to the stream.
pub(crate) fn is_on(to: To) -> bool {
    match CHOICE.get().copied().unwrap_or(ColorChoice::Auto) {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            !refused && !dumb && is_terminal(to)
        }
    }
}

/// A way to set text apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// It is under way, or wants attention.
    Busy,
    /// It matters less.
    Faint,
    /// It matters more.
    Strong,
    /// One of the colours for nodes.
    Node(u8),
}

/// Colours for nodes: readable on dark and light ground, none of them red or green, which mean something.
const NODES: [&str; 8] = ["36", "34", "35", "33", "96", "94", "95", "93"];

impl Paint {
    /// The colour of a node: the same for the same name, everywhere and always.
    pub(crate) fn node(name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::Node(((hash ^ (hash >> 32)) % NODES.len() as u64) as u8)
    }

    /// The colour of a state, phase or outcome.
    pub(crate) fn state(word: &str) -> Option<Self> {
        Some(match word {
            "Succeeded" | "Complete" | "Ready" | "yes" => Self::Good,
            "Running" | "Dispatched" | "Reconciling" | "WaitingForNode" => Self::Busy,
            "" | "-" | "Pending" | "Suspended" | "NotStarted" | "Skipped" => Self::Faint,
            "Failed" | "Signaled" | "StartFailed" | "StartTimedOut" | "TimedOut" | "IdleTimedOut"
            | "OomKilled" | "Cancelled" | "CancelFailed" | "Refused" | "Interrupted" | "Lost" | "Invalid"
            | "no" => Self::Bad,
            _ => return None,
        })
    }

    /// The text in this colour, where the stream takes colour.
    pub(super) fn on(self, to: To, text: &str) -> String {
        if is_on(to) { self.always(text) } else { text.to_owned() }
    }

    fn always(self, text: &str) -> String {
        let code = match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "33",
            Self::Faint => "2",
            Self::Strong => "1",
            Self::Node(index) => NODES[usize::from(index) % NODES.len()],
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_colour_and_neighbours_differ() {
        assert_eq!(Paint::node("web-1"), Paint::node("web-1"));
        let colours: std::collections::BTreeSet<String> =
            (1..=20).map(|n| Paint::node(&format!("web-{n}")).always("x")).collect();
        assert!(colours.len() >= 5, "only {} colours for 20 nodes", colours.len());
    }
}
