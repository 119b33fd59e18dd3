//! An Attempt's directory as the models of an agent have it: its records, its lock, and what the kernel knows of it.

use sentinel_core::agent::recovery::{
    Boot, Evidence, ExitRecord, LastState, Lock, SupervisorContainer, Tree,
};
use sentinel_core::agent::{AttemptSnapshot, Event};
use sentinel_core::time::Monotonic;
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{AttemptId, SpecHash};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Running, Usage};

/// How long after its acceptance, or after a reboot, an Attempt may start, milliseconds.
pub(crate) const START_MS: u64 = 60_000;

/// How far a supervisor has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Supervisor {
    /// Launched, and not yet at the lock.
    OnItsWay,
    /// Holds the lock, `starting` is durable.
    Starting,
    /// The command runs; `running` is not yet durable.
    Executed,
    /// `running` is durable.
    Running,
}

#[derive(Debug, Clone)]
pub(crate) struct AttemptDir {
    pub(crate) spec_hash: SpecHash,
    pub(crate) needs_secrets: bool,
    start_by: Monotonic,
    pub(crate) boot: u32,
    pub(crate) state: LastState,
    /// Whether the log has it that the command may start: a later boot believes it, whatever the directory shows.
    is_start_logged: bool,
    pub(crate) running: Option<Running>,
    pub(crate) exit: Option<Ended>,
    pub(crate) acked: Option<Stage>,
    pub(crate) cancel: bool,
    /// At most one of these holds the lock; others may be on their way.
    pub(crate) supervisors: Vec<Supervisor>,
    /// Whether processes of the command live.
    pub(crate) tree: bool,
}

impl AttemptDir {
    /// A request accepted at this boot and monotonic time.
    pub(crate) fn of(start: &Start, now: u64, boot: u32) -> Self {
        Self {
            spec_hash: start.spec_hash.clone(),
            needs_secrets: start.request.needs_secrets(),
            start_by: Monotonic(now + start.deadlines.start_ms),
            boot,
            state: LastState::Accepted,
            is_start_logged: false,
            running: None,
            exit: None,
            acked: None,
            cancel: false,
            supervisors: vec![],
            tree: false,
        }
    }

    /// It is handed to a supervisor. Of every second Run the start is in the log; the log was full for the others, so that the
    /// supervisor records it.
    pub(crate) fn launch(&mut self, id: &AttemptId) {
        self.is_start_logged = id.run.0.is_multiple_of(2);
        self.supervisors.push(Supervisor::OnItsWay);
    }

    /// The start is not in the log after all: it was not synced.
    #[allow(dead_code, reason = "only one of the models loses what was not synced")]
    pub(crate) fn lose_start(&mut self) {
        self.is_start_logged = false;
        self.state = LastState::Accepted;
    }

    /// The machine loses its power and is started again; the log was synced.
    pub(crate) fn lose_power(&mut self) {
        self.supervisors.clear();
        self.tree = false;
        if self.is_start_logged && self.state == LastState::Accepted {
            self.state = LastState::Starting;
        }
    }

    pub(crate) fn locked(&self) -> bool {
        self.supervisors.iter().any(|s| *s != Supervisor::OnItsWay)
    }

    /// What an agent of that boot finds.
    pub(crate) fn seen(&self, id: &AttemptId, boot: u32) -> AttemptSnapshot {
        let is_of_boot = self.boot == boot;
        AttemptSnapshot {
            attempt: id.clone(),
            spec_hash: self.spec_hash.clone(),
            start_by: if is_of_boot { self.start_by } else { Monotonic(START_MS) },
            rule: None,
            needs_secrets: self.needs_secrets,
            evidence: Evidence {
                state: self.state,
                exit: if self.exit.is_some() { ExitRecord::Present } else { ExitRecord::Missing },
                lock: if self.locked() { Lock::Held } else { Lock::Free },
                tree: if self.tree { Tree::Populated } else { Tree::Empty },
                boot: if is_of_boot { Boot::Same } else { Boot::Other },
                container: SupervisorContainer::Same,
            },
            running: self.running.clone(),
            ended: self.exit.clone().map(Box::new),
            abandoned: None,
            acked: self.acked,
        }
    }

    pub(crate) fn abandon(&mut self, attempt: AttemptId, ended: Box<Ended>) -> Event {
        let untouched = matches!(self.state, LastState::Accepted | LastState::Abandoned);
        if self.locked() || self.exit.is_some() || !untouched {
            return Event::TooLate { attempt };
        }
        self.state = LastState::Abandoned;
        self.exit = Some((*ended).clone());
        Event::Concluded { attempt, ended }
    }

    pub(crate) fn conclude(&mut self, attempt: AttemptId, ended: Box<Ended>) -> Event {
        if self.locked() || self.exit.is_some() {
            return Event::TooLate { attempt };
        }
        self.exit = Some((*ended).clone());
        Event::Concluded { attempt, ended }
    }
}

/// The end of an Attempt that used nothing and wrote nothing.
pub(crate) fn ended(outcome: Outcome, at: u64) -> Ended {
    let (usage, output) = (Usage::default(), OutputSummary::default());
    Ended {
        outcome,
        started_at: None,
        ended_at: UnixMillis(at.cast_signed()),
        usage,
        output,
        exit: ExitDetails::default(),
    }
}
