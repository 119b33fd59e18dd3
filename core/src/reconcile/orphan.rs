//! Orphans: Attempts that an agent owns and no ledger has, of a deleted Task or an earlier Run.

use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::stage::Stage;

/// How far above the Task's current Run a Run number named by an agent may be.
///
/// Higher numbers are legitimate after a cluster was restored from a backup, and new Runs are numbered above them; but one
/// agent must not be able to exhaust the numbers. The limit is 69 days of one Run per minute.
pub const MAX_RUN_JUMP: u32 = 100_000;

/// Whether an agent may name this Run if the Task's current one is `current`.
pub fn is_credible(named: RunNumber, current: RunNumber) -> bool {
    named.0.saturating_sub(current.0) <= MAX_RUN_JUMP
}

/// What the operator knows of the Task that an orphan belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It was deleted: the caches are complete and do not have it.
    Gone,
    /// Its current Run.
    AtRun(RunNumber),
    /// Its current Run has the same number and another spec: the cluster was restored from a backup.
    OtherSpec,
}

/// What to do about an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrphanAction {
    /// Keep it: its Run handles it, or its result is not archived yet.
    Keep,
    /// Cancel it: its command is not wanted any more.
    Cancel,
    /// Its result is archived: the agent may forget it.
    Forget,
}

/// Decides about an orphan: nothing is forgotten before it is archived, and no command runs for a deleted Task.
pub fn decide_orphan(run: RunNumber, stage: Stage, archived: Option<Stage>, owner: Owner) -> OrphanAction {
    match owner {
        Owner::AtRun(current) if run == current => OrphanAction::Keep,
        // The cluster was restored from a backup. The command may finish; new Runs are numbered above it, and none starts
        // on its node before.
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
    fn cancels_commands_of_deleted_tasks_and_earlier_runs() {
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
    fn attempt_from_before_a_restore_may_finish() {
        let current = Owner::AtRun(RunNumber(1));
        assert_eq!(decide_orphan(RunNumber(2), Stage::Running, None, current), OrphanAction::Keep);
        assert_eq!(decide_orphan(RunNumber(2), Stage::Ended, None, current), OrphanAction::Keep);
        assert_eq!(
            decide_orphan(RunNumber(2), Stage::Ended, Some(Stage::Ended), current),
            OrphanAction::Forget
        );
    }
}
