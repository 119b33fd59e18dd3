//! One history: faults at random, then peace, then the questions.

mod peace;
mod plans;
mod promises;
mod tally;

use std::collections::{BTreeMap, BTreeSet};

use sentinel_core::plan::{OnRecreate, Starts, TaskPlan};
use sentinel_core::reconcile::status::Recorded;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::reconcile::trigger::Requests;
use sentinel_core::reconcile::{Finalizer, Lifecycle};
use sentinel_protocol::ids::{NodeName, SessionId};
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::ToOperator;

use super::link::Link;
use super::mutation::Mutation;
use super::node::{Ends, Node};
use super::operator::{Around, Life, Operator};
use super::rng::Rng;
use super::stores::{Cluster, History};
use super::witness::Witness;
use plans::plan;
pub use promises::Violation;
pub use tally::Tally;

pub struct Simulation {
    rng: Rng,
    mutation: Option<Mutation>,
    trace: bool,
    now: u64,
    cluster: Cluster,
    history: History,
    nodes: Vec<Node>,
    links: BTreeMap<NodeName, Link>,
    leader: Operator,
    /// A leader that was deposed and does not know it yet.
    zombie: Option<Operator>,
    operators: u64,
    sessions: u64,
    witness: Witness,
    /// Nodes with an injected fault.
    troubled: BTreeSet<NodeName>,
    edits: u32,
    /// Starts that were delivered, to be delivered once more at any later time.
    delivered: Vec<ToAgent>,
    tally: Tally,
    faults: bool,
}

impl Simulation {
    pub fn new(seed: u64, mutation: Option<Mutation>, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let names: Vec<NodeName> =
            (0..=rng.below(4)).map(|n| NodeName::new(format!("node-{n}")).unwrap()).collect();
        // Not by chance, so that a seed stays the history that it is.
        let on_recreate = if seed % 4 == 3 { OnRecreate::OncePerSpec } else { OnRecreate::Run };
        let cluster = Cluster {
            plan: TaskPlan { on_recreate, ..plan(0, &mut rng) },
            requests: Requests::default(),
            lifecycle: Lifecycle::Live,
            finalizer: Finalizer::Absent,
            recorded: Recorded::default(),
            targets: vec![],
            version: 1,
            nodes: names.iter().map(|name| (name.clone(), NodeFacts::default())).collect(),
            gone: false,
            up: true,
            runs: BTreeMap::new(),
            gave_up: BTreeSet::new(),
            backup: None,
            restored: false,
            begun_for: BTreeMap::new(),
            released_without: None,
            deleted_without: BTreeSet::new(),
            claims_complete: None,
        };
        Self {
            leader: Operator::new(1, 0, &cluster, mutation),
            rng,
            mutation,
            trace,
            now: 0,
            cluster,
            history: History { up: true, ..History::default() },
            nodes: names.into_iter().map(|name| Node::new(name, mutation)).collect(),
            links: BTreeMap::new(),
            zombie: None,
            operators: 1,
            sessions: 0,
            witness: Witness::default(),
            troubled: BTreeSet::new(),
            edits: 0,
            delivered: vec![],
            tally: Tally::default(),
            faults: true,
        }
    }

