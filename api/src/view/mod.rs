//! Nodes, Runs and Executions as the API shows them.
//!
//! These shapes are promises to programs: within `/api/v1` fields are added, never renamed or removed. A name of a
//! closed set (a state, an Outcome) is a string here: a newer server may have more of them.

mod audit;
mod execution;
mod lines;
mod list;
mod merged;
mod node;
mod outputs;
mod run;
mod samples;
mod search;

pub use audit::AuditHeadView;
pub use execution::{
    AttemptDetails, AttemptView, ClockView, ExecutionView, ExitView, LeftView, ProcessView, StreamDetails,
};
pub use lines::{GapView, LineItemView, LineView, LinesEventView, LinesView};
pub use list::{List, Partial};
pub use merged::{MergedEventView, MergedItemView, MergedLinesView, MergedNodeView};
pub use node::NodeView;
pub use outputs::{OutputGroupView, OutputsView};
pub use run::RunView;
pub use samples::{FleetSamplesView, NodeSamplesView};
pub use search::{RunSearchLineView, SearchLineView};
