//! A request for each route, with what it requires.

use sentinel_api::aggregated::{Access, ROWS, Scope};
use sentinel_operator::http::requirement::{self, Requirement};
use sentinel_operator::http::table::{ROUTES, Route};
use sentinel_tests::requests::Answered;

use crate::callers::Caller;
use crate::fixture::Fixture;

/// A request for a route.
pub(crate) struct Case {
    pub(crate) method: String,
    /// Its native path and query.
    pub(crate) path: String,
    /// The Task that it is about.
    pub(crate) task: Option<(String, String)>,
    pub(crate) body: String,
    pub(crate) requirement: Requirement,
    /// The namespace that it asks about: without one, that of the operator, which watches no other.
    pub(crate) namespace: Option<String>,
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Whatever the handler answers.
    Answered,
    /// 401.
    Unknown,
    /// 403.
    Forbidden,
}

impl Expected {
    pub(crate) fn fits(self, answered: &Answered) -> bool {
        match self {
            Self::Answered => !matches!(answered.status, 0 | 401 | 403) && answered.status < 500,
            Self::Unknown => answered.status == 401,
            Self::Forbidden => answered.status == 403,
        }
    }
}

impl Case {
    /// What this caller gets by the table.
    pub(crate) fn expected(&self, caller: &Caller) -> Expected {
        let rights: &[Access] = match self.requirement {
            Requirement::Nothing => return Expected::Answered,
            _ if !caller.is_known => return Expected::Unknown,
            Requirement::Identity => return Expected::Answered,
            Requirement::Path(path) => {
                let may = caller.paths.contains(&path);
                return if may { Expected::Answered } else { Expected::Forbidden };
            }
            Requirement::Rights(row) => row.access,
            Requirement::OwnCredentials => ROWS
                .iter()
                .find(|row| row.method == self.method && row.native.is_some_and(|native| self.is_of(native)))
                .map_or(&[], |row| row.access),
        };
        let may = |access: &Access| caller.may(access, self.scope(), self.namespace.as_deref());
        if rights.iter().all(may) { Expected::Answered } else { Expected::Forbidden }
    }

    fn scope(&self) -> Scope {
        match self.requirement {
            Requirement::Rights(row) => row.scope,
            _ => Scope::Namespace,
        }
    }

    fn is_of(&self, pattern: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        pattern.split('/').count() == path.split('/').count()
    }
}

/// Every route: about a Task in our namespace, and lists of that namespace and of all.
pub(crate) fn cases(fixture: &Fixture) -> Vec<Case> {
    let mut cases = Vec::new();
    for route in ROUTES {
        cases.push(case(fixture, route, None));
        if route.query.contains(&"namespace") {
            cases.push(case(fixture, route, Some(&fixture.testbed.namespace.name)));
        }
    }
    cases
}

fn case(fixture: &Fixture, route: &Route, namespace: Option<&str>) -> Case {
    let ours = fixture.testbed.namespace.name.as_str();
    let is_of_task = route.pattern.contains("{name}") || route.pattern.contains("{taskUid}");
    let path = route
        .pattern
        .replace("{namespace}", ours)
        .replace("{name}", if route.method.as_str() == "DELETE" { "nothing" } else { "mine" })
        .replace("{taskUid}", &fixture.mine)
        .replace("{run}", "1")
        .replace("{node}", &fixture.node);
    let mut query: Vec<String> = namespace.iter().map(|name| format!("namespace={name}")).collect();
    let name = route.pattern.rsplit('/').next().unwrap_or_default();
    match name {
        "search" => query.push("pattern=x".to_owned()),
        "samples" if route.query.contains(&"nodes") => query.push(format!("nodes={}", fixture.node)),
        // Asked for with a token that no rerun can have, so that none begins.
        "rerun" => query.push("token=".to_owned()),
        _ => {}
    }
    if route.takes_body() {
        query.push("dryRun=All".to_owned());
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let created = route.method.as_str() == "POST" && route.takes_body();
    let body = if route.takes_body() {
        fixture.task(if created { "another" } else { "mine" })
    } else {
        String::new()
    };
    Case {
        method: route.method.to_string(),
        path: format!("{path}{query}"),
        task: is_of_task.then(|| (ours.to_owned(), "mine".to_owned())),
        body,
        requirement: requirement::of(route).expect("a requirement"),
        namespace: Some(namespace.unwrap_or(ours).to_owned()),
    }
}
