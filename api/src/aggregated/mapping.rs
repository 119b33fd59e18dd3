//! From a native request to an aggregated one, and back.

use super::PREFIX;
use super::pattern::{Parts, fill, matches};
use super::table::{ROWS, Row, Scope};
use crate::path::{escape, unescape};

/// A request, as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The row.
    pub row: &'static Row,
    /// The namespace that it names; none for all, and where it names a Task by its uid only.
    pub namespace: Option<String>,
    /// The name of the Task that it names.
    pub task: Option<String>,
    /// The uid of the Task that it names.
    pub task_uid: Option<String>,
    /// The node that it names in its path.
    pub node: Option<String>,
    /// The native path and query; none where the operation has an aggregated path only.
    pub native: Option<String>,
    /// The query, without `?`, as the native request has it.
    pub query: String,
}

/// Why a request has no counterpart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// It has none by design: a write of a Task, the page, an address that does not exist.
    #[error("{method} {path} has no address in the API group {}", super::GROUP)]
    Absent {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
    },
    /// It names a Task by its uid, and the namespace and name are needed.
    #[error("the namespace and the name of the Task with uid {uid} are needed")]
    NeedsTask {
        /// The uid.
        uid: String,
    },
    /// A query parameter is not one of the aggregated request.
    #[error("{parameter} {allowed}")]
    Query {
        /// The parameter.
        parameter: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// The row of a native request.
pub fn of_native(method: &str, path_and_query: &str) -> Option<Found> {
    let (path, query) = parted(path_and_query);
    let (row, parts) = native_row(method, path)?;
    let namespace = parts.get("namespace").map(str::to_owned).or_else(|| value_of(query, "namespace"));
    Some(found(row, &parts, namespace, Some(path_and_query.to_owned()), query.to_owned()))
}

/// The aggregated path and query of a native request. `task` is the namespace and the name of the Task that it is about,
/// which a request that names it by its uid needs.
///
/// # Errors
/// [`Unmapped`] when there is none, or `task` is needed.
pub fn to_aggregated(
    method: &str,
    path_and_query: &str,
    task: Option<(&str, &str)>,
) -> Result<String, Unmapped> {
    let (path, query) = parted(path_and_query);
    let absent = || Unmapped::Absent { method: method.to_owned(), path: path.to_owned() };
    let (row, mut parts) = native_row(method, path).ok_or_else(absent)?;
    let pattern = row.aggregated.ok_or_else(absent)?;
    let mut query: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    if row.scope == Scope::Either {
        let namespace = query.iter().find_map(|pair| value_of(pair, "namespace"));
        // The Task of a uid is in its namespace only, and a caller may have rights in that one only.
        let of_uid = task.filter(|_| query.iter().any(|pair| key_of(pair) == "taskUid"));
        if let Some(namespace) = namespace.as_deref().or(of_uid.map(|(namespace, _)| namespace)) {
            parts.set("namespace", namespace);
        }
        query.retain(|pair| key_of(pair) != "namespace");
    } else if let (None, Some(uid)) = (parts.get("namespace"), parts.get("taskUid")) {
        let uid = uid.to_owned();
        let (namespace, name) = task.ok_or(Unmapped::NeedsTask { uid })?;
        parts.set("namespace", namespace);
        parts.set("name", name);
    }
    let below = fill(pattern, &parts).ok_or_else(absent)?;
    let mut path = match parts.get("namespace") {
        Some(namespace) => format!("{PREFIX}/namespaces/{}{below}", escape(namespace)),
        None => format!("{PREFIX}{below}"),
    };
    let selector =
        parts.get("name").map(|name| format!("fieldSelector={}", escape(&format!("metadata.name={name}"))));
    if row.watch {
        query.insert(0, "watch=true");
        query.extend(selector.as_deref());
    }
    if !query.is_empty() {
        path.push('?');
        path.push_str(&query.join("&"));
    }
    Ok(path)
}

/// The row and the native form of a request of the group. Where the path has the name of a Task, it is the one that the
/// API server authorised: check a uid against it.
///
/// # Errors
/// [`Unmapped`] for an unknown path, and for a query that the row does not have.
pub fn to_native(method: &str, path_and_query: &str) -> Result<Found, Unmapped> {
    let (path, query) = parted(path_and_query);
    let absent = || Unmapped::Absent { method: method.to_owned(), path: path.to_owned() };
    let below = path.strip_prefix(PREFIX).filter(|below| below.starts_with('/')).ok_or_else(absent)?;
    let (namespace, below) = namespace_of(below).ok_or_else(absent)?;
    let mut query: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    let watched = watched(&mut query)?;
    let (row, mut parts) = ROWS
        .iter()
        .filter(|row| is_method(row, method) && row.watch == (watched != Watched::No))
        .filter(|row| match row.scope {
            Scope::Cluster => namespace.is_none(),
            Scope::Namespace => namespace.is_some(),
            Scope::Either => true,
        })
        .filter(|row| !row.watch || names_task(row) == matches!(watched, Watched::One(_)))
        .find_map(|row| Some((row, matches(row.aggregated?, below)?)))
        .ok_or_else(absent)?;
    if let Some(namespace) = &namespace {
        parts.set("namespace", namespace);
    }
    if let Watched::One(name) = &watched {
        parts.set("name", name);
    }
    let by_path = "is in the path: …/namespaces/NAMESPACE/…";
    if let Some(pair) = query.iter().find(|pair| key_of(pair) == "namespace") {
        return Err(Unmapped::Query { parameter: (*pair).to_owned(), allowed: by_path });
    }
    let in_query = namespace.as_ref().filter(|_| row.scope == Scope::Either);
    let in_query = in_query.map(|namespace| format!("namespace={}", escape(namespace)));
    query.extend(in_query.as_deref());
    let query = query.join("&");
    let native = match row.native {
        None => None,
        Some(pattern) => {
            let path = fill(pattern, &parts).ok_or_else(absent)?;
            Some(if query.is_empty() { path } else { format!("{path}?{query}") })
        }
    };
    Ok(found(row, &parts, namespace, native, query))
}

fn found(
    row: &'static Row,
    parts: &Parts,
    namespace: Option<String>,
    native: Option<String>,
    query: String,
) -> Found {
    let part = |name| parts.get(name).map(str::to_owned);
    Found { row, namespace, task: part("name"), task_uid: part("taskUid"), node: part("node"), native, query }
}

fn native_row(method: &str, path: &str) -> Option<(&'static Row, Parts)> {
    ROWS.iter().filter(|row| is_method(row, method)).find_map(|row| Some((row, matches(row.native?, path)?)))
}

fn is_method(row: &Row, method: &str) -> bool {
    row.method == method || (method == "HEAD" && row.method == "GET")
}

/// Whether its native path names a Task.
fn names_task(row: &Row) -> bool {
    row.native.is_some_and(|native| native.contains("{name}"))
}

/// The namespace at the beginning of a path below the group, and the rest.
fn namespace_of(below: &str) -> Option<(Option<String>, &str)> {
    let Some(rest) = below.strip_prefix("/namespaces/") else { return Some((None, below)) };
    let at = rest.find('/')?;
    let namespace =
        unescape(&rest[..at]).filter(|name| !name.is_empty() && !name.contains('/') && name != "..")?;
    Some((Some(namespace), &rest[at..]))
}

/// Whether a request is a watch.
#[derive(Debug, PartialEq, Eq)]
enum Watched {
    /// It is none.
    No,
    /// Of all Tasks.
    All,
    /// Of the one with this name.
    One(String),
}

/// Takes `watch` and `fieldSelector` out of a query: whether it is a watch, and the Task if it is a watch of one.
fn watched(query: &mut Vec<&str>) -> Result<Watched, Unmapped> {
    let taken = |query: &mut Vec<&str>, key: &str, allowed| {
        let all: Vec<&str> = query.iter().copied().filter(|pair| key_of(pair) == key).collect();
        query.retain(|pair| key_of(pair) != key);
        let refused = |pair: &&str| Unmapped::Query { parameter: (*pair).to_owned(), allowed };
        match all[..] {
            [] => Ok(None),
            [pair] => value_of(pair, key).map(Some).ok_or_else(|| refused(&pair)),
            [_, again, ..] => Err(refused(&again)),
        }
    };
    let is_bool = "must be true or false, once";
    let is_watch = match taken(query, "watch", is_bool)?.as_deref() {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(other) => return Err(Unmapped::Query { parameter: format!("watch={other}"), allowed: is_bool }),
    };
    let is_selector = "must be metadata.name=NAME, once, with watch=true";
    let selector = taken(query, "fieldSelector", is_selector)?;
    let name = match selector {
        None => None,
        Some(text) => match text.strip_prefix("metadata.name=").map(|rest| rest.trim_start_matches('=')) {
            Some(name) if is_watch && !name.is_empty() && !name.contains([',', '=']) => Some(name.to_owned()),
            _ => {
                let parameter = format!("fieldSelector={text}");
                return Err(Unmapped::Query { parameter, allowed: is_selector });
            }
        },
    };
    Ok(match name {
        _ if !is_watch => Watched::No,
        None => Watched::All,
        Some(name) => Watched::One(name),
    })
}

fn parted(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_once('?').unwrap_or((path_and_query, ""))
}

/// The name of a query parameter as it is written: an escaped one is none that this API has.
fn key_of(pair: &str) -> String {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    unescape(key).unwrap_or_else(|| key.to_owned())
}

/// The first value of a query parameter.
fn value_of(query: &str, key: &str) -> Option<String> {
    let pair = query.split('&').find(|pair| key_of(pair) == key)?;
    unescape(&pair.split_once('=')?.1.replace('+', " "))
}
