//! One operator: its memory, and what it does about what its brain decides.

use std::collections::{BTreeMap, BTreeSet};

use sentinel_core::conditions::{Archive, Doing, describe};
use sentinel_core::ledger::{Origin, RunLedger, RunStage, Source, Told};
use sentinel_core::moment::{Moment, Now};
use sentinel_core::reconcile::{Action, Finalizer, Lifecycle, Observed, Write, decide};
use sentinel_core::rollout::{AgentFacts, Living, Recall};
use sentinel_core::settle::{Settled, settle};
use sentinel_core::status::RunRecord;
use sentinel_core::stray::{Fate, Owner, judge};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SessionId, TaskUid};
use sentinel_protocol::request::Deadlines;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{Report, ReportedState, Stage, ToOperator};

use super::link::Link;
use super::mutation::Mutation;
use super::rng::Rng;
use super::simulation::Violation;
use super::stores::{Cluster, Copy, History};

/// Whether an operator outlived what it was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Lives,
    Crashed,
}

/// Everything around an operator while it does something.
pub struct Around<'a> {
    pub cluster: &'a mut Cluster,
    pub history: &'a mut History,
    pub links: &'a mut BTreeMap<NodeName, Link>,
    pub rng: &'a mut Rng,
    pub now: u64,
    pub faults: bool,
}

pub struct Operator {
    pub id: u64,
    pub epoch: Epoch,
    leading_since: Moment,
    mutation: Option<Mutation>,
    task: TaskUid,
    copy: Copy,
    ledger: RunLedger,
    retired: Vec<RunLedger>,
    recall: Recall,
    last_heard: BTreeMap<NodeName, Moment>,
    complete: BTreeMap<NodeName, SessionId>,
    strays: BTreeMap<AttemptId, (Report, Option<Stage>)>,
    /// Attempts that agents said are not over.
    living: BTreeSet<AttemptId>,
    queue: BTreeMap<AttemptId, (ReportedState, Source)>,
    run_queue: BTreeMap<RunNumber, RunRecord>,
}

impl Operator {
    pub fn new(id: u64, now: u64, cluster: &Cluster, mutation: Option<Mutation>) -> Self {
        let copy = cluster.copy();
        let task = copy.plan.uid.clone();
        let ledger =
            RunLedger::new(task.clone(), RunNumber(0), copy.plan.spec_hash.clone(), Origin::Inherited);
        Self {
            id,
            epoch: Epoch::new(id).unwrap(),
            leading_since: Moment(now),
            mutation,
            task,
            copy,
            ledger,
            retired: vec![],
            recall: Recall::Pending,
            last_heard: BTreeMap::new(),
            complete: BTreeMap::new(),
            strays: BTreeMap::new(),
            living: BTreeSet::new(),
            queue: BTreeMap::new(),
            run_queue: BTreeMap::new(),
        }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Whether nothing is left to do that no other event would bring about.
    pub fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.run_queue.is_empty()
    }

    // --- looking and acting -----------------------------------------------------------------------------------

    /// The watch brings the Task as it is now. A deposed leader's watch may be late.
    pub fn refresh(&mut self, cluster: &Cluster) {
        self.copy = cluster.copy();
    }

