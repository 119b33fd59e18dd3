//! What became of an Attempt, judged from what its directory and the kernel still say. One table, and the only code
//! that decides it: after a restart of the agent, and at every later look.
//!
//! States are written *before* the deed they name, so each of them says what may have happened since:
//!
//! ```text
//!  accepted ──(supervisor takes the lock)──▶ starting ──(exec)──▶ running ──(exit)──▶ exit record
//!      └──(agent takes the lock)──▶ abandoned
//! ```
//!
//! The lock on the directory is a kernel lock that the supervisor holds for life, and that a child of it holds until
//! it has become the command. A lock that is *free* therefore proves that nobody is left who could still start it.

use sentinel_protocol::outcome::{InterruptReason, LostReason, Outcome};

/// The last state that is durable in the Attempt's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastState {
    /// The request is recorded, and no supervisor has announced a start.
    Accepted,
    /// The agent gave it up under the lock; a supervisor that comes late starts nothing.
    Abandoned,
    /// A supervisor was about to start the command.
    Starting,
    /// The command was started.
    Running,
    /// The record is there and cannot be read.
    Unreadable,
}

/// Whether the supervisor left an exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitRecord {
    /// It is there and whole.
    Present,
    /// There is none, or none that can be read.
    Missing,
}

/// The kernel lock on the Attempt's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// A supervisor, or its child on the way to the command, lives.
    Held,
    /// No supervisor is left.
    Free,
}

/// The processes of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tree {
    /// At least one of them lives.
    Populated,
    /// None is left.
    Empty,
}

/// Whether the record was written since the node was last started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Boot {
    /// Yes.
    Same,
    /// The node was started anew in between.
    Other,
}

/// The container that its supervisor lived in, where it had one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SupervisorContainer {
    /// It is the one that the agent lives in, or not known.
    Same,
    /// The agent lives in another one now: that one has ended, and the kernel ended all that was in it.
    Gone,
}

/// All that is known about an Attempt from outside its supervisor. The lock must have been tried *before* the files
/// were read: then a free lock means that the files are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// Its last durable state.
    pub state: LastState,
    /// Its exit record.
    pub exit: ExitRecord,
    /// Its lock.
    pub lock: Lock,
    /// Its processes.
    pub tree: Tree,
    /// Its boot.
    pub boot: Boot,
    /// Its supervisor's container.
    pub container: SupervisorContainer,
}

/// How an Attempt ended that has no exit record of its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InferredEnd {
    /// It was cut off, and we know it.
    Interrupted(InterruptReason),
    /// Nobody can know.
    Lost(LostReason),
}

impl InferredEnd {
    /// The same as an outcome.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Interrupted(reason) => Outcome::Interrupted { reason },
            Self::Lost(reason) => Outcome::Lost { reason },
        }
    }
}

/// What follows from the [`Evidence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Its supervisor lives: leave it alone and look again when something changes.
    Adopt,
    /// It surely never started, and its clock still runs: start it if the start deadline allows.
    StartNow,
    /// It surely never started, but the node was started anew since, and how much of its start deadline remains is
    /// unknown: start it only when the operator asks once more.
    AwaitConfirmation,
    /// It is over, as its exit record says.
    Report,
    /// It was given up before it started.
    NotStarted,
    /// It is over, and this is how.
    Over(InferredEnd),
    /// Its supervisor is gone and processes of it are left: end them, then it is over, and this is how.
    EndTreeThen(InferredEnd),
}

