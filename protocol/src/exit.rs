//! What a command did at its end, kept beside every [`Outcome`]: the Outcome is the verdict, this is the evidence.

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{MAX_LEFT_PROCESSES, MAX_PROCESS_NAME};
use crate::outcome::Outcome;
use crate::text;

/// What the processes of a command did at its end. Everything is optional: a command that never started did nothing,
/// and an agent of an older release sends none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitDetails {
    /// Exit code of the command's main process, where it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Number of the signal that ended the main process, where one did, no matter who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether we had to send KILL: something of the command's tree was still there `timeouts.grace` after TERM, or
    /// its supervisor was gone and no grace was given.
    #[serde(default, skip_serializing_if = "is_false")]
    pub killed: bool,
    /// The clock that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockEnd>,
    /// Processes that were still there after the main process had ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftBehind>,
    /// Set when another process still held the output open: how long after the main process's end our side was
    /// closed, milliseconds. What is written to it later is lost.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text::maybe_count")]
    pub output_held_ms: Option<u64>,
}

/// A clock that was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockEnd {
    /// Which one.
    pub name: Clock,
    /// How long it had been counted when it was over, milliseconds: for `run` and `total` from the start of the
    /// command, for `idle` from its last output, for `start` from the moment the node accepted it. Where the operator concludes that the command was not
    /// started, `start` counts from the node's turn in the Run and `total` from the Run's start.
    #[serde(deserialize_with = "text::count")]
    pub after_ms: u64,
}

/// One of the clocks in `spec.timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Clock {
    /// `timeouts.start`.
    Start,
    /// `timeouts.run`.
    Run,
    /// `timeouts.idle`.
    Idle,
    /// `timeouts.total`.
    Total,
}

impl Clock {
    /// The field of the Task that sets it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Start => "timeouts.start",
            Self::Run => "timeouts.run",
            Self::Idle => "timeouts.idle",
            Self::Total => "timeouts.total",
        }
    }
}

/// Processes that outlived the main process of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftBehind {
    /// How many there were.
    pub count: u32,
    /// What became of them.
    pub fate: Fate,
    /// Some of them, at most [`MAX_LEFT_PROCESSES`].
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "text::first::<_, _, MAX_LEFT_PROCESSES>"
    )]
    pub processes: Vec<LeftProcess>,
}

/// What became of processes that outlived the main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fate {
    /// They were ended: TERM, after `timeouts.grace` KILL.
    Ended,
    /// They were left running, as `run.leftovers: Keep` asks.
    Kept,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftProcess {
    /// Its process id on the node.
    pub pid: i32,
    /// Its name as the kernel has it, at most [`MAX_PROCESS_NAME`] bytes.
    #[serde(deserialize_with = "short_name")]
    pub name: String,
}

fn short_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut name = String::deserialize(deserializer)?;
    name.truncate(name.floor_char_boundary(MAX_PROCESS_NAME));
    name.shrink_to_fit();
    Ok(name)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl ExitDetails {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The details of a command that was ended, or not started, because a clock was over.
    pub fn clock(name: Clock, after_ms: u64) -> Self {
        Self { clock: Some(ClockEnd { name, after_ms }), ..Self::default() }
    }

    /// The exit code that belongs to this Outcome: the Outcome's own, else that of the main process.
    pub fn exit_code(&self, outcome: &Outcome) -> Option<u8> {
        outcome.exit_code().or(self.code)
    }
}

/// One sentence for people: the Outcome, and what the command did at its end where the Outcome does not say it.
pub fn describe(outcome: &Outcome, exit: &ExitDetails) -> String {
    let mut text =
        exit.clock.and_then(|clock| timed_out(outcome, clock)).unwrap_or_else(|| outcome.message());
    if let Some(how) = how_it_ended(outcome, exit) {
        text.push_str("; ");
        text.push_str(&how);
    }
    if let Some(left) = &exit.left {
        text.push_str("; ");
        text.push_str(&left.to_string());
    }
    if let Some(held) = exit.output_held_ms {
        text.push_str("; output held open by another process, closed after ");
        text.push_str(&span(held));
    }
    text
}

