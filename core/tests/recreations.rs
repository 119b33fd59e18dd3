//! A day in which a GitOps tool applies the same manifest every three minutes, while its Task is deleted again and again,
//! by its TTL and by people; History is down at times, and leaders crash. Simulated, for many days.
//!
//! The tester is tested too: `every_mutation_is_caught` breaks one rule at a time and wants a second start.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "a test"
)]

#[path = "convergence/rng.rs"]
mod rng;
mod world;

use rng::Rng;
use sentinel_core::plan::{OnRecreate, TaskPlan};
use sentinel_core::reconcile::ledger::{Origin, RunLedger, RunStage, Source};
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::{EarlierRun, RunState};
use sentinel_core::reconcile::{Action, Earlier, Finalizer, Lifecycle, recreation};
use sentinel_protocol::ids::{RunNumber, TaskUid};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_operator::ReportedState;
use world::{World, ended, node, plan, succeeded, uid};

/// Days to simulate.
const DAYS: u64 = 12;

const DAY: u64 = 24 * 3600;

/// Seconds between two syncs of the tool.
const SYNC: u64 = 180;

/// A rule, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    /// History is not asked.
    NeverAsks,
    /// A History that does not answer counts as one that knows of no Run.
    OutageIsNever,
    /// A deleted Task is released before History has its Run.
    ReleasesEarly,
}

/// What History has of a Run.
struct Archived {
    /// Which of the Tasks of this name it was.
    task: u32,
    run: RunState,
}

struct Day {
    rng: Rng,
    on_recreate: OnRecreate,
    mutation: Option<Mutation>,
    second: u64,
    /// Tasks of this name that were made.
    tasks: u32,
    /// The Task, if it exists, and the operator's memory of it.
    world: Option<World>,
    /// The agent's command: seconds until it ends.
    running: Option<u64>,
    /// How it ended, until the agent forgets it.
    result: Option<ReportedState>,
    history: Vec<Archived>,
    is_up: bool,
    /// What the operator hands to History, lost when it crashes.
    queue: Vec<RunState>,
    starts: u32,
    syncs_without_change: u32,
    crashes: u32,
    outages: u32,
}

impl Day {
    fn new(seed: u64, on_recreate: OnRecreate, mutation: Option<Mutation>) -> Self {
        Self {
            rng: Rng::new(seed),
            on_recreate,
            mutation,
            second: 0,
            tasks: 0,
            world: None,
            running: None,
            result: None,
            history: vec![],
            is_up: true,
            queue: vec![],
            starts: 0,
            syncs_without_change: 0,
            crashes: 0,
            outages: 0,
        }
    }

    fn run(mut self) -> Self {
        while self.second < DAY {
            self.pass();
        }
        // What is under way may end.
        self.is_up = true;
        for _ in 0..SYNC {
            self.work();
            self.archive();
        }
        self
    }

    fn pass(&mut self) {
        if self.second.is_multiple_of(SYNC) {
            self.sync();
        }
        if self.rng.chance(2) {
            self.is_up = !self.is_up;
            self.outages += u32::from(!self.is_up);
        }
        if self.rng.chance(3)
            && let Some(world) = &mut self.world
        {
            // A person, or a prune.
            delete(world);
        }
        if self.rng.chance(2) {
            self.crash();
        }
        self.work();
        // History lags by most of a minute.
        if self.rng.chance(20) {
            self.archive();
        }
    }

    /// The tool makes what is missing. The same manifest over what exists changes nothing.
    fn sync(&mut self) {
        if self.world.is_some() {
            self.syncs_without_change += 1;
            return;
        }
        self.tasks += 1;
        let mut plan = TaskPlan { on_recreate: self.on_recreate, ..plan() };
        plan.ttl_after_finished_ms = Some(60_000);
        let mut world = World::new(plan, &["a"]);
        world.now = world.now.plus(self.second * 1000);
        world.pass(0);
        self.world = Some(world);
    }

