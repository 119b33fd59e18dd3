//! What History keeps of a Run and of an Attempt that the operator concluded.

use std::collections::BTreeMap;

use sentinel_core::reconcile::run::{self, Stopping};
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName};
use sentinel_protocol::request::Environment;
use sentinel_protocol::to_operator::{Ended, Stage};

use super::ledgers::Page;
use crate::history::record::{AttemptRecord, RunCounts, RunRecord, Source, Verdict};

pub(super) fn attempt_record(page: &Page, attempt: &AttemptId, ended: &Ended, epoch: Epoch) -> AttemptRecord {
    let facts = &page.facts;
    AttemptRecord {
        attempt: attempt.clone(),
        namespace: facts.task.namespace.to_string(),
        name: facts.task.name.to_string(),
        run_started_at: facts.started_at,
        spec_hash: facts.spec_hash.clone(),
        command: facts.command.clone(),
        environment: facts.request.as_ref().map_or(Environment::Container, |request| request.environment),
        stage: Stage::Ended,
        started_at: ended.started_at,
        ended_at: Some(ended.ended_at),
        outcome: Some(ended.outcome.clone()),
        usage: ended.usage,
        output: ended.output.clone(),
        exit: ended.exit.clone(),
        source: Source::Operator,
        epoch,
    }
}

pub(super) fn run_record(page: &Page, run: &run::RunState, epoch: Epoch) -> RunRecord {
    let facts = &page.facts;
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    let ended = |node: &NodeName| page.ledger.execution(node).and_then(|execution| execution.ended());
    for ended in page.targets.iter().filter_map(ended) {
        *outcomes.entry(ended.outcome.name().to_owned()).or_default() += 1;
    }
    let cancelled = matches!(run.stopping, Some(Stopping::Cancelled | Stopping::Deleted));
    RunRecord {
        task_uid: facts.uid.clone(),
        namespace: facts.task.namespace.to_string(),
        name: facts.task.name.to_string(),
        run: run.number,
        trigger: run.trigger.as_str().to_owned(),
        spec_hash: facts.spec_hash.clone(),
        command: facts.command.clone(),
        started_at: run.started_at,
        finished_at: run.finished_at,
        verdict: run.verdict.map(|verdict| match verdict {
            run::Verdict::Complete => Verdict::Complete,
            run::Verdict::Failed if cancelled => Verdict::Cancelled,
            run::Verdict::Failed => Verdict::Failed,
        }),
        reason: run.finished_at.map(|_| sentinel_core::reconcile::conditions::progress_message(run)),
        counts: RunCounts { targets: run.targets, outcomes },
        epoch,
    }
}
