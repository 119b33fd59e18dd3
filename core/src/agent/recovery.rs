//! What became of an Attempt, decided from its directory and the kernel. This table is the only code that decides it,
//! after a restart of the agent and whenever the Attempt is inspected.
//!
//! A state is written *before* the step it names, so it tells what may have happened since:
//!
//! ```text
//!  accepted ──(supervisor takes the lock)──▶ starting ──(exec)──▶ running ──(exit)──▶ exit record
//!      └──(agent takes the lock)──▶ abandoned
//! ```
//!
//! The supervisor holds a kernel lock on the directory for its whole life, and its child holds it until `exec`. A *free*
//! lock therefore proves that no process is left that could still start the command.

use sentinel_protocol::outcome::{InterruptReason, LostReason, Outcome};

/// The last durable state in the Attempt's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastState {
    /// The request is recorded; no supervisor has announced a start.
    Accepted,
    /// The agent gave it up while holding the lock; a late supervisor starts nothing.
    Abandoned,
    /// A supervisor was about to start the command.
    Starting,
    /// The command was started.
    Running,
    /// The record exists and cannot be read.
    Unreadable,
}

/// Whether the supervisor left an exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitRecord {
    /// It exists and is complete.
    Present,
    /// It is missing or unreadable.
    Missing,
}

/// The kernel lock on the Attempt's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// A supervisor, or its child before `exec`, is alive.
    Held,
    /// No supervisor is alive.
    Free,
}

/// The processes of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tree {
    /// At least one is alive.
    Populated,
    /// None is alive.
    Empty,
}

/// Whether the record was written since the last boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Boot {
    /// It was.
    Same,
    /// The node has booted since.
    Other,
}

/// The container its supervisor ran in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SupervisorContainer {
    /// The agent's own container, or unknown.
    Same,
    /// An earlier container of the agent: it has ended, and the kernel killed every process in it.
    Gone,
}

/// All that is known about an Attempt from outside its supervisor. The lock must be tried *before* the files are read:
/// then a free lock means that the files are final.
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

/// How an Attempt without an exit record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InferredEnd {
    /// It certainly was cut off.
    Interrupted(InterruptReason),
    /// Unknown.
    Lost(LostReason),
}

impl InferredEnd {
    /// The Outcome to record.
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
    /// Its supervisor is alive: leave it alone.
    Adopt,
    /// It certainly never started: start it if the start deadline allows.
    StartNow,
    /// It certainly never started, but the node has rebooted, so how much of its start deadline remains is unknown:
    /// start it only when the operator sends another `Start`.
    AwaitConfirmation,
    /// It is over: report its exit record.
    Report,
    /// It was given up before it started.
    NotStarted,
    /// It is over, without an exit record.
    Over(InferredEnd),
    /// Its supervisor died and processes are left: kill them, then it is over.
    EndTreeThen(InferredEnd),
}

