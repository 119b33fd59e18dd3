//! The custom resources: what people write and what the operator says about it.
//!
//! In reading order:
//!
//! * [`task`]: the spec of a Task; [`status`]: its status; [`slice`]: parts of a long target list;
//! * [`crd`]: the definitions that are installed, generated from these types into `crds/`.

pub mod crd;
pub mod duration;
pub mod invalid;
pub mod manifest;
pub mod marks;
pub mod quantity;
pub mod recorded;
pub mod schema;
pub mod slice;
pub mod status;
pub mod task;
pub mod validate;

pub use invalid::Invalid;
pub use slice::{TargetSlice, TargetSliceSpec};
pub use status::TaskStatus;
pub use task::{Task, TaskSpec};
