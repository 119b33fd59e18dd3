//! Observe: everything that is known about a Task, gathered for one decision.

use std::sync::Arc;

use sentinel_audit::line::sha256;
use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::ceiling::Ceilings;
use sentinel_core::reconcile::ceiling::approval::Consent;
use sentinel_core::reconcile::ledger::{Origin, RunLedger};
use sentinel_core::reconcile::orphan;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::status::Recorded;
use sentinel_core::reconcile::trigger::Requests;
use sentinel_core::reconcile::{Decision, Earlier, Finalizer, Lifecycle, Observed, decide};
use sentinel_core::time::Now;
use sentinel_protocol::ids::{NodeName, RunNumber};

use super::context::Context;
use super::error::ReconcileError;
use super::task_cache::TaskCache;
use super::task_runs::TaskRuns;
use super::{ceilings, earlier_lookup, history_lookup, tracking};
use crate::cluster::nodes::Nodes;
use crate::resource::invalid::Invalid;
use crate::resource::marks::{APPROVAL, FINALIZER};
use crate::resource::{Task, approval, recorded};

/// What is known about a Task, except for its Runs, which are locked and read when it is decided.
pub(super) struct Snapshot {
    pub(super) recorded: Recorded,
    pub(super) requests: Requests,
    pub(super) runs: Arc<TaskRuns>,
    nodes: Nodes,
    ceilings: Arc<Ceilings>,
    consent: Consent,
    earlier: Earlier,
    lifecycle: Lifecycle,
    finalizer: Finalizer,
    highest_run: RunNumber,
}

/// Gathers what is known, and begins to track the recorded Run.
pub(super) async fn observe(
    context: &Arc<Context>,
    cache: &mut TaskCache,
    task: &Task,
    plan: &TaskPlan,
) -> Result<Snapshot, ReconcileError> {
    let parts = &context.parts;
    let recorded = recorded::read(task).map_err(ReconcileError::Status)?;
    let ceilings = parts.ceilings.get();
    let (consent, forged) = consent(context, &ceilings, task, &recorded);
    let requests = requests(context, cache, task, forged.as_ref());
    let runs = parts.runs.get_or_insert(&plan.uid, &plan.task);
    runs.lock().recent.clone_from(&recorded.recent);
    let recorded_run = recorded.run.as_ref().map_or(RunNumber(0), |run| run.number);
    let highest_run = highest_run(context, cache, task, plan, recorded_run).await;
    if let Some(run) = &recorded.run {
        let targets = frozen_targets(context, cache, task, run.number).await?;
        tracking::begin_run(context, cache, &runs, plan, (task, run), targets);
    }
    tracking::drop_settled(context, &runs);
    let is_deleting = task.metadata.deletion_timestamp.is_some();
    let finalizers = task.metadata.finalizers.as_deref().unwrap_or_default();
    let earlier = if is_deleting {
        Earlier::NotAsked
    } else {
        earlier_lookup::look_up(context, &runs, plan, &recorded)
    };
    let is_held = finalizers.iter().any(|text| text == FINALIZER);
    Ok(Snapshot {
        recorded,
        requests,
        runs,
        nodes: parts.nodes.nodes(),
        ceilings,
        consent,
        highest_run,
        earlier,
        lifecycle: if is_deleting { Lifecycle::Deleting } else { Lifecycle::Live },
        finalizer: if is_held { Finalizer::Present } else { Finalizer::Absent },
    })
}

/// What is known about a Task that is gone although a Run of it was active: as if its deletion had been abandoned.
pub(super) fn observe_gone(context: &Context, runs: Arc<TaskRuns>, run: RunState) -> Snapshot {
    Snapshot {
        highest_run: run.number,
        recorded: Recorded { run: Some(run), ..Recorded::default() },
        requests: Requests { abandon: true, ..Requests::default() },
        runs,
        nodes: context.parts.nodes.nodes(),
        ceilings: context.parts.ceilings.get(),
        consent: Consent::default(),
        earlier: Earlier::NotAsked,
        lifecycle: Lifecycle::Deleting,
        finalizer: Finalizer::Absent,
    }
}

/// What people ask for by annotation. One that cannot be read is logged once, and an approval that is forged recorded.
fn requests(context: &Context, cache: &mut TaskCache, task: &Task, forged: Option<&Invalid>) -> Requests {
    let (requests, mut unreadable) = recorded::requests(task);
    unreadable.extend(forged.cloned());
    cache.logged.retain(|problem| unreadable.contains(problem));
    for problem in unreadable {
        if !cache.logged.contains(&problem) {
            tracing::warn!(%problem, "ignored an annotation that cannot be read");
            if forged == Some(&problem) {
                ceilings::record_forged(context, task, &problem.to_string());
            }
            cache.logged.push(problem);
        }
    }
    requests
}

