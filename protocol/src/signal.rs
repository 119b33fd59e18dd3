//! Names of signals.

/// A signal for people, as `15 (SIGTERM)`.
pub fn signal_text(signal: i32) -> String {
    match signal_name(signal) {
        Some(name) => format!("{signal} ({name})"),
        None => signal.to_string(),
    }
}

/// The Linux name of a signal number, the same on every architecture that is built for. `None` for real-time signals.
///
/// Source: `signal(7)`.
pub fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal).ok()?.checked_sub(1).and_then(|at| NAMES.get(at)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_linux_signals() {
        let names = [1, 9, 15, 31].map(signal_name);
        assert_eq!(names, [Some("SIGHUP"), Some("SIGKILL"), Some("SIGTERM"), Some("SIGSYS")]);
        assert_eq!([0, 32, 64, -1, i32::MIN].map(signal_name), [None; 5]);
    }
}
