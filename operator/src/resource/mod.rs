//! The custom resources: the spec that users write, the status that the operator writes.
//!
//! In reading order:
//!
//! * [`task`]: the spec of a Task; [`status`]: its status; [`slice`]: parts of a long target list; [`marks`]: finalizer and annotations;
//! * `rules`: validation rules in CEL, for what the structure of a Task does not enforce;
//! * [`crd`]: the definitions, generated from these types into `crds/`;
//! * [`manifest`]: YAML into Tasks; [`schema`]: validation and defaulting of an API server, where there is none;
//!   `structure`: the part of it that follows from an OpenAPI schema;
//! * [`validate`]: a Task into a plan, or a list of problems ([`invalid`]);
//! * [`recorded`]: the status, to and from the values that decisions use; [`presented`]: a Task as the API shows it;
//! * [`stamp`]: who asked for a Task, and how that is proven; [`approval`]: who has approved a Run of it;
//! * [`ceilings`]: the file of ceilings.

pub mod approval;
pub mod ceilings;
pub mod crd;
pub mod invalid;
pub mod manifest;
pub mod marks;
pub mod places;
pub mod presented;
pub mod recorded;
mod rules;
pub mod schema;
pub mod slice;
pub mod stamp;
pub mod status;
mod structure;
pub mod task;
pub mod validate;

pub use invalid::Invalid;
pub use slice::{TargetSlice, TargetSliceSpec};
pub use status::TaskStatus;
pub use task::{Task, TaskSpec};

/// The resource version as a number, which grows with each write; one that is not a number counts as the oldest.
/// Kubernetes guarantees that versions of one resource can be compared:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.
pub(crate) fn version(task: &Task) -> u64 {
    task.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
