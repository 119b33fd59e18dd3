//! Nodes in sentences for people.

use sentinel_protocol::ids::NodeName;

/// Names in a sentence.
const NAMED: usize = 3;

/// How many nodes.
pub(super) fn nodes(count: usize) -> String {
    format!("{count} {}", if count == 1 { "node" } else { "nodes" })
}

/// The first names, and how many there are more.
pub(super) fn examples(names: &[&NodeName]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(|name| name.as_str()).collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