    pub fn reconcile(
        &mut self,
        around: &mut Around<'_>,
        crash_after: Option<usize>,
    ) -> Result<Life, Violation> {
        if around.cluster.gone {
            let empty = RunLedger::new(
                self.task.clone(),
                RunNumber(0),
                self.copy.plan.spec_hash.clone(),
                Origin::Inherited,
            );
            let ledger = std::mem::replace(&mut self.ledger, empty);
            for (report, archived) in
                self.retired.drain(..).chain([ledger]).flat_map(|ledger| ledger.strays())
            {
                self.strays.insert(report.attempt.clone(), (report, archived));
            }
            self.settle_strays(around);
            return Ok(Life::Lives);
        }
        self.take_over(around);
        let now = Now { moment: Moment(around.now), wall: UnixMillis(around.now.cast_signed()) };
        let facts: BTreeMap<NodeName, AgentFacts> =
            around.cluster.nodes.keys().map(|node| (node.clone(), self.facts(node, around.links))).collect();
        let agent = |node: &NodeName| facts.get(node).cloned().unwrap_or_default();
        let archive = if around.history.up { Archive::Current } else { Archive::Behind };
        let mut decision = decide(
            &self.copy.plan,
            &Observed {
                recorded: &self.copy.recorded,
                targets: &self.copy.targets,
                ledger: &self.ledger,
                retired: &self.retired,
                recall: self.recall,
                archive,
                nodes: &around.cluster.nodes,
                agent: &agent,
                requests: &self.copy.requests,
                lifecycle: self.copy.lifecycle,
                finalizer: self.copy.finalizer,
                leading_since: self.leading_since,
                highest_run: self.highest_run(around.history),
            },
            now,
        );
        if self.is(Mutation::VerdictOfTheRunBefore)
            && let Some(run) = decision.status.recorded.run.as_ref().filter(|run| run.finished_at.is_some())
        {
            decision.status.conditions = describe(Doing::Finished(run), archive).1;
        }
        let mut left = crash_after;
        if decision.write != Write::Soon || around.rng.chance(500) {
            let freeze = decision.freeze.as_ref();
            let written =
                around.cluster.write_status(&mut self.copy, &decision.status, freeze, self.mutation)?;
            let hasty = self.is(Mutation::DispatchBeforeFreeze) && freeze.is_some();
            if !written && decision.write == Write::Intent && !hasty {
                return Ok(Life::Lives);
            }
            if let Some(targets) = freeze {
                self.begin(targets, &decision.status.recorded.run);
            }
        }
        for action in decision.actions {
            if left == Some(0) {
                return Ok(Life::Crashed);
            }
            left = left.map(|left| left - 1);
            self.act(action, around);
        }
        self.retired.retain(|ledger| settle(ledger, agent).settled == Settled::No);
        self.settle_strays(around);
        Ok(Life::Lives)
    }

    /// A Run that somebody else began: History is asked what is known of it.
    fn take_over(&mut self, around: &mut Around<'_>) {
        let Some(run) = self.copy.recorded.run.clone() else {
            self.recall = Recall::Done;
            return;
        };
        if self.ledger.run() != run.number {
            let fresh =
                RunLedger::new(self.task.clone(), run.number, run.spec_hash.clone(), Origin::Inherited);
            let old = std::mem::replace(&mut self.ledger, fresh);
            if old.run() > RunNumber(0) {
                self.retired.push(old);
            }
            self.recall = Recall::Pending;
            self.adopt_strays();
        }
        if self.recall == Recall::Pending && around.history.up {
            for (id, (state, source)) in around.history.executions(run.number) {
                self.ledger.recall(id, state, *source);
            }
            self.ledger.note_run(run.clone());
            if let Some(archived) = around.history.runs.get(&run.number) {
                self.ledger.archived_run(RunStage::of(archived));
            }
            self.recall = Recall::Done;
        }
    }

    /// What agents already said of the Run that the ledger is for now.
    fn adopt_strays(&mut self) {
        let run = self.ledger.run();
        for (id, (report, archived)) in std::mem::take(&mut self.strays) {
            if id.run != run || matches!(self.ledger.report(&report), Told::Conflict | Told::Unstarted) {
                self.strays.insert(id, (report, archived));
            } else if let Some(stage) = archived {
                self.ledger.archived(&id, stage);
            }
        }
    }

    /// The highest Run number that History or an agent shows.
    fn highest_run(&self, history: &History) -> RunNumber {
        let archived = history.attempts.keys().map(|id| id.run).chain(history.runs.keys().copied());
        let archived = archived.filter(|_| history.up);
        archived.chain(self.strays.keys().map(|id| id.run)).max().unwrap_or(RunNumber(0))
    }

    fn begin(&mut self, targets: &[NodeName], run: &Option<RunRecord>) {
        let run = run.as_ref().unwrap();
        let fresh = RunLedger::new(self.task.clone(), run.number, run.spec_hash.clone(), Origin::Begun);
        let old = std::mem::replace(&mut self.ledger, fresh);
        if old.run() > RunNumber(0) {
            self.retired.push(old);
        }
        self.adopt_strays();
        self.recall = Recall::Done;
        self.copy.targets = targets.to_vec();
        self.copy.recorded.run = Some(run.clone());
    }

    fn facts(&self, node: &NodeName, links: &BTreeMap<NodeName, Link>) -> AgentFacts {
        let session = links
            .get(node)
            .filter(|link| link.operator == self.id && self.complete.get(node) == Some(&link.session))
            .map(|link| link.session.clone());
        let living = self.living.iter().filter(|id| id.node == *node && !self.is(Mutation::BusyIgnored));
        let living = living.map(|id| Living { run: id.run, attempt: id.attempt }).max();
        AgentFacts {
            session,
            last_heard: self.last_heard.get(node).copied(),
            living,
            ..AgentFacts::default()
        }
    }

