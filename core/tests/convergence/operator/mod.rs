//! One operator: its memory, and what it does about what its brain decides.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use sentinel_core::plan::OnRecreate;
use sentinel_core::reconcile::ceiling::Ceilings;
use sentinel_core::reconcile::ceiling::approval::Consent;
use sentinel_core::reconcile::conditions::{Archive, TaskState, describe};
use sentinel_core::reconcile::ledger::{Applied, Origin, RunLedger, RunStage, Source};
use sentinel_core::reconcile::orphan::{OrphanAction, Owner, decide_orphan};
use sentinel_core::reconcile::rollout::{ActiveAttempt, AgentFacts, HistoryLookup};
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::settle::settle;
use sentinel_core::reconcile::{Action, Earlier, Finalizer, Lifecycle, Observed, Write, decide};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, SessionId, TaskUid};
use sentinel_protocol::request::Deadlines;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{Report, ReportedState, ToOperator};

use super::link::Link;
use super::mutation::Mutation;
use super::rng::Rng;
use super::simulation::Violation;
use super::stores::{Cluster, Copy, History};

mod archiving;

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
    leading_since: Monotonic,
    mutation: Option<Mutation>,
    task: TaskUid,
    copy: Copy,
    ledger: RunLedger,
    retired: Vec<RunLedger>,
    history_lookup: HistoryLookup,
    last_seen: BTreeMap<NodeName, Monotonic>,
    complete: BTreeMap<NodeName, SessionId>,
    orphans: BTreeMap<AttemptId, (Report, Option<Stage>)>,
    /// Attempts reported as active.
    active: BTreeSet<AttemptId>,
    queue: BTreeMap<AttemptId, (ReportedState, Source)>,
    run_queue: BTreeMap<RunNumber, RunState>,
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
            leading_since: Monotonic(now),
            mutation,
            task,
            copy,
            ledger,
            retired: vec![],
            history_lookup: HistoryLookup::Pending,
            last_seen: BTreeMap::new(),
            complete: BTreeMap::new(),
            orphans: BTreeMap::new(),
            active: BTreeSet::new(),
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

    // --- reconciling -----------------------------------------------------------------------------------

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
                self.retired.drain(..).chain([ledger]).flat_map(|ledger| ledger.orphans())
            {
                self.orphans.insert(report.attempt.clone(), (report, archived));
            }
            self.settle_orphans(around);
            return Ok(Life::Lives);
        }
        self.take_over(around);
        let now = Now { monotonic: Monotonic(around.now), wall: UnixMillis(around.now.cast_signed()) };
        let facts: BTreeMap<NodeName, AgentFacts> =
            around.cluster.nodes.keys().map(|node| (node.clone(), self.facts(node, around.links))).collect();
        let agent = |node: &NodeName| facts.get(node).cloned().unwrap_or_default();
        let archive = if around.history.up { Archive::Current } else { Archive::Behind };
        let mut recorded = Cow::Borrowed(&self.copy.recorded);
        if self.is(Mutation::HistoryLossUnnoticed) {
            recorded.to_mut().archived = None;
        }
        let mut plan = self.copy.plan.clone();
        let is_deleting = self.copy.lifecycle == Lifecycle::Deleting;
        if (self.is(Mutation::ReleaseBeforeHistory) && is_deleting)
            || (self.is(Mutation::OnceHeldBesideDispatch) && !is_deleting)
        {
            plan.on_recreate = OnRecreate::Run;
        }
        // No earlier Task had this name.
        let earlier = if around.history.up { Earlier::Never } else { Earlier::Unknown };
        let mut decision = decide(
            &plan,
            &Observed {
                recorded: &recorded,
                targets: &self.copy.targets,
                ledger: &self.ledger,
                superseded: &self.retired.iter().collect::<Vec<_>>(),
                history: self.history_lookup,
                earlier: &earlier,
                archive,
                ceilings: &Ceilings::Off,
                consent: &Consent::default(),
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
            decision.status.conditions = describe(TaskState::Finished(run), archive).1;
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
            let holds = action == Action::AddFinalizer;
            self.act(action, around);
            // As an intent it must succeed.
            if holds
                && plan.on_recreate == OnRecreate::OncePerSpec
                && self.copy.finalizer == Finalizer::Absent
            {
                return Ok(Life::Lives);
            }
        }
        self.retired.retain(|ledger| !settle(ledger, agent).settled);
        self.settle_orphans(around);
        Ok(Life::Lives)
    }

    /// A Run started by another leader: History is asked for it.
    fn take_over(&mut self, around: &mut Around<'_>) {
        let Some(run) = self.copy.recorded.run.clone() else {
            self.history_lookup = HistoryLookup::Done;
            return;
        };
        if self.ledger.run() != run.number {
            let fresh =
                RunLedger::new(self.task.clone(), run.number, run.spec_hash.clone(), Origin::Inherited);
            let old = std::mem::replace(&mut self.ledger, fresh);
            if old.run() > RunNumber(0) {
                self.retired.push(old);
            }
            self.history_lookup = HistoryLookup::Pending;
            self.adopt_orphans();
        }
        if self.history_lookup == HistoryLookup::Pending && around.history.up {
            for (id, (state, source)) in around.history.executions(run.number) {
                self.ledger.recall(id, state, *source);
            }
            self.ledger.set_run(run.clone());
            if let Some(archived) = around.history.runs.get(&run.number) {
                self.ledger.note_run_archived(RunStage::of(archived));
            }
            self.history_lookup = HistoryLookup::Done;
        }
    }

    /// Reports that arrived before the ledger of their Run existed.
    fn adopt_orphans(&mut self) {
        let run = self.ledger.run();
        for (id, (report, archived)) in std::mem::take(&mut self.orphans) {
            if id.run != run
                || matches!(self.ledger.apply_report(&report), Applied::Conflict | Applied::NeverDispatched)
            {
                self.orphans.insert(id, (report, archived));
            } else if let Some(stage) = archived {
                self.ledger.note_archived(&id, stage);
            }
        }
    }

    /// The highest Run number that History or an agent shows.
    fn highest_run(&self, history: &History) -> RunNumber {
        let archived = history.attempts.keys().map(|id| id.run).chain(history.runs.keys().copied());
        let archived = archived.filter(|_| history.up);
        archived.chain(self.orphans.keys().map(|id| id.run)).max().unwrap_or(RunNumber(0))
    }

    fn begin(&mut self, targets: &[NodeName], run: &Option<RunState>) {
        let run = run.as_ref().unwrap();
        let fresh = RunLedger::new(self.task.clone(), run.number, run.spec_hash.clone(), Origin::Begun);
        let old = std::mem::replace(&mut self.ledger, fresh);
        if old.run() > RunNumber(0) {
            self.retired.push(old);
        }
        self.adopt_orphans();
        self.history_lookup = HistoryLookup::Done;
        self.copy.targets = targets.to_vec();
        self.copy.recorded.run = Some(run.clone());
    }

    fn facts(&self, node: &NodeName, links: &BTreeMap<NodeName, Link>) -> AgentFacts {
        let session = links
            .get(node)
            .filter(|link| link.operator == self.id && self.complete.get(node) == Some(&link.session))
            .map(|link| link.session.clone());
        let active = self.active.iter().filter(|id| id.node == *node && !self.is(Mutation::BusyIgnored));
        let active = active.map(|id| ActiveAttempt { run: id.run, attempt: id.attempt }).max();
        AgentFacts { session, last_seen: self.last_seen.get(node).copied(), active, ..AgentFacts::default() }
    }

    fn act(&mut self, action: Action, around: &mut Around<'_>) {
        let now = Monotonic(around.now);
        if let Some(ledger) = self.ledger_of(&action) {
            ledger.apply(&action, now);
        }
        match &action {
            Action::AddFinalizer => self.set_finalizer(Finalizer::Present, around),
            Action::RemoveFinalizer => self.set_finalizer(Finalizer::Absent, around),
            Action::DeleteTask => around.cluster.lifecycle = Lifecycle::Deleting,
            Action::Start { attempt, start_ms, total_ms } => {
                let message = self.start(attempt, (*start_ms, *total_ms));
                self.dispatch(&action, &attempt.node, message, around);
            }
            Action::Cancel(attempt) => {
                let spec_hash = self.copy.recorded.run.as_ref().unwrap().spec_hash.clone();
                let cancel =
                    Cancel { attempt: attempt.clone(), spec_hash, epoch: self.epoch, requested_by: None };
                self.dispatch(&action, &attempt.node, ToAgent::Cancel(cancel), around);
            }
            Action::Forget(attempt) => {
                let forget = Forget { attempt: attempt.clone(), epoch: self.epoch };
                self.dispatch(&action, &attempt.node, ToAgent::Forget(forget), around);
            }
            Action::Conclude { attempt, ended } => {
                let state = ReportedState::Ended(ended.clone());
                self.queue.entry(attempt.clone()).or_insert((state, Source::Operator));
            }
            Action::ArchiveRun(record) => {
                self.run_queue.insert(record.number, record.as_ref().clone());
            }
            _ => {}
        }
    }

    fn ledger_of(&mut self, action: &Action) -> Option<&mut RunLedger> {
        self.of_run(action.run().unwrap_or(self.ledger.run()))
    }

    fn dispatch(&mut self, action: &Action, node: &NodeName, message: ToAgent, around: &mut Around<'_>) {
        let now = Monotonic(around.now);
        if let Some(session) = self.send(node, message, around)
            && let Some(ledger) = self.ledger_of(action)
        {
            ledger.apply_sent(action, &session, now);
        }
    }

    fn set_finalizer(&mut self, finalizer: Finalizer, around: &mut Around<'_>) {
        let cluster = &mut around.cluster;
        // The Task is deleted while this write is on its way.
        if finalizer == Finalizer::Present
            && around.faults
            && around.rng.chance(30)
            && cluster.up
            && !cluster.gone
        {
            cluster.delete(around.history);
        }
        if !cluster.up || cluster.gone || cluster.version != self.copy.version {
            return;
        }
        cluster.finalizer = finalizer;
        cluster.version += 1;
        if finalizer == Finalizer::Absent && cluster.lifecycle == Lifecycle::Deleting {
            cluster.gone = true;
            if cluster.plan.on_recreate == OnRecreate::OncePerSpec && !cluster.restored {
                let lacks = |run: &&RunNumber| !around.history.has_end(**run);
                cluster.released_without = cluster.runs.keys().find(lacks).copied();
            }
        }
        self.refresh(around.cluster);
    }

    fn start(&self, attempt: &AttemptId, (start_ms, total_ms): (u64, Option<u64>)) -> ToAgent {
        let run = self.copy.recorded.run.as_ref().unwrap();
        ToAgent::Start(Box::new(Start {
            attempt: attempt.clone(),
            spec_hash: run.spec_hash.clone(),
            epoch: self.epoch,
            task: self.copy.plan.task.clone(),
            request: self.copy.plan.request.clone(),
            deadlines: Deadlines { start_ms, run_ms: None, idle_ms: None, total_ms, grace_ms: 1_000 },
            credit: 0,
            offer: self.ledger.offer(&attempt.node),
            trace: None,
            requested_by: None,
            signed: None,
            secrets: None,
        }))
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

    fn settle_orphans(&mut self, around: &mut Around<'_>) {
        let owner = match &self.copy.recorded.run {
            _ if around.cluster.gone => Owner::Gone,
            Some(run) => Owner::AtRun(run.number),
            None => return,
        };
        let all: Vec<(Report, Option<Stage>)> = self.orphans.values().cloned().collect();
        for (report, archived) in all {
            let Report { attempt, spec_hash, state } = report;
            let owner = match owner {
                Owner::AtRun(run) if run == attempt.run && self.ledger.run() == run => Owner::OtherSpec,
                owner => owner,
            };
            let message = match decide_orphan(attempt.run, state.stage(), archived, owner) {
                OrphanAction::Keep => continue,
                OrphanAction::Cancel if owner == Owner::Gone && self.is(Mutation::OrphansRun) => continue,
                OrphanAction::Cancel => ToAgent::Cancel(Cancel {
                    attempt: attempt.clone(),
                    spec_hash,
                    epoch: self.epoch,
                    requested_by: None,
                }),
                OrphanAction::Forget => {
                    ToAgent::Forget(Forget { attempt: attempt.clone(), epoch: self.epoch })
                }
            };
            let forgets = matches!(message, ToAgent::Forget(_));
            if self.send(&attempt.node, message, around).is_some() && forgets {
                self.orphans.remove(&attempt);
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
        self.last_seen.insert(node.clone(), Monotonic(around.now));
        match message {
            ToOperator::Report(report) => self.report(*report, around),
            ToOperator::Inventory(part) => {
                let owned: Vec<AttemptId> =
                    part.attempts.iter().map(|report| report.attempt.clone()).collect();
                self.active.retain(|id| id.node != *node);
                for report in part.attempts {
                    self.report(report, around);
                }
                if !self.is(Mutation::NoInventory) {
                    self.ledger.apply_inventory(node, session, &owned);
                }
                self.complete.insert(node.clone(), session.clone());
            }
            ToOperator::Refused(refused) => {
                let at = UnixMillis(around.now.cast_signed());
                self.ledger.apply_refusal(&refused, at);
            }
            ToOperator::Hello(_) | ToOperator::Heartbeat(_) => {}
        }
    }

    /// A Session with an agent that never sends its Inventory.
    pub fn assume_complete(&mut self, node: &NodeName, session: &SessionId) {
        self.complete.insert(node.clone(), session.clone());
    }

    fn report(&mut self, report: Report, around: &mut Around<'_>) {
        let id = report.attempt.clone();
        let applied = self.of_run(id.run).map_or(Applied::OtherRun, |ledger| ledger.apply_report(&report));
        if applied == Applied::NeverDispatched {
            return;
        }
        if report.state.stage() == Stage::Ended {
            self.active.remove(&id);
        } else {
            self.active.insert(id.clone());
        }
        match applied {
            Applied::OtherRun | Applied::Conflict => {
                let archived = self.orphans.get(&id).and_then(|(_, archived)| *archived);
                self.orphans.insert(id.clone(), (report.clone(), archived));
            }
            Applied::Changed | Applied::Unchanged | Applied::NeverDispatched => {}
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
}
