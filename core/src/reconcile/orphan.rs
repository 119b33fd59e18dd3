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

/// What the operator knows of the Task that a orphan belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// No such Task, and all caches are filled: it was deleted.
    Gone,
    /// It is at this Run.
    AtRun(RunNumber),
    /// It is at the Run of this very number, for another spec: the cluster was restored from an older state.
    OtherSpec,
}

/// What becomes of a orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrphanAction {
    /// It stays: its own Run still deals with it, or will.
    Keep,
    /// Nobody wants its command any more: it is ended.
    Cancel,
    /// Its result is archived and nobody asks for it: the agent may forget.
    Forget,
}

/// What becomes of a orphan: nothing is forgotten before it is archived, and nothing runs for nobody.
pub fn decide_orphan(run: RunNumber, stage: Stage, archived: Option<Stage>, owner: Owner) -> OrphanAction {
    match owner {
        Owner::AtRun(current) if run == current => OrphanAction::Keep,
        // A number from the future is a cluster restored from an older state. What runs may finish; numbers rise above
        // it, and no Start of another Run reaches its node before it has.
        Owner::AtRun(current) if run > current && stage != Stage::Ended => OrphanAction::Keep,
        Owner::OtherSpec if stage != Stage::Ended => OrphanAction::Keep,
        Owner::Gone | Owner::AtRun(_) | Owner::OtherSpec => match stage {
            Stage::Ended if archived == Some(Stage::Ended) => OrphanAction::Forget,
            Stage::Ended => OrphanAction::Keep,
            Stage::Accepted | Stage::Running => OrphanAction::Cancel,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_forgotten_only_when_it_is_archived() {
        assert_eq!(decide_orphan(RunNumber(1), Stage::Ended, None, Owner::Gone), OrphanAction::Keep);
        assert_eq!(
            decide_orphan(RunNumber(1), Stage::Ended, Some(Stage::Running), Owner::Gone),
            OrphanAction::Keep
        );
        assert_eq!(
            decide_orphan(RunNumber(1), Stage::Ended, Some(Stage::Ended), Owner::Gone),
            OrphanAction::Forget
        );
    }

    #[test]
    fn a_command_of_a_deleted_task_or_an_earlier_run_is_ended_and_one_of_the_current_run_is_not() {
        assert_eq!(decide_orphan(RunNumber(1), Stage::Running, None, Owner::Gone), OrphanAction::Cancel);
        assert_eq!(
            decide_orphan(RunNumber(1), Stage::Accepted, None, Owner::AtRun(RunNumber(2))),
            OrphanAction::Cancel
        );
        assert_eq!(
            decide_orphan(RunNumber(2), Stage::Running, None, Owner::AtRun(RunNumber(2))),
            OrphanAction::Keep
        );
    }

    #[test]
    fn an_attempt_from_before_a_restored_backup_may_finish_and_is_forgotten_once_archived() {
        let current = Owner::AtRun(RunNumber(1));
        assert_eq!(decide_orphan(RunNumber(2), Stage::Running, None, current), OrphanAction::Keep);
        assert_eq!(decide_orphan(RunNumber(2), Stage::Ended, None, current), OrphanAction::Keep);
        assert_eq!(
            decide_orphan(RunNumber(2), Stage::Ended, Some(Stage::Ended), current),
            OrphanAction::Forget
        );
    }
}
