//! `--sort-by`: sorts a list by a column, or by a field of `-o json`.

use std::cmp::Ordering;

use serde_json::Value;

use crate::args::Noun;
use crate::exit::Failure;

/// Sorts ascending and stably; rows without the field come last.
///
/// # Errors
/// No row has the field.
pub(super) fn by(items: &mut [Value], field: &str, noun: &Noun) -> Result<(), Failure> {
    let columns = columns(noun);
    let column = columns.iter().find(|(column, _)| column.eq_ignore_ascii_case(field.trim()));
    let path = column.map_or_else(|| parse(field), |(_, path)| parse(path));
    if !items.is_empty() && items.iter().all(|item| find(item, &path).is_null()) {
        let names: Vec<&str> = columns.iter().map(|(column, _)| *column).collect();
        return Err(Failure::usage(format!("unknown column or field {field:?}"))
            .hint(format!("Columns: {}. Or a field of -o json, such as .metadata.name", names.join(", "))));
    }
    items.sort_by(|a, b| compare(find(a, &path), find(b, &path)));
    Ok(())
}

/// The columns of each table, and the field that each shows.
fn columns(noun: &Noun) -> &'static [(&'static str, &'static str)] {
    match noun {
        Noun::Tasks { .. } => &[
            ("name", "metadata.name"),
            ("namespace", "metadata.namespace"),
            ("phase", "status.phase"),
            ("nodes", "status.run.targetCount"),
            ("ok", "status.run.counts.succeeded"),
            ("failed", "status.run.counts.failed"),
            ("unreachable", "status.run.counts.unreachable"),
            ("running", "status.run.counts.running"),
            ("waiting", "status.run.counts.waiting"),
            ("age", "metadata.creationTimestamp"),
        ],
        Noun::Runs { .. } => &[
            ("task", "task"),
            ("namespace", "namespace"),
            ("run", "run"),
            ("verdict", "verdict"),
            ("trigger", "trigger"),
            ("nodes", "targets"),
            ("started", "startedAt"),
        ],
        Noun::Executions(_) => &[
            ("task", "task"),
            ("namespace", "namespace"),
            ("run", "run"),
            ("node", "node"),
            ("state", "state"),
            ("code", "exitCode"),
            ("duration", "durationMs"),
            ("started", "startedAt"),
        ],
        Noun::Nodes { .. } => &[
            ("name", "name"),
            ("reachable", "reachable"),
            ("seen", "lastHeardAt"),
            ("cpu", "metrics.cpuPercent"),
            ("memory", "metrics.memoryUsed"),
            ("running", "metrics.running"),
            ("uptime", "metrics.uptimeSeconds"),
        ],
    }
}

/// The parts of a path: `.metadata.name`, `{.metadata.name}` and `metadata.name` are equal.
fn parse(field: &str) -> Vec<&str> {
    let field = field.trim();
    let field = field.strip_prefix('{').and_then(|field| field.strip_suffix('}')).unwrap_or(field);
    field.split('.').filter(|part| !part.is_empty()).collect()
}

fn find<'a>(item: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(item, |value, part| &value[*part])
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NODES: Noun = Noun::Nodes { name: None };

    fn sorted(items: &Value, field: &str, noun: &Noun) -> Vec<String> {
        let mut items = items.as_array().unwrap().clone();
        by(&mut items, field, noun).unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn sorts_by_column_or_field_with_missing_values_last() {
        let nodes = json!([
            {"name": "b", "metrics": {"cpuPercent": 9.5}},
            {"name": "c"},
            {"name": "a", "metrics": {"cpuPercent": 10}},
        ]);
        assert_eq!(sorted(&nodes, "name", &NODES), ["a", "b", "c"]);
        assert_eq!(sorted(&nodes, "CPU", &NODES), ["b", "a", "c"]);
        for field in [".metrics.cpuPercent", "{.metrics.cpuPercent}"] {
            assert_eq!(sorted(&nodes, field, &NODES), ["b", "a", "c"]);
        }
        let mut items = nodes.as_array().unwrap().clone();
        let error = by(&mut items, "color", &NODES).unwrap_err();
        assert!(error.hint.unwrap().contains("Columns: name, reachable"));
        assert!(by(&mut [], "color", &NODES).is_ok());
    }
}
