//! What every [`Fleet`] promises the controller: one suite over the gateway's registry, with real sockets, and over the
//! agents of the controller's tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]
#![allow(dead_code, reason = "the kits of other test programs")]

#[path = "controller/agents.rs"]
mod agents;
mod gateway;

use sentinel_core::reconcile::rollout::ActiveAttempt;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::controller::Fleet;
use sentinel_protocol::ids::{Epoch, NodeName, RunNumber, TaskRef};
use sentinel_protocol::request::{Deadlines, Program, RunRequest};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Cancel, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{Report, ReportedState, Running, ToOperator};

use self::agents::{Agents, Delivered};
use self::gateway::{Agent, Setup, World, attempt, ended, eventually, node_name, report, spec_hash, world};

/// A fleet with one node, `n`, and what its agent does.
trait Site {
    fn fleet(&self) -> &dyn Fleet;
    async fn connect(&mut self);
    async fn disconnect(&mut self);
    async fn report(&mut self, report: Report);
    /// The last message that the agent received, by its kind.
    async fn received(&mut self) -> &'static str;
}

struct Registry {
    world: World,
    agent: Option<Agent>,
}

impl Site for Registry {
    fn fleet(&self) -> &dyn Fleet {
        &self.world.registry
    }

    async fn connect(&mut self) {
        self.agent = Some(self.world.agent("n").await);
    }

    async fn disconnect(&mut self) {
        self.agent = None;
    }

    async fn report(&mut self, report: Report) {
        self.agent.as_mut().unwrap().send_json(&ToOperator::Report(Box::new(report))).await;
    }

    async fn received(&mut self) -> &'static str {
        loop {
            match self.agent.as_mut().unwrap().receive().await {
                ToAgent::Start(_) => return "Start",
                ToAgent::Cancel(_) => return "Cancel",
                ToAgent::Forget(_) => return "Forget",
                _ => {}
            }
        }
    }
}

impl Site for Agents {
    fn fleet(&self) -> &dyn Fleet {
        self
    }

    async fn connect(&mut self) {
        let (session, _) = self.next_session(&node());
        self.set_live(&node(), session);
    }

    async fn disconnect(&mut self) {
        Agents::disconnect(self, &node());
    }

    async fn report(&mut self, report: Report) {
        self.own(&report);
    }

    async fn received(&mut self) -> &'static str {
        match self.delivered().pop().expect("something was delivered") {
            Delivered::Start(..) => "Start",
            Delivered::Cancel(_) => "Cancel",
            Delivered::Forget(_) => "Forget",
        }
    }
}

fn node() -> NodeName {
    node_name("n")
}

fn start() -> Start {
    Start::new(
        attempt("t/1/n/1"),
        spec_hash(),
        Epoch::from(1),
        TaskRef::new("ops", "job").unwrap(),
        RunRequest::new(Program::Command(vec!["true".into()])),
        Deadlines { start_ms: 1000, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 1000 },
    )
}

/// The contract.
async fn contract(mut site: impl Site) {
    let (name, start) = (node(), start());
    let task = start.attempt.task.clone();
    let cancel = Cancel {
        attempt: start.attempt.clone(),
        spec_hash: spec_hash(),
        epoch: Epoch::from(1),
        requested_by: None,
    };
    let forget = Forget { attempt: start.attempt.clone(), epoch: Epoch::from(1) };

    let facts = site.fleet().agent(&name);
    assert_eq!((facts.session, facts.last_seen), (None, None), "it has never connected");
    assert_eq!(site.fleet().protocol_version(&name), None);
    assert_eq!(site.fleet().start(start.clone(), None), None);
    assert!(site.fleet().owned(&task).is_empty());

    site.connect().await;
    let session = site.fleet().agent(&name).session.expect("it is connected");
    assert!(site.fleet().agent(&name).last_seen.is_some());
    assert!(site.fleet().protocol_version(&name).is_some());
    assert_eq!(site.fleet().active_attempt(&task, &name), None);
    let owned = site.fleet().owned(&task);
    assert_eq!((owned.len(), owned[0].reports.len()), (1, 0), "an agent that owns nothing is listed");
    assert_eq!(owned[0].session, session);

    assert_eq!(site.fleet().start(start.clone(), None), Some(session.clone()));
    assert_eq!(site.received().await, "Start");
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    site.report(report("t/1/n/1", running)).await;
    let active = ActiveAttempt { run: RunNumber(1), attempt: 1 };
    eventually("it is active", || site.fleet().active_attempt(&task, &name) == Some(active)).await;
    assert_eq!(site.fleet().owned(&task)[0].reports[0].attempt, start.attempt);
    assert_eq!(site.fleet().cancel(cancel), Some(session.clone()));
    assert_eq!(site.received().await, "Cancel");

    site.report(report("t/1/n/1", ended(0))).await;
    eventually("it is not active", || site.fleet().active_attempt(&task, &name).is_none()).await;
    assert_eq!(
        site.fleet().owned(&task)[0].reports.len(),
        1,
        "an ended Attempt is owned until it is forgotten"
    );
    site.report(report("t/2/n/1", ReportedState::Accepted)).await;
    let second = ActiveAttempt { run: RunNumber(2), attempt: 1 };
    eventually("another is active", || site.fleet().active_attempt(&task, &name) == Some(second)).await;
    assert_eq!(site.fleet().forget(forget.clone()), Some(session));
    assert_eq!(site.received().await, "Forget");

    site.disconnect().await;
    eventually("it is disconnected", || site.fleet().agent(&name).session.is_none()).await;
    assert!(site.fleet().agent(&name).last_seen.is_some(), "it was seen");
    assert_eq!(
        site.fleet().active_attempt(&task, &name),
        None,
        "only connected agents are known to be active"
    );
    assert!(site.fleet().owned(&task).is_empty());
    assert_eq!(site.fleet().forget(forget), None);
}

#[tokio::test]
async fn the_registry_keeps_the_contract() {
    contract(Registry { world: world(Setup::default()).await, agent: None }).await;
}

#[tokio::test]
async fn the_agents_of_the_controller_tests_keep_the_contract() {
    let clock = Clock::system();
    contract(Agents::new(EmbeddedCluster::in_memory(clock.clone()), clock)).await;
}
