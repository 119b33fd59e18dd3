//! What is counted, measured and traced of Runs and Attempts as they end.

use std::collections::BTreeMap;
use std::sync::Arc;

use sentinel_audit::Record;
use sentinel_audit::record::EndedBy;
use sentinel_core::reconcile::run::{RunState, Stopping, Verdict};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, Refused};

use super::task_runs::TrackedRun;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::history::outcome::OutcomeName;
use crate::metrics::{Counter, Histogram, Registry, TIMES};
use crate::traces::{OfRun, Progress, Traces, Value};

/// Upper bounds of the buckets for whole Runs, in seconds: one second to a day.
const RUN_TIMES: &[f64] =
    &[1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0];

/// Where ends are noted. Clones share it.
#[derive(Debug, Clone)]
pub struct Endings(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    clock: Clock,
    traces: Traces,
    audit: Audit,
    attempts: BTreeMap<OutcomeName, Counter>,
    runs: BTreeMap<&'static str, (Counter, Histogram)>,
    starts: Histogram,
    dropped: Counter,
}

/// The verdicts of Runs, as in History.
const VERDICTS: [&str; 3] = ["Complete", "Failed", "Cancelled"];

impl Endings {
    /// Noted in these metrics, traces and audit records.
    pub fn new(metrics: &Registry, traces: Traces, audit: Audit, clock: Clock) -> Self {
        let attempt = |outcome: &'static str| {
            let help = "Attempts that ended, by Outcome. A result that disproves a Lost one counts again.";
            metrics.counter_with("sentinel_attempts_ended_total", help, &[("outcome", outcome)])
        };
        let run = |verdict| {
            let help = "Runs that ended, by verdict.";
            let count = metrics.counter_with("sentinel_runs_ended_total", help, &[("verdict", verdict)]);
            let help = "Time from the begin of a Run to its end, by verdict.";
            let name = "sentinel_run_duration_seconds";
            (count, metrics.histogram_in(name, help, &[("verdict", verdict)], RUN_TIMES))
        };
        Self(Arc::new(Noted {
            clock,
            traces,
            audit,
            attempts: OutcomeName::NAMES.iter().map(|(name, outcome)| (*outcome, attempt(name))).collect(),
            runs: VERDICTS.into_iter().map(|verdict| (verdict, run(verdict))).collect(),
            dropped: metrics.counter(
                "sentinel_output_dropped_bytes_total",
                "Bytes that commands that ended had written and that were dropped on their nodes: beyond output.limit, or \
                 beyond output.spool while the operator took none.",
            ),
            starts: metrics.histogram_in(
                "sentinel_start_latency_seconds",
                "Time from the dispatch of an Attempt until its agent reports that the command runs.",
                &[],
                TIMES,
            ),
        }))
    }

    /// Where spans go.
    pub(super) fn traces(&self) -> &Traces {
        &self.0.traces
    }

    /// Where audit records go.
    pub(super) fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// A `Start` was refused. A busy node refuses each offer: that is not recorded.
    pub(super) fn refused(&self, refused: &Refused) {
        if !refused.refusal.is_temporary() {
            let Refused { attempt, refusal, .. } = refused;
            self.0
                .audit
                .record(|| Record::NodeRefused { attempt: attempt.clone(), refusal: refusal.clone() });
        }
    }

    /// An agent reports that the command of an Attempt runs.
    pub(super) fn started(&self, run: &TrackedRun, attempt: &AttemptId) {
        let execution = run.ledger.execution(&attempt.node);
        let latest = execution.filter(|execution| execution.latest.number == attempt.attempt);
        if let Some(sent) = latest.and_then(|execution| execution.started.as_ref()) {
            let millis = self.0.clock.monotonic().since(sent.at);
            self.0.starts.observe(std::time::Duration::from_millis(millis));
        }
    }

    /// An Attempt has ended, as its agent or this operator states. `offset` is what is added to its node's time to have that of the operator, milliseconds.
    pub(super) fn attempt(
        &self,
        run: &TrackedRun,
        attempt: &AttemptId,
        (ended, by): (&Ended, EndedBy),
        offset: i64,
    ) {
        self.0.audit.record(|| Record::AttemptEnded {
            attempt: attempt.clone(),
            by,
            end: Box::new(ended.clone()),
        });
        if let Some(counter) = self.0.attempts.get(&OutcomeName::from(&ended.outcome)) {
            counter.add(1);
        }
        self.0.dropped.add(ended.output.stdout.dropped.saturating_add(ended.output.stderr.dropped));
        if !self.0.traces.is_on() {
            return;
        }
        let execution = run.ledger.execution(&attempt.node);
        let latest = execution.filter(|execution| execution.latest.number == attempt.attempt);
        let progress = Progress {
            admitted: latest.and_then(|execution| execution.admitted_at).map(|at| self.wall(at)),
            sent: latest.and_then(|execution| execution.started.as_ref()).map(|sent| self.wall(sent.at)),
            offset,
        };
        for span in of_run(run).attempt(attempt, progress, ended) {
            self.0.traces.send(span);
        }
    }

    /// A Run has ended.
    pub(super) fn run(&self, run: &TrackedRun, record: &RunState) {
        let Some(finished_at) = record.finished_at else { return };
        let cancelled = matches!(record.stopping, Some(Stopping::Cancelled | Stopping::Deleted));
        let verdict = match record.verdict {
            Some(Verdict::Complete) => "Complete",
            _ if cancelled => "Cancelled",
            _ => "Failed",
        };
        self.0.audit.on_nodes(record.targets as usize, &run.facts.task, || Record::RunEnded {
            task: run.facts.task.clone(),
            uid: run.facts.uid.clone(),
            run: record.number,
            verdict: verdict.into(),
        });
        if let Some((count, times)) = self.0.runs.get(verdict) {
            count.add(1);
            let millis = finished_at.0.saturating_sub(record.started_at.0);
            times.observe(std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default()));
        }
        let details = vec![
            ("sentinel.trigger", Value::Text(record.trigger.as_str().to_owned())),
            ("sentinel.targets", Value::Number(record.targets.into())),
            ("sentinel.verdict", Value::Text(verdict.to_owned())),
        ];
        let failure =
            (verdict != "Complete").then(|| sentinel_core::reconcile::conditions::progress_message(record));
        if let Some(span) = of_run(run).span((record.started_at, finished_at), details, failure) {
            self.0.traces.send(span);
        }
    }

    /// The wall time of a monotonic one.
    fn wall(&self, at: Monotonic) -> UnixMillis {
        let now = self.0.clock.reading();
        let ago = i64::try_from(now.monotonic.since(at)).unwrap_or(i64::MAX);
        UnixMillis(now.wall.0.saturating_sub(ago))
    }
}

impl Default for Endings {
    /// Noted nowhere.
    fn default() -> Self {
        Self::new(&Registry::new(), Traces::off(), Audit::default(), Clock::system())
    }
}

fn of_run(run: &TrackedRun) -> OfRun<'_> {
    let facts = &run.facts;
    OfRun { task: &facts.task, uid: &facts.uid, run: facts.run, trace: &facts.trace }
}
