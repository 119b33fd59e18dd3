//! A node: its disk, its kernel, its supervisors and its agent.

use std::collections::{BTreeMap, BTreeSet};

use sentinel_core::agent::recovery::LastState;
use sentinel_core::agent::{
    Agent, AttemptSnapshot, Effect, Event, Facts, Journaled, PolicyVerdict, Rules, SecretsSent, Tombstone,
};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Start, ToAgent};
use sentinel_protocol::to_operator::{Ended, ReportedState, Running, ToOperator};

use crate::attempt_dir::{AttemptDir, Supervisor, ended};
use crate::mutation::Mutation;
use crate::rng::Rng;
use crate::simulation::Violation;
use crate::witness::Witness;

mod guests;

/// How commands end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// In their own time, or cancelled.
    Anyhow,
    /// Only cancelled.
    IfCancelled,
}

pub struct Node {
    pub name: NodeName,
    boot: u32,
    /// Boot clock, milliseconds.
    clock: u64,
    epoch: u64,
    dirs: BTreeMap<AttemptId, AttemptDir>,
    /// Attempts whose request is in the log, which was not synced since: a loss of power may take them away.
    unsynced: BTreeSet<AttemptId>,
    /// Reports that such an Attempt was accepted, which wait for the log.
    held: Vec<ToOperator>,
    tombs: BTreeMap<AttemptId, Tombstone>,
    agent: Agent,
    connected: bool,
    mutation: Option<Mutation>,
    /// Attempts of other Tasks: they take places of the agent, and whether each is over.
    guests: BTreeMap<AttemptId, bool>,
    guests_made: u64,
    /// Attempts for which a fault of this node was injected: their `Lost` is justified.
    pub faulted: BTreeSet<AttemptId>,
    /// Attempts whose values of Secrets the agent has in its memory.
    memory: BTreeSet<AttemptId>,
    /// What is to be sent, in order.
    pub outbox: Vec<ToOperator>,
}

/// Two commands at once, so that other Tasks can keep it busy.
fn rules() -> Rules {
    Rules { max_attempts: 2, ..Rules::default() }
}

impl Node {
    pub fn new(name: NodeName, mutation: Option<Mutation>) -> Self {
        let agent = Agent::new(rules(), Epoch::ZERO);
        Self {
            name,
            boot: 0,
            clock: 1_000,
            epoch: 0,
            dirs: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            held: vec![],
            tombs: BTreeMap::new(),
            agent,
            connected: false,
            mutation,
            guests: BTreeMap::new(),
            guests_made: 0,
            faulted: BTreeSet::new(),
            memory: BTreeSet::new(),
            outbox: vec![],
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Monotonic(self.clock), wall: UnixMillis(self.clock.cast_signed()) }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub fn pass(&mut self, millis: u64) {
        self.clock += millis;
        // The agent waits 10 ms for a command to start, and makes its request durable then.
        if millis >= 10 && !self.held.is_empty() {
            self.sync();
        }
    }

    /// Attempts that the agent has not forgotten.
    pub fn owned(&self) -> impl Iterator<Item = &AttemptId> {
        self.dirs.keys()
    }

    /// Attempts whose command runs.
    pub fn living(&self) -> impl Iterator<Item = &AttemptId> {
        self.dirs.iter().filter(|(_, dir)| dir.tree).map(|(id, _)| id)
    }

    /// How an Attempt ended by its files on disk.
    pub fn end_of(&self, id: &AttemptId) -> Option<&Ended> {
        self.dirs
            .get(id)
            .and_then(|dir| dir.exit.as_ref())
            .or_else(|| self.tombs.get(id).map(|tomb| &tomb.ended))
    }

    // --- the agent --------------------------------------------------------------------------------------------

    /// One event, with a crash of the agent after so many effects.
    fn handle(&mut self, event: Event, crash_after: Option<usize>) -> Result<(), Violation> {
        let mut left = crash_after;
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.agent.step(event, self.now()) {
                if left == Some(0) {
                    return self.crash();
                }
                left = left.map(|left| left - 1);
                events.extend(self.perform(effect)?);
            }
        }
        Ok(())
    }

    pub fn connect(&mut self, epoch: Epoch) -> Result<(), Violation> {
        self.connected = true;
        self.handle(Event::Connected { epoch }, None)
    }

