//! How following a Run ended.

use crate::view::{Run, Task};

/// A Run that was followed.
#[derive(Debug)]
pub(crate) struct FollowedRun {
    /// The Task at the end of the Run.
    pub(crate) task: Task,
    /// The Run; `None` if the Task cannot be run, runs nothing, or a newer Run has started.
    pub(crate) run: Option<Run>,
    /// Why it is not followed any longer.
    pub(crate) end: FollowEnd,
}

/// Why a Run is not followed any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FollowEnd {
    /// It has ended.
    Ended,
    /// Its Task was deleted.
    Deleted,
    /// A newer Run has started.
    Superseded,
    /// The Task cannot be run.
    Invalid,
    /// An earlier Task of this name has run the same: this one runs nothing.
    AlreadyExecuted,
}

impl FollowedRun {
    /// The verdict that is shown, with a cancelled Run set apart from a failed one.
    pub(super) fn verdict<'a>(&self, run: &'a Run) -> &'a str {
        match run.verdict.as_deref() {
            Some("Failed") if is_cancelled(run) => "Cancelled",
            // A Run that was complete before its cancellation was requested remains complete.
            Some(verdict) => verdict,
            None if self.end == FollowEnd::Deleted => "Deleted",
            None => "Unknown",
        }
    }
}

/// Whether the Run was cancelled, also by deleting its Task.
pub(super) fn is_cancelled(run: &Run) -> bool {
    matches!(run.stopping.as_deref(), Some("Cancelled" | "Deleted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_run_is_not_reported_as_failed() {
        let followed = |end| FollowedRun { task: Task::default(), run: None, end };
        let run = |verdict: Option<&str>, stopping: Option<&str>| Run {
            verdict: verdict.map(str::to_owned),
            stopping: stopping.map(str::to_owned),
            ..Run::default()
        };
        for (verdict, stopping, expected) in [
            (Some("Failed"), Some("Cancelled"), "Cancelled"),
            (Some("Failed"), Some("Deleted"), "Cancelled"),
            (Some("Failed"), Some("SupersededFinish"), "Failed"),
            (Some("Failed"), None, "Failed"),
            (Some("Complete"), Some("Cancelled"), "Complete"),
            (None, Some("Deleted"), "Unknown"),
        ] {
            assert_eq!(followed(FollowEnd::Ended).verdict(&run(verdict, stopping)), expected);
        }
        assert_eq!(followed(FollowEnd::Deleted).verdict(&run(None, Some("Deleted"))), "Deleted");
    }
}
