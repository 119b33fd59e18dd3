//! The agent's brain over random histories: messages lost, repeated and reordered, crashes between any two effects,
//! reboots, and supervisors that come late or are killed. Disk, kernel and supervisors are plain values here.
//!
//! Over 500 lines: it is one model, and each of its steps reads and changes the same world.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sentinel_core::agent::recovery::{
    Boot, Evidence, ExitRecord, LastState, Lock, SupervisorContainer, Tree,
};
use sentinel_core::agent::{Agent, AttemptSnapshot, Effect, Event, Facts, Rules, Tombstone};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash, TaskRef};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{
    Deadlines, Environment, Leftovers, OutputRules, Program, ResourceLimits, RunRequest,
};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{
    Ended, OutputSummary, Report, ReportedState, Running, ToOperator, Usage,
};

const IDS: usize = 4;
const START_MS: u64 = 60_000;

fn id(n: usize) -> AttemptId {
    format!("task/{}/node/1", n + 1).parse().unwrap()
}

fn hash(n: u8) -> SpecHash {
    SpecHash::new(format!("{n:064x}")).unwrap()
}

fn rules() -> Rules {
    Rules { max_attempts: 3, ..Rules::default() }
}

fn start(n: usize, spec: u8, epoch: u64) -> Start {
    Start {
        attempt: id(n),
        spec_hash: hash(spec),
        epoch: Epoch::new(epoch).unwrap(),
        task: TaskRef::new("ops", "t").unwrap(),
        request: RunRequest {
            program: Program::Command(vec!["true".into()]),
            env: vec![],
            working_dir: "/".into(),
            user: None,
            group: None,
            umask: 0o022,
            stdin: String::new(),
            environment: Environment::Container,
            success_exit_codes: vec![0],
            output: OutputRules { limit: 1 << 20, spool: 1 << 20, max_block_ms: 0, merge: false },
            limits: ResourceLimits::default(),
            leftovers: Leftovers::End,
        },
        deadlines: Deadlines {
            start_ms: START_MS,
            run_ms: None,
            idle_ms: None,
            total_ms: None,
            grace_ms: 1000,
        },
        credit: 0,
        offer: 0,
    }
}

/// How far a supervisor has come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Supervisor {
    /// Launched, and not yet at the lock.
    OnItsWay,
    /// Holds the lock, `starting` is durable.
    Starting,
    /// The command runs; `running` is not yet durable.
    Executed,
    /// `running` is durable.
    Running,
}

/// One Attempt's directory and what the kernel knows of it.
#[derive(Debug, Clone)]
struct Dir {
    spec_hash: SpecHash,
    start_by: Monotonic,
    boot: u32,
    state: LastState,
    running: Option<Running>,
    exit: Option<Ended>,
    acked: Option<Stage>,
    cancel: bool,
    /// At most one of these holds the lock; others may be on their way.
    supervisors: Vec<Supervisor>,
    tree: bool,
}

impl Dir {
    fn locked(&self) -> bool {
        self.supervisors.iter().any(|s| *s != Supervisor::OnItsWay)
    }
}

/// Everything outside the brain, and what the invariants are checked against.
#[derive(Default)]
struct World {
    now: u64,
    boot: u32,
    epoch: u64,
    dirs: BTreeMap<AttemptId, Dir>,
    tombs: BTreeMap<AttemptId, Tombstone>,
    executions: BTreeMap<AttemptId, u32>,
    /// Attempts just proven not to have started.
    proofs: BTreeSet<AttemptId>,
    reported: BTreeMap<AttemptId, Ended>,
    forgotten: BTreeSet<AttemptId>,
    refused_now: BTreeSet<AttemptId>,
    refused_ever: BTreeSet<AttemptId>,
}

