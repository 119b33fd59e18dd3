//! Where Tasks and Nodes live.
//!
//! Three `seams`, each for one kind of caller:
//!
//! * [`TaskStore`], what people do with Tasks: read, create, apply, annotate, delete;
//! * [`TaskKeeper`], what the operator writes about a Task: its status, its finalizer, its frozen target list;
//! * [`Cluster`], both, and the watches.
//!
//! Two implementations behind one contract suite (`tests/cluster/contract.rs`): [`kube::KubeCluster`] over a Kubernetes
//! API server, and [`embedded::EmbeddedCluster`] in memory, with the same meaning of uid, generation, resourceVersion,
//! finalizer and deletion. In reading order:
//!
//! * [`error`]: what can go wrong;
//! * [`watch`]: watches that recover from every failure; [`client`], `api_calls` and `call`: the API server, calls counted, and one
//!   call to it;
//! * `events`: cluster events, and their rate limit;
//! * [`nodes`]: all Nodes, as far as target choice needs them;
//! * `secret`: a Secret that a command gets;
//! * [`targets`]: a long frozen target list, as slices and back.

mod api_calls;
mod call;
pub mod client;
pub mod embedded;
pub mod error;
mod events;
pub mod kube;
pub mod nodes;
mod seams;
mod secret;
pub mod targets;
pub mod watch;

pub use self::embedded::EmbeddedCluster;
pub use self::error::{CallError, ClusterError};
pub use self::kube::{CallersOfKube, KubeCluster};
pub use self::nodes::NodeCache;
pub use self::seams::{
    Answer, Change, Cluster, Publication, SecretKeys, StoresByCaller, TaskKeeper, TaskStore,
};
pub use self::watch::WatchHealth;
