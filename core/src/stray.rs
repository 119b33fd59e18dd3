//! Attempts that an agent owns and no ledger knows: of a Task that is gone, or of a Run before the current one.

use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::to_operator::Stage;

/// How far above the Run that a Task is at the number of a Run may lie that an agent names, at most.
///
/// Numbers from the future come from a cluster that was restored from an older state, and new Runs are numbered above
/// them; one agent's word must not use the numbers up. So many Runs are 69 days of one each minute.
pub const MAX_RUN_JUMP: u32 = 100_000;

/// Whether a Run that an agent names can be one, where its Task is at `current`.
pub fn is_credible(named: RunNumber, current: RunNumber) -> bool {
    named.0.saturating_sub(current.0) <= MAX_RUN_JUMP
}

/// What the operator knows of the Task that a stray Attempt belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// No such Task, and all caches are filled: it was deleted.
    Gone,
    /// It is at this Run.
    AtRun(RunNumber),
    /// It is at the Run of this very number, for another spec: the cluster was restored from an older state.
    OtherSpec,
}

/// What becomes of a stray Attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays: its own Run still deals with it, or will.
    Keep,
    /// Nobody wants its command any more: it is ended.
    Cancel,
    /// Its result is archived and nobody asks for it: the agent may forget.
    Forget,
}

/// What becomes of a stray Attempt: nothing is forgotten before it is archived, and nothing runs for nobody.
pub fn judge(run: RunNumber, stage: Stage, archived: Option<Stage>, owner: Owner) -> Fate {
    match owner {
        Owner::AtRun(current) if run == current => Fate::Keep,
        // A number from the future is a cluster restored from an older state. What runs may finish; numbers rise above
        // it, and no Start of another Run reaches its node before it has.
        Owner::AtRun(current) if run > current && stage != Stage::Ended => Fate::Keep,
        Owner::OtherSpec if stage != Stage::Ended => Fate::Keep,
        Owner::Gone | Owner::AtRun(_) | Owner::OtherSpec => match stage {
            Stage::Ended if archived == Some(Stage::Ended) => Fate::Forget,
            Stage::Ended => Fate::Keep,
            Stage::Accepted | Stage::Running => Fate::Cancel,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_forgotten_only_when_it_is_archived() {
        assert_eq!(judge(RunNumber(1), Stage::Ended, None, Owner::Gone), Fate::Keep);
        assert_eq!(judge(RunNumber(1), Stage::Ended, Some(Stage::Running), Owner::Gone), Fate::Keep);
        assert_eq!(judge(RunNumber(1), Stage::Ended, Some(Stage::Ended), Owner::Gone), Fate::Forget);
    }

    #[test]
    fn a_command_of_a_deleted_task_or_an_earlier_run_is_ended_and_one_of_the_current_run_is_not() {
        assert_eq!(judge(RunNumber(1), Stage::Running, None, Owner::Gone), Fate::Cancel);
        assert_eq!(judge(RunNumber(1), Stage::Accepted, None, Owner::AtRun(RunNumber(2))), Fate::Cancel);
        assert_eq!(judge(RunNumber(2), Stage::Running, None, Owner::AtRun(RunNumber(2))), Fate::Keep);
    }

    #[test]
    fn an_attempt_from_before_a_restored_backup_may_finish_and_is_forgotten_once_archived() {
        let current = Owner::AtRun(RunNumber(1));
        assert_eq!(judge(RunNumber(2), Stage::Running, None, current), Fate::Keep);
        assert_eq!(judge(RunNumber(2), Stage::Ended, None, current), Fate::Keep);
        assert_eq!(judge(RunNumber(2), Stage::Ended, Some(Stage::Ended), current), Fate::Forget);
    }
}
