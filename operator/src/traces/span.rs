//! Spans of Runs and Attempts.

use sentinel_protocol::ids::{AttemptId, RunNumber, TaskRef, TaskUid};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::Ended;
use sentinel_protocol::trace::TraceParent;

use super::context::RunTrace;
use super::ids::span_of_attempt;

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What it is about; one of a few names.
    pub name: &'static str,
    /// Trace, span and flags.
    pub context: TraceParent,
    /// The span that it is part of; `None` for the root of a trace.
    pub parent: Option<[u8; 8]>,
    /// Whether that span is of another process.
    pub is_remote_child: bool,
    /// When it began.
    pub from: UnixMillis,
    /// When it ended.
    pub to: UnixMillis,
    /// Details.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it counts as failed, if it does.
    pub failure: Option<String>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// Which Run a span is about.
pub(crate) struct OfRun<'a> {
    pub(crate) task: &'a TaskRef,
    pub(crate) uid: &'a TaskUid,
    pub(crate) run: RunNumber,
    pub(crate) trace: &'a RunTrace,
}

/// When an Attempt came how far, by the operator's clock. `None` is not known, or never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Its target was admitted.
    pub(crate) admitted: Option<UnixMillis>,
    /// A Session took its `Start`.
    pub(crate) sent: Option<UnixMillis>,
    /// What is added to the node's time to have the operator's, milliseconds.
    pub(crate) offset: i64,
}

impl OfRun<'_> {
    fn attributes(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("sentinel.task.namespace", Value::Text(self.task.namespace.to_string())),
            ("sentinel.task.name", Value::Text(self.task.name.to_string())),
            ("sentinel.task.uid", Value::Text(self.uid.to_string())),
            ("sentinel.run", Value::Number(self.run.0.into())),
        ]
    }

    /// The span of the whole Run.
    pub(crate) fn span(
        &self,
        (from, to): (UnixMillis, UnixMillis),
        details: Vec<(&'static str, Value)>,
        failure: Option<String>,
    ) -> Option<Span> {
        let joined = self.trace.joined.as_ref().map(|joined| joined.parent.span_id());
        let mut attributes = self.attributes();
        attributes.extend(details);
        Some(Span {
            name: "sentinel.run",
            context: self.trace.of_run(self.uid, self.run)?,
            parent: joined,
            is_remote_child: joined.is_some(),
            from,
            to: to.max(from),
            attributes,
            failure,
        })
    }

    /// The spans of an Attempt: itself, and each part of it that is known. Times of a node are converted to those of the
    /// operator, and moved where they contradict them.
    pub(crate) fn attempt(&self, attempt: &AttemptId, progress: Progress, ended: &Ended) -> Vec<Span> {
        let Some(run) = self.trace.of_run(self.uid, self.run) else { return Vec::new() };
        let of_node = |at: UnixMillis| UnixMillis(at.0.saturating_add(progress.offset));
        let (node_start, to) = (ended.started_at.map(of_node), of_node(ended.ended_at));
        let from = progress.admitted.or(progress.sent).or(node_start).unwrap_or(to);
        let sent = progress.sent.map(|at| at.max(from));
        let start = node_start.map(|at| at.max(sent.unwrap_or(from)));
        let to = to.max(start.or(sent).unwrap_or(from));
        let whole = run.with_span(span_of_attempt("attempt", attempt));
        let part = |name, part, from, to| Span {
            name,
            context: run.with_span(span_of_attempt(part, attempt)),
            parent: Some(whole.span_id()),
            is_remote_child: false,
            from,
            to,
            attributes: vec![("sentinel.node", Value::Text(attempt.node.to_string()))],
            failure: None,
        };
        let mut spans = vec![Span {
            parent: Some(run.span_id()),
            context: whole,
            attributes: self.details(attempt, ended),
            failure: (ended.outcome.name() != "Succeeded").then(|| ended.message()),
            ..part("sentinel.attempt", "attempt", from, to)
        }];
        spans.extend(
            progress.admitted.map(|_| part("sentinel.attempt.queued", "queued", from, sent.unwrap_or(to))),
        );
        spans.extend(
            sent.map(|sent| part("sentinel.attempt.dispatched", "dispatched", sent, start.unwrap_or(to))),
        );
        spans.extend(start.map(|start| part("sentinel.attempt.running", "running", start, to)));
        spans
    }

    fn details(&self, attempt: &AttemptId, ended: &Ended) -> Vec<(&'static str, Value)> {
        let mut attributes = self.attributes();
        attributes.extend([
            ("sentinel.node", Value::Text(attempt.node.to_string())),
            ("sentinel.attempt", Value::Number(attempt.attempt.into())),
            ("sentinel.outcome", Value::Text(ended.outcome.name().to_owned())),
        ]);
        attributes.extend(ended.exit_code().map(|code| ("process.exit.code", Value::Number(code.into()))));
        attributes
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::outcome::Outcome;

    use super::*;

    const UID: &str = "u";

    fn spans(progress: Progress, started_at: Option<i64>, ended_at: i64) -> Vec<(&'static str, i64, i64)> {
        let (task, uid) = (TaskRef::new("ops", "job").unwrap(), TaskUid::new(UID).unwrap());
        let of = OfRun { task: &task, uid: &uid, run: RunNumber(7), trace: &RunTrace::default() };
        let outcome = Outcome::Failed { exit_code: 3 };
        let mut ended = Ended::without_record(outcome, UnixMillis(ended_at));
        ended.started_at = started_at.map(UnixMillis);
        let spans = of.attempt(&"u/7/n/1".parse().unwrap(), progress, &ended);
        let whole = &spans[0];
        assert_eq!(whole.parent, Some(RunTrace::default().of_run(&uid, RunNumber(7)).unwrap().span_id()));
        assert!(spans[1..].iter().all(|part| part.parent == Some(whole.context.span_id())));
        assert!(whole.failure.as_ref().is_some_and(|why| why.contains('3')), "{:?}", whole.failure);
        spans.iter().map(|span| (span.name, span.from.0, span.to.0)).collect()
    }

    #[test]
    fn an_attempt_is_queued_dispatched_and_running() {
        let progress = Progress { admitted: Some(UnixMillis(100)), sent: Some(UnixMillis(120)), offset: 0 };
        let expected = [
            ("sentinel.attempt", 100, 300),
            ("sentinel.attempt.queued", 100, 120),
            ("sentinel.attempt.dispatched", 120, 150),
            ("sentinel.attempt.running", 150, 300),
        ];
        assert_eq!(spans(progress, Some(150), 300), expected);
        let behind = Progress { offset: 1000, ..progress };
        assert_eq!(spans(behind, Some(-850), -700), expected, "the node's clock is a second behind");
    }

    #[test]
    fn no_span_ends_before_it_begins_whatever_the_clocks_show() {
        let progress = Progress { admitted: Some(UnixMillis(100)), sent: Some(UnixMillis(120)), offset: 0 };
        for (started, ended) in [(Some(-9), -5), (Some(400), 300), (None, 0), (Some(130), 110)] {
            for (name, from, to) in spans(progress, started, ended) {
                assert!((100..=to).contains(&from), "{name}: {from} to {to} of {started:?} to {ended}");
            }
        }
    }

    #[test]
    fn what_is_not_known_has_no_span() {
        assert_eq!(spans(Progress::default(), None, 300), [("sentinel.attempt", 300, 300)]);
        let taken_over = spans(Progress::default(), Some(150), 300);
        assert_eq!(taken_over, [("sentinel.attempt", 150, 300), ("sentinel.attempt.running", 150, 300)]);
    }
}