/// Decides what to do. The first matching row applies.
pub fn recover(evidence: &Evidence) -> RecoveryAction {
    use RecoveryAction::{Adopt, AwaitConfirmation, EndTreeThen, NotStarted, Over, Report, StartNow};
    let died = InferredEnd::Interrupted(InterruptReason::SupervisorDied);
    let lost = InferredEnd::Lost;
    let Evidence { state, exit, lock, tree, boot, container } = *evidence;
    match (exit, lock, state, boot, tree) {
        // The supervisor's own record outranks everything else.
        (ExitRecord::Present, ..) => Report,
        // A late supervisor reads that it was abandoned and starts nothing, whether or not it holds the lock.
        (_, _, LastState::Abandoned, ..) => NotStarted,
        // The holder of the lock will write the exit record.
        (_, Lock::Held, ..) => Adopt,
        (_, _, LastState::Accepted, Boot::Same, _) => StartNow,
        (_, _, LastState::Accepted, Boot::Other, _) => AwaitConfirmation,
        // No process survives a reboot, so a populated tree belongs to something else and is left alone.
        // An unreadable state was torn by a power cut: only the name of the first one is durable.
        (_, _, LastState::Starting | LastState::Running | LastState::Unreadable, Boot::Other, _) => {
            Over(lost(LostReason::NodeRebooted))
        }
        // A live process proves the start, which the state alone does not.
        (_, _, LastState::Starting | LastState::Running, Boot::Same, Tree::Populated) => EndTreeThen(died),
        (_, _, LastState::Starting, Boot::Same, Tree::Empty) => Over(lost(LostReason::StartUnproven)),
        // Supervisor and command died with the agent's container.
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

    fn all_evidence() -> impl Iterator<Item = Evidence> {
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
    fn reports_the_exit_record_whatever_the_rest_shows() {
        let seen = all_evidence().filter(|e| e.exit == ExitRecord::Present);
        assert_eq!(seen.map(|e| assert_eq!(recover(&e), RecoveryAction::Report, "{e:?}")).count(), 80);
    }

    #[test]
    fn never_starts_an_abandoned_attempt_even_with_a_late_supervisor() {
        for e in all_evidence().filter(|e| e.exit == ExitRecord::Missing && e.state == LastState::Abandoned) {
            assert_eq!(recover(&e), RecoveryAction::NotStarted, "{e:?}");
        }
    }

    #[test]
    fn adopts_a_live_supervisor_in_every_state() {
        for e in all_evidence().filter(|e| e.exit == ExitRecord::Missing && e.lock == Lock::Held) {
            if e.state != LastState::Abandoned {
                assert_eq!(recover(&e), RecoveryAction::Adopt, "{e:?}");
            }
        }
    }

    #[test]
    fn accepted_without_supervisor_never_started() {
        for tree in [Tree::Empty, Tree::Populated] {
            assert_eq!(dead(LastState::Accepted, tree, Boot::Same), RecoveryAction::StartNow);
            assert_eq!(dead(LastState::Accepted, tree, Boot::Other), RecoveryAction::AwaitConfirmation);
        }
    }

    #[test]
    fn starting_without_exit_record_is_lost() {
        let lost = RecoveryAction::Over(InferredEnd::Lost(LostReason::StartUnproven));
        assert_eq!(dead(LastState::Starting, Tree::Empty, Boot::Same), lost);
    }

    #[test]
    fn kills_and_interrupts_a_command_without_supervisor() {
        let ended = RecoveryAction::EndTreeThen(InferredEnd::Interrupted(InterruptReason::SupervisorDied));
        for state in [LastState::Starting, LastState::Running] {
            assert_eq!(dead(state, Tree::Populated, Boot::Same), ended);
        }
    }

    #[test]
    fn exit_status_is_lost_when_command_and_supervisor_died() {
        let lost = RecoveryAction::Over(InferredEnd::Lost(LostReason::ExitStatusLost));
        assert_eq!(dead(LastState::Running, Tree::Empty, Boot::Same), lost);
    }

    #[test]
    fn running_command_is_interrupted_when_the_agents_container_ended() {
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
    fn reboot_loses_active_attempts_and_kills_no_process() {
        let lost = RecoveryAction::Over(InferredEnd::Lost(LostReason::NodeRebooted));
        for state in [LastState::Starting, LastState::Running] {
            for tree in [Tree::Empty, Tree::Populated] {
                assert_eq!(dead(state, tree, Boot::Other), lost);
            }
        }
    }

    #[test]
    fn unreadable_record_is_lost_and_its_processes_killed() {
        let lost = InferredEnd::Lost(LostReason::StateLost);
        assert_eq!(dead(LastState::Unreadable, Tree::Empty, Boot::Same), RecoveryAction::Over(lost));
        assert_eq!(
            dead(LastState::Unreadable, Tree::Populated, Boot::Same),
            RecoveryAction::EndTreeThen(lost)
        );
    }

    #[test]
    fn unreadable_record_after_a_reboot_is_reported_as_reboot() {
        let rebooted = RecoveryAction::Over(InferredEnd::Lost(LostReason::NodeRebooted));
        assert_eq!(dead(LastState::Unreadable, Tree::Empty, Boot::Other), rebooted);
        assert_eq!(dead(LastState::Unreadable, Tree::Populated, Boot::Other), rebooted);
    }

    #[test]
    fn only_accepted_without_supervisor_may_start() {
        let mut seen = 0;
        for e in all_evidence() {
            seen += 1;
            if matches!(recover(&e), RecoveryAction::StartNow | RecoveryAction::AwaitConfirmation) {
                assert_eq!((e.state, e.lock, e.exit), (LastState::Accepted, Lock::Free, ExitRecord::Missing));
            }
        }
        assert_eq!(seen, 160, "every combination was tried");
    }

    #[test]
    fn kills_a_tree_only_if_populated_in_this_boot() {
        for e in all_evidence() {
            if matches!(recover(&e), RecoveryAction::EndTreeThen(_)) {
                assert_eq!((e.tree, e.boot, e.lock), (Tree::Populated, Boot::Same, Lock::Free), "{e:?}");
            }
        }
    }
}
