//! Observe: everything that is known about a Task, gathered for one decision.

use std::sync::Arc;

use sentinel_core::plan::TaskPlan;
use sentinel_core::reconcile::ledger::{Origin, RunLedger};
use sentinel_core::reconcile::orphan;
use sentinel_core::reconcile::rollout::{AgentFacts, HistoryLookup};
use sentinel_core::reconcile::run::RunState;
use sentinel_core::reconcile::settle;
use sentinel_core::reconcile::status::Recorded;
use sentinel_core::reconcile::trigger::Requests;
use sentinel_core::reconcile::{Decision, Finalizer, Lifecycle, Observed, decide};
use sentinel_core::time::Now;
use sentinel_protocol::ids::{NodeName, RunNumber};
use sentinel_protocol::request::{Program, RunRequest};

use super::context::Context;
use super::error::LookError;
use super::ledgers::{Book, Page, RunFacts};
use super::recall;
use super::slots::Slot;
use crate::cluster::nodes::Nodes;
use crate::history::record::display_command;
use crate::resource::marks::FINALIZER;
use crate::resource::{Task, recorded};

/// What is known about a Task, but for its book, which is read under its lock when it is decided.
pub(super) struct Sight {
    pub(super) recorded: Recorded,
    pub(super) requests: Requests,
    pub(super) book: Arc<Book>,
    nodes: Nodes,
    lifecycle: Lifecycle,
    finalizer: Finalizer,
    highest_run: RunNumber,
}

/// Gathers what is known, and opens the page of the recorded Run if it is not open.
pub(super) async fn observe(
    context: &Arc<Context>,
    slot: &mut Slot,
    task: &Task,
    plan: &TaskPlan,
) -> Result<Sight, LookError> {
    let parts = &context.parts;
    parts.nodes.wait_until_complete().await;
    let recorded = recorded::read(task).map_err(LookError::Status)?;
    let (requests, unreadable) = recorded::requests(task);
    slot.said.retain(|said| unreadable.contains(said));
    for problem in unreadable {
        if !slot.said.contains(&problem) {
            tracing::warn!(task = %plan.task, %problem, "an annotation that cannot be read is not acted on");
            slot.said.push(problem);
        }
    }
    let book = parts.ledgers.open(&plan.uid, &plan.task);
    let recorded_run = recorded.run.as_ref().map_or(RunNumber(0), |run| run.number);
    let highest_run = highest_run(context, slot, task, plan, recorded_run).await;
    if let Some(run) = &recorded.run {
        let targets = frozen_targets(context, slot, task, run.number).await?;
        open_page(context, slot, &book, plan, run, targets);
    }
    retire_settled(context, &book);
    let finalizers = task.metadata.finalizers.as_deref().unwrap_or_default();
    Ok(Sight {
        recorded,
        requests,
        book,
        nodes: parts.nodes.nodes(),
        highest_run,
        lifecycle: match task.metadata.deletion_timestamp {
            Some(_) => Lifecycle::Deleting,
            None => Lifecycle::Live,
        },
        finalizer: if finalizers.iter().any(|text| text == FINALIZER) {
            Finalizer::Present
        } else {
            Finalizer::Absent
        },
    })
}

/// The highest Run number of this Task that an agent or History shows, asked once. Only a Task from before this
/// operator can have had Runs that its status does not know, when the cluster was restored from an older state.
///
/// An agent's word counts only where it lies near what the Task or History knows: it must not use the numbers up.
async fn highest_run(
    context: &Context,
    slot: &mut Slot,
    task: &Task,
    plan: &TaskPlan,
    recorded: RunNumber,
) -> RunNumber {
    if let Some(highest) = slot.highest_run {
        return highest;
    }
    let born = task.metadata.creation_timestamp.as_ref().map_or(0, |at| at.0.as_millisecond());
    let archived = if born < context.leading_since().wall.0 {
        recall::highest_run(context, &plan.uid).await
    } else {
        None
    };
    let owned = context.parts.fleet.owned(&plan.uid);
    let known = recorded.max(archived.unwrap_or(RunNumber(0)));
    let owned = owned.iter().flat_map(|agent| &agent.reports).map(|report| report.attempt.run);
    let owned = owned.filter(|run| orphan::is_credible(*run, known)).max();
    let highest = owned.max(archived).unwrap_or(RunNumber(0));
    slot.highest_run = Some(highest);
    highest
}

