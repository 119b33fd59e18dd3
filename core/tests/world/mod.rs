//! A small cluster as values: one Task, its status, the operator's memory of it, and agents that report what the
//! test wants. Applies decisions as the operator's `controller/act.rs` does, without its I/O.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared by test files that each use a part")]

use std::collections::BTreeMap;

use sentinel_core::plan::{
    Amount, ControlPlane, OnChange, OnRecreate, Select, Starts, TargetRule, TaskPlan, Timeouts, spec_hash,
};
use sentinel_core::reconcile::ceiling::Ceilings;
use sentinel_core::reconcile::ceiling::approval::Consent;
use sentinel_core::reconcile::conditions::{Archive, Condition, ConditionStatus};
use sentinel_core::reconcile::ledger::{Origin, RunLedger, RunStage};
use sentinel_core::reconcile::retry::Retry;
use sentinel_core::reconcile::rollout::{AgentFacts, HistoryLookup};
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::status::Recorded;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::trigger::Requests;
use sentinel_core::reconcile::{Action, Decision, Earlier, Finalizer, Lifecycle, Observed, Status, decide};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, TaskRef, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::request::{Program, RunRequest};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Report, ReportedState, Running, Usage};

pub fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub fn uid() -> TaskUid {
    TaskUid::new("uid-1").unwrap()
}

/// A plan for `all` nodes that runs `true`.
pub fn plan() -> TaskPlan {
    let targets = TargetRule { select: Select::All, exclude: vec![], control_plane: ControlPlane::Exclude };
    let request = RunRequest::new(Program::Command(vec!["true".into()]));
    TaskPlan {
        task: TaskRef::new("ops", "t").unwrap(),
        uid: uid(),
        spec_hash: spec_hash(&targets, &request),
        targets,
        request,
        timeouts: Timeouts {
            start_ms: 60_000,
            run_ms: None,
            idle_ms: None,
            total_ms: None,
            unreachable_ms: 120_000,
            grace_ms: 10_000,
        },
        retry: Retry::never(),
        max_concurrent: Amount::Percent(100),
        on_change: OnChange::Finish,
        on_recreate: OnRecreate::Run,
        starts: Starts::Allowed,
        rerun_token: String::new(),
        ttl_after_finished_ms: None,
    }
}

/// The plan with another command: another spec hash.
pub fn changed(plan: &TaskPlan, argument: &str) -> TaskPlan {
    let mut plan = plan.clone();
    plan.request.program = Program::Command(vec!["echo".into(), argument.into()]);
    plan.spec_hash = spec_hash(&plan.targets, &plan.request);
    plan
}

pub fn ended(outcome: Outcome) -> ReportedState {
    ReportedState::Ended(Box::new(Ended {
        outcome,
        started_at: Some(UnixMillis(1)),
        ended_at: UnixMillis(2),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: sentinel_protocol::exit::ExitDetails::default(),
    }))
}

pub fn succeeded() -> ReportedState {
    ended(Outcome::Succeeded { exit_code: 0 })
}

pub fn running() -> ReportedState {
    ReportedState::Running(Running { started_at: UnixMillis(1), pid: 7 })
}

#[derive(Clone)]
pub struct World {
    pub plan: TaskPlan,
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    pub ceilings: Ceilings,
    pub consent: Consent,
    pub agents: BTreeMap<NodeName, AgentFacts>,
    pub recorded: Recorded,
    pub frozen: Vec<NodeName>,
    pub ledger: RunLedger,
    pub retired: Vec<RunLedger>,
    pub requests: Requests,
    pub lifecycle: Lifecycle,
    pub finalizer: Finalizer,
    pub history_lookup: HistoryLookup,
    pub earlier: Earlier,
    pub archive: Archive,
    pub leading_since: Monotonic,
    pub highest_run: RunNumber,
    pub now: Monotonic,
    pub status: Option<Status>,
    /// Everything that was asked for, in order.
    pub log: Vec<Action>,
    pub deleted: bool,
    sessions: u32,
}