    pub fn disconnect(&mut self) -> Result<(), Violation> {
        self.connected = false;
        self.outbox.clear();
        self.held.clear();
        self.handle(Event::Disconnected, None)
    }

    pub fn receive(&mut self, message: ToAgent, crash_after: Option<usize>) -> Result<(), Violation> {
        let message = self.as_if_unfenced(message);
        let about = match &message {
            ToAgent::Start(start) => Some(&start.attempt),
            ToAgent::Cancel(cancel) => Some(&cancel.attempt),
            ToAgent::Ack(ack) => Some(&ack.attempt),
            ToAgent::Forget(forget) => Some(&forget.attempt),
            _ => None,
        };
        let tombstone = about.and_then(|id| self.tombs.get(id)).cloned();
        if let (true, ToAgent::Ack(ack)) = (self.is(Mutation::DropOnAck), &message)
            && ack.stage == Stage::Ended
        {
            let id = ack.attempt.clone();
            self.dirs.remove(&id);
            return self.crash();
        }
        if let (true, ToAgent::Forget(forget)) = (self.is(Mutation::ForgetBeforeArchive), &message) {
            // The agent's own guard is broken too, or it would catch what the operator lets through.
            let message = ToAgent::Ack(Ack { attempt: forget.attempt.clone(), stage: Stage::Ended });
            self.handle(Event::Received { message, facts: Facts::default() }, None)?;
        }
        let (policy, secrets) = (PolicyVerdict::NoPolicy, SecretsSent::Values);
        let facts = Facts { tombstone, free: u64::MAX, policy, secrets, journaled: Journaled::Same };
        self.handle(Event::Received { message, facts }, crash_after)
    }

    /// What an agent that knows no epochs would read.
    fn as_if_unfenced(&self, mut message: ToAgent) -> ToAgent {
        if self.is(Mutation::EpochIgnored) {
            let highest = Epoch::new(self.epoch).unwrap().max(self.agent.highest_epoch());
            match &mut message {
                ToAgent::Start(start) => start.epoch = highest,
                ToAgent::Cancel(cancel) => cancel.epoch = highest,
                ToAgent::Forget(forget) => forget.epoch = highest,
                _ => {}
            }
        }
        message
    }

    pub fn tick(&mut self) -> Result<(), Violation> {
        self.sync();
        self.handle(Event::Tick, None)
    }

    /// Makes the log durable, and sends what waited for it.
    fn sync(&mut self) {
        self.unsynced.clear();
        let held = std::mem::take(&mut self.held);
        held.into_iter().for_each(|message| self.send_now(message));
    }

    pub fn inspect(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let ids: Vec<AttemptId> = self.dirs.keys().cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let id = &ids[rng.below(ids.len())];
        self.drop_held(id);
        match self.seen(id) {
            Some(seen) => self.handle(Event::Observed(seen), None),
            None => Ok(()),
        }
    }

