//! The kinds of callers: their tokens, and what roles bind them to.

use sentinel_api::aggregated::{Access, GROUP, Scope, TASK_GROUP, to_aggregated};
use sentinel_tests::requests::Request;

use crate::routes::Case;

/// How a request reaches the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The API listener, with a bearer token.
    Token,
    /// The aggregated API's listener, with the front proxy's certificate.
    FrontProxy,
}

/// What a role allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    None,
    /// All reads but output.
    Viewer,
    /// Output.
    LogReader,
    /// Everything.
    Runner,
}

impl Role {
    pub(crate) fn allows(self, access: &Access) -> bool {
        let is_log = access.subresource == Some("log");
        let is_read = matches!(access.verb, "get" | "list" | "watch");
        match self {
            Self::None => false,
            Self::Viewer => access.group == GROUP && is_read && !is_log,
            Self::LogReader => is_log,
            Self::Runner => (access.group == GROUP && !is_log) || access.group == TASK_GROUP,
        }
    }
}

/// Where a role is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bound {
    Everywhere,
    In(String),
}

/// A client that makes requests.
pub(crate) struct Caller {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    pub(crate) headers: Vec<(String, String)>,
    /// Whether the API server knows them.
    pub(crate) is_known: bool,
    pub(crate) role: Role,
    pub(crate) bound: Bound,
    /// Paths that are not resources and that they may get.
    pub(crate) paths: Vec<&'static str>,
}

impl Caller {
    /// Their token, where they have one.
    pub(crate) fn token(&self) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == "Authorization")?;
        value.strip_prefix("Bearer ").map(str::to_owned)
    }

    /// A case as this caller asks for it; `None` where their way has no such route.
    pub(crate) fn request(&self, case: &Case) -> Option<Request> {
        let path = match self.way {
            Way::Token => case.path.clone(),
            Way::FrontProxy => {
                let task = case.task.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
                to_aggregated(&case.method, &case.path, task).ok()?
            }
        };
        let mut request = Request::new(&case.method, &path);
        request.headers.clone_from(&self.headers);
        if case.method != "GET" {
            request = request.with("Content-Type", "application/json");
        }
        request.body.clone_from(&case.body);
        Some(request)
    }

    pub(crate) fn may(&self, access: &Access, scope: Scope, namespace: Option<&str>) -> bool {
        let is_bound_there = match &self.bound {
            Bound::Everywhere => true,
            Bound::In(bound) => scope != Scope::Cluster && namespace == Some(bound),
        };
        is_bound_there && self.role.allows(access)
    }
}
