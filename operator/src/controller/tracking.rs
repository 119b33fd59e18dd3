//! Which Runs of a Task are tracked: from its beginning, or its takeover, until everything of it is settled.

use std::sync::Arc;

use sentinel_audit::record::{RunBegan, targets_sha256};
use sentinel_audit::request::Request;
use sentinel_core::plan::{self, TaskPlan};
use sentinel_core::reconcile::ledger::Origin;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::settle;
use sentinel_protocol::ids::{NodeName, RunNumber, SpecHash};
use sentinel_protocol::request::{Program, RunRequest};
use sentinel_protocol::requester::RequestedBy;
use sentinel_protocol::signed::{self, Signed};

use super::context::Context;
use super::history_lookup;
use super::requesters::note_cancelled;
use super::task_cache::TaskCache;
use super::task_runs::{RunFacts, TaskRuns, TrackedRun};
use crate::history::record::display_command;
use crate::resource::Task;
use crate::traces::{self, RunTrace};

/// Makes the recorded Run the current one, if it is not. The previous Run is superseded, and kept until it is settled.
pub(super) fn begin_run(
    context: &Arc<Context>,
    cache: &TaskCache,
    runs: &Arc<TaskRuns>,
    plan: &TaskPlan,
    (task, run): (&Task, &RunState),
    targets: Arc<Vec<NodeName>>,
) {
    let mut locked = runs.lock();
    if let Some(current) = locked.current.as_mut().filter(|current| current.facts.run == run.number) {
        return complete(current, plan, task);
    }
    let origin = cache.origin(run.number);
    // Agents have reported and forgotten Attempts of a Run that was taken over, ended or not, and only History still
    // knows them. Without a lookup, ended targets would count as never begun, and archived ones as lagging behind.
    let is_inherited = origin == Origin::Inherited;
    let lookup = if is_inherited { HistoryLookup::Pending } else { HistoryLookup::Done };
    let facts = facts(plan, (task, run), trace(task));
    context.audit().run_began(|| record(&facts, &targets, origin));
    let previous = locked.current.replace(TrackedRun::new(facts, targets, origin, lookup));
    locked.superseded.extend(previous);
    drop(locked);
    if let Some(recorded) = task.status.as_ref().and_then(|status| status.run.as_ref()) {
        note_cancelled(runs, recorded);
    }
    if is_inherited {
        apply_inventories(context, plan, run.number, runs);
        history_lookup::spawn(context.clone(), runs.clone(), run.number);
    }
}

/// The audit record of a Run that this operator begins or takes over.
fn record(facts: &RunFacts, targets: &[NodeName], origin: Origin) -> RunBegan {
    RunBegan {
        task: facts.task.clone(),
        uid: facts.uid.clone(),
        run: facts.run,
        trigger: facts.trigger.as_str().into(),
        spec_hash: facts.spec_hash.clone(),
        requested_by: facts.requested_by.clone(),
        approved_by: facts.approved_by.clone(),
        request: facts.request.as_ref().map(Request::from),
        taken_over: origin == Origin::Inherited,
        targets: targets.len() as u64,
        targets_sha256: targets_sha256(targets),
    }
}

/// Applies what connected agents reported before the Run was tracked.
fn apply_inventories(context: &Context, plan: &TaskPlan, run: RunNumber, runs: &TaskRuns) {
    let owned = context.parts.fleet.owned(&plan.uid);
    let mut runs = runs.lock();
    let Some(tracked) = runs.get_mut(run) else { return };
    for agent in owned {
        for report in &agent.reports {
            tracked.ledger.apply_report(report);
        }
        let ids: Vec<_> = agent.reports.into_iter().map(|report| report.attempt).collect();
        tracked.ledger.apply_inventory(&agent.node, &agent.session, &ids);
    }
}

/// Drops superseded Runs that are settled, and notes whether the current one is.
pub(super) fn drop_settled(context: &Context, runs: &TaskRuns) {
    let agent = |node: &NodeName| context.parts.fleet.agent(node);
    let mut runs = runs.lock();
    runs.superseded.retain(|run| !settle::settle(&run.ledger, agent).settled);
    if let Some(run) = &mut runs.current {
        let ended = || run.ledger.executions().filter(|(_, execution)| execution.is_over()).count();
        let over = run.is_finished() && ended() >= run.targets.len();
        run.settled = over && settle::settle(&run.ledger, agent).settled;
    }
}

/// What the spec that this operator found when it took the Run over did not have: it was invalid, or another one, until now.
fn complete(run: &mut TrackedRun, plan: &TaskPlan, task: &Task) {
    if run.facts.request.is_none() && is_run_by(plan, &run.facts.spec_hash) {
        run.facts = Arc::new(RunFacts {
            command: command_line(&plan.request),
            retry: plan.retry.clone(),
            request: Some(plan.request.clone()),
            signed: signed(task),
            ..RunFacts::clone(&run.facts)
        });
    }
}

/// Whether the Run with this hash runs what the plan has. The plan of an invalid spec has that hash too, and a request that stands in.
fn is_run_by(plan: &TaskPlan, spec_hash: &SpecHash) -> bool {
    plan::spec_hash(&plan.targets, &plan.request) == *spec_hash
}

/// What never changes about a Run. Its request is known while the spec is still the one that it runs.
fn facts(plan: &TaskPlan, (task, run): (&Task, &RunState), trace: RunTrace) -> RunFacts {
    let same = is_run_by(plan, &run.spec_hash);
    RunFacts {
        task: plan.task.clone(),
        uid: plan.uid.clone(),
        run: run.number,
        spec_hash: run.spec_hash.clone(),
        // It is noted as handled when a Run begins, and then no more until the next.
        rerun: task.status.as_ref().and_then(|status| status.handled.rerun.clone()),
        started_at: run.started_at,
        command: if same { command_line(&plan.request) } else { String::new() },
        trigger: run.trigger,
        retry: plan.retry.clone(),
        requested_by: requested_by(task, run),
        approved_by: run.approved_by.clone(),
        request: same.then(|| plan.request.clone()),
        signed: signed(task),
        trace,
    }
}

/// What the annotation of the Task has; a node that asks for a signature refuses one that cannot be read as it refuses none.
fn signed(task: &Task) -> Option<Signed> {
    let text = task.metadata.annotations.as_ref()?.get(signed::ANNOTATION)?;
    let read = serde_json::from_str(text);
    if let Err(error) = &read {
        tracing::warn!(annotation = signed::ANNOTATION, %error, "ignored an annotation that cannot be read");
    }
    read.ok()
}

/// Who is behind the Run, as its Task records it since it began.
fn requested_by(task: &Task, run: &RunState) -> Option<RequestedBy> {
    let recorded = task.status.as_ref()?.run.as_ref()?;
    recorded.requested_by.as_ref().filter(|_| recorded.number == i64::from(run.number.0))?.known()
}

/// The trace that the Task names now. One that cannot be read is logged, here where the Run is first tracked.
fn trace(task: &Task) -> RunTrace {
    let (trace, problems) = traces::read(task);
    for problem in problems {
        tracing::warn!(%problem, "ignored an annotation that cannot be read");
    }
    trace
}

/// What is run, as one line for people.
fn command_line(request: &RunRequest) -> String {
    match &request.program {
        Program::Command(argv) => display_command(argv),
        Program::Script { interpreter, argument, text } => {
            let interpreter: Vec<String> = [interpreter].into_iter().chain(argument).cloned().collect();
            let interpreter = display_command(&interpreter);
            let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
            format!("{interpreter} (script: {})", display_command(&[first.unwrap_or_default().to_owned()]))
        }
    }
}
