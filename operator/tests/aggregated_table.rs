//! The table of the aggregated API against the routes of the API listener.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use sentinel_api::aggregated::{PREFIX, ROWS, Scope, Unmapped, of_native, to_aggregated, to_native};
use sentinel_api::path::escape;
use sentinel_operator::http::table::{Operation, ROUTES, Route, find};

/// Routes that no right is asked for, or `/metrics`, whose right is on its path.
const OPEN: [Operation; 4] = [Operation::Health, Operation::Ready, Operation::Metrics, Operation::OpenApi];

fn guarded() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| !OPEN.contains(&route.operation))
}

#[test]
fn every_route_has_one_row_and_every_row_a_route() {
    let mut routes: Vec<_> = guarded().map(|route| (route.method.as_str(), route.pattern)).collect();
    let mut rows: Vec<_> = ROWS.iter().filter_map(|row| Some((row.method, row.native?))).collect();
    routes.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, routes);
    for row in ROWS {
        assert!(!row.access.is_empty(), "{row:?} needs no right");
    }
}

#[test]
fn every_read_of_output_needs_the_right_to_the_log() {
    let reads = ["/log", "/lines", "/search", "/outputs", "/lines/events"];
    for row in ROWS {
        let Some(native) = row.native else { continue };
        let is_output = reads.iter().any(|end| native.ends_with(end));
        let is_log = row.access.iter().all(|access| access.path() == "tasks/log");
        assert_eq!(is_log, is_output, "{native}");
        if is_output {
            assert!(row.aggregated.unwrap().starts_with("/tasks/{name}/log/"), "{row:?}");
        }
    }
}

#[test]
fn writes_of_tasks_are_requests_to_the_api_server() {
    let unmapped: BTreeSet<_> = ROWS
        .iter()
        .filter(|row| row.aggregated.is_none())
        .map(|row| (row.method, row.native.unwrap()))
        .collect();
    let expected = [
        ("DELETE", "/api/v1/tasks/{namespace}/{name}"),
        ("POST", "/api/v1/tasks"),
        ("PUT", "/api/v1/tasks/{namespace}/{name}"),
    ];
    assert_eq!(unmapped, BTreeSet::from(expected));
    let refused = to_aggregated("POST", "/api/v1/tasks?dryRun=All", None).unwrap_err();
    assert!(matches!(refused, Unmapped::Absent { .. }), "{refused}");
}

#[test]
fn paths_are_those_that_roles_and_people_name() {
    let task = Some(("ops", "web"));
    let at = |path: &str, task| to_aggregated("GET", path, task).unwrap();
    for (native, aggregated) in [
        ("/api/v1/nodes?reachable=true", "/nodes?reachable=true"),
        ("/api/v1/nodes/web-1.example", "/nodes/web-1.example/presence"),
        ("/api/v1/tasks", "/tasks"),
        ("/api/v1/tasks?phase=Failed&namespace=ops", "/namespaces/ops/tasks?phase=Failed"),
        ("/api/v1/tasks/ops/web", "/namespaces/ops/tasks/web"),
        ("/api/v1/events", "/tasks?watch=true"),
        ("/api/v1/events?namespace=ops", "/namespaces/ops/tasks?watch=true"),
        (
            "/api/v1/tasks/ops/web/events",
            "/namespaces/ops/tasks?watch=true&fieldSelector=metadata.name%3Dweb",
        ),
        ("/api/v1/runs?taskUid=u-1&limit=3", "/namespaces/ops/runs?taskUid=u-1&limit=3"),
        ("/api/v1/executions/u-1/3/web-1", "/namespaces/ops/executions/u-1:3:web-1"),
        (
            "/api/v1/runs/u-1/3/lines/events?from=a",
            "/namespaces/ops/tasks/web/log/runs/u-1/3/lines/events?from=a",
        ),
        (
            "/api/v1/executions/u-1/3/n/log?follow=true",
            "/namespaces/ops/tasks/web/log/executions/u-1/3/n/log?follow=true",
        ),
    ] {
        assert_eq!(at(native, task), format!("{PREFIX}{aggregated}"));
    }
    assert_eq!(at("/api/v1/runs?taskUid=u-1", None), format!("{PREFIX}/runs?taskUid=u-1"));
    let needed = to_aggregated("GET", "/api/v1/runs/u-1/3/log", None).unwrap_err();
    assert_eq!(needed, Unmapped::NeedsTask { uid: "u-1".to_owned() });
}

#[test]
fn the_log_of_a_task_by_name_is_below_its_log_too() {
    let found =
        to_native("GET", &format!("{PREFIX}/namespaces/ops/tasks/web/log?follow=true&run=2")).unwrap();
    assert_eq!((found.namespace.as_deref(), found.task.as_deref()), (Some("ops"), Some("web")));
    assert_eq!((found.native, found.query.as_str()), (None, "follow=true&run=2"));
    assert_eq!(found.row.access[0].path(), "tasks/log");
}

/// The API server authorises by the namespace of the path: another one in the query would be read without a right.
#[test]
fn a_query_cannot_name_another_namespace() {
    for query in ["namespace=b", "limit=1&namespace=b", "n%61mespace=b", "namespace=a", "namespace"] {
        for path in ["namespaces/a/tasks", "tasks", "namespaces/a/executions"] {
            let refused = to_native("GET", &format!("{PREFIX}/{path}?{query}")).unwrap_err();
            assert!(matches!(refused, Unmapped::Query { .. }), "{path}?{query}: {refused}");
        }
    }
}