/// The table. Rows are tried from top to bottom.
pub fn recover(evidence: &Evidence) -> RecoveryAction {
    use RecoveryAction::{Adopt, AwaitConfirmation, EndTreeThen, NotStarted, Over, Report, StartNow};
    let died = InferredEnd::Interrupted(InterruptReason::SupervisorDied);
    let lost = InferredEnd::Lost;
    let Evidence { state, exit, lock, tree, boot, container } = *evidence;
    match (exit, lock, state, boot, tree) {
        // The supervisor's own word stands above all else.
        (ExitRecord::Present, ..) => Report,
        // Once abandoned, a late supervisor reads so and ends without a start, whether or not it holds the lock.
        (_, _, LastState::Abandoned, ..) => NotStarted,
        // Whoever holds the lock owns the truth.
        (_, Lock::Held, ..) => Adopt,
        (_, _, LastState::Accepted, Boot::Same, _) => StartNow,
        (_, _, LastState::Accepted, Boot::Other, _) => AwaitConfirmation,
        // Nothing survives a boot, so what looks like its tree belongs to somebody else and is left alone.
        // A state that cannot be read is one that a power cut tore: the first of them is durable by name only.
        (_, _, LastState::Starting | LastState::Running | LastState::Unreadable, Boot::Other, _) => {
            Over(lost(LostReason::NodeRebooted))
        }
        // A living tree proves the start that the state alone does not.
        (_, _, LastState::Starting | LastState::Running, Boot::Same, Tree::Populated) => EndTreeThen(died),
        (_, _, LastState::Starting, Boot::Same, Tree::Empty) => Over(lost(LostReason::StartUnproven)),
        // Supervisor and command were ended together, with the agent that was in there with them.
        (_, _, LastState::Running, Boot::Same, Tree::Empty) if container == SupervisorContainer::Gone => {
            Over(InferredEnd::Interrupted(InterruptReason::AgentStopped))
        }
        (_, _, LastState::Running, Boot::Same, Tree::Empty) => Over(lost(LostReason::ExitStatusLost)),
        (_, _, LastState::Unreadable, Boot::Same, Tree::Populated) => {
            EndTreeThen(lost(LostReason::StateLost))
        }
        (_, _, LastState::Unreadable, ..) => Over(lost(LostReason::StateLost)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [LastState; 5] = [
        LastState::Accepted,
        LastState::Abandoned,
        LastState::Starting,
        LastState::Running,
        LastState::Unreadable,
    ];

    fn every_evidence() -> impl Iterator<Item = Evidence> {
        STATES.into_iter().flat_map(|state| {
            (0..32).map(move |bits: u8| Evidence {
                state,
                exit: if bits & 1 == 0 { ExitRecord::Present } else { ExitRecord::Missing },
                lock: if bits & 2 == 0 { Lock::Held } else { Lock::Free },
                tree: if bits & 4 == 0 { Tree::Populated } else { Tree::Empty },
                boot: if bits & 8 == 0 { Boot::Same } else { Boot::Other },
                container: if bits & 16 == 0 { SupervisorContainer::Same } else { SupervisorContainer::Gone },
            })
        })
    }

    fn dead(state: LastState, tree: Tree, boot: Boot) -> RecoveryAction {
        let container = SupervisorContainer::Same;
        recover(&Evidence { state, exit: ExitRecord::Missing, lock: Lock::Free, tree, boot, container })
    }

    #[test]
    fn an_exit_record_is_believed_whatever_else_is_seen() {
        let seen = every_evidence().filter(|e| e.exit == ExitRecord::Present);
        assert_eq!(seen.map(|e| assert_eq!(recover(&e), RecoveryAction::Report, "{e:?}")).count(), 80);
    }

    #[test]
    fn an_abandoned_attempt_never_starts_even_if_a_late_supervisor_holds_the_lock() {
        for e in every_evidence().filter(|e| e.exit == ExitRecord::Missing && e.state == LastState::Abandoned)
        {
            assert_eq!(recover(&e), RecoveryAction::NotStarted, "{e:?}");
        }
    }

    #[test]
    fn a_living_supervisor_is_adopted_in_every_state() {
        for e in every_evidence().filter(|e| e.exit == ExitRecord::Missing && e.lock == Lock::Held) {
            if e.state != LastState::Abandoned {
                assert_eq!(recover(&e), RecoveryAction::Adopt, "{e:?}");
            }
        }
    }

    #[test]
    fn accepted_without_a_supervisor_surely_never_started() {
        for tree in [Tree::Empty, Tree::Populated] {
            assert_eq!(dead(LastState::Accepted, tree, Boot::Same), RecoveryAction::StartNow);
            assert_eq!(dead(LastState::Accepted, tree, Boot::Other), RecoveryAction::AwaitConfirmation);
        }
    }

    #[test]
    fn starting_without_an_exit_record_is_lost_for_want_of_proof() {
        let lost = RecoveryAction::Over(InferredEnd::Lost(LostReason::StartUnproven));
        assert_eq!(dead(LastState::Starting, Tree::Empty, Boot::Same), lost);
    }

    #[test]
    fn a_command_whose_supervisor_was_killed_is_ended_and_interrupted() {
        let ended = RecoveryAction::EndTreeThen(InferredEnd::Interrupted(InterruptReason::SupervisorDied));
        for state in [LastState::Starting, LastState::Running] {
            assert_eq!(dead(state, Tree::Populated, Boot::Same), ended);
        }
    }

    #[test]
    fn a_command_that_died_with_its_supervisor_has_lost_its_exit_status() {
        let lost = RecoveryAction::Over(InferredEnd::Lost(LostReason::ExitStatusLost));
        assert_eq!(dead(LastState::Running, Tree::Empty, Boot::Same), lost);
    }

    #[test]
    fn a_command_that_ended_with_the_agents_container_was_interrupted_and_one_that_may_not_have_begun_is_lost()
     {
        let ended = |state| {
            recover(&Evidence {
                state,
                exit: ExitRecord::Missing,
                lock: Lock::Free,
                tree: Tree::Empty,
                boot: Boot::Same,
                container: SupervisorContainer::Gone,
            })
        };
        let interrupted = InferredEnd::Interrupted(InterruptReason::AgentStopped);
        assert_eq!(ended(LastState::Running), RecoveryAction::Over(interrupted));
        let lost = InferredEnd::Lost(LostReason::StartUnproven);
        assert_eq!(ended(LastState::Starting), RecoveryAction::Over(lost));
    }

    #[test]
    fn a_reboot_loses_what_was_starting_or_running_and_kills_nobody() {
        let lost = RecoveryAction::Over(InferredEnd::Lost(LostReason::NodeRebooted));
        for state in [LastState::Starting, LastState::Running] {
            for tree in [Tree::Empty, Tree::Populated] {
                assert_eq!(dead(state, tree, Boot::Other), lost);
            }
        }
    }

    #[test]
    fn an_unreadable_record_is_lost_and_what_still_runs_of_it_is_ended() {
        let lost = InferredEnd::Lost(LostReason::StateLost);
        assert_eq!(dead(LastState::Unreadable, Tree::Empty, Boot::Same), RecoveryAction::Over(lost));
        assert_eq!(
            dead(LastState::Unreadable, Tree::Populated, Boot::Same),
            RecoveryAction::EndTreeThen(lost)
        );
    }

    #[test]
    fn a_state_that_a_power_cut_left_unreadable_is_told_as_the_reboot_that_it_was() {
        let rebooted = RecoveryAction::Over(InferredEnd::Lost(LostReason::NodeRebooted));
        assert_eq!(dead(LastState::Unreadable, Tree::Empty, Boot::Other), rebooted);
        assert_eq!(dead(LastState::Unreadable, Tree::Populated, Boot::Other), rebooted);
    }

    #[test]
    fn only_an_accepted_attempt_without_a_supervisor_may_ever_start() {
        let mut seen = 0;
        for e in every_evidence() {
            seen += 1;
            if matches!(recover(&e), RecoveryAction::StartNow | RecoveryAction::AwaitConfirmation) {
                assert_eq!((e.state, e.lock, e.exit), (LastState::Accepted, Lock::Free, ExitRecord::Missing));
            }
        }
        assert_eq!(seen, 160, "every combination was looked at");
    }

    #[test]
    fn a_tree_is_ended_only_if_it_is_seen_and_belongs_to_this_boot() {
        for e in every_evidence() {
            if matches!(recover(&e), RecoveryAction::EndTreeThen(_)) {
                assert_eq!((e.tree, e.boot, e.lock), (Tree::Populated, Boot::Same, Lock::Free), "{e:?}");
            }
        }
    }
}