    pub fn run(mut self) -> Result<Tally, Violation> {
        let steps = 200 + self.rng.below(400);
        for _ in 0..steps {
            self.fault_or_work()?;
            self.check_claim()?;
        }
        self.peace()?;
        self.check()?;
        self.lose_history()?;
        self.tally.executions = self.witness.seen.len();
        self.tally.retries = self.witness.seen.keys().filter(|id| id.attempt > 1).count();
        self.tally.runs = self.cluster.runs.len();
        Ok(self.tally)
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>7} {}", self.now, what());
        }
    }

    // --- faults and work --------------------------------------------------------------------------------------

    fn fault_or_work(&mut self) -> Result<(), Violation> {
        let n = self.rng.below(self.nodes.len());
        match self.rng.below(1000) {
            0..=249 => self.deliver(n, true),
            250..=449 => self.reconcile(true),
            450..=549 => self.archive(),
            550..=729 => {
                let kill = self.rng.chance(25);
                self.nodes[n].supervise(&mut self.rng, kill, Ends::Anyhow, &mut self.witness)
            }
            730..=779 => self.inspect(n),
            780..=839 => self.connect(n),
            840..=859 => self.cut(n),
            860..=879 => self.crash_agent(n),
            880..=889 => self.reboot(n),
            890..=904 => self.takeover(),
            905..=919 => {
                self.history.up = !self.history.up;
                Ok(())
            }
            920..=929 => {
                self.cluster.up = !self.cluster.up;
                Ok(())
            }
            930..=944 => self.work_of_zombie(),
            945..=947 => self.backup(),
            965..=976 => {
                self.replay(n);
                Ok(())
            }
            977..=986 => self.nodes[n].guest(&mut self.rng),
            948..=964 => {
                self.edit();
                Ok(())
            }
            _ => {
                let millis = if self.rng.chance(100) { 20_000 } else { 1_000 };
                self.pass(millis);
                Ok(())
            }
        }
    }

    fn pass(&mut self, millis: usize) {
        let millis = self.rng.below(millis) as u64;
        self.now += millis;
        self.nodes.iter_mut().for_each(|node| node.pass(millis));
    }

    fn deliver(&mut self, n: usize, may_crash: bool) -> Result<(), Violation> {
        let name = self.nodes[n].name.clone();
        self.post(n);
        let Some(link) = self.links.get_mut(&name) else { return Ok(()) };
        if let Some(message) = link.to_agent.pop_front() {
            let crash = (may_crash && self.rng.chance(20)).then(|| self.rng.below(4));
            self.trace(|| format!("{name} <- {message:?}"));
            if matches!(message, ToAgent::Start(_)) {
                self.delivered.push(message.clone());
            }
            if crash.is_some() {
                self.troubled.insert(name.clone());
            }
            self.nodes[n].receive(message, crash)?;
            self.notice_crash(n);
        }
        self.post(n);
        let Some(link) = self.links.get_mut(&name) else { return Ok(()) };
        if let Some(message) = link.to_operator.pop_front() {
            let (session, to) = (link.session.clone(), link.operator);
            if matches!(&message, ToOperator::Refused(refused) if refused.refusal.is_temporary()) {
                self.tally.busy += 1;
            }
            self.trace(|| format!("{name} -> operator {to}: {message:?}"));
            let (operator, mut around) = self.of(to);
            if let Some(operator) = operator {
                operator.receive(&name, &session, message, &mut around);
            }
        }
        Ok(())
    }

    /// An old `Start` comes once more, however late.
    fn replay(&mut self, n: usize) {
        let name = &self.nodes[n].name;
        let mine =
            |message: &&ToAgent| matches!(message, ToAgent::Start(start) if start.attempt.node == *name);
        let old: Vec<&ToAgent> = self.delivered.iter().filter(mine).collect();
        if let (false, Some(link)) = (old.is_empty(), self.links.get_mut(name)) {
            let again = old[self.rng.below(old.len())].clone();
            // No Session brings what another was given. If one did, the command could start after all where its leader
            // has meanwhile concluded that it never did; even then it runs once, and its evidence stands.
            if let ToAgent::Start(start) = &again {
                self.history.late.insert(start.attempt.clone());
            }
            link.to_agent.push_back(again);
        }
    }

    /// Moves the agent's outgoing messages to its link.
    fn post(&mut self, n: usize) {
        let sent = std::mem::take(&mut self.nodes[n].outbox);
        if let Some(link) = self.links.get_mut(&self.nodes[n].name) {
            for message in sent {
                link.send_to_operator(message, &mut self.rng, self.faults);
            }
        }
    }

    fn notice_crash(&mut self, n: usize) {
        if !self.nodes[n].is_connected() {
            self.links.remove(&self.nodes[n].name);
        }
    }

    fn of(&mut self, id: u64) -> (Option<&mut Operator>, Around<'_>) {
        let around = Around {
            cluster: &mut self.cluster,
            history: &mut self.history,
            links: &mut self.links,
            rng: &mut self.rng,
            now: self.now,
            faults: self.faults,
        };
        let operator = [Some(&mut self.leader), self.zombie.as_mut()]
            .into_iter()
            .flatten()
            .find(|operator| operator.id == id);
        (operator, around)
    }

    fn reconcile(&mut self, may_crash: bool) -> Result<(), Violation> {
        let crash = (may_crash && self.rng.chance(30)).then(|| self.rng.below(4));
        let id = self.leader.id;
        let (Some(leader), mut around) = self.of(id) else { return Ok(()) };
        leader.refresh(around.cluster);
        match leader.reconcile(&mut around, crash)? {
            Life::Lives => Ok(()),
            Life::Crashed => {
                self.trace(|| "the leader crashed between two actions".to_owned());
                self.takeover_from_dead()
            }
        }
    }

    fn archive(&mut self) -> Result<(), Violation> {
        let id = self.leader.id;
        let (Some(leader), mut around) = self.of(id) else { return Ok(()) };
        leader.archive(&mut around)
    }

    fn inspect(&mut self, n: usize) -> Result<(), Violation> {
        if self.rng.chance(500) {
            self.nodes[n].tick()?;
        } else {
            self.nodes[n].inspect(&mut self.rng)?;
        }
        self.post(n);
        Ok(())
    }

    fn connect(&mut self, n: usize) -> Result<(), Violation> {
        let name = self.nodes[n].name.clone();
        if self.links.contains_key(&name) {
            return Ok(());
        }
        // An agent may still dial the old leader.
        let late = self.rng.chance(200);
        let (to, epoch) = match &self.zombie {
            Some(zombie) if late => (zombie.id, zombie.epoch),
            _ => (self.leader.id, self.leader.epoch),
        };
        self.sessions += 1;
        let session = SessionId::new(format!("s{}", self.sessions)).unwrap();
        self.trace(|| format!("{name} connects to operator {to} as {session}"));
        self.links.insert(name.clone(), Link::new(session.clone(), to));
        self.nodes[n].connect(epoch)?;
        if self.mutation == Some(Mutation::NoInventory) {
            self.nodes[n].outbox.clear();
            if let (Some(operator), _) = self.of(to) {
                operator.assume_complete(&name, &session);
            }
        }
        self.post(n);
        Ok(())
    }

    fn cut(&mut self, n: usize) -> Result<(), Violation> {
        self.tally.cuts += 1;
        let name = self.nodes[n].name.clone();
        self.trace(|| format!("{name} is cut off"));
        self.troubled.insert(name.clone());
        self.links.remove(&name);
        self.nodes[n].disconnect()
    }

    fn crash_agent(&mut self, n: usize) -> Result<(), Violation> {
        let name = self.nodes[n].name.clone();
        self.trace(|| format!("the agent of {name} is killed"));
        self.troubled.insert(name.clone());
        self.links.remove(&name);
        self.nodes[n].crash()
    }

    fn reboot(&mut self, n: usize) -> Result<(), Violation> {
        self.tally.reboots += 1;
        let name = self.nodes[n].name.clone();
        self.trace(|| format!("{name} loses its power"));
        self.troubled.insert(name.clone());
        self.links.remove(&name);
        self.nodes[n].reboot(&mut self.rng)
    }

    fn next_leader(&mut self) -> Operator {
        self.tally.takeovers += 1;
        self.operators += 1;
        self.troubled.extend(self.nodes.iter().map(|node| node.name.clone()));
        let next = Operator::new(self.operators, self.now, &self.cluster, self.mutation);
        self.history.leader = next.epoch;
        self.trace(|| format!("operator {} leads", next.id));
        std::mem::replace(&mut self.leader, next)
    }

    /// The leader is frozen and another takes its place; resumed, it may act for a while.
    fn takeover(&mut self) -> Result<(), Violation> {
        let old = self.next_leader();
        let lives = self.rng.chance(500);
        let gone = std::mem::replace(&mut self.zombie, lives.then_some(old));
        let dead = if lives { gone.map(|gone| gone.id) } else { None };
        self.drop_links(|operator| Some(operator) == dead || !lives)
    }

    fn takeover_from_dead(&mut self) -> Result<(), Violation> {
        let dead = self.next_leader().id;
        self.drop_links(|operator| operator == dead)
    }

    /// A backup of etcd is taken, or the last one is put back. Then no operator's cache is worth anything.
    fn backup(&mut self) -> Result<(), Violation> {
        if self.rng.chance(600) {
            self.cluster.backup = Some(self.cluster.copy()).filter(|_| !self.cluster.gone);
            return Ok(());
        }
        if !self.cluster.restore() {
            return Ok(());
        }
        self.trace(|| "etcd is put back to an older state".to_owned());
        self.tally.restores += 1;
        self.history.restored = true;
        self.zombie = None;
        self.next_leader();
        let leader = self.leader.id;
        self.drop_links(|operator| operator != leader)
    }

    fn drop_links(&mut self, of: impl Fn(u64) -> bool) -> Result<(), Violation> {
        for n in 0..self.nodes.len() {
            let name = self.nodes[n].name.clone();
            if self.links.get(&name).is_some_and(|link| of(link.operator)) {
                self.links.remove(&name);
                self.nodes[n].disconnect()?;
            }
        }
        Ok(())
    }

    fn work_of_zombie(&mut self) -> Result<(), Violation> {
        let Some(id) = self.zombie.as_ref().map(|zombie| zombie.id) else { return Ok(()) };
        let (Some(zombie), mut around) = self.of(id) else { return Ok(()) };
        zombie.reconcile(&mut around, None)?;
        zombie.archive(&mut around)
    }

    fn edit(&mut self) {
        if self.cluster.gone || !self.cluster.up {
            return;
        }
        self.edits += 1;
        let run = self.cluster.recorded.run.as_ref().map(|run| run.number);
        match self.rng.below(12) {
            0..=2 => {
                let (rerun_token, on_recreate) =
                    (self.cluster.plan.rerun_token.clone(), self.cluster.plan.on_recreate);
                let edited = plan(self.edits, &mut self.rng);
                self.cluster.plan = TaskPlan { rerun_token, on_recreate, ..edited };
            }
            3..=4 => self.cluster.plan.rerun_token = self.edits.to_string(),
            5 => self.cluster.requests.rerun = Some(self.edits.to_string()),
            6..=7 => self.cluster.requests.cancel = run,
            8..=9 => {
                self.cluster.plan.starts = match self.cluster.plan.starts {
                    Starts::Allowed => Starts::Suspended,
                    Starts::Suspended => Starts::Allowed,
                };
            }
            10 if self.rng.chance(300) => {
                self.cluster.delete(&self.history);
            }
            _ => {}
        }
        self.cluster.version += 1;
        self.trace(|| "the Task is edited".to_owned());
    }
}
