//! Everything outside the brain, which carries its effects out and checks the invariants.

use std::collections::{BTreeMap, BTreeSet};

use sentinel_core::agent::recovery::LastState;
use sentinel_core::agent::{
    Admitted, AttemptSnapshot, Effect, Event, FileIdentity, Permit, PolicyVerdict, Rules, Tombstone,
};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash, TaskRef};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{Deadlines, Program, RunRequest};
use sentinel_protocol::secret::{Sealed, SecretKeyRef};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Ended, Report, ReportedState, Running, ToOperator};

use crate::attempt_dir::{AttemptDir, START_MS, Supervisor, ended};

pub(crate) const IDS: usize = 4;

pub(crate) fn id(n: usize) -> AttemptId {
    format!("task/{}/node/1", n + 1).parse().unwrap()
}

pub(crate) fn hash(n: u8) -> SpecHash {
    SpecHash::new(format!("{n:064x}")).unwrap()
}

pub(crate) fn rules() -> Rules {
    Rules { max_attempts: 3, ..Rules::default() }
}

pub(crate) fn start(n: usize, spec: u8, epoch: u64) -> Start {
    // Every second one needs the value of a Secret.
    let needs_secret = n % 2 == 1;
    let stdin_from =
        needs_secret.then(|| SecretKeyRef { name: "db".into(), key: "password".into(), optional: false });
    let start = Start::new(
        id(n),
        hash(spec),
        Epoch::new(epoch).unwrap(),
        TaskRef::new("ops", "t").unwrap(),
        RunRequest { stdin_from, ..RunRequest::new(Program::Command(vec!["true".into()])) },
        Deadlines { start_ms: START_MS, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 1000 },
    );
    Start { secrets: needs_secret.then(|| Sealed("box".into())), ..start }
}

/// What is recorded of a `Start` on a node without a policy.
pub(crate) fn admitted(start: Start) -> Box<Admitted> {
    Box::new(Admitted { start, permit: None })
}

#[derive(Default)]
pub(crate) struct World {
    /// Whether the node's policy refuses everything.
    pub(crate) closed: bool,
    pub(crate) now: u64,
    pub(crate) boot: u32,
    pub(crate) epoch: u64,
    pub(crate) dirs: BTreeMap<AttemptId, AttemptDir>,
    pub(crate) tombs: BTreeMap<AttemptId, Tombstone>,
    pub(crate) executions: BTreeMap<AttemptId, u32>,
    /// Attempts just proven not to have started.
    pub(crate) proofs: BTreeSet<AttemptId>,
    /// The `Start` that is being handled has the values of its Secrets.
    pub(crate) received: Option<AttemptId>,
    /// Attempts whose values this process of the agent keeps.
    pub(crate) memory: BTreeSet<AttemptId>,
    pub(crate) reported: BTreeMap<AttemptId, Ended>,
    pub(crate) forgotten: BTreeSet<AttemptId>,
    pub(crate) refused_now: BTreeSet<AttemptId>,
    pub(crate) refused_ever: BTreeSet<AttemptId>,
}