impl World {
    /// Nodes of these names, each with a connected agent.
    pub fn new(plan: TaskPlan, names: &[&str]) -> Self {
        let mut world = Self {
            ledger: RunLedger::new(uid(), RunNumber(0), plan.spec_hash.clone(), Origin::Inherited),
            plan,
            nodes: BTreeMap::new(),
            ceilings: Ceilings::Off,
            consent: Consent::default(),
            agents: BTreeMap::new(),
            recorded: Recorded::default(),
            frozen: vec![],
            retired: vec![],
            requests: Requests::default(),
            lifecycle: Lifecycle::Live,
            finalizer: Finalizer::Absent,
            history_lookup: HistoryLookup::Done,
            earlier: Earlier::NotAsked,
            archive: Archive::Current,
            leading_since: Monotonic(0),
            highest_run: RunNumber(0),
            now: Monotonic(1_000),
            status: None,
            log: vec![],
            deleted: false,
            sessions: 0,
        };
        for name in names {
            world.nodes.insert(node(name), NodeFacts::default());
            world.connect(name);
        }
        world
    }

    /// A new Session of the node's agent, which owns what the ledger thinks it owns.
    pub fn connect(&mut self, name: &str) -> SessionId {
        self.sessions += 1;
        let session = SessionId::new(format!("s{}", self.sessions)).unwrap();
        let facts =
            AgentFacts { session: Some(session.clone()), last_seen: Some(self.now), ..AgentFacts::default() };
        self.agents.insert(node(name), facts);
        session
    }

    pub fn disconnect(&mut self, name: &str) {
        self.agents.get_mut(&node(name)).unwrap().session = None;
    }

    /// The agent reports its Attempt of the current Run.
    pub fn report(&mut self, name: &str, state: ReportedState) {
        let report = Report {
            attempt: self.ledger.attempt(&node(name)),
            spec_hash: self.recorded.run.as_ref().unwrap().spec_hash.clone(),
            state,
        };
        if let Some(agent) = self.agents.get_mut(&node(name)) {
            agent.last_seen = Some(self.now);
        }
        self.ledger.apply_report(&report);
    }

    /// The agent's Inventory on its present Session holds nothing.
    pub fn owns_nothing(&mut self, name: &str) {
        let session = self.agents[&node(name)].session.clone().unwrap();
        self.ledger.apply_inventory(&node(name), &session, &[]);
    }

    pub fn now(&self) -> Now {
        Now { monotonic: self.now, wall: UnixMillis(1_700_000_000_000 + self.now.0 as i64) }
    }

