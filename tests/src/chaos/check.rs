//! Compares what the recorders wrote with Task status, History and logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use kube::Api;
use kube::api::ListParams;
use sentinel_operator::resource::Task;
use serde_json::Value;

use super::behavior::Behavior;
use super::faults::InjectedFaults;
use super::fleet::Fleet;
use super::load_generator::Requests;
use super::recording::{Recorded, Recording};

/// How long the log of a deleted Task may take into History: no condition shows it any more.
const LOG_PATIENCE: Duration = Duration::from_secs(15);

/// Result of the check.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Tasks that are still there.
    pub tasks: usize,
    /// Targets of all their Runs, and Attempts of deleted Tasks.
    pub executions: usize,
    /// Attempts that a recorder saw start.
    pub attempts: usize,
    /// Most starts of one Attempt.
    pub most_starts: usize,
    /// Executions without a result, or with another one than was recorded.
    pub results_lost: usize,
    /// Executions that are `Lost` or `Interrupted` without a fault that explains it.
    pub unjustified: usize,
    /// Bytes of output that were compared.
    pub bytes: u64,
    /// Bytes that are missing and marked so.
    pub bytes_marked: u64,
    /// Bytes that are missing, or wrong, without a marker.
    pub bytes_missing: u64,
    /// Executions by outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Every violation, described.
    pub violations: Vec<String>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tasks {}, executions {}", self.tasks, self.executions)?;
        writeln!(f, "outcomes {:?}", self.outcomes)?;
        writeln!(f, "attempts that started     {:>10}", self.attempts)?;
        writeln!(f, "starts per attempt (max)  {:>10}", self.most_starts)?;
        writeln!(f, "results lost              {:>10}", self.results_lost)?;
        writeln!(f, "unjustified Lost          {:>10}", self.unjustified)?;
        writeln!(f, "log bytes compared        {:>10}", self.bytes)?;
        writeln!(f, "log bytes marked dropped  {:>10}", self.bytes_marked)?;
        writeln!(f, "log bytes missing         {:>10}", self.bytes_missing)?;
        writeln!(f, "violations                {:>10}", self.violations.len())?;
        for violation in self.violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

/// Input of the check.
pub struct Case<'a> {
    /// What was asked for.
    pub requests: &'a Requests,
    /// What was done to the system.
    pub injected: &'a InjectedFaults,
    /// What the recorders wrote.
    pub recording: &'a Recording,
    /// The longest that a command takes, not counting faults, milliseconds.
    pub most_millis: u64,
}

/// Waits until the Run of every Task is over and archived. Returns all Tasks, and a description of what was still open
/// at the deadline.
///
/// # Errors
/// That the API server did not even list them.
pub async fn settle(
    fleet: &Fleet,
    requests: &Requests,
    within: Duration,
) -> Result<(Vec<Task>, Vec<String>), String> {
    let api = Api::<Task>::namespaced(fleet.namespace.client.clone(), &fleet.namespace.name);
    let begun = Instant::now();
    loop {
        fleet.restart_if_exited().await;
        let listed = api.list(&ListParams::default()).await.map_err(|error| error.to_string());
        let is_late = begun.elapsed() > within;
        match listed {
            Ok(list) => {
                let mut open: Vec<String> = list.items.iter().filter_map(unsettled).collect();
                if open.is_empty() || is_late {
                    open.extend(vanished(&list.items, requests));
                    return Ok((list.items, open));
                }
            }
            Err(error) if is_late => return Err(format!("not within {within:?}: {error}")),
            Err(_) => {}
        }
        // A list of every Task is real work for an API server that shares two cores with all else here.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Tasks that disappeared without a deletion.
fn vanished(tasks: &[Task], requests: &Requests) -> Vec<String> {
    let there: BTreeSet<&str> = tasks.iter().filter_map(|task| task.metadata.name.as_deref()).collect();
    let gone = requests.created.iter().filter(|name| !there.contains(name.as_str()));
    let gone = gone.filter(|name| !requests.deleted.contains(*name));
    gone.map(|name| format!("{name}: gone without a deletion")).collect()
}

/// What a Task still waits for.
fn unsettled(task: &Task) -> Option<String> {
    let name = task.metadata.name.as_deref().unwrap_or_default();
    let why = |what: &str| Some(format!("{name}: {what}; {}", summary(task)));
    if task.metadata.deletion_timestamp.is_some() {
        return why("it is being deleted");
    }
    let Some(status) = &task.status else { return why("no status") };
    if Some(status.observed_generation) != task.metadata.generation {
        return why("the latest spec was not observed");
    }
    let asked = task.metadata.annotations.as_ref().and_then(|all| all.get("sentinelnode.dev/rerun"));
    if asked.is_some() && asked != status.handled.rerun.as_ref() {
        return why("a rerun was not acted on");
    }
    if status.run.as_ref().is_none_or(|run| run.finished_at.is_none()) {
        return why("its Run is not over");
    }
    let archived = status.conditions.iter().find(|condition| condition.type_ == "Archived");
    if archived.is_none_or(|condition| condition.status != "True") {
        return why("it is not archived");
    }
    None
}

fn summary(task: &Task) -> String {
    let Some(status) = &task.status else { return String::new() };
    let ended = ["Succeeded", "Failed"];
    let nodes = status.nodes.iter().filter(|node| !ended.contains(&node.state.as_str()));
    let nodes: Vec<_> = nodes.map(|node| format!("{} {} {}", node.node, node.state, node.reach)).collect();
    let conditions = status.conditions.iter().filter(|c| c.type_ == "Archived" || c.status == "True");
    let conditions: Vec<_> =
        conditions.map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message)).collect();
    let uid = task.metadata.uid.as_deref().unwrap_or_default();
    let run = status.run.as_ref().map(|run| run.number);
    format!("uid {uid}, run {run:?}, phase {:?}, {nodes:?}, {conditions:?}", status.phase)
}

