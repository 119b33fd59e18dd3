//! The status tells the truth at every instant: all interleavings, to a depth, of edits, requests, reports and writes
//! of a small cluster, each status ever written judged by a model that knows nothing but what was asked for and what
//! the agents reported.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test")]

mod kstatus;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use kstatus::{Kstatus, Shown};
use sentinel_core::plan::{OnChange, OnRecreate, Starts};
use sentinel_core::reconcile::run::{EarlierRun, Verdict};
use sentinel_core::reconcile::{Earlier, Lifecycle, Write};
use sentinel_protocol::ids::{RunNumber, TaskUid};
use sentinel_protocol::outcome::Outcome;
use world::{World, changed, ended, node, plan, running, succeeded};

/// What can happen between two reconciles, or be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The spec is edited to something else to run.
    Edit,
    /// The spec is edited back to what it was first.
    EditBack,
    /// The `rerun` annotation gets a new token.
    Rerun,
    /// `suspend` is toggled.
    Suspend,
    /// The current Run is cancelled.
    Cancel,
    /// The Task is deleted.
    Delete,
    /// The command of a node takes its next step: it starts, then it succeeds.
    Succeed(usize),
    /// The command of a node starts, then it fails.
    Fail(usize),
    /// The agent of a node is gone for longer than any timeout.
    Lose(usize),
    /// History catches up.
    Archive,
    /// A reconcile whose status is written.
    Reconcile,
    /// A reconcile whose status is written only if it must be at once.
    ReconcileWithoutBatch,
}

const NODES: [&str; 2] = ["a", "b"];

const STEPS: [Step; 13] = [
    Step::Edit,
    Step::EditBack,
    Step::Rerun,
    Step::Suspend,
    Step::Cancel,
    Step::Delete,
    Step::Succeed(0),
    Step::Succeed(1),
    Step::Fail(0),
    Step::Lose(1),
    Step::Archive,
    Step::Reconcile,
    Step::ReconcileWithoutBatch,
];

/// What a person asked for last: the spec, and the latest request to run it again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    spec: String,
    rerun: Option<String>,
}

/// What is true, from what was asked for and reported alone.
#[derive(Clone, Default)]
struct Model {
    /// What each Run was begun for.
    begun: BTreeMap<RunNumber, Asked>,
    /// Nodes of a Run that ended well.
    succeeded: BTreeSet<(RunNumber, usize)>,
    /// Nodes with a running command of a Run.
    running: BTreeSet<(RunNumber, usize)>,
}

#[derive(Clone)]
struct Scene {
    world: World,
    model: Model,
    edits: u32,
    steps: Vec<Step>,
    generation: i64,
    observed_generation: i64,
    /// A Run of an earlier Task that ran the first spec; the Task runs once for each spec.
    earlier: Option<EarlierRun>,
}

impl Scene {
    fn new(on_change: OnChange) -> Self {
        let mut plan = plan();
        plan.on_change = on_change;
        Self {
            world: World::new(plan, &NODES),
            model: Model::default(),
            edits: 0,
            steps: vec![],
            generation: 1,
            observed_generation: -1,
            earlier: None,
        }
    }

    /// A Task that was made again; the earlier one ran its spec, and ended like this.
    fn recreated(verdict: Option<Verdict>) -> Self {
        let mut scene = Self::new(OnChange::Finish);
        let plan = &mut scene.world.plan;
        plan.on_recreate = OnRecreate::OncePerSpec;
        scene.earlier = Some(EarlierRun {
            task: TaskUid::new("uid-0").unwrap(),
            number: RunNumber(1),
            spec_hash: plan.spec_hash.clone(),
            rerun_token: String::new(),
            finished_at: None,
            verdict,
        });
        scene
    }

    fn asked(&self) -> Asked {
        Asked { spec: self.world.plan.spec_hash.to_string(), rerun: self.world.requests.rerun.clone() }
    }