fn ended(outcome: Outcome, at: u64) -> Ended {
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

impl World {
    fn now(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: UnixMillis(self.now.cast_signed()) }
    }

    fn seen(&mut self, id: &AttemptId) -> Option<AttemptSnapshot> {
        let dir = self.dirs.get(id)?;
        let evidence = Evidence {
            state: dir.state,
            exit: if dir.exit.is_some() { ExitRecord::Present } else { ExitRecord::Missing },
            lock: if dir.locked() { Lock::Held } else { Lock::Free },
            tree: if dir.tree { Tree::Populated } else { Tree::Empty },
            boot: if dir.boot == self.boot { Boot::Same } else { Boot::Other },
            container: SupervisorContainer::Same,
        };
        if !dir.locked() && dir.state == LastState::Accepted && dir.exit.is_none() {
            self.proofs.insert(id.clone());
        }
        Some(AttemptSnapshot {
            attempt: id.clone(),
            spec_hash: dir.spec_hash.clone(),
            start_by: if dir.boot == self.boot { dir.start_by } else { Monotonic(START_MS) },
            evidence,
            running: dir.running.clone(),
            ended: dir.exit.clone().map(Box::new),
            abandoned: None,
            acked: dir.acked,
        })
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

    fn record(&mut self, start: &Start) -> Event {
        let attempt = start.attempt.clone();
        assert!(!self.tombs.contains_key(&attempt), "{attempt} was recorded over its tombstone");
        assert_eq!(
            start.epoch.get(),
            self.epoch,
            "a stale epoch was obeyed, or a newer one before it was durable"
        );
        let dir = Dir {
            spec_hash: start.spec_hash.clone(),
            start_by: Monotonic(self.now + start.deadlines.start_ms),
            boot: self.boot,
            state: LastState::Accepted,
            running: None,
            exit: None,
            acked: None,
            cancel: false,
            supervisors: vec![],
            tree: false,
        };
        if let Some(old) = self.dirs.insert(attempt.clone(), dir) {
            assert_eq!((old.state, &old.spec_hash), (LastState::Accepted, &start.spec_hash));
            assert!(old.boot != self.boot && old.exit.is_none(), "a living request was replaced");
        }
        self.proofs.insert(attempt.clone());
        Event::Recorded { attempt }
    }

    /// Carries one effect out; what it led to is the answer.
    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::SetEpoch(epoch) => {
                assert!(epoch.get() >= self.epoch, "the epoch on disk went back");
                self.epoch = epoch.get();
            }
            Effect::Record(start) | Effect::Confirm(start) => return Some(self.record(&start)),
            Effect::Launch(attempt) => {
                assert!(
                    self.proofs.remove(&attempt),
                    "{attempt} was launched without proof that it had not started"
                );
                assert!(!self.refused_now.contains(&attempt), "{attempt} was refused and then launched");
                let dir = self.dirs.get_mut(&attempt).expect("launched before it was durable");
                assert!(dir.exit.is_none(), "launched after its end");
                dir.supervisors.push(Supervisor::OnItsWay);
            }
            Effect::RequestCancel(attempt) => self.dirs.get_mut(&attempt)?.cancel = true,
            Effect::EndTree(attempt) => {
                let dir = self.dirs.get_mut(&attempt)?;
                assert!(!dir.locked(), "a tree was ended under its supervisor");
                dir.tree = false;
                return Some(Event::TreeEnded { attempt, left: vec![] });
            }
            Effect::Abandon { attempt, ended } => return self.abandon(attempt, ended),
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

    fn abandon(&mut self, attempt: AttemptId, ended: Box<Ended>) -> Option<Event> {
        let dir = self.dirs.get_mut(&attempt)?;
        let untouched = matches!(dir.state, LastState::Accepted | LastState::Abandoned);
        if dir.locked() || dir.exit.is_some() || !untouched {
            return Some(Event::TooLate { attempt });
        }
        dir.state = LastState::Abandoned;
        dir.exit = Some((*ended).clone());
        Some(Event::Concluded { attempt, ended })
    }

    fn conclude(&mut self, attempt: AttemptId, ended: Box<Ended>) -> Option<Event> {
        let dir = self.dirs.get_mut(&attempt)?;
        if dir.locked() || dir.exit.is_some() {
            return Some(Event::TooLate { attempt });
        }
        assert!(!dir.tree, "concluded while the command lives");
        assert!(dir.state != LastState::Accepted, "concluded what may still start");
        dir.exit = Some((*ended).clone());
        Some(Event::Concluded { attempt, ended })
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
    fn supervise(&mut self, n: usize, which: usize, kill: bool) {
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

struct Machine {
    world: World,
    agent: Agent,
    connected: bool,
    crash_after: Option<usize>,
}

impl Machine {
    fn connected() -> Self {
        let agent = Agent::new(rules(), Epoch::ZERO);
        let mut machine = Self { world: World::default(), agent, connected: false, crash_after: None };
        machine.restart();
        machine.connect();
        machine
    }

    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.agent.step(event, self.world.now()) {
                if let Some(left) = &mut self.crash_after {
                    if *left == 0 {
                        return self.restart();
                    }
                    *left -= 1;
                }
                events.extend(self.world.perform(effect));
            }
        }
    }

    fn restart(&mut self) {
        self.crash_after = None;
        self.connected = false;
        self.world.refused_now.clear();
        self.agent = Agent::new(rules(), Epoch::new(self.world.epoch).unwrap());
        // What is launched now must rest on what is seen now.
        self.world.proofs.clear();
        let ids: Vec<AttemptId> = self.world.dirs.keys().cloned().collect();
        let seen = ids.iter().filter_map(|id| self.world.seen(id)).collect();
        self.handle(Event::Replayed { seen, unreadable: vec![] });
    }

    fn receive(&mut self, message: ToAgent, about: usize) {
        if self.connected {
            let tombstone = self.world.tombs.get(&id(about)).cloned();
            self.handle(Event::Received { message, facts: Facts { tombstone, free: u64::MAX } });
        }
    }

    fn connect(&mut self) {
        self.connected = true;
        self.handle(Event::Connected { epoch: Epoch::new(self.world.epoch).unwrap() });
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.world.refused_now.clear();
        self.handle(Event::Disconnected);
    }

    fn start(&mut self, n: usize) {
        self.receive(ToAgent::Start(Box::new(start(n, 0, self.world.epoch))), n);
    }

    fn apply(&mut self, op: &Op) {
        let epoch = |stale: bool| self.world.epoch.saturating_sub(u64::from(stale));
        match *op {
            Op::Start { n, spec, stale, lead } => {
                let start = start(n, spec, epoch(stale) + u64::from(lead));
                self.receive(ToAgent::Start(Box::new(start)), n);
            }
            Op::Cancel { n, stale } => {
                let cancel =
                    Cancel { attempt: id(n), spec_hash: hash(0), epoch: Epoch::new(epoch(stale)).unwrap() };
                self.receive(ToAgent::Cancel(cancel), n);
            }
            Op::Ack { n, stage } => self.receive(ToAgent::Ack(Ack { attempt: id(n), stage }), n),
            Op::Forget { n } => {
                if self.connected {
                    self.world.forgotten.insert(id(n));
                }
                self.receive(
                    ToAgent::Forget(Forget { attempt: id(n), epoch: Epoch::new(self.world.epoch).unwrap() }),
                    n,
                );
            }
            Op::Pass { millis } => {
                self.world.now += millis;
                self.handle(Event::Tick);
            }
            Op::Connect => self.connect(),
            Op::Disconnect => self.disconnect(),
            Op::Crash { after } => self.crash_after = Some(after),
            Op::Restart => self.restart(),
            Op::Reboot => {
                self.world.boot += 1;
                self.world.now = 0;
                for dir in self.world.dirs.values_mut() {
                    dir.supervisors.clear();
                    dir.tree = false;
                }
                self.restart();
            }
            Op::Supervise { n, which, kill } => self.world.supervise(n, which, kill),
            Op::Observe { n } => {
                if let Some(seen) = self.world.seen(&id(n)) {
                    self.handle(Event::Observed(seen));
                }
            }
        }
    }

    /// Faults are over: the operator asks again until it has an answer, and supervisors work to their end.
    fn settle(&mut self, asked: &BTreeSet<usize>) {
        self.crash_after = None;
        self.disconnect();
        self.connect();
        for _ in 0..40 {
            for &n in asked {
                if !self.world.reported.contains_key(&id(n)) && !self.world.refused_now.contains(&id(n)) {
                    self.start(n);
                }
            }
            (0..IDS).for_each(|n| self.world.supervise(n, 0, false));
            self.world.now += 6_000;
            self.handle(Event::Tick);
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Start { n: usize, spec: u8, stale: bool, lead: bool },
    Cancel { n: usize, stale: bool },
    Ack { n: usize, stage: Stage },
    Forget { n: usize },
    Pass { millis: u64 },
    Connect,
    Disconnect,
    Crash { after: usize },
    Restart,
    Reboot,
    Supervise { n: usize, which: usize, kill: bool },
    Observe { n: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..IDS;
    let rarely = || prop::bool::weighted(0.1);
    let stage = prop_oneof![Just(Stage::Accepted), Just(Stage::Running), Just(Stage::Ended)];
    prop_oneof![
        8 => (n.clone(), rarely(), rarely(), rarely())
            .prop_map(|(n, spec, stale, lead)| Op::Start { n, spec: u8::from(spec), stale, lead }),
        2 => (n.clone(), rarely()).prop_map(|(n, stale)| Op::Cancel { n, stale }),
        3 => (n.clone(), stage).prop_map(|(n, stage)| Op::Ack { n, stage }),
        1 => n.clone().prop_map(|n| Op::Forget { n }),
        4 => (0..20_000u64).prop_map(|millis| Op::Pass { millis }),
        3 => Just(Op::Connect),
        1 => Just(Op::Disconnect),
        2 => (0..4usize).prop_map(|after| Op::Crash { after }),
        1 => Just(Op::Restart),
        1 => Just(Op::Reboot),
        10 => (n.clone(), 0..3usize, rarely()).prop_map(|(n, which, kill)| Op::Supervise { n, which, kill }),
        3 => n.prop_map(|n| Op::Observe { n }),
    ]
}

/// The id was used for another spec before; every Start is refused.
fn taken_by_another_spec(world: &World, n: usize) -> bool {
    let other = |spec_hash: &SpecHash| *spec_hash != hash(0);
    world.dirs.get(&id(n)).is_some_and(|dir| other(&dir.spec_hash))
        || world.tombs.get(&id(n)).is_some_and(|tomb| other(&tomb.spec_hash))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_runs_twice_and_no_result_is_lost(ops in prop::collection::vec(op(), 1..80)) {
        let mut machine = Machine::connected();
        let mut asked = BTreeSet::new();
        for op in &ops {
            if let Op::Start { n, spec: 0, stale: false, .. } = op && machine.connected {
                asked.insert(*n);
            }
            machine.apply(op);
        }
        machine.settle(&asked);
        let world = &machine.world;
        for &n in &asked {
            let answered = world.reported.contains_key(&id(n)) || world.refused_ever.contains(&id(n));
            prop_assert!(answered || taken_by_another_spec(world, n), "{} was never answered", id(n));
        }
        for (id, dir) in &world.dirs {
            prop_assert!(dir.exit.is_some() || dir.boot != world.boot, "{id} never ended");
            prop_assert!(dir.exit.is_none() || world.reported.contains_key(id), "the end of {id} was never reported");
        }
        for (id, ended) in &world.reported {
            let kept = world.dirs.get(id).and_then(|dir| dir.exit.clone());
            let kept = kept.or_else(|| world.tombs.get(id).map(|tomb| tomb.ended.clone()));
            prop_assert_eq!(kept.as_ref(), Some(ended), "the end of {} was forgotten", id);
        }
    }
}

// --- single behaviours ---------------------------------------------------------------------------------------------

fn at(seconds: u64) -> Now {
    Now { monotonic: Monotonic(seconds * 1000), wall: UnixMillis(0) }
}

fn received(message: ToAgent) -> Event {
    Event::Received { message, facts: Facts { tombstone: None, free: u64::MAX } }
}

fn received_start(n: usize, spec: u8, epoch: u64) -> Event {
    received(ToAgent::Start(Box::new(start(n, spec, epoch))))
}

fn recorded_agent() -> Agent {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Replayed { seen: vec![], unreadable: vec![] }, at(0));
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    agent.step(received_start(0, 0, 1), at(0));
    agent.step(Event::Recorded { attempt: id(0) }, at(0));
    agent
}

fn only_refusal(effects: &[Effect]) -> &Refusal {
    let [Effect::Send(ToOperator::Refused(refused))] = effects else { panic!("{effects:?}") };
    &refused.refusal
}

#[test]
fn request_is_durable_before_launch_and_launched_before_report() {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    let first = agent.step(received_start(0, 0, 1), at(0));
    assert_eq!(first, [Effect::Record(Box::new(start(0, 0, 1)))]);
    let then = agent.step(Event::Recorded { attempt: id(0) }, at(0));
    assert_eq!(then[0], Effect::Launch(id(0)));
    assert!(
        matches!(&then[1..], [Effect::Send(ToOperator::Report(r))] if r.state == ReportedState::Accepted)
    );
}

#[test]
fn repeated_start_is_answered_with_the_current_state() {
    let mut agent = recorded_agent();
    let again = agent.step(received_start(0, 0, 1), at(1));
    assert!(
        matches!(&again[..], [Effect::Send(ToOperator::Report(r))] if r.state == ReportedState::Accepted)
    );
}

#[test]
fn same_id_with_another_spec_is_refused() {
    let mut agent = recorded_agent();
    assert_eq!(only_refusal(&agent.step(received_start(0, 1, 1), at(1))), &Refusal::SpecHashMismatch);
}

#[test]
fn stale_epoch_is_refused_and_a_newer_one_persisted_first() {
    let mut agent = recorded_agent();
    let newer = agent.step(received_start(1, 0, 5), at(1));
    assert_eq!(newer[0], Effect::SetEpoch(Epoch::from(5)));
    assert!(matches!(newer[1], Effect::Record(_)));
    let older = agent.step(received_start(2, 0, 4), at(1));
    assert_eq!(only_refusal(&older), &Refusal::StaleEpoch { seen: Epoch::from(5) });
}

#[test]
fn refused_start_is_not_run_when_resent_in_the_session() {
    let mut machine = Machine::connected();
    (0..4).for_each(|n| machine.start(n));
    assert!(machine.world.refused_now.contains(&id(3)));
    for _ in 0..4 {
        machine.world.supervise(0, 0, false);
    }
    machine.apply(&Op::Observe { n: 0 });
    machine.start(3);
    assert!(!machine.world.dirs.contains_key(&id(3)));
}

#[test]
fn busy_agent_declines_copies_of_an_offer_and_accepts_the_next() {
    let mut agent = Agent::new(Rules { max_attempts: 1, ..rules() }, Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    agent.step(received_start(0, 0, 1), at(0));
    agent.step(Event::Recorded { attempt: id(0) }, at(0));
    let offer = |agent: &mut Agent, offer| {
        let start = Start { offer, ..start(1, 0, 1) };
        agent.step(received(ToAgent::Start(Box::new(start))), at(1))
    };
    let declined = offer(&mut agent, 1);
    assert_eq!(only_refusal(&declined), &Refusal::TooManyAttempts { limit: 1 });
    assert!(matches!(&declined[..], [Effect::Send(ToOperator::Refused(r))] if r.offer == 1), "{declined:?}");

    let over = ended_without_exit_code();
    agent.step(Event::Concluded { attempt: id(0), ended: Box::new(over) }, at(2));
    assert_eq!(offer(&mut agent, 1), declined, "a late copy of the offer was taken");
    assert!(matches!(offer(&mut agent, 2)[..], [Effect::Record(_)]));
}

#[test]
fn start_without_offer_number_is_refused_permanently() {
    let mut agent = Agent::new(Rules { max_attempts: 0, ..rules() }, Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    let refused = agent.step(received_start(0, 0, 1), at(0));
    assert!(matches!(&refused[..], [Effect::Send(ToOperator::Refused(r))] if r.offer == 0), "{refused:?}");
    assert_eq!(agent.step(received_start(0, 0, 1), at(1)), refused);
}

fn ended_without_exit_code() -> Ended {
    let (usage, output) = (Usage::default(), OutputSummary::default());
    Ended {
        outcome: Outcome::Cancelled,
        started_at: None,
        ended_at: UnixMillis(1),
        usage,
        output,
        exit: ExitDetails::default(),
    }
}

#[test]
fn report_is_resent_every_ten_seconds_until_acknowledged() {
    let mut agent = recorded_agent();
    let reports = |effects: Vec<Effect>| effects.iter().filter(|e| matches!(e, Effect::Send(_))).count();
    assert_eq!(reports(agent.step(Event::Tick, at(9))), 0);
    assert_eq!(reports(agent.step(Event::Tick, at(10))), 1);
    assert_eq!(reports(agent.step(Event::Tick, at(19))), 0);
    assert_eq!(reports(agent.step(Event::Tick, at(20))), 1);
    agent.step(received(ToAgent::Ack(Ack { attempt: id(0), stage: Stage::Accepted })), at(20));
    assert_eq!(reports(agent.step(Event::Tick, at(40))), 0);
    assert_eq!(agent.unacknowledged(), 0);
}

#[test]
fn cancel_of_an_unknown_attempt_prevents_its_later_start() {
    let mut machine = Machine::connected();
    machine.apply(&Op::Cancel { n: 0, stale: false });
    assert_eq!(machine.world.tombs[&id(0)].ended.outcome, Outcome::Cancelled);
    machine.restart();
    machine.connect();
    machine.start(0);
    assert!(machine.world.dirs.is_empty());
    assert_eq!(machine.world.reported[&id(0)].outcome, Outcome::Cancelled);
}

#[test]
fn cancelled_attempt_without_supervisor_never_starts() {
    let mut machine = Machine::connected();
    machine.start(0);
    machine.apply(&Op::Cancel { n: 0, stale: false });
    machine.world.supervise(0, 0, false);
    assert_eq!(machine.world.reported[&id(0)].outcome, Outcome::Cancelled);
    assert!(machine.world.executions.is_empty());
}

#[test]
fn running_command_is_cancelled_by_its_supervisor() {
    let mut machine = Machine::connected();
    machine.start(0);
    (0..3).for_each(|_| machine.world.supervise(0, 0, false));
    machine.apply(&Op::Cancel { n: 0, stale: false });
    assert!(machine.world.dirs[&id(0)].cancel && machine.world.dirs[&id(0)].exit.is_none());
    machine.world.supervise(0, 0, false);
    machine.apply(&Op::Observe { n: 0 });
    assert_eq!(machine.world.reported[&id(0)].outcome, Outcome::Cancelled);
}

#[test]
fn lost_supervisor_is_relaunched_after_five_seconds() {
    let mut machine = Machine::connected();
    machine.start(0);
    machine.world.supervise(0, 0, true);
    machine.apply(&Op::Pass { millis: 4_999 });
    assert!(machine.world.dirs[&id(0)].supervisors.is_empty());
    machine.apply(&Op::Pass { millis: 1 });
    assert_eq!(machine.world.dirs[&id(0)].supervisors.len(), 1);
}

#[test]
fn attempt_accepted_before_a_reboot_waits_for_another_start() {
    let mut machine = Machine::connected();
    machine.start(0);
    machine.start(1);
    machine.apply(&Op::Reboot);
    machine.connect();
    machine.apply(&Op::Pass { millis: 1_000 });
    assert!(machine.world.dirs.values().all(|dir| dir.supervisors.is_empty()));
    machine.start(0);
    assert_eq!(machine.world.dirs[&id(0)].supervisors.len(), 1);
    machine.apply(&Op::Pass { millis: START_MS });
    assert_eq!(machine.world.reported[&id(1)].outcome, Outcome::StartTimedOut { why: None });
}

#[test]
fn forget_of_an_active_attempt_is_ignored() {
    let mut machine = Machine::connected();
    machine.start(0);
    machine.apply(&Op::Forget { n: 0 });
    assert!(machine.world.dirs.contains_key(&id(0)));
}

#[test]
fn result_is_forgotten_only_once_acknowledged() {
    let mut machine = Machine::connected();
    machine.start(0);
    for _ in 0..4 {
        machine.apply(&Op::Supervise { n: 0, which: 0, kill: false });
    }
    machine.apply(&Op::Observe { n: 0 });
    machine.apply(&Op::Forget { n: 0 });
    assert!(machine.world.dirs.contains_key(&id(0)), "its output may not be archived");
    machine.apply(&Op::Ack { n: 0, stage: Stage::Ended });
    assert!(!machine.world.dirs.contains_key(&id(0)));
}

#[test]
fn journal_failure_refuses_new_attempts_and_keeps_old_ones() {
    let mut agent = recorded_agent();
    agent.step(received_start(1, 0, 1), at(1));
    let effects = agent.step(Event::JournalFailed { message: "EIO".into() }, at(1));
    assert_eq!(only_refusal(&effects), &Refusal::JournalUnsafe { message: "EIO".into() });
    assert_eq!(only_refusal(&agent.step(received_start(2, 0, 1), at(1))).to_string(), {
        Refusal::JournalUnsafe { message: "EIO".into() }.to_string()
    });
    assert_eq!(agent.living(), 1);
}

#[test]
fn stopping_agent_accepts_and_launches_nothing() {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Connected { epoch: Epoch::from(1) }, at(0));
    agent.step(received_start(0, 0, 1), at(0));
    agent.step(Event::Stopping, at(0));
    let effects = agent.step(Event::Recorded { attempt: id(0) }, at(0));
    assert!(!effects.contains(&Effect::Launch(id(0))));
    assert_eq!(only_refusal(&agent.step(received_start(1, 0, 1), at(0))), &Refusal::Stopping);
}

#[test]
fn attempt_with_unreadable_record_is_lost_and_never_started() {
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Replayed { seen: vec![], unreadable: vec![id(0).directory_name()] }, at(0));
    agent.step(Event::Connected { epoch: Epoch::ZERO }, at(0));
    let effects = agent.step(received_start(0, 0, 1), at(0));
    let [Effect::Send(ToOperator::Report(report))] = &effects[..] else { panic!("{effects:?}") };
    assert!(matches!(&report.state, ReportedState::Ended(e) if e.outcome.name() == "Lost"));
}

#[test]
fn large_inventory_is_sent_in_parts() {
    let seen = |n: usize| {
        let mut world = World::default();
        world.perform(Effect::Record(Box::new(start(n, 0, 0))));
        world.seen(&id(n)).unwrap()
    };
    let mut agent = Agent::new(rules(), Epoch::ZERO);
    agent.step(Event::Replayed { seen: (0..1001).map(seen).collect(), unreadable: vec![] }, at(0));
    let parts: Vec<(usize, bool)> = agent
        .step(Event::Connected { epoch: Epoch::ZERO }, at(0))
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(ToOperator::Inventory(part)) => Some((part.attempts.len(), part.more)),
            _ => None,
        })
        .collect();
    assert_eq!(parts, [(500, true), (500, true), (1, false)]);
}
