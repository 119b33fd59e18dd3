//! What each operation requires of its caller.
//!
//! Rights are those of [`sentinel_api::aggregated::ROWS`], which clients and the aggregated API read too. For a request that
//! came by the aggregated API the API server has asked for the same already; it is asked again here, so that a mistake of
//! either is not enough.

use sentinel_api::aggregated::{ROWS, Row, TASK_GROUP};

use super::table::{Operation, Route};

/// What an operation requires of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: it has no data.
    Nothing,
    /// That the API server knows them.
    Identity,
    /// `get` of a path that is not a resource.
    Path(&'static str),
    /// The rights of a row.
    Rights(&'static Row),
    /// That the API server does it for them: the change is made with the credentials of the caller.
    OwnCredentials,
}

/// What a route requires; `None` for one without a row, which no caller may use.
pub fn of(route: &Route) -> Option<Requirement> {
    match route.operation {
        Operation::Health | Operation::Ready | Operation::Page | Operation::PageAsset => {
            Some(Requirement::Nothing)
        }
        Operation::OpenApi | Operation::Discovery => Some(Requirement::Identity),
        Operation::Metrics => Some(Requirement::Path("/metrics")),
        Operation::ListNodes
        | Operation::GetNode
        | Operation::NodeSamples
        | Operation::FleetSamples
        | Operation::ListAuditHeads
        | Operation::ListTasks
        | Operation::CreateTask
        | Operation::GetTask
        | Operation::ApplyTask
        | Operation::DeleteTask
        | Operation::CancelTask
        | Operation::RerunTask
        | Operation::ApproveTask
        | Operation::TaskEvents
        | Operation::Events
        | Operation::ListRuns
        | Operation::RunOutputs
        | Operation::RunLog
        | Operation::RunLines
        | Operation::RunLineEvents
        | Operation::SearchRun
        | Operation::ListExecutions
        | Operation::GetExecution
        | Operation::ExecutionLog
        | Operation::ExecutionLines
        | Operation::LineEvents
        | Operation::SearchLines
        | Operation::TaskLog => rights(route),
    }
}

/// Whether an operation answers with output of commands: what requires a right to the subresource `log`.
pub fn reads_output(route: &Route) -> bool {
    let Some(Requirement::Rights(row)) = of(route) else { return false };
    row.access.iter().any(|access| access.subresource == Some("log"))
}

fn rights(route: &Route) -> Option<Requirement> {
    let row = ROWS.iter().find(|row| match row.native {
        Some(native) => native == route.pattern && row.method == route.method.as_str(),
        None => route.operation == Operation::TaskLog,
    })?;
    let is_write_of_task = row.access.iter().any(|access| access.group == TASK_GROUP);
    Some(if is_write_of_task { Requirement::OwnCredentials } else { Requirement::Rights(row) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::table::ROUTES;

    #[test]
    fn every_route_has_a_requirement() {
        for route in ROUTES {
            assert!(of(route).is_some(), "nothing is required for {} {}", route.method, route.pattern);
        }
    }

    #[test]
    fn what_reads_output_is_known_by_its_right() {
        let reading: Vec<&str> =
            ROUTES.iter().filter(|route| reads_output(route)).map(|route| route.pattern).collect();
        assert!(
            reading.iter().all(|pattern| ["/log", "/lines", "/search", "/outputs", "/events"]
                .iter()
                .any(|end| pattern.contains(end))),
            "{reading:?}"
        );
        for read in ["/log", "/lines", "/lines/events", "/search", "/outputs"] {
            assert!(reading.iter().any(|pattern| pattern.ends_with(read)), "{read} is not in {reading:?}");
        }
        assert!(reads_output(&crate::http::table::TASK_LOG));
    }

    #[test]
    fn only_what_has_no_data_requires_nothing() {
        let open: Vec<&str> = ROUTES
            .iter()
            .filter(|route| of(route) == Some(Requirement::Nothing))
            .map(|route| route.pattern)
            .collect();
        assert_eq!(open, ["/healthz", "/readyz"]);
    }

    #[test]
    fn a_task_is_changed_with_the_callers_credentials_only() {
        let own: Vec<String> = ROUTES
            .iter()
            .filter(|route| of(route) == Some(Requirement::OwnCredentials))
            .map(|route| format!("{} {}", route.method, route.pattern))
            .collect();
        let path = "/api/v1/tasks/{namespace}/{name}";
        assert_eq!(own, ["POST /api/v1/tasks".to_owned(), format!("PUT {path}"), format!("DELETE {path}")]);
    }

    /// Written a second time, by hand and by what they do: who changes a row sees here that reading gives no right to run.
    #[test]
    fn what_runs_or_ends_a_command_requires_more_than_reading() {
        const READS: [&str; 3] = ["get", "list", "watch"];
        let of = |method: &str, pattern: &str| -> Vec<String> {
            let row = ROWS.iter().find(|row| row.method == method && row.native == Some(pattern)).unwrap();
            let right = |access: &sentinel_api::aggregated::Access| match access.subresource {
                Some(part) => format!("{} {}/{part}", access.verb, access.resource),
                None => format!("{} {}", access.verb, access.resource),
            };
            row.access.iter().map(right).collect()
        };
        let task = "/api/v1/tasks/{namespace}/{name}";
        assert_eq!(of("POST", "/api/v1/tasks"), ["create tasks"]);
        assert_eq!(of("PUT", task), ["create tasks", "patch tasks"]);
        assert_eq!(of("DELETE", task), ["delete tasks"]);
        for verb in ["cancel", "rerun", "approve"] {
            assert_eq!(of("POST", &format!("{task}/{verb}")), [format!("create tasks/{verb}")]);
        }
        for row in ROWS {
            assert!(!row.access.is_empty(), "{row:?}");
            let reads = row.access.iter().filter(|access| READS.contains(&access.verb)).count();
            let expected = if row.method == "GET" { row.access.len() } else { 0 };
            assert_eq!(reads, expected, "{row:?}");
        }
    }
}