/// Decides, with the book held still.
pub(super) fn decide_on(context: &Context, plan: &TaskPlan, sight: &Sight, now: Now) -> Decision {
    let pages = sight.book.pages();
    let fleet = &context.parts.fleet;
    let nothing = RunLedger::new(plan.uid.clone(), RunNumber(0), plan.spec_hash.clone(), Origin::Begun);
    let no_targets = Vec::new();
    let current = pages.current.as_ref();
    let retired: Vec<RunLedger> = pages.retired.iter().map(|page| page.ledger.clone()).collect();
    let observed = Observed {
        recorded: &sight.recorded,
        targets: current.map_or(&no_targets, |page| &page.targets),
        ledger: current.map_or(&nothing, |page| &page.ledger),
        retired: &retired,
        history: current.map_or(HistoryLookup::Done, |page| page.recall),
        archive: context.archive(),
        nodes: &sight.nodes,
        agent: &|node| AgentFacts { active: fleet.living(&plan.uid, node), ..fleet.agent(node) },
        requests: &sight.requests,
        lifecycle: sight.lifecycle,
        finalizer: sight.finalizer,
        leading_since: context.leading_since().monotonic,
        highest_run: sight.highest_run,
    };
    decide(plan, &observed, now)
}

/// The frozen target list of the recorded Run, asked of the cluster once.
async fn frozen_targets(
    context: &Context,
    slot: &mut Slot,
    task: &Task,
    run: RunNumber,
) -> Result<Arc<Vec<NodeName>>, LookError> {
    if let Some((of, targets)) = &slot.targets
        && *of == run
    {
        return Ok(targets.clone());
    }
    let targets = Arc::new(context.parts.cluster.frozen_targets(task).await?);
    slot.targets = Some((run, targets.clone()));
    Ok(targets)
}

/// Opens the page of a Run whose target list was just frozen.
pub(super) fn turn_page(
    context: &Arc<Context>,
    slot: &Slot,
    book: &Arc<Book>,
    plan: &TaskPlan,
    run: &RunState,
) {
    if let Some((_, targets)) = slot.targets.as_ref().filter(|(of, _)| *of == run.number) {
        open_page(context, slot, book, plan, run, targets.clone());
    }
}

/// Makes the recorded Run's page the current one. The page before it is kept until it is settled.
fn open_page(
    context: &Arc<Context>,
    slot: &Slot,
    book: &Arc<Book>,
    plan: &TaskPlan,
    run: &RunState,
    targets: Arc<Vec<NodeName>>,
) {
    let mut pages = book.pages();
    if pages.current.as_ref().is_some_and(|page| page.facts.run == run.number) {
        return;
    }
    let origin = slot.origin(run.number);
    // Of a Run that was taken over, over or not, agents have said and forgotten what only History still knows: without
    // asking it, targets that ended would be taken for never begun, and what is archived for lagging behind.
    let unknown = origin == Origin::Inherited;
    let recall = if unknown { HistoryLookup::Pending } else { HistoryLookup::Done };
    let page = Page::new(facts(plan, run), targets, origin, recall);
    let before = pages.current.replace(page);
    pages.retired.extend(before);
    drop(pages);
    if origin == Origin::Inherited {
        hear(context, plan, run.number, book);
    }
    if unknown {
        recall::spawn(context.clone(), book.clone(), run.number);
    }
}

/// What the connected agents said before the page was open.
fn hear(context: &Context, plan: &TaskPlan, run: RunNumber, book: &Book) {
    let owned = context.parts.fleet.owned(&plan.uid);
    let mut pages = book.pages();
    let Some(page) = pages.page_mut(run) else { return };
    for agent in owned {
        for report in &agent.reports {
            page.ledger.apply_report(report);
        }
        let ids: Vec<_> = agent.reports.into_iter().map(|report| report.attempt).collect();
        page.ledger.apply_inventory(&agent.node, &agent.session, &ids);
    }
}

/// Notes which pages are settled; earlier ones are then dropped.
fn retire_settled(context: &Context, book: &Book) {
    let agent = |node: &NodeName| context.parts.fleet.agent(node);
    let mut pages = book.pages();
    pages.retired.retain(|page| !settle::settle(&page.ledger, agent).settled);
    if let Some(page) = &mut pages.current {
        let over = page.ledger.record().is_some_and(|record| record.finished_at.is_some());
        let known = page.ledger.executions().filter(|(_, execution)| execution.is_over()).count();
        let over = over && known >= page.targets.len();
        let nothing_left = over && settle::settle(&page.ledger, agent).settled;
        page.settled = if nothing_left { true } else { false };
    }
}

/// What does not change about a Run. Its request is known while the spec is still the one that it runs.
fn facts(plan: &TaskPlan, run: &RunState) -> RunFacts {
    let same = run.spec_hash == plan.spec_hash;
    RunFacts {
        task: plan.task.clone(),
        uid: plan.uid.clone(),
        run: run.number,
        spec_hash: run.spec_hash.clone(),
        started_at: run.started_at,
        command: if same { shown(&plan.request) } else { String::new() },
        trigger: run.trigger,
        retry: plan.retry.clone(),
        request: same.then(|| plan.request.clone()),
    }
}

/// What is run, as one line for people.
fn shown(request: &RunRequest) -> String {
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