impl World {
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: UnixMillis(self.now.cast_signed()) }
    }

    /// What the node's policy decides about any request.
    pub(crate) fn policy(&self) -> PolicyVerdict {
        if self.closed {
            return PolicyVerdict::Refused { rule: "closed".into(), why: "for now".into() };
        }
        let program = FileIdentity { path: "/bin/true".into(), device: 1, inode: 2, size: 3, changed_at: 4 };
        let concurrent = Some(2);
        PolicyVerdict::Allowed(Box::new(Permit {
            rule: "open".into(),
            concurrent,
            signed: None,
            program,
            directory: None,
            uid: 1,
            gid: 1,
            groups: vec![],
        }))
    }

    pub(crate) fn seen(&mut self, id: &AttemptId) -> Option<AttemptSnapshot> {
        let dir = self.dirs.get(id)?;
        if !dir.locked() && dir.state == LastState::Accepted && dir.exit.is_none() {
            self.proofs.insert(id.clone());
        }
        Some(dir.seen(id, self.boot))
    }

    fn note_report(&mut self, report: &Report) {
        if let ReportedState::Ended(ended) = &report.state {
            let first = self.reported.entry(report.attempt.clone()).or_insert_with(|| (**ended).clone());
            assert_eq!(first, &**ended, "the outcome of {} changed", report.attempt);
        }
        if matches!(report.state, ReportedState::Running(_)) {
            assert!(
                self.dirs[&report.attempt].running.is_some(),
                "running was reported before it was durable"
            );
        }
    }

    fn keep_secrets(&mut self, attempt: &AttemptId) {
        assert_eq!(self.received.as_ref(), Some(attempt), "there are no values to keep");
        self.memory.insert(attempt.clone());
    }

    fn record(&mut self, start: &Start) -> Event {
        let attempt = start.attempt.clone();
        assert_eq!(start.secrets, None, "values were recorded");
        if start.request.needs_secrets() {
            self.keep_secrets(&attempt);
        }
        assert!(!self.tombs.contains_key(&attempt), "{attempt} was recorded over its tombstone");
        assert_eq!(
            start.epoch.get(),
            self.epoch,
            "a stale epoch was obeyed, or a newer one before it was durable"
        );
        let dir = AttemptDir::of(start, self.now, self.boot);
        if let Some(old) = self.dirs.insert(attempt.clone(), dir) {
            assert_eq!((old.state, &old.spec_hash), (LastState::Accepted, &start.spec_hash));
            assert!(old.boot != self.boot && old.exit.is_none(), "a living request was replaced");
        }
        self.proofs.insert(attempt.clone());
        Event::Recorded { attempt }
    }

    /// Carries one effect out; what it led to is the answer.
    pub(crate) fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::SetEpoch(epoch) => {
                assert!(epoch.get() >= self.epoch, "the epoch on disk went back");
                self.epoch = epoch.get();
            }
            Effect::Record(admitted) | Effect::Confirm(admitted) => {
                assert!(!self.closed, "{} was recorded against the policy", admitted.start.attempt);
                assert_eq!(admitted.permit.as_ref().map(|permit| permit.rule.as_str()), Some("open"));
                return Some(self.record(&admitted.start));
            }
            Effect::Launch(attempt) if self.closed => {
                let refusal = Refusal::Policy { rule: "closed".into(), why: None };
                return Some(Event::LaunchRefused { attempt, refusal });
            }
            Effect::KeepSecrets(attempt) => self.keep_secrets(&attempt),
            Effect::Launch(attempt) => {
                let needs = self.dirs.get(&attempt).is_some_and(|dir| dir.needs_secrets);
                assert!(
                    !needs || self.memory.contains(&attempt),
                    "{attempt} was launched without the values of its secrets"
                );
                assert!(
                    self.proofs.remove(&attempt),
                    "{attempt} was launched without proof that it had not started"
                );
                assert!(!self.refused_now.contains(&attempt), "{attempt} was refused and then launched");
                let dir = self.dirs.get_mut(&attempt).expect("launched before it was durable");
                assert!(dir.exit.is_none(), "launched after its end");
                dir.launch(&attempt);
            }
            Effect::RequestCancel { attempt, .. } => self.dirs.get_mut(&attempt)?.cancel = true,
            Effect::EndTree(attempt) => {
                let dir = self.dirs.get_mut(&attempt)?;
                assert!(!dir.locked(), "a tree was ended under its supervisor");
                dir.tree = false;
                return Some(Event::TreeEnded { attempt, left: vec![] });
            }
            Effect::Abandon { attempt, ended } => {
                return Some(self.dirs.get_mut(&attempt)?.abandon(attempt, ended));
            }
            Effect::Conclude { attempt, ended } => return self.conclude(attempt, ended),
            Effect::Inspect(attempt) => return self.seen(&attempt).map(Event::Observed),
            Effect::NoteAck { attempt, stage } => self.dirs.get_mut(&attempt)?.acked = Some(stage),
            Effect::WriteTombstone(tombstone) => {
                assert!(!self.dirs.contains_key(&tombstone.attempt));
                self.tombs.insert(tombstone.attempt.clone(), tombstone.clone());
                return Some(Event::TombstoneWritten(tombstone));
            }
            Effect::Compact(tombstone) => {
                let attempt = tombstone.attempt.clone();
                assert!(self.forgotten.contains(&attempt), "{attempt} was compacted without a Forget");
                let dir = self.dirs.remove(&attempt)?;
                assert_eq!(dir.exit.as_ref(), Some(&tombstone.ended), "another result was compacted");
                self.tombs.insert(attempt.clone(), tombstone);
                return Some(Event::Compacted { attempt });
            }
            Effect::Send(message) => self.note_sent(message),
            Effect::Ignored { .. } => {}
        }
        None
    }

    fn conclude(&mut self, attempt: AttemptId, ended: Box<Ended>) -> Option<Event> {
        let dir = self.dirs.get_mut(&attempt)?;
        let event = dir.conclude(attempt, ended);
        if let Event::Concluded { .. } = event {
            assert!(!dir.tree, "concluded while the command lives");
            assert!(dir.state != LastState::Accepted, "concluded what may still start");
        }
        Some(event)
    }

    /// Notes what the operator receives.
    fn note_sent(&mut self, message: ToOperator) {
        match message {
            ToOperator::Report(report) => self.note_report(&report),
            ToOperator::Inventory(part) => {
                part.attempts.iter().for_each(|r| self.note_report(r));
            }
            ToOperator::Refused(refused)
                if !matches!(refused.refusal, Refusal::StaleEpoch { .. } | Refusal::SpecHashMismatch) =>
            {
                self.refused_now.insert(refused.attempt.clone());
                self.refused_ever.insert(refused.attempt);
            }
            _ => {}
        }
    }

    /// Lets one supervisor of an Attempt take its next step, or kills it.
    pub(crate) fn supervise(&mut self, n: usize, which: usize, kill: bool) {
        let (attempt, now) = (id(n), self.now);
        let Some(dir) = self.dirs.get_mut(&attempt) else { return };
        if dir.supervisors.is_empty() {
            return;
        }
        let which = which % dir.supervisors.len();
        if kill {
            dir.supervisors.remove(which);
            return;
        }
        match dir.supervisors[which] {
            Supervisor::OnItsWay => {
                if dir.locked() || dir.state != LastState::Accepted || dir.exit.is_some() {
                    dir.supervisors.remove(which);
                } else {
                    dir.state = LastState::Starting;
                    dir.supervisors[which] = Supervisor::Starting;
                }
            }
            Supervisor::Starting if dir.cancel => {
                dir.exit = Some(ended(Outcome::Cancelled, now));
                dir.supervisors.remove(which);
            }
            Supervisor::Starting => {
                dir.tree = true;
                dir.supervisors[which] = Supervisor::Executed;
                let executions = self.executions.entry(attempt.clone()).or_default();
                *executions += 1;
                assert_eq!(*executions, 1, "{attempt} ran twice");
            }
            Supervisor::Executed => {
                dir.state = LastState::Running;
                dir.running = Some(Running { started_at: UnixMillis(now.cast_signed()), pid: 7 });
                dir.supervisors[which] = Supervisor::Running;
            }
            Supervisor::Running => {
                let code = Outcome::Succeeded { exit_code: 0 };
                dir.exit = Some(ended(if dir.cancel { Outcome::Cancelled } else { code }, now));
                dir.tree = false;
                dir.supervisors.remove(which);
            }
        }
    }
}