fn timed_out(outcome: &Outcome, clock: ClockEnd) -> Option<String> {
    let (field, after) = (clock.name.field(), span(clock.after_ms));
    match (outcome, clock.name) {
        (Outcome::StartTimedOut { why }, name) => {
            let mut text = match name {
                Clock::Start => format!("not started within {after} ({field})"),
                _ => format!("not started: {field} was over after {after}"),
            };
            if let Some(why) = why {
                text.push_str(": ");
                text.push_str(why);
            }
            Some(text)
        }
        (Outcome::NotStarted, Clock::Total) => {
            Some(format!("not started: {field} was over after {after}, before this node's turn"))
        }
        (Outcome::TimedOut, _) => Some(format!("ended by {field} after {after}")),
        (Outcome::IdleTimedOut, _) => Some(format!("ended by {field} after {after} without output")),
        _ => None,
    }
}

/// Number of the signal that a process cannot ignore.
const SIGKILL: i32 = 9;

/// How the main process ended, where the Outcome is about something else.
fn how_it_ended(outcome: &Outcome, exit: &ExitDetails) -> Option<String> {
    let says_it =
        matches!(outcome, Outcome::Succeeded { .. } | Outcome::Failed { .. } | Outcome::Signaled { .. });
    let killed = exit.killed && exit.left.is_none();
    let how = match (exit.code, exit.signal) {
        _ if says_it => None,
        (Some(code), _) => Some(format!("exited with code {code}")),
        // Our own KILL: one of the two sentences is enough.
        (None, Some(SIGKILL)) if killed => None,
        (None, Some(signal)) => Some(format!("ended by signal {}", signal_text(signal))),
        (None, None) => None,
    };
    match (how, killed) {
        (Some(how), true) => Some(format!("{how}; KILL was needed")),
        (None, true) => Some("KILL was needed".to_owned()),
        (how, false) => how,
    }
}

impl std::fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let noun = if self.count == 1 { "process" } else { "processes" };
        write!(f, "left {} {noun}", self.count)?;
        for (at, process) in self.processes.iter().enumerate() {
            write!(
                f,
                "{}{} {}",
                if at == 0 { " (" } else { ", " },
                process.name.escape_debug(),
                process.pid
            )?;
        }
        if !self.processes.is_empty() {
            let more = (self.count as usize).saturating_sub(self.processes.len());
            f.write_str(if more > 0 { ", …)" } else { ")" })?;
        }
        f.write_str(match self.fate {
            Fate::Ended => ", ended",
            Fate::Kept => ", kept running",
        })
    }
}

/// Number and name of a signal, for people: `15 (SIGTERM)`.
pub fn signal_text(signal: i32) -> String {
    match signal_name(signal) {
        Some(name) => format!("{signal} ({name})"),
        None => signal.to_string(),
    }
}

/// Name of a signal by its number on Linux, as on every architecture that we build for; real-time signals have none.
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