    fn act(&mut self, action: Action, around: &mut Around<'_>) {
        let now = Moment(around.now);
        match action {
            Action::AddFinalizer => self.set_finalizer(Finalizer::Present, around),
            Action::RemoveFinalizer => self.set_finalizer(Finalizer::Absent, around),
            Action::DeleteTask => around.cluster.lifecycle = Lifecycle::Deleting,
            Action::Turn(node) => self.ledger.turn(&node, now),
            Action::RetryAt(node, at) => self.ledger.retry_at(&node, at),
            Action::Again(node) => self.ledger.again(&node),
            Action::Withdraw(node) => self.ledger.withdraw(&node),
            Action::Start { attempt, start_ms, total_ms } => {
                self.start(attempt, (start_ms, total_ms), around)
            }
            Action::Cancel(attempt) => {
                let spec_hash = self.copy.recorded.run.as_ref().unwrap().spec_hash.clone();
                let cancel = Cancel { attempt: attempt.clone(), spec_hash, epoch: self.epoch };
                if let Some(session) = self.send(&attempt.node, ToAgent::Cancel(cancel), around) {
                    self.ledger.sent_cancel(&attempt.node, session, now);
                }
            }
            Action::Conclude { attempt, ended } => {
                let state = ReportedState::Ended(ended.clone());
                if let Some(ledger) = self.of_run(attempt.run) {
                    ledger.conclude(&attempt, *ended);
                }
                self.queue.entry(attempt).or_insert((state, Source::Operator));
            }
            Action::ArchiveRun(record) => {
                if let Some(ledger) = self.of_run(record.number) {
                    ledger.note_run((*record).clone());
                }
                self.run_queue.insert(record.number, *record);
            }
            Action::Forget(attempt) => {
                let forget = Forget { attempt: attempt.clone(), epoch: self.epoch };
                if self.send(&attempt.node, ToAgent::Forget(forget), around).is_some()
                    && let Some(ledger) = self.of_run(attempt.run)
                {
                    ledger.sent_forget(&attempt);
                }
            }
            Action::Publish(_) => {}
        }
    }

    fn set_finalizer(&mut self, finalizer: Finalizer, around: &mut Around<'_>) {
        let cluster = &mut around.cluster;
        if !cluster.up || cluster.version != self.copy.version {
            return;
        }
        cluster.finalizer = finalizer;
        cluster.version += 1;
        if finalizer == Finalizer::Absent && cluster.lifecycle == Lifecycle::Deleting {
            cluster.gone = true;
        }
        self.refresh(around.cluster);
    }

    fn start(
        &mut self,
        attempt: AttemptId,
        (start_ms, total_ms): (u64, Option<u64>),
        around: &mut Around<'_>,
    ) {
        let run = self.copy.recorded.run.as_ref().unwrap();
        let start = Start {
            attempt: attempt.clone(),
            spec_hash: run.spec_hash.clone(),
            epoch: self.epoch,
            task: self.copy.plan.task.clone(),
            request: self.copy.plan.request.clone(),
            deadlines: Deadlines { start_ms, run_ms: None, idle_ms: None, total_ms, grace_ms: 1_000 },
            credit: 0,
            offer: self.ledger.offer(&attempt.node),
        };
        if let Some(session) = self.send(&attempt.node, ToAgent::Start(Box::new(start)), around) {
            self.ledger.sent_start(&attempt.node, session, Moment(around.now));
        }
    }

    fn send(&self, node: &NodeName, message: ToAgent, around: &mut Around<'_>) -> Option<SessionId> {
        let link = around.links.get_mut(node).filter(|link| link.operator == self.id)?;
        link.send_to_agent(message, around.rng, around.faults);
        Some(link.session.clone())
    }

    fn of_run(&mut self, run: RunNumber) -> Option<&mut RunLedger> {
        if self.ledger.run() == run {
            return Some(&mut self.ledger);
        }
        self.retired.iter_mut().find(|ledger| ledger.run() == run)
    }

