//! Tasks as the API gives them; see [`sentinel_api::task`].

pub(crate) use sentinel_api::task::{Counts, NodeStatus as Node, RunStatus as Run, Standing, Task};