/// Every Execution that History has, by id.
///
/// # Errors
/// The answer of the API, when it is not a success.
pub async fn executions(fleet: &Fleet) -> Result<BTreeMap<String, Value>, String> {
    let mut all = BTreeMap::new();
    let mut page = String::new();
    loop {
        let answer = fleet.get(&format!("/api/v1/executions?limit=500{page}")).await?;
        for item in answer["items"].as_array().into_iter().flatten() {
            all.insert(item["id"].as_str().unwrap_or_default().to_owned(), item.clone());
        }
        match answer["next"].as_str() {
            Some(next) => page = format!("&page={next}"),
            None => return Ok(all),
        }
    }
}

/// Compares recordings, status, History and logs.
///
/// # Errors
/// When the API does not answer.
pub async fn check(fleet: &Fleet, tasks: &[Task], case: &Case<'_>) -> Result<Findings, String> {
    let history = executions(fleet).await?;
    let mut findings = Findings { tasks: tasks.len(), attempts: case.recording.len(), ..Findings::default() };
    let mut expected: BTreeSet<String> = tasks.iter().flat_map(targets).collect();
    expected.extend(case.recording.keys().filter_map(|id| id.rsplit_once('/')).map(|(id, _)| id.to_owned()));
    findings.executions = expected.len();
    for id in &expected {
        let recorded = case.recording.get(&format!("{id}/1")).cloned().unwrap_or_default();
        findings.most_starts = findings.most_starts.max(recorded.starts.len());
        if recorded.starts.len() > 1 || recorded.exits.len() > 1 {
            findings.violations.push(format!("{id}: started more than once: {recorded:?}"));
        }
        check_outcome(&mut findings, case, id, &history, &recorded);
    }
    for task in tasks {
        check_status(&mut findings, task, &history);
    }
    for log in check_logs(fleet, case, &history).await {
        findings.bytes += log.bytes;
        findings.bytes_marked += log.marked;
        findings.bytes_missing += log.missing;
        findings.violations.extend(log.violation);
    }
    Ok(findings)
}

/// Ids of the Executions of all Runs of a Task.
fn targets(task: &Task) -> Vec<String> {
    let uid = task.metadata.uid.as_deref().unwrap_or_default();
    let runs = task.status.as_ref().and_then(|status| status.run.as_ref()).map_or(0, |run| run.number);
    let nodes = task.spec.targets.node_names.iter().flatten();
    nodes.flat_map(|node| (1..=runs).map(move |run| format!("{uid}/{run}/{node}"))).collect()
}

fn check_outcome(
    findings: &mut Findings,
    case: &Case<'_>,
    id: &str,
    history: &BTreeMap<String, Value>,
    recorded: &Recorded,
) {
    let record = history.get(id);
    let Some(record) = record.filter(|record| record["outcome"].is_string()) else {
        findings.results_lost += 1;
        findings.violations.push(format!("{id}: no result in History: {record:?}; recorded: {recorded:?}"));
        return;
    };
    let outcome = record["outcome"].as_str().unwrap_or_default();
    *findings.outcomes.entry(outcome.to_owned()).or_default() += 1;
    let task = record["task"].as_str().unwrap_or_default();
    let run = record["run"].as_u64().unwrap_or_default() as u32;
    let cancelled =
        case.requests.cancelled.contains(&(task.to_owned(), run)) || case.requests.deleted.contains(task);
    // A Run that a later one waits for starts nothing more.
    let next = format!("{}/{}/", record["taskUid"].as_str().unwrap_or_default(), run + 1);
    let followed = history.range(next.clone()..).next().is_some_and(|(id, _)| id.starts_with(&next));
    let cut_off = case.injected.supervisors.contains(&format!("{id}/1"));
    let explained = match outcome {
        "Cancelled" => cancelled,
        "NotStarted" => (cancelled || followed) && recorded.starts.is_empty(),
        "Interrupted" | "Lost" => cut_off,
        _ => false,
    };
    let as_seen = recorded.exits.first().is_some_and(|code| {
        let expected = if *code == 0 { "Succeeded" } else { "Failed" };
        outcome == expected && record["exitCode"].as_u64() == Some(u64::from(*code))
    });
    if as_seen || explained {
        return;
    }
    if matches!(outcome, "Lost" | "Interrupted") {
        findings.unjustified += 1;
    } else {
        findings.results_lost += 1;
    }
    findings.violations.push(format!("{id}: {record} differs from what was recorded: {recorded:?}"));
}

