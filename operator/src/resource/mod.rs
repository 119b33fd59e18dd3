//! The custom resources: what people write and what the operator says about it.
//!
//! In reading order:
//!
//! * [`task`]: the spec of a Task, [`retry`] a part of it; [`status`]: its status; [`slice`]: parts of a long target list; [`marks`]: our
//!   finalizer and annotations;
//! * [`crd`]: the definitions that are installed, generated from these types into `crds/`;
//! * [`manifest`]: YAML becomes Tasks; [`schema`]: what an API server checks and fills in, where there is none;
//! * [`validate`]: a Task becomes a plan, or a list of what is wrong with it ([`invalid`]);
//! * [`recorded`]: the status, to and from the values that decisions are made of;
//! * [`duration`], [`quantity`]: two notations of Kubernetes.

pub mod crd;
pub mod duration;
pub mod invalid;
pub mod manifest;
pub mod marks;
pub mod quantity;
pub mod recorded;
pub mod retry;
pub mod schema;
pub mod slice;
pub mod status;
pub mod task;
pub mod validate;

pub use invalid::Invalid;
pub use slice::{TargetSlice, TargetSliceSpec};
pub use status::TaskStatus;
pub use task::{Task, TaskSpec};
