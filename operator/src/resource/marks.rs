//! The finalizer and annotations of this operator. One-time requests are annotations, so that GitOps does not revert them;
//! each is handled once and recorded in the status.

/// The finalizer that keeps a Task until none of its commands runs.
pub const FINALIZER: &str = "sentinelnode.dev/run";

/// Annotation: the number of the Run to cancel.
pub const CANCEL: &str = "sentinelnode.dev/cancel";

/// Annotation: any string; a change of it runs the same spec again.
pub const RERUN: &str = "sentinelnode.dev/rerun";

/// Annotation: who asked for the Task, for people; see [`super::stamp`]. What a user writes there is replaced.
pub const REQUESTED_BY: &str = "sentinelnode.dev/requested-by";

/// Annotation: the signature under it, by which operators tell it from what a user wrote.
pub const REQUESTED_BY_SIGNATURE: &str = "sentinelnode.dev/requested-by-signature";

/// Annotation: who has approved the next Run; see [`super::approval`]. What a user writes there approves nothing.
pub const APPROVAL: &str = "sentinelnode.dev/approval";

/// Only on the operator's copy of a Task whose spec it cannot read (a newer schema admitted it): why. Such a Task is still
/// observed: it is reported as rejected, its running commands continue, and it can be deleted.
///
/// A name with spaces, which no API server stores, so that no user can write it:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/#syntax-and-character-set>.
pub const UNREADABLE: &str = "sentinelnode.dev/spec cannot be read";

/// The same for its status: the Task is left alone, since its Runs are unknown.
pub const UNREADABLE_STATUS: &str = "sentinelnode.dev/status cannot be read";

/// Annotation: with the value `true`, a deletion does not wait for unreachable nodes.
pub const ABANDON: &str = "sentinelnode.dev/abandon";

/// Annotation: the trace that the Task's Runs join, as a W3C `traceparent`. Read when a Run begins; a change of it runs nothing.
pub const TRACEPARENT: &str = "sentinelnode.dev/traceparent";

/// Annotation: the `tracestate` beside it.
pub const TRACESTATE: &str = "sentinelnode.dev/tracestate";
