//! How a command's processes ended, recorded with every [`Outcome`]: the Outcome is the result, this is the evidence.

use serde::{Deserialize, Deserializer, Serialize};

use crate::human::human_duration;
use crate::limits::{MAX_LEFT_PROCESSES, MAX_PROCESS_NAME};
use crate::outcome::Outcome;
use crate::signal::signal_text;
use crate::text;

/// How the processes of a command ended. Every field is optional: a command that never started has none, and an agent
/// of an older release sends none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitDetails {
    /// Exit code of the command's main process, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Number of the signal that ended the main process, if one did, whichever process sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether SIGKILL was sent: a process of the command was still running `timeouts.grace` after SIGTERM, or the
    /// supervisor had died, in which case there is no grace period.
    #[serde(default, skip_serializing_if = "is_false")]
    pub killed: bool,
    /// The timeout that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockEnd>,
    /// Processes that were still running after the main process had exited on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftBehind>,
    /// Set when another process still held the output open: milliseconds from the end of the main process until the
    /// supervisor closed its end of the pipe. Later output is lost.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text::maybe_count")]
    pub output_held_ms: Option<u64>,
    /// Who had signed the Task, as the node verified it, where its policy asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<text::Name>,
    /// How often the value of a Secret was replaced by a mark in the output.
    #[serde(default, skip_serializing_if = "text::is_zero_count", deserialize_with = "text::count")]
    pub masked: u64,
}

/// A timeout that expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockEnd {
    /// Which timeout.
    pub name: Clock,
    /// The time that had passed when it expired, milliseconds: for `run` and `total` since the command started, for
    /// `idle` since its last output, for `start` since the node accepted the Attempt. When the operator concludes that
    /// the command was not started, `start` counts from the target's admission to the Run and `total` from the start of
    /// the Run.
    #[serde(deserialize_with = "text::count")]
    pub after_ms: u64,
}

/// One of the timeouts in `spec.timeouts`.
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
    /// How many there were in all.
    pub count: u32,
    /// What happened to them.
    pub fate: Fate,
    /// The first of them, up to [`MAX_LEFT_PROCESSES`].
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "text::first::<_, _, MAX_LEFT_PROCESSES>"
    )]
    pub processes: Vec<LeftProcess>,
}

/// What happened to processes that outlived the main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fate {
    /// They were terminated: SIGTERM, and SIGKILL after `timeouts.grace`.
    Ended,
    /// They were left running, because of `run.leftovers: Keep`.
    Kept,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftProcess {
    /// Its process id on the node.
    pub pid: i32,
    /// Its name as the kernel reports it, up to [`MAX_PROCESS_NAME`] bytes.
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
    /// Whether no field is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The details of a command that was ended, or not started, because a timeout expired.
    pub fn clock(name: Clock, after_ms: u64) -> Self {
        Self { clock: Some(ClockEnd { name, after_ms }), ..Self::default() }
    }

    /// The exit code to show with this Outcome: the Outcome's own, otherwise that of the main process.
    pub fn exit_code(&self, outcome: &Outcome) -> Option<u8> {
        outcome.exit_code().or(self.code)
    }
}

/// One sentence for people: the Outcome, and how the processes ended where the Outcome does not tell.
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
        text.push_str(&human_duration(held));
    }
    if exit.masked > 0 {
        let times = if exit.masked == 1 { "once".to_owned() } else { format!("{} times", exit.masked) };
        text.push_str("; a secret was masked in the output ");
        text.push_str(&times);
    }
    text
}

fn timed_out(outcome: &Outcome, clock: ClockEnd) -> Option<String> {
    let (field, after) = (clock.name.field(), human_duration(clock.after_ms));
    match (outcome, clock.name) {
        (Outcome::StartTimedOut { why }, name) => {
            let mut text = match name {
                Clock::Start => format!("not started within {after} ({field})"),
                _ => format!("not started: {field} expired after {after}"),
            };
            if let Some(why) = why {
                text.push_str(": ");
                text.push_str(why);
            }
            Some(text)
        }
        (Outcome::NotStarted, Clock::Total) => {
            Some(format!("not started: {field} expired after {after}, before this node was admitted"))
        }
        (Outcome::TimedOut, _) => Some(format!("ended by {field} after {after}")),
        (Outcome::IdleTimedOut, _) => Some(format!("ended by {field} after {after} without output")),
        _ => None,
    }
}

const SIGKILL: i32 = 9;

/// How the main process ended, unless the Outcome already tells.
fn how_it_ended(outcome: &Outcome, exit: &ExitDetails) -> Option<String> {
    let is_in_outcome =
        matches!(outcome, Outcome::Succeeded { .. } | Outcome::Failed { .. } | Outcome::Signaled { .. });
    let killed = exit.killed && exit.left.is_none();
    let how = match (exit.code, exit.signal) {
        _ if is_in_outcome => None,
        (Some(code), _) => Some(format!("exited with code {code}")),
        // The supervisor's own SIGKILL: one of the two phrases is enough.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn left(count: u32, fate: Fate) -> LeftBehind {
        let process = |(pid, name): (i32, &str)| LeftProcess { pid, name: name.to_owned() };
        let processes = [(12, "sleep"), (13, "nginx")].map(process);
        LeftBehind { count, fate, processes: processes.into_iter().take(count as usize).collect() }
    }

    #[test]
    fn describes_the_outcome_and_how_the_processes_ended() {
        let check = |outcome: Outcome, exit: ExitDetails, expected: &str| {
            assert_eq!(describe(&outcome, &exit), expected);
        };
        let run = || ExitDetails::clock(Clock::Run, 10_000);
        check(Outcome::TimedOut, ExitDetails::default(), &Outcome::TimedOut.message());
        let exited = ExitDetails { code: Some(3), ..run() };
        check(Outcome::TimedOut, exited, "ended by timeouts.run after 10s; exited with code 3");
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
            "not started: timeouts.total expired after 1h, before this node was admitted",
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
    fn describes_how_often_a_secret_was_masked() {
        let masked = |masked| ExitDetails { masked, ..ExitDetails::default() };
        let text = |count| describe(&Outcome::Failed { exit_code: 1 }, &masked(count));
        assert_eq!(text(0), "exited with code 1");
        assert_eq!(text(1), "exited with code 1; a secret was masked in the output once");
        assert_eq!(text(3), "exited with code 1; a secret was masked in the output 3 times");
    }

    #[test]
    fn lists_some_leftovers_and_escapes_their_names() {
        let mut many = left(2, Fate::Ended);
        many.count = 40;
        many.processes[0].name = "a\u{1b}[31m".to_owned();
        assert_eq!(many.to_string(), "left 40 processes (a\\u{1b}[31m 12, nginx 13, …), ended");
    }

    #[test]
    fn decoding_truncates_oversized_leftovers() {
        let process = serde_json::json!({"pid": 1, "name": "ä".repeat(500)});
        let value = serde_json::json!({"count": 9_000, "fate": "Ended", "processes": vec![process; 5_000]});
        let read: LeftBehind = serde_json::from_value(value).unwrap();
        assert_eq!(read.processes.len(), MAX_LEFT_PROCESSES);
        assert!(read.processes.iter().all(|process| process.name.len() <= MAX_PROCESS_NAME));
    }
}
