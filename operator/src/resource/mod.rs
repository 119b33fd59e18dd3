//! The custom resources: what people write and what the operator says about it.
//!
//! In reading order:
//!
//! * [`task`]: the spec of a Task, [`retry`] a part of it; [`status`]: its status; [`slice`]: parts of a long target list; [`marks`]: our
//!   finalizer and annotations;
//! * `rules`: what the structure of a Task does not hold, in CEL;
//! * [`crd`]: the definitions that are installed, generated from these types into `crds/`;
//! * [`manifest`]: YAML becomes Tasks; [`schema`]: what an API server checks and fills in, where there is none;
//! * [`validate`]: a Task becomes a plan, or a list of what is wrong with it ([`invalid`]);
//! * [`recorded`]: the status, to and from the values that decisions are made of; [`presented`]: a Task as the API shows it;
//! * [`duration`], [`quantity`]: two notations of Kubernetes.

pub mod crd;
pub mod duration;
pub mod invalid;
pub mod manifest;
pub mod marks;
pub mod places;
pub mod presented;
pub mod quantity;
pub mod recorded;
pub mod retry;
mod rules;
pub mod schema;
pub mod slice;
pub mod status;
pub mod task;
pub mod validate;

pub use invalid::Invalid;
pub use slice::{TargetSlice, TargetSliceSpec};
pub use status::TaskStatus;
pub use task::{Task, TaskSpec};

/// The version of the object, which grows with each write; one that is not a number counts as the oldest. Kubernetes
/// promises that versions of one resource can be compared so:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.
pub(crate) fn version(task: &Task) -> u64 {
    task.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
