//! Progress, for people.

/// Prints a line of progress.
pub(super) fn note(what: &str) {
    eprintln!("bench: {what} (load {})", load());
}

/// Load average of the machine, for the notes.
pub(super) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