    /// A second of the operator and the agent.
    fn work(&mut self) {
        self.second += 1;
        self.run_command();
        let earlier = self.ask();
        let crash = self.rng.chance(10).then(|| self.rng.below(4));
        let Some(world) = &mut self.world else { return };
        world.pass(1000);
        world.earlier = earlier;
        if world.history_lookup == HistoryLookup::Pending && self.is_up {
            let record = self.history.iter().find(|archived| archived.task == self.tasks);
            if let Some(archived) = record {
                world.ledger.note_run_archived(RunStage::of(&archived.run));
            }
            world.history_lookup = HistoryLookup::Done;
        }
        if self.mutation == Some(Mutation::ReleasesEarly) && world.lifecycle == Lifecycle::Deleting {
            world.plan.on_recreate = OnRecreate::Run;
        }
        let decision = world.decide();
        world.record(&decision);
        for (n, action) in decision.actions.iter().enumerate() {
            if crash == Some(n) {
                self.crash();
                return;
            }
            world.act(action);
            match action {
                Action::Start { .. } if self.running.is_none() && self.result.is_none() => {
                    self.starts += 1;
                    self.running = Some(1 + self.rng.below(40) as u64);
                }
                Action::ArchiveRun(record) => self.queue.push(record.as_ref().clone()),
                Action::Cancel(_) if self.running.is_some() => {
                    self.running = None;
                    self.result = Some(ended(Outcome::Cancelled));
                }
                Action::Forget(_) => self.result = None,
                Action::DeleteTask => delete(world),
                _ => {}
            }
        }
        let is_deleting = world.lifecycle == Lifecycle::Deleting;
        if world.deleted || (is_deleting && world.finalizer == Finalizer::Absent) {
            self.world = None;
            (self.running, self.result) = (None, None);
            self.queue.clear();
        }
    }

    fn run_command(&mut self) {
        if let Some(left) = &mut self.running {
            *left -= 1;
            if *left == 0 {
                self.running = None;
                self.result = Some(succeeded());
            }
        }
        let Some(world) = self.world.as_mut().filter(|world| world.ledger.run() > RunNumber(0)) else {
            return;
        };
        match (&self.running, &self.result) {
            (Some(_), _) => world.report("a", world::running()),
            (None, Some(result)) => world.report("a", result.clone()),
            (None, None) => {}
        }
    }

    /// What History answers the operator.
    fn ask(&self) -> Earlier {
        let Some(world) = &self.world else { return Earlier::NotAsked };
        if !recreation::asks(&world.plan, &world.recorded) {
            return Earlier::NotAsked;
        }
        match self.mutation {
            Some(Mutation::NeverAsks) => return Earlier::Never,
            Some(Mutation::OutageIsNever) if !self.is_up => return Earlier::Never,
            _ if !self.is_up => return Earlier::Unknown,
            _ => {}
        }
        let same = |archived: &&Archived| {
            archived.task < self.tasks
                && archived.run.spec_hash == world.plan.spec_hash
                && archived.run.targets > 0
        };
        self.history.iter().rfind(same).map_or(Earlier::Never, |archived| Earlier::Ran {
            run: EarlierRun {
                task: TaskUid::new(format!("uid-{}", archived.task)).unwrap(),
                number: archived.run.number,
                spec_hash: archived.run.spec_hash.clone(),
                rerun_token: archived.run.rerun_token.clone(),
                finished_at: archived.run.finished_at,
                verdict: archived.run.verdict,
            },
            rerun: None,
        })
    }

    /// History takes what was handed over.
    fn archive(&mut self) {
        if !self.is_up {
            return;
        }
        for run in self.queue.drain(..) {
            self.history.retain(|archived| {
                archived.task != self.tasks || RunStage::of(&archived.run) > RunStage::of(&run)
            });
            if !self.history.iter().any(|archived| archived.task == self.tasks) {
                self.history.push(Archived { task: self.tasks, run });
            }
        }
        let Some(world) = &mut self.world else { return };
        if let Some(archived) = self.history.iter().find(|archived| archived.task == self.tasks) {
            world.ledger.note_run_archived(RunStage::of(&archived.run));
        }
        if self.result.is_some() {
            world.ledger.note_archived(&world.ledger.attempt(&node("a")), Stage::Ended);
        }
    }

