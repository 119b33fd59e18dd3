//! The routes as data. Matching, 405 answers, checks of query parameters, and the test of the OpenAPI document read this
//! table.

use http::{Method, StatusCode};
use sentinel_api::path::unescape;

use super::error::{ApiError, Reason, shown};

/// What a route does; each has one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Liveness.
    Health,
    /// Readiness.
    Ready,
    /// Metrics in the text format of Prometheus.
    Metrics,
    /// The OpenAPI document.
    OpenApi,
    /// All nodes.
    ListNodes,
    /// One node.
    GetNode,
    /// The metrics of one node over the last 15 minutes.
    NodeSamples,
    /// The CPU usage of several nodes over the last 15 minutes.
    FleetSamples,
    /// The heads of audit chains.
    ListAuditHeads,
    /// Tasks.
    ListTasks,
    /// Create a Task.
    CreateTask,
    /// One Task.
    GetTask,
    /// Create or change a Task.
    ApplyTask,
    /// Delete a Task.
    DeleteTask,
    /// Cancel the active Run of a Task.
    CancelTask,
    /// Run the same spec again.
    RerunTask,
    /// Approve the Run that is due.
    ApproveTask,
    /// Changes of one Task.
    TaskEvents,
    /// Changes of all Tasks.
    Events,
    /// Runs, newest first.
    ListRuns,
    /// What the targets of a Run wrote, equal outputs as one.
    RunOutputs,
    /// The output of a Run.
    RunLog,
    /// Lines of the output of a Run.
    RunLines,
    /// Lines of the output of a Run as they are written.
    RunLineEvents,
    /// Lines of the output of a Run that match an expression.
    SearchRun,
    /// Executions, newest first.
    ListExecutions,
    /// One Execution.
    GetExecution,
    /// The output of one Execution.
    ExecutionLog,
    /// Lines of the output of one Execution.
    ExecutionLines,
    /// Lines of the output of one Execution as they are written.
    LineEvents,
    /// Lines of the output of one Execution that match an expression.
    SearchLines,
    /// The output of a Run by the name of its Task. Of the aggregated API only.
    TaskLog,
    /// The resources of the aggregated API.
    Discovery,
    /// The web page, at each of its addresses.
    Page,
    /// A file that the page loads.
    PageAsset,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; a segment in braces matches any segment.
    pub pattern: &'static str,
    /// What it does.
    pub operation: Operation,
    /// Its query parameters.
    pub query: &'static [&'static str],
}

impl Route {
    /// Whether its requests have a body.
    pub fn takes_body(&self) -> bool {
        matches!(self.operation, Operation::CreateTask | Operation::ApplyTask)
    }
}

const fn route(
    method: Method,
    pattern: &'static str,
    operation: Operation,
    query: &'static [&'static str],
) -> Route {
    Route { method, pattern, operation, query }
}