    /// The agent is killed and started again.
    pub fn crash(&mut self) -> Result<(), Violation> {
        self.connected = false;
        self.outbox.clear();
        self.held.clear();
        // A new agent syncs the log before it does anything else.
        self.unsynced.clear();
        self.guests.clear();
        self.memory.clear();
        self.agent = Agent::new(rules(), Epoch::new(self.epoch).unwrap());
        let ids: Vec<AttemptId> = self.dirs.keys().cloned().collect();
        let seen = ids.iter().filter_map(|id| self.seen(id)).collect();
        self.handle(Event::Replayed { seen, unreadable: vec![] }, None)
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The machine loses its power and is started again: of what was not synced, anything may be gone.
    pub fn reboot(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        self.boot += 1;
        self.clock = 1_000;
        for id in std::mem::take(&mut self.unsynced) {
            match rng.below(3) {
                0 => drop(self.dirs.remove(&id)),
                1 => {
                    self.dirs.entry(id).and_modify(AttemptDir::lose_start);
                }
                _ => {}
            }
        }
        for (id, dir) in &mut self.dirs {
            if dir.exit.is_none() {
                self.faulted.insert(id.clone());
            }
            dir.lose_power();
            // Noted without waiting for the disk.
            dir.acked = None;
        }
        self.crash()
    }

    // --- supervisors ------------------------------------------------------------------------------------------

    /// One supervisor takes its next step, or is killed.
    pub fn supervise(
        &mut self,
        rng: &mut Rng,
        kill: bool,
        ends: Ends,
        witness: &mut Witness,
    ) -> Result<(), Violation> {
        let with: Vec<AttemptId> = self
            .dirs
            .iter()
            .filter(|(_, dir)| !dir.supervisors.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        if with.is_empty() {
            return Ok(());
        }
        let id = with[rng.below(with.len())].clone();
        let which = rng.below(self.dirs[&id].supervisors.len());
        if kill {
            self.faulted.insert(id.clone());
            self.dirs.get_mut(&id).unwrap().supervisors.remove(which);
            return Ok(());
        }
        let dir = &self.dirs[&id];
        if dir.supervisors[which] == Supervisor::Running && ends == Ends::IfCancelled && !dir.cancel {
            return Ok(());
        }
        let outcome = match rng.below(4) {
            0 => Outcome::Failed { exit_code: 3 },
            _ => Outcome::Succeeded { exit_code: 0 },
        };
        self.supervisor_step(&id, which, outcome, witness)
    }

    fn supervisor_step(
        &mut self,
        id: &AttemptId,
        which: usize,
        outcome: Outcome,
        witness: &mut Witness,
    ) -> Result<(), Violation> {
        let (now, mutation) = (self.clock, self.mutation);
        let other =
            self.dirs.iter().find(|(other, dir)| *other != id && dir.tree).map(|(other, _)| other.clone());
        let dir = self.dirs.get_mut(id).unwrap();
        match dir.supervisors[which] {
            Supervisor::OnItsWay => {
                let locked = dir.locked() && mutation != Some(Mutation::LockIgnored);
                let given_up = dir.state == LastState::Abandoned || dir.exit.is_some();
                let given_up = given_up && mutation != Some(Mutation::AbandonedIgnored);
                let begun = !matches!(dir.state, LastState::Accepted | LastState::Abandoned)
                    && mutation != Some(Mutation::LockIgnored);
                if locked || given_up || begun {
                    dir.supervisors.remove(which);
                } else {
                    if mutation != Some(Mutation::NoStartingRecord) {
                        dir.state = LastState::Starting;
                    }
                    dir.supervisors[which] = Supervisor::Starting;
                }
            }
            Supervisor::Starting if dir.cancel => {
                self.unsynced.clear();
                dir.exit = Some(ended(Outcome::Cancelled, now));
                dir.supervisors.remove(which);
            }
            Supervisor::Starting => {
                if mutation != Some(Mutation::StartBeforeSync) {
                    self.unsynced.clear();
                }
                dir.tree = true;
                dir.supervisors[which] = Supervisor::Executed;
                witness.start(id)?;
                if let Some(other) = other {
                    return Err(Violation::new(
                        "O9",
                        format!("{id} was started while {other} runs on the node"),
                    ));
                }
            }
            Supervisor::Executed => {
                dir.state = LastState::Running;
                dir.running = Some(Running { started_at: UnixMillis(now.cast_signed()), pid: 7 });
                dir.supervisors[which] = Supervisor::Running;
            }
            Supervisor::Running => {
                self.unsynced.clear();
                let outcome = if dir.cancel { Outcome::Cancelled } else { outcome };
                witness.exit(id, outcome.clone());
                dir.exit.get_or_insert(Ended { started_at: Some(UnixMillis(1)), ..ended(outcome, now) });
                dir.tree = false;
                dir.supervisors.remove(which);
            }
        }
        Ok(())
    }

    pub fn is_quiet(&self) -> bool {
        self.dirs.values().all(|dir| dir.supervisors.is_empty())
    }

    // --- disk -------------------------------------------------------------------------------------------------

    fn seen(&self, id: &AttemptId) -> Option<AttemptSnapshot> {
        Some(self.dirs.get(id)?.seen(id, self.boot))
    }

    fn record(&mut self, start: &Start) -> Event {
        let attempt = start.attempt.clone();
        self.unsynced.insert(attempt.clone());
        self.dirs.insert(attempt.clone(), AttemptDir::of(start, self.clock, self.boot));
        Event::Recorded { attempt }
    }

    /// The Report of a command that runs or has ended replaces the one that it was accepted.
    fn drop_held(&mut self, id: &AttemptId) {
        if self.dirs.get(id).is_some_and(|dir| dir.running.is_some() || dir.exit.is_some()) {
            self.held.retain(|held| !matches!(held, ToOperator::Report(report) if report.attempt == *id));
        }
    }

    fn perform(&mut self, effect: Effect) -> Result<Option<Event>, Violation> {
        if let Some(led_to) = self.perform_for_guest(&effect) {
            return Ok(led_to);
        }
        match effect {
            Effect::SetEpoch(epoch) => self.epoch = epoch.get(),
            Effect::Record(admitted) => {
                self.memory.insert(admitted.start.attempt.clone());
                return Ok(Some(self.record(&admitted.start)));
            }
            Effect::KeepSecrets(attempt) => drop(self.memory.insert(attempt)),
            Effect::Confirm(admitted) => {
                let start = admitted.start;
                self.memory.insert(start.attempt.clone());
                let recorded = self.record(&start);
                // Its directory is synced.
                self.unsynced.remove(&start.attempt);
                return Ok(Some(recorded));
            }
            Effect::Launch(attempt) => {
                let needs = self.dirs.get(&attempt).is_some_and(|dir| dir.needs_secrets);
                assert!(
                    !needs || self.memory.contains(&attempt),
                    "{attempt} was launched without its secrets"
                );
                if let Some(dir) = self.dirs.get_mut(&attempt) {
                    dir.launch(&attempt);
                }
            }
            Effect::RequestCancel { attempt, .. } => {
                if let Some(dir) = self.dirs.get_mut(&attempt) {
                    dir.cancel = true;
                }
            }
            Effect::EndTree(attempt) => {
                if let Some(dir) = self.dirs.get_mut(&attempt) {
                    dir.tree = false;
                }
                return Ok(Some(Event::TreeEnded { attempt, left: vec![] }));
            }
            Effect::Abandon { attempt, ended } => {
                self.unsynced.clear();
                return Ok(self.dirs.get_mut(&attempt).map(|dir| dir.abandon(attempt, ended)));
            }
            Effect::Conclude { attempt, ended } => {
                self.unsynced.clear();
                return Ok(self.dirs.get_mut(&attempt).map(|dir| dir.conclude(attempt, ended)));
            }
            Effect::Inspect(attempt) => {
                self.drop_held(&attempt);
                return Ok(self.seen(&attempt).map(Event::Observed));
            }
            Effect::NoteAck { attempt, stage } => {
                if let Some(dir) = self.dirs.get_mut(&attempt) {
                    dir.acked = Some(stage);
                }
            }
            Effect::WriteTombstone(tombstone) => {
                if !self.is(Mutation::NoTombstone) {
                    self.tombs.insert(tombstone.attempt.clone(), tombstone.clone());
                }
                return Ok(Some(Event::TombstoneWritten(tombstone)));
            }
            Effect::Compact(tombstone) => {
                let attempt = tombstone.attempt.clone();
                self.dirs.remove(&attempt);
                if !self.is(Mutation::NoTombstone) {
                    self.tombs.insert(attempt.clone(), tombstone);
                }
                return Ok(Some(Event::Compacted { attempt }));
            }
            Effect::Send(message) => self.send(message),
            Effect::Ignored { .. } => {}
        }
        Ok(None)
    }

    /// As the agent: nothing is sent about an Attempt that is not durable; that it was accepted can wait.
    fn send(&mut self, message: ToOperator) {
        let synced = match &message {
            ToOperator::Report(report) => !self.unsynced.contains(&report.attempt),
            ToOperator::Inventory(_) => self.unsynced.is_empty(),
            _ => true,
        };
        if synced || self.is(Mutation::ReportBeforeSync) {
            return self.send_now(message);
        }
        match &message {
            ToOperator::Report(report) if matches!(report.state, ReportedState::Accepted) => {
                self.held.push(message);
            }
            _ => {
                self.sync();
                self.send_now(message);
            }
        }
    }

    fn send_now(&mut self, mut message: ToOperator) {
        if let ToOperator::Inventory(inventory) = &mut message {
            inventory.attempts.retain(|report| report.attempt.task.as_str() != "guest");
        }
        let silent = match &message {
            ToOperator::Inventory(_) => false,
            ToOperator::Report(_) => self.is(Mutation::NoResend),
            _ => false,
        };
        if self.connected && !silent {
            self.outbox.push(message);
        }
    }
}
