//! Our marks in the metadata of a Task: one finalizer, and requests of a moment as annotations, so that GitOps does not
//! fight them. Each request is acted on once and recorded in the status.

/// The finalizer that holds a Task until nothing of it runs.
pub const FINALIZER: &str = "sentinelnode.dev/run";

/// Annotation: the number of the Run to cancel.
pub const CANCEL: &str = "sentinelnode.dev/cancel";

/// Annotation: any text; another one than before runs the same spec again.
pub const RERUN: &str = "sentinelnode.dev/rerun";

/// Never on an object in a cluster: on our copy of a Task whose spec cannot be read (a newer schema let it in), the
/// reason. Such a Task is not lost sight of: it is said to be rejected, what runs of it goes on, and it can be deleted.
pub const UNREADABLE: &str = "sentinelnode.dev/unreadable";

/// The same for its status: then nothing at all is done with it, for nothing is known of its Runs.
pub const UNREADABLE_STATUS: &str = "sentinelnode.dev/unreadable-status";

/// Annotation: with the value `true`, a deletion does not wait for what cannot be reached.
pub const ABANDON: &str = "sentinelnode.dev/abandon";