    /// Takes the step; `false` where it can do nothing here, so that what follows was seen already.
    fn take(&mut self, step: Step) -> Result<bool, String> {
        self.steps.push(step);
        let run = self.world.recorded.run.as_ref().map(|run| run.number);
        match step {
            Step::Edit | Step::EditBack => {
                self.edits += 1;
                let argument = if step == Step::Edit { self.edits.to_string() } else { "0".to_owned() };
                let edited = changed(&self.world.plan, &argument);
                if edited.spec_hash == self.world.plan.spec_hash {
                    return Ok(false);
                }
                self.world.plan = edited;
                self.generation += 1;
            }
            Step::Rerun => {
                self.edits += 1;
                self.world.requests.rerun = Some(self.edits.to_string());
            }
            Step::Suspend => {
                self.generation += 1;
                self.world.plan.starts = match self.world.plan.starts {
                    Starts::Allowed => Starts::Suspended,
                    Starts::Suspended => Starts::Allowed,
                };
            }
            Step::Cancel => {
                if run.is_none() || self.world.requests.cancel == run {
                    return Ok(false);
                }
                self.world.requests.cancel = run;
            }
            Step::Delete => {
                if self.world.lifecycle == Lifecycle::Deleting {
                    return Ok(false);
                }
                self.world.lifecycle = Lifecycle::Deleting;
                self.generation += 1;
            }
            Step::Succeed(n) => return Ok(self.report(n, true)),
            Step::Fail(n) => return Ok(self.report(n, false)),
            Step::Lose(n) => {
                if self.world.agents[&node(NODES[n])].session.is_none() {
                    return Ok(false);
                }
                self.world.disconnect(NODES[n]);
                self.world.pass(300_000);
            }
            Step::Archive => self.world.archive_all(),
            Step::Reconcile => self.reconcile(true)?,
            Step::ReconcileWithoutBatch => self.reconcile(false)?,
        }
        Ok(true)
    }

    /// The command on a node takes its next step, where it was started and is not over.
    fn report(&mut self, n: usize, well: bool) -> bool {
        let name = node(NODES[n]);
        let Some(run) = self.world.recorded.run.as_ref().map(|run| run.number) else { return false };
        let Some(execution) = self.world.ledger.execution(&name) else { return false };
        let connected = self.world.agents[&name].session.is_some();
        if execution.started.is_none() || execution.is_over() || !connected {
            return false;
        }
        let was_running = self.model.running.remove(&(run, n));
        let state = match (was_running, well) {
            (false, _) => {
                self.model.running.insert((run, n));
                running()
            }
            (true, true) => {
                self.model.succeeded.insert((run, n));
                succeeded()
            }
            (true, false) => ended(Outcome::Failed { exit_code: 1 }),
        };
        self.world.report(NODES[n], state);
        true
    }

    fn reconcile(&mut self, batch: bool) -> Result<(), String> {
        if self.world.deleted {
            return Ok(());
        }
        self.world.earlier = match &self.earlier {
            None => Earlier::NotAsked,
            Some(run) if run.spec_hash == self.world.plan.spec_hash => {
                Earlier::Ran { run: run.clone(), rerun: None }
            }
            Some(_) => Earlier::Never,
        };
        let decision = self.world.decide();
        if decision.write != Write::Soon || batch {
            if decision.freeze.is_some() {
                let run = decision.status.recorded.run.as_ref().unwrap().number;
                self.model.begun.insert(run, self.asked());
            }
            self.world.record(&decision);
            self.observed_generation = self.generation;
        }
        for action in &decision.actions {
            self.world.act(action);
        }
        self.judge()
    }

    /// What the status claims, against what is true.
    fn judge(&self) -> Result<(), String> {
        let Some(status) = &self.world.status else { return Ok(()) };
        let shown = Shown {
            conditions: status.conditions.iter().map(|c| (c.kind, c.status.as_str())).collect(),
            generation: self.generation,
            observed_generation: self.observed_generation,
            deleting: self.world.lifecycle == Lifecycle::Deleting,
        };
        let claim = shown.claim()?;
        if let Some(run) = &status.recorded.run {
            let c = run.counts;
            let sum = c.waiting + c.running + c.succeeded + c.failed + c.unreachable;
            if sum != run.targets {
                return Err(format!("the counts add up to {sum} of {} targets: {c:?}", run.targets));
            }
        }
        let Some(success) = claim else { return Ok(()) };
        if let (None, Some(shown), Some(earlier)) =
            (&status.recorded.run, &status.recorded.earlier, &self.earlier)
        {
            return self.judge_earlier(success, shown, earlier);
        }
        let run = status.recorded.run.as_ref().ok_or("a claim without a Run")?.number;
        let speaks_of_now = self.observed_generation == self.generation;
        let carries_it_out = self.model.begun.get(&run) == Some(&self.asked());
        if speaks_of_now && !carries_it_out && self.observed_latest_request() {
            return Err(format!("claims an end ({success}) for what no Run has carried out: {status:?}"));
        }
        if self
            .model
            .running
            .iter()
            .any(|(of, n)| *of == run && self.world.agents[&node(NODES[*n])].session.is_some())
        {
            return Err(format!("claims that run {run} has ended while a command of it runs"));
        }
        let all = (0..NODES.len()).all(|n| self.model.succeeded.contains(&(run, n)));
        if success != all {
            return Err(format!("claims {success} for run {run}, and all nodes succeeded is {all}"));
        }
        if speaks_of_now && self.world.lifecycle == Lifecycle::Live {
            let expected = if success { Kstatus::Current } else { Kstatus::Failed };
            if shown.kstatus() != expected {
                return Err(format!("kstatus reads {:?} where the Run ended {success}", shown.kstatus()));
            }
        }
        Ok(())
    }

