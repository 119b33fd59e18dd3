//! Attempts of Tasks that are gone.

use std::time::Duration;

use sentinel_core::reconcile::orphan::Owner;
use sentinel_operator::gateway::orphans;
use sentinel_protocol::ids::{Epoch, RunNumber, TaskUid};
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, ToAgent};
use sentinel_protocol::to_operator::{ReportedState, Running, ToOperator};
use tokio_util::sync::CancellationToken;

use super::gateway::*;

#[tokio::test]
async fn orphans_are_cancelled_archived_and_forgotten() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let running = ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", running)))).await;
    assert!(matches!(agent.receive().await, ToAgent::Ack(_)));
    // Its Task is deleted.
    world.ledgers.unknown.lock().unwrap().push("t".parse().unwrap());
    let metrics = world.gateway.metrics();
    let sweep = |owner| orphans::sweep(&world.registry, &*world.ledgers, |_| owner, metrics);
    sweep(None);
    sweep(Some(Owner::AtRun(RunNumber(1))));
    sweep(Some(Owner::Gone));
    let cancel = Cancel {
        attempt: attempt("t/1/n/1"),
        spec_hash: spec_hash(),
        epoch: Epoch::from(1),
        requested_by: None,
    };
    assert_eq!(agent.receive().await, ToAgent::Cancel(cancel), "cancelled while its Task may exist");
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
    assert_eq!(agent.receive().await, ToAgent::Ack(Ack { attempt: attempt("t/1/n/1"), stage: Stage::Ended }));
    sweep(Some(Owner::Gone));
    let forget = Forget { attempt: attempt("t/1/n/1"), epoch: Epoch::from(1) };
    assert_eq!(agent.receive().await, ToAgent::Forget(forget));
    assert!(world.registry.all_owned().is_empty());
}

/// It was cancelled up to half a minute later, and forgotten half a minute after that.
#[tokio::test]
async fn an_orphan_is_settled_soon_after_it_is_reported() {
    let world = world(Setup::default()).await;
    let mut agent = world.agent("n").await;
    let running = || ReportedState::Running(Running { started_at: UnixMillis(1), pid: 9 });
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", running())))).await;
    assert!(matches!(agent.receive().await, ToAgent::Ack(_)));
    world.ledgers.unknown.lock().unwrap().push("t".parse().unwrap());
    let (registry, ledgers, stop) = (world.registry.clone(), world.ledgers.clone(), CancellationToken::new());
    let owner = |_: &TaskUid| Some(Owner::Gone);
    let (metrics, every) = (world.gateway.metrics().clone(), Duration::from_hours(1));
    let sweeping = tokio::spawn(orphans::run(registry, ledgers, owner, metrics, every, stop.clone()));
    agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", running())))).await;
    let mut received = Vec::new();
    while !received.iter().any(|message| matches!(message, ToAgent::Forget(_))) {
        let message = agent.receive().await;
        if matches!(message, ToAgent::Cancel(_)) {
            agent.send_json(&ToOperator::Report(Box::new(report("t/1/n/1", ended(0))))).await;
        }
        received.push(message);
    }
    assert!(received.iter().any(|message| matches!(message, ToAgent::Cancel(_))), "{received:?}");
    stop.cancel();
    sweeping.await.unwrap();
}
