//! The API as an aggregated API of a Kubernetes API server, which authenticates and authorises each request.
//!
//! [`ROWS`] has a row for each operation: its native route under `/api/v1`, its path in the group, and what the caller needs
//! the right to do. [`to_aggregated`] and [`to_native`] read it, so that a client and the operator cannot differ; the operator
//! also reads from it what to ask a `SubjectAccessReview` for ([`of_native`]).
//!
//! Rules that hold for every row:
//!
//! * the namespace and the name of the Task are in the aggregated path, because the API server authorises by them; a native
//!   path that names the Task by its uid does not have them. **The server must check that the uid is of that Task**: the API
//!   server cannot;
//! * all output is below the subresource `log`: it has a right of its own, and the API server does not end such requests
//!   after a minute;
//! * query parameters are the same in both, but `namespace`, which is in the aggregated path, and `watch` and
//!   `fieldSelector`, which are those of Kubernetes.
//!
//! Writes of Tasks have no aggregated path: they go to the API server itself, as objects of `sentinelnode.dev`.

mod mapping;
mod pattern;
mod table;

pub use mapping::{Found, Unmapped, of_native, to_aggregated, to_native};
pub use table::{Access, ROWS, Row, Scope};

/// The group.
pub const GROUP: &str = "ops.sentinelnode.dev";

/// Its version.
pub const VERSION: &str = "v1alpha1";

/// What every path of the group begins with.
pub const PREFIX: &str = "/apis/ops.sentinelnode.dev/v1alpha1";

/// The name of its `APIService`.
pub const API_SERVICE: &str = "v1alpha1.ops.sentinelnode.dev";

/// The group of Tasks as objects.
pub const TASK_GROUP: &str = "sentinelnode.dev";