/// Every route of the API listener.
pub const ROUTES: &[Route] = &[
    route(Method::GET, "/healthz", Operation::Health, &[]),
    route(Method::GET, "/readyz", Operation::Ready, &[]),
    route(Method::GET, "/metrics", Operation::Metrics, &[]),
    route(Method::GET, "/api/v1/openapi.json", Operation::OpenApi, &[]),
    route(Method::GET, "/api/v1/nodes", Operation::ListNodes, &["reachable"]),
    route(Method::GET, "/api/v1/nodes/{node}", Operation::GetNode, &[]),
    route(Method::GET, "/api/v1/nodes/{node}/samples", Operation::NodeSamples, &[]),
    route(Method::GET, "/api/v1/samples", Operation::FleetSamples, &["nodes"]),
    route(Method::GET, "/api/v1/audit/heads", Operation::ListAuditHeads, &["of", "limit", "page"]),
    route(Method::GET, "/api/v1/tasks", Operation::ListTasks, &["namespace", "phase", "limit", "page"]),
    route(Method::POST, "/api/v1/tasks", Operation::CreateTask, &["dryRun"]),
    route(Method::GET, "/api/v1/tasks/{namespace}/{name}", Operation::GetTask, &[]),
    route(Method::PUT, "/api/v1/tasks/{namespace}/{name}", Operation::ApplyTask, &["dryRun"]),
    route(Method::DELETE, "/api/v1/tasks/{namespace}/{name}", Operation::DeleteTask, &[]),
    route(Method::POST, "/api/v1/tasks/{namespace}/{name}/cancel", Operation::CancelTask, &["run"]),
    route(Method::POST, "/api/v1/tasks/{namespace}/{name}/rerun", Operation::RerunTask, &["token"]),
    route(
        Method::POST,
        "/api/v1/tasks/{namespace}/{name}/approve",
        Operation::ApproveTask,
        &["run", "specHash", "targetsDigest"],
    ),
    route(Method::GET, "/api/v1/tasks/{namespace}/{name}/events", Operation::TaskEvents, &[]),
    route(Method::GET, "/api/v1/events", Operation::Events, &["namespace"]),
    route(
        Method::GET,
        "/api/v1/runs",
        Operation::ListRuns,
        &["namespace", "task", "taskUid", "trigger", "since", "until", "limit", "page"],
    ),
    route(Method::GET, "/api/v1/runs/{taskUid}/{run}/outputs", Operation::RunOutputs, &["equal"]),
    route(
        Method::GET,
        "/api/v1/runs/{taskUid}/{run}/log",
        Operation::RunLog,
        &["nodes", "stream", "format", "timestamps", "since", "until"],
    ),
    route(
        Method::GET,
        "/api/v1/runs/{taskUid}/{run}/lines",
        Operation::RunLines,
        &["nodes", "stream", "count", "from", "to", "since", "tail", "until"],
    ),
    route(
        Method::GET,
        "/api/v1/runs/{taskUid}/{run}/search",
        Operation::SearchRun,
        &["pattern", "nodes", "stream", "from", "limit"],
    ),
    route(
        Method::GET,
        "/api/v1/runs/{taskUid}/{run}/lines/events",
        Operation::RunLineEvents,
        &["nodes", "stream", "from"],
    ),
    route(
        Method::GET,
        "/api/v1/executions",
        Operation::ListExecutions,
        &[
            "namespace",
            "task",
            "taskUid",
            "run",
            "node",
            "outcome",
            "state",
            "trigger",
            "since",
            "until",
            "limit",
            "page",
        ],
    ),
    route(Method::GET, "/api/v1/executions/{taskUid}/{run}/{node}", Operation::GetExecution, &[]),
    route(
        Method::GET,
        "/api/v1/executions/{taskUid}/{run}/{node}/log",
        Operation::ExecutionLog,
        &["follow", "from", "stream", "timestamps", "format", "attempt", "tail", "since"],
    ),
    route(
        Method::GET,
        "/api/v1/executions/{taskUid}/{run}/{node}/lines",
        Operation::ExecutionLines,
        &["line", "position", "tail", "since", "count", "stream", "attempt"],
    ),
    route(
        Method::GET,
        "/api/v1/executions/{taskUid}/{run}/{node}/lines/events",
        Operation::LineEvents,
        &["from", "stream", "attempt"],
    ),
    route(
        Method::GET,
        "/api/v1/executions/{taskUid}/{run}/{node}/search",
        Operation::SearchLines,
        &["pattern", "from", "limit", "stream", "attempt"],
    ),
];

/// The web page, which is the same at each of its addresses; it reads the rest of the path, and the query, itself.
pub(super) static PAGE: Route = route(Method::GET, "/{place}", Operation::Page, &[]);

/// The output of a Run by the name of its Task: a path of the aggregated API only.
pub(super) static TASK_LOG: Route = route(
    Method::GET,
    "/tasks/{name}/log",
    Operation::TaskLog,
    &["run", "node", "follow", "from", "stream", "timestamps", "format", "attempt", "tail", "since", "until"],
);

/// The resources of the aggregated API.
pub(super) static DISCOVERY: Route = route(Method::GET, "/", Operation::Discovery, &["timeout"]);

static PAGE_ASSET: Route = route(Method::GET, "/assets/{name}", Operation::PageAsset, &[]);

impl Operation {
    /// Whether it serves the web page, which is not a part of the API: the OpenAPI document does not have it.
    pub fn is_page(self) -> bool {
        matches!(self, Self::Page | Self::PageAsset)
    }
}

/// A route and the segments of the path that matched braces, in order.
#[derive(Debug)]
pub struct Found {
    /// The route.
    pub route: &'static Route,
    /// Those segments, unescaped.
    pub parts: Vec<String>,
}

/// Longest path, bytes.
const MAX_PATH: usize = 2048;

/// The route for a method and an escaped path.
///
/// # Errors
/// 404 for an unknown path, 405 (with the methods of the path) for another method, 400 or 414 when the path cannot be
/// read.
pub fn find(method: &Method, path: &str) -> Result<Found, ApiError> {
    let parts = split(path)?;
    let mut methods: Vec<&str> = Vec::new();
    for route in ROUTES.iter().chain([&PAGE_ASSET, &PAGE]) {
        let Some(open) = of(route, &parts) else { continue };
        if route.method == method || (method == Method::HEAD && route.method == Method::GET) {
            return Ok(Found { route, parts: open });
        }
        methods.push(route.method.as_str());
    }
    if methods.is_empty() {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            Reason::UnknownPath,
            format!("unknown path {}; GET /api/v1/openapi.json lists all", shown(path)),
        ));
    }
    let allowed = methods.join(", ");
    let mut error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Reason::MethodNotAllowed,
        format!("{method} is not allowed on {}; allowed: {allowed}", shown(path)),
    )
    .at("method", method.as_str(), allowed.clone());
    error.allow = Some(allowed);
    Err(error)
}

