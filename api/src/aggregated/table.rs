//! The rows.

use super::{GROUP, TASK_GROUP};

/// A right, as Kubernetes' RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access {
    /// The API group.
    pub group: &'static str,
    /// The resource, in the plural.
    pub resource: &'static str,
    /// The subresource.
    pub subresource: Option<&'static str>,
    /// The verb.
    pub verb: &'static str,
}

impl Access {
    /// `RESOURCE` or `RESOURCE/SUBRESOURCE`, as a rule of a Role has it.
    pub fn path(&self) -> String {
        match self.subresource {
            None => self.resource.to_owned(),
            Some(subresource) => format!("{}/{subresource}", self.resource),
        }
    }
}

/// Where the objects of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the cluster.
    Cluster,
    /// In one namespace.
    Namespace,
    /// In one namespace, or in all.
    Either,
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its method.
    pub method: &'static str,
    /// Its native path, if it has one; a segment in braces is open.
    pub native: Option<&'static str>,
    /// Its path in the group below that of the scope, if it has one. A segment may hold several open parts, with colons
    /// between.
    pub aggregated: Option<&'static str>,
    /// Whether the aggregated request has `watch=true`.
    pub watch: bool,
    /// Where its objects are.
    pub scope: Scope,
    /// What the caller needs the right to do: all of these.
    pub access: &'static [Access],
}

const fn ops(resource: &'static str, subresource: Option<&'static str>, verb: &'static str) -> Access {
    Access { group: GROUP, resource, subresource, verb }
}

const fn task(verb: &'static str) -> Access {
    Access { group: TASK_GROUP, resource: "tasks", subresource: None, verb }
}

const WATCH: &[Access] = &[ops("tasks", None, "watch")];
const LOG: &[Access] = &[ops("tasks", Some("log"), "get")];

const fn get(native: &'static str, scope: Scope, aggregated: &'static str, access: &'static [Access]) -> Row {
    Row { method: "GET", native: Some(native), aggregated: Some(aggregated), watch: false, scope, access }
}

const fn watch(native: &'static str, scope: Scope) -> Row {
    Row { watch: true, ..get(native, scope, "/tasks", WATCH) }
}

const fn log(native: &'static str, aggregated: &'static str) -> Row {
    get(native, Scope::Namespace, aggregated, LOG)
}

const fn post(native: &'static str, aggregated: &'static str, access: &'static [Access]) -> Row {
    Row { method: "POST", ..get(native, Scope::Namespace, aggregated, access) }
}

const fn write(method: &'static str, native: &'static str, access: &'static [Access]) -> Row {
    let native = Some(native);
    Row { method, native, aggregated: None, watch: false, scope: Scope::Namespace, access }
}

/// Every operation on nodes, audit heads, Tasks, Runs and Executions.
pub const ROWS: &[Row] = &[
    get("/api/v1/nodes", Scope::Cluster, "/nodes", &[ops("nodes", None, "list")]),
    get(
        "/api/v1/nodes/{node}",
        Scope::Cluster,
        "/nodes/{node}/presence",
        &[ops("nodes", Some("presence"), "get")],
    ),
    get(
        "/api/v1/nodes/{node}/samples",
        Scope::Cluster,
        "/nodes/{node}/samples",
        &[ops("nodes", Some("samples"), "get")],
    ),
    get("/api/v1/samples", Scope::Cluster, "/samples", &[ops("samples", None, "list")]),
    get("/api/v1/audit/heads", Scope::Cluster, "/auditheads", &[ops("auditheads", None, "list")]),
    get("/api/v1/tasks", Scope::Either, "/tasks", &[ops("tasks", None, "list")]),
    write("POST", "/api/v1/tasks", &[task("create")]),
    get("/api/v1/tasks/{namespace}/{name}", Scope::Namespace, "/tasks/{name}", &[ops("tasks", None, "get")]),
    write("PUT", "/api/v1/tasks/{namespace}/{name}", &[task("create"), task("patch")]),
    write("DELETE", "/api/v1/tasks/{namespace}/{name}", &[task("delete")]),
    post(
        "/api/v1/tasks/{namespace}/{name}/cancel",
        "/tasks/{name}/cancel",
        &[ops("tasks", Some("cancel"), "create")],
    ),
    post(
        "/api/v1/tasks/{namespace}/{name}/rerun",
        "/tasks/{name}/rerun",
        &[ops("tasks", Some("rerun"), "create")],
    ),
    post(
        "/api/v1/tasks/{namespace}/{name}/approve",
        "/tasks/{name}/approve",
        &[ops("tasks", Some("approve"), "create")],
    ),
    watch("/api/v1/tasks/{namespace}/{name}/events", Scope::Namespace),
    watch("/api/v1/events", Scope::Either),
    get("/api/v1/runs", Scope::Either, "/runs", &[ops("runs", None, "list")]),
    log("/api/v1/runs/{taskUid}/{run}/outputs", "/tasks/{name}/log/runs/{taskUid}/{run}/outputs"),
    log("/api/v1/runs/{taskUid}/{run}/log", "/tasks/{name}/log/runs/{taskUid}/{run}/log"),
    log("/api/v1/runs/{taskUid}/{run}/lines", "/tasks/{name}/log/runs/{taskUid}/{run}/lines"),
    log("/api/v1/runs/{taskUid}/{run}/search", "/tasks/{name}/log/runs/{taskUid}/{run}/search"),
    log("/api/v1/runs/{taskUid}/{run}/lines/events", "/tasks/{name}/log/runs/{taskUid}/{run}/lines/events"),
    get("/api/v1/executions", Scope::Either, "/executions", &[ops("executions", None, "list")]),
    get(
        "/api/v1/executions/{taskUid}/{run}/{node}",
        Scope::Namespace,
        "/executions/{taskUid}:{run}:{node}",
        &[ops("executions", None, "get")],
    ),
    log(
        "/api/v1/executions/{taskUid}/{run}/{node}/log",
        "/tasks/{name}/log/executions/{taskUid}/{run}/{node}/log",
    ),
    log(
        "/api/v1/executions/{taskUid}/{run}/{node}/lines",
        "/tasks/{name}/log/executions/{taskUid}/{run}/{node}/lines",
    ),
    log(
        "/api/v1/executions/{taskUid}/{run}/{node}/lines/events",
        "/tasks/{name}/log/executions/{taskUid}/{run}/{node}/lines/events",
    ),
    log(
        "/api/v1/executions/{taskUid}/{run}/{node}/search",
        "/tasks/{name}/log/executions/{taskUid}/{run}/{node}/search",
    ),
    // For people with kubectl: the output of a Run by the name of its Task.
    Row { native: None, ..log("", "/tasks/{name}/log") },
];