    /// Another operator leads, which knows nothing.
    fn crash(&mut self) {
        self.crashes += 1;
        self.queue.clear();
        let Some(world) = &mut self.world else { return };
        let (number, hash) =
            world.recorded.run.as_ref().map_or((RunNumber(0), world.plan.spec_hash.clone()), |run| {
                (run.number, run.spec_hash.clone())
            });
        world.ledger = RunLedger::new(uid(), number, hash, Origin::Inherited);
        world.leading_since = world.now;
        world.history_lookup =
            if number == RunNumber(0) { HistoryLookup::Done } else { HistoryLookup::Pending };
        world.connect("a");
        if self.running.is_none() && self.result.is_none() && number > RunNumber(0) {
            // The agent has forgotten what History has, or was never sent anything.
            let over = self
                .history
                .iter()
                .any(|archived| archived.task == self.tasks && archived.run.verdict.is_some());
            if over {
                world.ledger.recall(&world.ledger.attempt(&node("a")), &succeeded(), Source::Agent);
            } else {
                world.owns_nothing("a");
            }
        }
    }

    /// Whether a start is one too many.
    fn wrong(&self) -> Option<String> {
        let most = match self.on_recreate {
            OnRecreate::OncePerSpec => 1,
            OnRecreate::Run => self.tasks,
        };
        (self.starts > most).then(|| format!("{} starts of {} Tasks", self.starts, self.tasks))
    }
}

fn delete(world: &mut World) {
    world.lifecycle = Lifecycle::Deleting;
}

#[test]
fn a_spec_runs_once_however_often_its_task_is_made_again() {
    let (mut tasks, mut starts, mut crashes, mut outages) = (0, 0, 0, 0);
    for seed in 0..DAYS {
        let day = Day::new(seed, OnRecreate::OncePerSpec, None).run();
        assert_eq!(day.wrong(), None, "seed {seed}");
        assert!(day.tasks > 10 && day.syncs_without_change > 10, "seed {seed}: {} Tasks", day.tasks);
        (tasks, starts) = (tasks + day.tasks, starts + day.starts);
        (crashes, outages) = (crashes + day.crashes, outages + day.outages);
    }
    println!("{DAYS} days: {tasks} Tasks, {starts} starts, {crashes} crashes, {outages} outages of History");
    // A Run that was deleted before its first start counts as one.
    assert!(u64::from(starts) > DAYS / 2, "{starts} starts");
}

#[test]
fn by_default_each_task_runs_once_and_applying_it_again_runs_nothing() {
    for seed in 0..DAYS {
        let day = Day::new(seed, OnRecreate::Run, None).run();
        assert!(day.tasks > 50 && day.syncs_without_change > 10, "seed {seed}: {} Tasks", day.tasks);
        assert_eq!(day.wrong(), None, "seed {seed}");
        assert!(day.starts > day.tasks / 2, "seed {seed}: {} starts of {} Tasks", day.starts, day.tasks);
    }
}

#[test]
fn every_mutation_is_caught() {
    for mutation in [Mutation::NeverAsks, Mutation::OutageIsNever, Mutation::ReleasesEarly] {
        let caught = (0..200).find_map(|seed| {
            Day::new(seed, OnRecreate::OncePerSpec, Some(mutation)).run().wrong().map(|wrong| (seed, wrong))
        });
        match caught {
            Some((seed, wrong)) => println!("{mutation:?}: caught by seed {seed}: {wrong}"),
            None => panic!("{mutation:?} was not noticed in 200 days"),
        }
    }
}