fn split(path: &str) -> Result<Vec<String>, ApiError> {
    if path.len() > MAX_PATH {
        return Err(ApiError::new(
            StatusCode::URI_TOO_LONG,
            Reason::InvalidPath,
            format!("the path has {} bytes; at most {MAX_PATH} are allowed", path.len()),
        ));
    }
    path.trim_start_matches('/').trim_end_matches('/').split('/').map(part).collect()
}

fn part(raw: &str) -> Result<String, ApiError> {
    let text = unescape(raw).ok_or_else(|| unreadable(raw))?;
    let is_plain = !text.contains(['/', '\\', '\0']) && text != ".." && text != ".";
    if is_plain { Ok(text) } else { Err(unreadable(raw)) }
}

fn unreadable(raw: &str) -> ApiError {
    let allowed = "UTF-8 text without '/', '\\', NUL, '.' and '..', escaped as %XX";
    ApiError::new(
        StatusCode::BAD_REQUEST,
        Reason::InvalidPath,
        format!("invalid path: each segment must be {allowed}"),
    )
    .at("path", raw, allowed)
}

/// The segments that are open in a route, where it has this path.
fn of(route: &Route, parts: &[String]) -> Option<Vec<String>> {
    if route.operation == Operation::Page {
        let place = parts.first()?;
        return sentinel_viewer::PLACES.contains(&place.as_str()).then(|| vec![place.clone()]);
    }
    matches(route.pattern, parts)
}

fn matches(pattern: &str, parts: &[String]) -> Option<Vec<String>> {
    let pattern: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    if pattern.len() != parts.len() {
        return None;
    }
    let mut open = Vec::new();
    for (expected, part) in pattern.iter().zip(parts) {
        if expected.starts_with('{') {
            if part.is_empty() {
                return None;
            }
            open.push(part.clone());
        } else if expected != part {
            return None;
        }
    }
    Some(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_finds_its_route_and_segments() {
        let found = find(&Method::GET, "/api/v1/executions/uid-1/3/node-1.example/log").unwrap();
        assert_eq!(found.route.operation, Operation::ExecutionLog);
        assert_eq!(found.parts, ["uid-1", "3", "node-1.example"]);
        assert_eq!(find(&Method::GET, "/api/v1/tasks/").unwrap().route.operation, Operation::ListTasks);
        assert_eq!(find(&Method::HEAD, "/healthz").unwrap().route.operation, Operation::Health);
        assert_eq!(find(&Method::GET, "/api/v1/nodes/n%31").unwrap().parts, ["n1"]);
    }

    #[test]
    fn every_address_of_the_page_is_the_page() {
        for path in
            ["/", "/tasks", "/tasks/", "/tasks/ops/a/runs/3/log", "/fleet/node-1", "/history", "/login"]
        {
            assert_eq!(find(&Method::GET, path).unwrap().route.operation, Operation::Page, "{path}");
            assert_eq!(find(&Method::POST, path).unwrap_err().allow.as_deref(), Some("GET"), "{path}");
        }
        let asset = find(&Method::HEAD, "/assets/main.0.js").unwrap();
        assert_eq!(
            (asset.route.operation, asset.parts),
            (Operation::PageAsset, vec!["main.0.js".to_owned()])
        );
        for path in ["/assets", "/assets/a/b", "/task", "/index.html"] {
            assert_eq!(find(&Method::GET, path).unwrap_err().status, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn wrong_method_is_answered_with_the_allowed_ones() {
        let error = find(&Method::PATCH, "/api/v1/tasks/a/b").unwrap_err();
        assert_eq!(error.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(error.allow.as_deref(), Some("GET, PUT, DELETE"));
    }

    #[test]
    fn invalid_paths_are_refused() {
        let status = |path: &str| find(&Method::GET, path).unwrap_err().status;
        assert_eq!(status("/api/v2/tasks"), StatusCode::NOT_FOUND);
        assert_eq!(status("/api/v1/tasks/a//"), StatusCode::NOT_FOUND);
        assert_eq!(status("/api/v1/nodes/.."), StatusCode::BAD_REQUEST);
        assert_eq!(status("/api/v1/nodes/%2e%2e"), StatusCode::BAD_REQUEST);
        assert_eq!(status("/api/v1/nodes/a%2fb"), StatusCode::BAD_REQUEST);
        assert_eq!(status("/api/v1/nodes/a%00"), StatusCode::BAD_REQUEST);
        assert_eq!(status("/api/v1/nodes/a%0"), StatusCode::BAD_REQUEST);
        assert_eq!(status("/api/v1/nodes/%ff"), StatusCode::BAD_REQUEST);
        assert_eq!(status(&format!("/{}", "a".repeat(8192))), StatusCode::URI_TOO_LONG);
    }
}