/// Who is behind a Run that is due, and who has approved it; and an approval that no operator has written. Not read where nothing
/// asks for it: a signature takes time.
fn consent(
    context: &Context,
    ceilings: &Ceilings,
    task: &Task,
    recorded: &Recorded,
) -> (Consent, Option<Invalid>) {
    let is_active = recorded.run.as_ref().is_some_and(|run| run.finished_at.is_none());
    if *ceilings == Ceilings::Off || is_active {
        return (Consent::default(), None);
    }
    let (consent, forged) = approval::consent(&context.parts.stamps, task);
    let problem = forged.map(|_| {
        let annotations = task.metadata.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(APPROVAL)).map_or("", String::as_str);
        Invalid {
            field: format!("metadata.annotations[{APPROVAL}]"),
            // So that a second text is recorded too.
            value: format!("a text with the SHA-256 {}", sha256(text.as_bytes())),
            allowed: "must be signed by an operator for this Task; what is there approves nothing".to_owned(),
        }
    });
    (consent, problem)
}

/// The highest Run number of this Task that an agent or History shows, read once. Only a Task from before this
/// leadership can have had Runs that its status does not know: when the cluster was restored from an older state.
///
/// An agent's number counts only when it lies near what the Task or History knows: one agent must not use numbers up.
async fn highest_run(
    context: &Context,
    cache: &mut TaskCache,
    task: &Task,
    plan: &TaskPlan,
    recorded: RunNumber,
) -> RunNumber {
    if let Some(highest) = cache.highest_run {
        return highest;
    }
    let created = task.metadata.creation_timestamp.as_ref().map_or(0, |at| at.0.as_millisecond());
    let archived = if created < context.leading_since().wall.0 {
        history_lookup::highest_run(context, &plan.uid).await
    } else {
        None
    };
    let owned = context.parts.fleet.owned(&plan.uid);
    let known = recorded.max(archived.unwrap_or(RunNumber(0)));
    let owned = owned.iter().flat_map(|agent| &agent.reports).map(|report| report.attempt.run);
    let owned = owned.filter(|run| orphan::is_credible(*run, known)).max();
    let highest = owned.max(archived).unwrap_or(RunNumber(0));
    cache.highest_run = Some(highest);
    highest
}

/// Decides, with the Runs locked.
pub(super) fn decide_on(context: &Context, plan: &TaskPlan, snapshot: &Snapshot, now: Now) -> Decision {
    let mut runs = snapshot.runs.lock();
    let fleet = &context.parts.fleet;
    let nothing = RunLedger::new(plan.uid.clone(), RunNumber(0), plan.spec_hash.clone(), Origin::Begun);
    let no_targets = Vec::new();
    let current = runs.current.as_ref();
    let superseded: Vec<&RunLedger> = runs.superseded.iter().map(|run| &run.ledger).collect();
    let observed = Observed {
        recorded: &snapshot.recorded,
        targets: current.map_or(&no_targets, |run| &run.targets),
        ledger: current.map_or(&nothing, |run| &run.ledger),
        superseded: &superseded,
        history: current.map_or(HistoryLookup::Done, |run| run.lookup),
        earlier: &snapshot.earlier,
        archive: context.archive(),
        ceilings: &snapshot.ceilings,
        consent: &snapshot.consent,
        nodes: &snapshot.nodes,
        agent: &|node| fleet.agent_for(&plan.uid, node),
        requests: &snapshot.requests,
        lifecycle: snapshot.lifecycle,
        finalizer: snapshot.finalizer,
        leading_since: context.leading_since().monotonic,
        highest_run: snapshot.highest_run,
    };
    let decision = decide(plan, &observed, now);
    runs.held_by_ceiling = ceilings::holds(&decision.status);
    decision
}

/// The frozen target list of the recorded Run, read from the cluster once.
async fn frozen_targets(
    context: &Context,
    cache: &mut TaskCache,
    task: &Task,
    run: RunNumber,
) -> Result<Arc<Vec<NodeName>>, ReconcileError> {
    if let Some((of, targets)) = &cache.targets
        && *of == run
    {
        return Ok(targets.clone());
    }
    let targets = Arc::new(context.parts.cluster.load_targets(task).await?);
    cache.targets = Some((run, targets.clone()));
    Ok(targets)
}