/// A time for people: two units at most, milliseconds only below a second.
fn span(ms: u64) -> String {
    let (seconds, rest) = (ms / 1000, ms % 1000);
    match seconds {
        0 => format!("{rest}ms"),
        1..60 if rest >= 100 => format!("{seconds}.{}s", rest / 100),
        1..60 => format!("{seconds}s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ if seconds / 60 % 60 == 0 => format!("{}h", seconds / 3600),
        _ => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(count: u32, fate: Fate) -> LeftBehind {
        let process = |(pid, name): (i32, &str)| LeftProcess { pid, name: name.to_owned() };
        let processes = [(12, "sleep"), (13, "nginx")].map(process);
        LeftBehind { count, fate, processes: processes.into_iter().take(count as usize).collect() }
    }

    #[test]
    fn a_sentence_has_the_outcome_and_what_the_command_did() {
        let check = |outcome: Outcome, exit: ExitDetails, expected: &str| {
            assert_eq!(describe(&outcome, &exit), expected);
        };
        let run = || ExitDetails::clock(Clock::Run, 10_000);
        check(Outcome::TimedOut, ExitDetails::default(), &Outcome::TimedOut.message());
        check(
            Outcome::TimedOut,
            ExitDetails { code: Some(3), ..run() },
            "ended by timeouts.run after 10s; exited with code 3",
        );
        check(
            Outcome::TimedOut,
            ExitDetails { signal: Some(9), killed: true, ..run() },
            "ended by timeouts.run after 10s; KILL was needed",
        );
        check(
            Outcome::TimedOut,
            ExitDetails { code: Some(0), killed: true, ..run() },
            "ended by timeouts.run after 10s; exited with code 0; KILL was needed",
        );
        check(
            Outcome::IdleTimedOut,
            ExitDetails { signal: Some(15), ..ExitDetails::clock(Clock::Idle, 150_000) },
            "ended by timeouts.idle after 2m30s without output; ended by signal 15 (SIGTERM)",
        );
        check(
            Outcome::StartTimedOut { why: None },
            ExitDetails::clock(Clock::Start, 300_000),
            "not started within 5m (timeouts.start)",
        );
        check(
            Outcome::NotStarted,
            ExitDetails::clock(Clock::Total, 3_600_000),
            "not started: timeouts.total was over after 1h, before this node's turn",
        );
        check(
            Outcome::Cancelled,
            ExitDetails { code: Some(0), ..ExitDetails::default() },
            "cancelled; exited with code 0",
        );
        check(
            Outcome::Succeeded { exit_code: 0 },
            ExitDetails { code: Some(0), left: Some(left(2, Fate::Ended)), ..ExitDetails::default() },
            "exited with code 0; left 2 processes (sleep 12, nginx 13), ended",
        );
        check(
            Outcome::Failed { exit_code: 1 },
            ExitDetails {
                code: Some(1),
                left: Some(left(1, Fate::Kept)),
                output_held_ms: Some(5_004),
                ..ExitDetails::default()
            },
            "exited with code 1; left 1 process (sleep 12), kept running; \
             output held open by another process, closed after 5s",
        );
        check(
            Outcome::Signaled { signal: 11 },
            ExitDetails { signal: Some(11), ..ExitDetails::default() },
            "ended by signal 11 (SIGSEGV)",
        );
    }

    #[test]
    fn more_processes_than_are_named_are_hinted_at_and_names_cannot_reach_a_terminal_raw() {
        let mut many = left(2, Fate::Ended);
        many.count = 40;
        many.processes[0].name = "a\u{1b}[31m".to_owned();
        assert_eq!(many.to_string(), "left 40 processes (a\\u{1b}[31m 12, nginx 13, …), ended");
    }

    #[test]
    fn what_a_hostile_agent_says_is_cut_when_it_is_read() {
        let process = serde_json::json!({"pid": 1, "name": "ä".repeat(500)});
        let value = serde_json::json!({"count": 9_000, "fate": "Ended", "processes": vec![process; 5_000]});
        let read: LeftBehind = serde_json::from_value(value).unwrap();
        assert_eq!(read.processes.len(), MAX_LEFT_PROCESSES);
        assert!(read.processes.iter().all(|process| process.name.len() <= MAX_PROCESS_NAME));
    }

    #[test]
    fn signals_have_their_linux_names() {
        let names = [1, 9, 15, 31].map(signal_name);
        assert_eq!(names, [Some("SIGHUP"), Some("SIGKILL"), Some("SIGTERM"), Some("SIGSYS")]);
        assert_eq!([0, 32, 64, -1, i32::MIN].map(signal_name), [None; 5]);
    }

    #[test]
    fn times_are_short() {
        let texts = [7, 1_000, 2_450, 59_999, 60_000, 61_000, 3_600_000, 5_400_000].map(span);
        assert_eq!(texts, ["7ms", "1s", "2.4s", "59.9s", "1m", "1m1s", "1h", "1h30m"]);
    }
}
