//! The trace of a Run: the one that its Task names, or one of its own.

use sentinel_protocol::ids::{AttemptId, RunNumber, TaskUid};
use sentinel_protocol::trace::{TraceContext, TraceParent};

use super::ids::{span_of_attempt, span_of_run, trace_of_run};
use crate::resource::Task;
use crate::resource::marks::{TRACEPARENT, TRACESTATE};

/// The trace of a Run, fixed when the Run is first tracked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunTrace {
    /// What the Task named at that time.
    pub joined: Option<TraceContext>,
}

/// An annotation that does not name a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {value:?} is {why}")]
pub struct InvalidTrace {
    annotation: &'static str,
    value: String,
    why: String,
}

/// Longest part of a value that is repeated, characters.
const SHOWN: usize = 80;

/// The trace that the annotations of a Task name, and what cannot be read of them: such a `traceparent` names no trace, and
/// such a `tracestate` is left out.
pub fn read(task: &Task) -> (RunTrace, Vec<InvalidTrace>) {
    let annotation = |name| task.metadata.annotations.as_ref().and_then(|all| all.get(name));
    let mut problems = Vec::new();
    let mut invalid = |annotation, value: &str, why: String| {
        problems.push(InvalidTrace { annotation, value: value.chars().take(SHOWN).collect(), why });
    };
    let parent = annotation(TRACEPARENT).and_then(|text| {
        text.parse::<TraceParent>().map_err(|error| invalid(TRACEPARENT, text, error.to_string())).ok()
    });
    let state = annotation(TRACESTATE).and_then(|text| {
        text.clone()
            .try_into()
            .map_err(|error: sentinel_protocol::trace::InvalidTraceState| {
                invalid(TRACESTATE, text, error.to_string());
            })
            .ok()
    });
    (RunTrace { joined: parent.map(|parent| TraceContext { parent, state }) }, problems)
}

impl RunTrace {
    /// The span of the Run, as its parts see it. One whose Task names no trace is the root of its own, and recorded.
    pub(super) fn of_run(&self, task: &TaskUid, run: RunNumber) -> Option<TraceParent> {
        let span = span_of_run(task, run);
        match &self.joined {
            Some(joined) => Some(joined.parent.with_span(span)),
            None => TraceParent::new(trace_of_run(task, run), span, true),
        }
    }

    /// What the command of an Attempt is to join. Where spans are recorded, that is the span of the running command;
    /// otherwise what the Task names, passed on as it is.
    pub fn for_command(&self, attempt: &AttemptId, is_recorded: bool) -> Option<TraceContext> {
        let state = self.joined.as_ref().and_then(|joined| joined.state.clone());
        if !is_recorded {
            return self.joined.clone();
        }
        let run = self.of_run(&attempt.task, attempt.run)?;
        Some(TraceContext { parent: run.with_span(span_of_attempt("running", attempt)), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn task(annotations: &[(&str, &str)]) -> Task {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let spec = serde_json::json!({"targets": {"all": true}, "run": {"command": ["true"]}});
        let metadata = serde_json::json!({"name": "t", "namespace": "ns", "annotations": annotations});
        let whole = serde_json::json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": metadata, "spec": spec,
        });
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_annotations_of_a_task_name_the_trace_of_its_runs() {
        let (trace, problems) = read(&task(&[(TRACEPARENT, JOINED), (TRACESTATE, "a=b")]));
        assert!(problems.is_empty());
        let attempt: AttemptId = "u/7/n/1".parse().unwrap();
        let command = trace.for_command(&attempt, true).unwrap();
        assert_eq!(command.state.as_ref().map(sentinel_protocol::trace::TraceState::as_str), Some("a=b"));
        assert_eq!(command.parent.trace_id(), JOINED.parse::<TraceParent>().unwrap().trace_id());
        assert!(!command.parent.is_sampled(), "who begins a trace decides whether it is recorded");
        assert_ne!(command.parent.to_string(), JOINED);
        assert_eq!(trace.for_command(&attempt, true), Some(command), "a repeated Start names the same span");
        let passed_on = trace.for_command(&attempt, false).unwrap();
        assert_eq!(passed_on.parent.to_string(), JOINED, "passed on unless a span is recorded");
    }

    #[test]
    fn a_task_without_a_trace_gets_one_where_spans_are_recorded() {
        let attempt: AttemptId = "u/7/n/1".parse().unwrap();
        let (trace, problems) = read(&task(&[]));
        assert!(problems.is_empty());
        assert_eq!(trace.for_command(&attempt, false), None);
        let own = trace.for_command(&attempt, true).unwrap().parent;
        let run = trace.of_run(&attempt.task, attempt.run).unwrap();
        assert!(own.is_sampled() && own.trace_id() == run.trace_id() && own.span_id() != run.span_id());
        let next: AttemptId = "u/8/n/1".parse().unwrap();
        assert_ne!(trace.for_command(&next, true).unwrap().parent.trace_id(), own.trace_id());
    }

    #[test]
    fn annotations_that_cannot_be_read_are_named_and_left_out() {
        let (trace, problems) = read(&task(&[(TRACEPARENT, "00-1-2-3"), (TRACESTATE, "x")]));
        assert_eq!(trace, RunTrace::default());
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            problems[0]
                .starts_with("annotation sentinelnode.dev/traceparent: \"00-1-2-3\" is not a traceparent")
        );
        assert!(problems[1].starts_with("annotation sentinelnode.dev/tracestate: \"x\" is not a tracestate"));
        let (trace, problems) = read(&task(&[(TRACEPARENT, JOINED), (TRACESTATE, "x")]));
        assert!(trace.joined.is_some_and(|joined| joined.state.is_none()));
        assert_eq!(problems.len(), 1);
    }
}