    /// A claim about the Run of an earlier Task.
    fn judge_earlier(&self, success: bool, shown: &EarlierRun, earlier: &EarlierRun) -> Result<(), String> {
        let asked = self.world.plan.spec_hash == earlier.spec_hash && self.world.requests.rerun.is_none();
        let speaks_of_now = self.observed_generation == self.generation && self.observed_latest_request();
        if speaks_of_now && !asked {
            return Err("claims the end of an earlier Run for what it has not carried out".to_owned());
        }
        if shown != earlier || success != (earlier.verdict == Some(Verdict::Complete)) {
            return Err(format!("claims {success} by {shown:?}, and it was {earlier:?}"));
        }
        Ok(())
    }

    /// A request by annotation does not change the generation: only a reconcile that came after it can know of it.
    fn observed_latest_request(&self) -> bool {
        let since = self.steps.iter().rposition(|step| *step == Step::Rerun);
        let reconcile = |step: &Step| matches!(step, Step::Reconcile | Step::ReconcileWithoutBatch);
        let wrote = self.steps.iter().rposition(reconcile);
        since.is_none_or(|since| wrote.is_some_and(|wrote| wrote > since))
    }
}

/// Every sequence of steps to the depth, depth first.
fn explore(scene: &Scene, depth: usize, seen: &mut u64) {
    if depth == 0 {
        return;
    }
    for step in STEPS {
        let mut next = scene.clone();
        match next.take(step) {
            Ok(true) => {
                *seen += 1;
                explore(&next, depth - 1, seen);
            }
            Ok(false) => {}
            Err(wrong) => panic!("after {:?}: {wrong}", next.steps),
        }
    }
}

/// Initial steps of every sequence, so that short sequences reach far.
fn beginnings() -> Vec<Vec<Step>> {
    use Step::{Edit, Fail, Reconcile, Rerun, Succeed, Suspend};
    let under_way = vec![Reconcile, Reconcile, Succeed(0), Succeed(1), Reconcile];
    let one_left = [under_way.clone(), vec![Succeed(0), Reconcile]].concat();
    let complete = [one_left.clone(), vec![Succeed(1), Reconcile, Reconcile]].concat();
    let failed = [under_way.clone(), vec![Succeed(1), Fail(0), Reconcile, Reconcile]].concat();
    vec![
        vec![],
        under_way.clone(),
        [under_way, vec![Edit, Reconcile, Succeed(0)]].concat(),
        [one_left.clone(), vec![Edit]].concat(),
        [one_left.clone(), vec![Rerun]].concat(),
        [one_left, vec![Suspend, Edit]].concat(),
        complete.clone(),
        [complete, vec![Suspend, Rerun]].concat(),
        failed,
    ]
}

#[test]
fn status_is_true_in_every_interleaving() {
    let depth = std::env::var("SENTINEL_DEPTH").map_or(4, |text| text.parse().unwrap());
    let mut seen = 0;
    for on_change in [OnChange::Finish, OnChange::Cancel] {
        for steps in beginnings() {
            let mut scene = Scene::new(on_change);
            for step in steps {
                if let Err(wrong) = scene.take(step) {
                    panic!("after {:?}: {wrong}", scene.steps);
                }
            }
            explore(&scene, depth, &mut seen);
        }
    }
    for verdict in [Some(Verdict::Complete), Some(Verdict::Failed), None] {
        explore(&Scene::recreated(verdict), depth, &mut seen);
    }
    println!("{seen} histories");
    assert!(seen > 100_000, "only {seen} histories were seen");
}