/// Task status and History must agree.
fn check_status(findings: &mut Findings, task: &Task, history: &BTreeMap<String, Value>) {
    let uid = task.metadata.uid.as_deref().unwrap_or_default();
    let Some(status) = &task.status else { return };
    let Some(run) = &status.run else { return };
    for node in &status.nodes {
        let id = format!("{uid}/{}/{}", run.number, node.node);
        let outcome = history.get(&id).and_then(|record| record["outcome"].as_str());
        if outcome != Some(node.state.as_str()) {
            let line = format!("{id}: status has {}, History has {outcome:?}", node.state);
            findings.violations.push(line);
        }
    }
}

/// What became of one stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    bytes: u64,
    marked: u64,
    missing: u64,
    violation: Option<String>,
}

async fn check_logs(fleet: &Fleet, case: &Case<'_>, history: &BTreeMap<String, Value>) -> Vec<Log> {
    let whole = |id: &str| {
        let outcome = history.get(id).and_then(|record| record["outcome"].as_str());
        matches!(outcome, Some("Succeeded" | "Failed"))
    };
    let ids = case.recording.keys().filter_map(|id| id.rsplit_once('/')).map(|(id, _)| id.to_owned());
    stream::iter(ids.flat_map(|id| [(id.clone(), false), (id, true)]))
        .map(|(id, stderr)| {
            let whole = whole(&id);
            async move { check_log(fleet, &id, stderr, whole, case.most_millis).await }
        })
        .buffer_unordered(6)
        .collect()
        .await
}

/// Reads one stream of one Attempt and compares it with what its recorder writes: all of it if the command ended
/// normally, otherwise a prefix.
async fn check_log(fleet: &Fleet, id: &str, stderr: bool, whole: bool, most_millis: u64) -> Log {
    let expected = Behavior::of(&format!("{id}/1"), most_millis).stream(stderr);
    let stream = if stderr { "stderr" } else { "stdout" };
    let path = format!("/api/v1/executions/{id}/log?stream={stream}");
    let begun = Instant::now();
    loop {
        let log = match fleet.text(&path).await {
            Ok(got) => compare(&expected, &got, whole),
            Err(error) => Log {
                missing: if whole { expected.len() as u64 } else { 0 },
                violation: Some(error),
                ..Log::default()
            },
        };
        let Some(why) = &log.violation else { return log };
        if begun.elapsed() > LOG_PATIENCE {
            return Log { violation: Some(format!("{id} {stream}: {why}")), ..log };
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn compare(expected: &str, got: &str, whole: bool) -> Log {
    let mut log = Log { bytes: got.len() as u64, ..Log::default() };
    let mut at = 0;
    for line in got.split_inclusive('\n') {
        let rest = expected.get(at..).unwrap_or_default();
        if let Some(gap) = line.strip_prefix("[sentinel: ") {
            let bytes = gap.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            log.marked += bytes;
            at += bytes as usize;
        } else if rest.starts_with(line) {
            at += line.len();
        } else if !line.is_empty() && rest.starts_with(line.trim_end()) {
            // A gap marker is a line of its own, so the previous line is terminated early.
            at += line.trim_end().len();
        } else {
            log.missing = (expected.len() - at.min(expected.len())) as u64;
            log.violation = Some(format!("at byte {at} got {line:?} instead of {:?}", rest.lines().next()));
            return log;
        }
    }
    if whole && at != expected.len() {
        log.missing = (expected.len() - at.min(expected.len())) as u64;
        log.violation = Some(format!("{at} bytes of {} are present or marked as dropped", expected.len()));
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_missing_bytes_without_marker() {
        let expected = "one\ntwo\nthree\n";
        assert_eq!(compare(expected, expected, true), Log { bytes: 14, ..Log::default() });
        assert_eq!(compare(expected, "one\ntwo\n", true).missing, 6);
        assert_eq!(compare(expected, "one\nthree\n", true).missing, 10);
        assert_eq!(compare(expected, "one\nt", false), Log { bytes: 5, ..Log::default() });
    }

    #[test]
    fn does_not_count_marked_gap_as_missing() {
        let got = "one\n[sentinel: 4 bytes dropped here: x]\nthree\n";
        let log = compare("one\ntwo\nthree\n", got, true);
        assert_eq!((log.marked, log.missing, log.violation), (4, 0, None));
        let got = "one\nt\n[sentinel: 3 bytes dropped here: x]\nthree\n";
        assert_eq!(compare("one\ntwo\nthree\n", got, true).violation, None);
    }
}