    pub fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(millis);
        for agent in self.agents.values_mut().filter(|agent| agent.session.is_some()) {
            agent.last_seen = Some(self.now);
        }
    }

    /// One decision, without acting on it.
    pub fn decide(&self) -> Decision {
        let observed = Observed {
            recorded: &self.recorded,
            targets: &self.frozen,
            ledger: &self.ledger,
            superseded: &self.retired.iter().collect::<Vec<_>>(),
            history: self.history_lookup,
            earlier: &self.earlier,
            archive: self.archive,
            ceilings: &self.ceilings,
            consent: &self.consent,
            nodes: &self.nodes,
            agent: &|name| self.agents.get(name).cloned().unwrap_or_default(),
            requests: &self.requests,
            lifecycle: self.lifecycle,
            finalizer: self.finalizer,
            leading_since: self.leading_since,
            highest_run: self.highest_run,
        };
        decide(&self.plan, &observed, self.now())
    }

    /// One reconcile: decides and acts. Returns the actions.
    pub fn step(&mut self) -> Vec<Action> {
        let decision = self.decide();
        self.record(&decision);
        for action in &decision.actions {
            self.act(action);
        }
        self.log.extend(decision.actions.iter().cloned());
        decision.actions
    }

    /// Reconciles until no action is left, at most a few times. Returns all actions.
    pub fn settle(&mut self) -> Vec<Action> {
        let from = self.log.len();
        for _ in 0..8 {
            if self.step().is_empty() {
                break;
            }
        }
        self.log[from..].to_vec()
    }

    /// The durable part of a decision.
    pub fn record(&mut self, decision: &Decision) {
        if let Some(targets) = &decision.freeze {
            let run = decision.status.recorded.run.as_ref().unwrap();
            self.frozen.clone_from(targets);
            let ledger = RunLedger::new(uid(), run.number, run.spec_hash.clone(), Origin::Begun);
            let old = std::mem::replace(&mut self.ledger, ledger);
            if old.run() > RunNumber(0) {
                self.retired.push(old);
            }
        }
        self.recorded = Recorded { archived: decision.status.archived(), ..decision.status.recorded.clone() };
        self.status = Some(decision.status.clone());
    }

    pub fn act(&mut self, action: &Action) {
        match action {
            Action::AddFinalizer => self.finalizer = Finalizer::Present,
            Action::RemoveFinalizer => {
                self.finalizer = Finalizer::Absent;
                self.deleted = true;
            }
            Action::DeleteTask => self.lifecycle = Lifecycle::Deleting,
            Action::Start { attempt, .. } | Action::Cancel(attempt) | Action::Forget(attempt) => {
                let session = self.agents[&attempt.node].session.clone().unwrap();
                let now = self.now;
                self.of_run(attempt.run).apply_sent(action, &session, now);
            }
            _ => {
                let (run, now) = (action.run().unwrap_or(self.ledger.run()), self.now);
                self.of_run(run).apply(action, now);
            }
        }
    }

    fn of_run(&mut self, run: RunNumber) -> &mut RunLedger {
        if self.ledger.run() == run {
            return &mut self.ledger;
        }
        self.retired.iter_mut().find(|ledger| ledger.run() == run).unwrap()
    }

    /// History holds everything known so far.
    pub fn archive_all(&mut self) {
        for ledger in self.retired.iter_mut().chain([&mut self.ledger]) {
            let over: Vec<AttemptId> = ledger
                .executions()
                .flat_map(|(name, e)| e.attempts().map(move |tried| (name, tried)))
                .filter(|(_, tried)| tried.ended().is_some())
                .map(|(name, tried)| ledger.attempt_of(name, tried.number))
                .collect();
            for attempt in over {
                ledger.note_archived(&attempt, Stage::Ended);
            }
            if let Some(stage) = ledger.record().map(RunStage::of) {
                ledger.note_run_archived(stage);
            }
        }
    }

    pub fn run(&self) -> &RunState {
        self.recorded.run.as_ref().unwrap()
    }

    pub fn condition(&self, kind: &str) -> Option<(ConditionStatus, &'static str)> {
        let conditions: &Vec<Condition> = &self.status.as_ref().unwrap().conditions;
        conditions.iter().find(|c| c.kind == kind).map(|c| (c.status, c.reason))
    }

    pub fn outcome(&self, name: &str) -> Option<Outcome> {
        self.ledger.execution(&node(name)).and_then(|e| e.ended()).map(|ended| ended.outcome.clone())
    }
}

/// The nodes that are sent a `Start` among the actions.
pub fn started(actions: &[Action]) -> Vec<&str> {
    nodes_of(actions, |action| match action {
        Action::Start { attempt, .. } => Some(attempt),
        _ => None,
    })
}

/// The nodes that are sent a `Cancel` among the actions.
pub fn cancelled(actions: &[Action]) -> Vec<&str> {
    nodes_of(actions, |action| match action {
        Action::Cancel(attempt) => Some(attempt),
        _ => None,
    })
}

/// The nodes that are sent a `Forget` among the actions.
pub fn forgotten(actions: &[Action]) -> Vec<&str> {
    nodes_of(actions, |action| match action {
        Action::Forget(attempt) => Some(attempt),
        _ => None,
    })
}

fn nodes_of(actions: &[Action], pick: fn(&Action) -> Option<&AttemptId>) -> Vec<&str> {
    actions.iter().filter_map(pick).map(|attempt| attempt.node.as_str()).collect()
}