    fn settle_strays(&mut self, around: &mut Around<'_>) {
        let owner = match &self.copy.recorded.run {
            _ if around.cluster.gone => Owner::Gone,
            Some(run) => Owner::AtRun(run.number),
            None => return,
        };
        let all: Vec<(Report, Option<Stage>)> = self.strays.values().cloned().collect();
        for (report, archived) in all {
            let Report { attempt, spec_hash, state } = report;
            let owner = match owner {
                Owner::AtRun(run) if run == attempt.run && self.ledger.run() == run => Owner::OtherSpec,
                owner => owner,
            };
            let message = match judge(attempt.run, state.stage(), archived, owner) {
                Fate::Keep => continue,
                Fate::Cancel => {
                    ToAgent::Cancel(Cancel { attempt: attempt.clone(), spec_hash, epoch: self.epoch })
                }
                Fate::Forget => ToAgent::Forget(Forget { attempt: attempt.clone(), epoch: self.epoch }),
            };
            let forgets = matches!(message, ToAgent::Forget(_));
            if self.send(&attempt.node, message, around).is_some() && forgets {
                self.strays.remove(&attempt);
            }
        }
    }

    // --- listening --------------------------------------------------------------------------------------------

    pub fn receive(
        &mut self,
        node: &NodeName,
        session: &SessionId,
        message: ToOperator,
        around: &mut Around<'_>,
    ) {
        self.last_heard.insert(node.clone(), Moment(around.now));
        match message {
            ToOperator::Report(report) => self.report(*report, around),
            ToOperator::Inventory(part) => {
                let owned: Vec<AttemptId> =
                    part.attempts.iter().map(|report| report.attempt.clone()).collect();
                self.living.retain(|id| id.node != *node);
                for report in part.attempts {
                    self.report(report, around);
                }
                if !self.is(Mutation::NoInventory) {
                    self.ledger.inventory(node, session, &owned);
                }
                self.complete.insert(node.clone(), session.clone());
            }
            ToOperator::Refused(refused) => {
                let at = UnixMillis(around.now.cast_signed());
                self.ledger.refused(&refused, at);
            }
            ToOperator::Hello(_) | ToOperator::Heartbeat(_) => {}
        }
    }

    /// A Session whose agent never says what it owns.
    pub fn assume_complete(&mut self, node: &NodeName, session: &SessionId) {
        self.complete.insert(node.clone(), session.clone());
    }

    fn report(&mut self, report: Report, around: &mut Around<'_>) {
        let id = report.attempt.clone();
        let told = self.of_run(id.run).map_or(Told::OtherRun, |ledger| ledger.report(&report));
        if told == Told::Unstarted {
            return;
        }
        if report.state.stage() == Stage::Ended {
            self.living.remove(&id);
        } else {
            self.living.insert(id.clone());
        }
        match told {
            Told::OtherRun | Told::Conflict => {
                let archived = self.strays.get(&id).and_then(|(_, archived)| *archived);
                self.strays.insert(id.clone(), (report.clone(), archived));
            }
            Told::News | Told::Known | Told::Unstarted => {}
        }
        if self.is(Mutation::AckBeforeHistory) {
            let ack = Ack { attempt: id.clone(), stage: report.state.stage() };
            self.send(&id.node, ToAgent::Ack(ack), around);
            self.note_archived(&id, report.state.stage());
        }
        if self.is(Mutation::ForgetBeforeArchive) {
            self.note_archived(&id, report.state.stage());
        }
        let newer = self.queue.get(&id).is_none_or(|(queued, source)| {
            *source == Source::Operator || queued.stage() <= report.state.stage()
        });
        if newer {
            self.queue.insert(id, (report.state, Source::Agent));
        }
    }

    // --- archiving --------------------------------------------------------------------------------------------

    /// One write to History, and the word that it is durable.
    pub fn archive(&mut self, around: &mut Around<'_>) -> Result<(), Violation> {
        if !around.history.up {
            return Ok(());
        }
        if let Some((number, record)) = self.run_queue.pop_first() {
            around.history.store_run(&record);
            if let Some(ledger) = self.of_run(number) {
                ledger.archived_run(RunStage::of(&record));
            }
        }
        let Some((id, (state, source))) = self.queue.pop_first() else { return Ok(()) };
        around.history.store(&id, &state, source, self.epoch, self.mutation)?;
        self.note_archived(&id, state.stage());
        if source == Source::Agent {
            let ack = Ack { attempt: id.clone(), stage: state.stage() };
            self.send(&id.node, ToAgent::Ack(ack), around);
        }
        Ok(())
    }

    fn note_archived(&mut self, id: &AttemptId, stage: Stage) {
        if let Some((_, archived)) = self.strays.get_mut(id) {
            *archived = (*archived).max(Some(stage));
        } else if let Some(ledger) = self.of_run(id.run) {
            ledger.archived(id, stage);
        }
    }
}