#[test]
fn what_no_row_has_is_absent_or_a_refused_query() {
    let at = |method: &str, path: &str| to_native(method, &format!("{PREFIX}{path}")).unwrap_err();
    for (method, path) in [
        ("GET", ""),
        ("GET", "/"),
        ("GET", "/namespaces/a"),
        ("GET", "/namespaces//tasks"),
        ("GET", "/namespaces/a/nodes"),
        ("GET", "/tasks/web"),
        ("GET", "/nodes/n"),
        ("POST", "/namespaces/a/tasks"),
        ("GET", "/namespaces/a/tasks/web/cancel"),
        ("DELETE", "/namespaces/a/tasks/web"),
        ("GET", "/namespaces/a/executions/u:1"),
        ("GET", "/namespaces/a/executions/u:1:n:m"),
        ("GET", "/namespaces/a/executions/u:1:.."),
        ("GET", "/namespaces/a/tasks/b%2Fc"),
        ("GET", "/namespaces/a%2Fb/tasks"),
        ("GET", "/tasks?watch=true&fieldSelector=metadata.name%3Dweb"),
        ("GET", "/runs?watch=true"),
    ] {
        assert!(matches!(at(method, path), Unmapped::Absent { .. }), "{method} {path}");
    }
    for query in [
        "watch=maybe",
        "watch=true&watch=true",
        "fieldSelector=metadata.name%3Dweb",
        "watch=true&fieldSelector=metadata.name",
        "watch=true&fieldSelector=metadata.name%3Da,spec.x%3Db",
        "watch=true&fieldSelector=status.phase%3DFailed",
    ] {
        let refused = at("GET", &format!("/namespaces/a/tasks?{query}"));
        assert!(matches!(refused, Unmapped::Query { .. }), "{query}: {refused}");
    }
    assert!(to_native("GET", "/apis/ops.sentinelnode.dev/v1alpha10/tasks").is_err());
    assert!(to_native("GET", "/api/v1/tasks").is_err());
}

/// Any text that a segment or a value may hold.
fn text() -> impl Strategy<Value = String> {
    "[a-z0-9]([-a-z0-9.%=&+ ?#äλ]{0,12}[a-z0-9])?"
}

fn native_request() -> impl Strategy<Value = (&'static Route, String, (String, String))> {
    let routes: Vec<&'static Route> = guarded()
        .filter(|route| {
            let row = of_native(route.method.as_str(), &route.pattern.replace(['{', '}'], ""));
            row.is_some_and(|found| found.row.aggregated.is_some())
        })
        .collect();
    (prop::sample::select(routes), prop::collection::vec(text(), 8), any::<u8>()).prop_map(
        |(route, mut values, chosen)| {
            let task = (values.pop().unwrap(), values.pop().unwrap());
            let mut values = values.iter().cycle();
            let fill = |segment: &str, value: &str| {
                // Names of objects have no others.
                let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
                match segment {
                    "{name}" => value.replace(|c| !named(c), "-"),
                    _ if segment.starts_with('{') => escape(value),
                    _ => segment.to_owned(),
                }
            };
            let path: Vec<String> =
                route.pattern.split('/').map(|segment| fill(segment, values.next().unwrap())).collect();
            let query: Vec<String> = (route.query.iter().enumerate())
                .filter(|(index, _)| chosen >> (index % 8) & 1 == 1)
                .map(|(_, name)| format!("{name}={}", escape(values.next().unwrap())))
                .collect();
            let mut request = path.join("/");
            if !query.is_empty() {
                request = format!("{request}?{}", query.join("&"));
            }
            (route, request, task)
        },
    )
}

/// The pairs of a query in any order, and the path.
fn normal(request: &str) -> (String, BTreeSet<String>) {
    let (path, query) = request.split_once('?').unwrap_or((request, ""));
    (path.to_owned(), query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect())
}

proptest! {
    /// A request is the same after both mappings, reaches the same route, and the path names the Task that was given.
    #[test]
    fn requests_survive_both_directions((route, native, (namespace, name)) in native_request()) {
        let method = route.method.as_str();
        let task = (namespace.as_str(), name.as_str());
        let aggregated = to_aggregated(method, &native, Some(task)).unwrap();
        let back = to_native(method, &aggregated).unwrap();
        let again = back.native.clone().unwrap();
        let (mut expected, has_uid) = (normal(&native), native.contains("taskUid="));
        if back.row.scope == Scope::Either && has_uid && !native.contains("namespace=") {
            expected.1.insert(format!("namespace={}", escape(&namespace)));
        }
        prop_assert_eq!(normal(&again), expected, "{}", aggregated);
        let path = again.split('?').next().unwrap();
        let found = find(&route.method, path).unwrap();
        prop_assert_eq!(found.route.operation, route.operation);
        prop_assert_eq!(of_native(method, &again).unwrap().row, back.row);
        if back.task_uid.is_some() {
            prop_assert_eq!(back.namespace.as_deref(), Some(namespace.as_str()));
            if back.row.aggregated.unwrap().contains("{name}") {
                prop_assert_eq!(back.task.as_deref(), Some(name.as_str()));
            }
        }
    }

    /// No text makes the mapping of the server fail otherwise than with an error, or leave its namespace.
    #[test]
    fn any_path_of_the_group_stays_in_its_namespace(rest in "[-a-zA-Z0-9/%.:?&=]{0,60}") {
        if let Ok(found) = to_native("GET", &format!("{PREFIX}/namespaces/a/{rest}")) {
            prop_assert_eq!(found.namespace.as_deref(), Some("a"));
            let native = found.native.unwrap_or_default();
            let again = of_native("GET", &native);
            if let Some(namespace) = again.and_then(|again| again.namespace) {
                prop_assert_eq!(namespace, "a");
            }
        }
    }
}
