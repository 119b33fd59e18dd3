//! Cluster events about Tasks, in `events.k8s.io/v1`.
//!
//! Equal notices are one event: its name is a digest of its content, so that a repetition, by any operator, finds the
//! existing event and adds to its series. Different notices are different events; the Recorder of kube merges those
//! with the same reason, and shows the first note for all of them.
//!
//! Every event is an object in etcd for an hour. A Task that runs every second must not fill it: [`Limiter`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch};
use kube::{Api, Client, Resource, ResourceExt};
use sentinel_core::reconcile::{Level, Notice};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::call::{Repeat, call};
use super::client::{OPERATOR_MANAGER, patches_as, writes_as};
use super::error::ClusterError;
use super::seams::Publication;
use super::targets::display;
use crate::digest;
use crate::resource::Task;

/// Longest note, bytes: the API server accepts 1 KiB.
const MAX_NOTE: usize = 1000;

/// Longest name of an instance, bytes, for the API server.
const MAX_INSTANCE: usize = 128;

/// Longest name of an object, bytes.
const MAX_NAME: usize = 253;

/// Attempts to add to the series of an event while other processes do the same.
const ATTEMPTS: usize = 4;

/// Publishes events. Clones share the limits.
#[derive(Clone)]
pub(super) struct Events {
    client: Client,
    instance: String,
    limiter: Arc<Mutex<Limiter>>,
}

impl Events {
    /// `instance` names this process.
    pub(super) fn new(client: Client, instance: Option<String>) -> Self {
        let mut instance = instance.unwrap_or_else(|| OPERATOR_MANAGER.to_owned());
        instance.truncate(instance.floor_char_boundary(MAX_INSTANCE));
        Self { client, instance, limiter: Arc::default() }
    }

    /// Publishes a notice about the Task, within the rate limit.
    pub(super) async fn publish(&self, task: &Task, notice: &Notice) -> Result<Publication, ClusterError> {
        let uid = task.uid().unwrap_or_default();
        let admission =
            self.limiter.lock().unwrap_or_else(PoisonError::into_inner).take(&uid, Instant::now());
        let Admission::Admitted { left_out } = admission else { return Ok(Publication::LeftOut) };
        let event = self.event(task, notice, left_out);
        let name = event.name_any();
        let api: Api<Event> =
            Api::namespaced(self.client.clone(), &task.namespace().unwrap_or_else(|| "default".to_owned()));
        let doing = format!("publish an event about Task {}", display(task));
        let params = writes_as(OPERATOR_MANAGER);
        for _ in 0..ATTEMPTS {
            match call(&doing, Repeat::Unprocessed, || api.create(&params, &event)).await {
                Err(ClusterError::Exists { .. }) => {}
                created => return created.map(|_| Publication::Published),
            }
            match repeat(&api, &name, &doing).await {
                // It has expired, or another operator has added to it.
                Err(ClusterError::Gone { .. } | ClusterError::Conflict { .. }) => {}
                repeated => return repeated.map(|()| Publication::Published),
            }
        }
        Err(ClusterError::Conflict { doing })
    }

    fn event(&self, task: &Task, notice: &Notice, left_out: u32) -> Event {
        let type_ = match notice.level {
            Level::Normal => "Normal",
            Level::Warning => "Warning",
        };
        let note = note(&notice.note, left_out);
        Event {
            metadata: ObjectMeta {
                name: Some(name(task, type_, notice.reason, &note)),
                namespace: task.namespace(),
                ..ObjectMeta::default()
            },
            action: Some(action(notice.reason).to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(note),
            reason: Some(notice.reason.to_owned()),
            regarding: Some(task.object_ref(&())),
            reporting_controller: Some(OPERATOR_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(type_.to_owned()),
            ..Event::default()
        }
    }
}

/// Adds one to the series of an existing event. Conflict when another process has done so meanwhile.
async fn repeat(api: &Api<Event>, name: &str, doing: &str) -> Result<(), ClusterError> {
    let existing = call(doing, Repeat::Idempotent, || api.get(name)).await?;
    let count = existing.series.as_ref().map_or(1, |series| series.count).saturating_add(1);
    let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
    let body = json!({"metadata": {"resourceVersion": existing.metadata.resource_version}, "series": series});
    let (params, patch) = (patches_as(OPERATOR_MANAGER), Patch::Merge(&body));
    call(doing, Repeat::Unprocessed, || api.patch(name, &params, &patch)).await?;
    Ok(())
}

/// The `action` of an event: what the operator did, for programs.
fn action(reason: &str) -> &'static str {
    match reason {
        "RunStarted" => "StartRun",
        "RunComplete" | "RunFailed" | "CommandRefused" => "FinishRun",
        _ => "Reconcile",
    }
}

/// The note, and how many earlier events are missing.
fn note(text: &str, left_out: u32) -> String {
    let missing = match left_out {
        0 => String::new(),
        1 => "; 1 event before this one was left out".to_owned(),
        more => format!("; {more} events before this one were left out"),
    };
    let room = MAX_NOTE - missing.len();
    format!("{}{missing}", &text[..text.floor_char_boundary(room)])
}

/// The Task's name, and a digest of the Task's uid and the event's content.
fn name(task: &Task, type_: &str, reason: &str, note: &str) -> String {
    let mut hash = Sha256::new();
    for part in [task.metadata.uid.as_deref().unwrap_or_default(), type_, reason, note] {
        hash.update(part);
        hash.update([0]);
    }
    let digest = digest::short(hash);
    let mut name = task.name_any();
    name.truncate(name.floor_char_boundary(MAX_NAME - 1 - digest.len()));
    format!("{}.{digest}", name.trim_end_matches(['.', '-']))
}

/// A token bucket: `burst` at once, then one in each interval.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// For one Task: fifty Runs with a beginning and an end, then one Run a minute.
const OF_A_TASK: Rate = Rate { burst: 100, every: Duration::from_secs(30) };

/// For all Tasks together.
const OF_ALL: Rate = Rate { burst: 500, every: Duration::from_millis(100) };

/// Tasks whose events are counted; beyond that, the one without events for longest is dropped.
const MAX_TASKS: usize = 4096;

/// Whether an event may be published.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    /// It may; this many of the Task were left out since the last one.
    Admitted { left_out: u32 },
    /// It may not: it is left out, and counted.
    LeftOut,
}

/// Limits events to [`OF_A_TASK`] and [`OF_ALL`].
#[derive(Debug, Default)]
struct Limiter {
    all: Option<Instant>,
    tasks: HashMap<String, Bucket>,
}

/// The bucket of a Task: when it is full again, and how many events it has refused.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
    left_out: u32,
}

impl Limiter {
    fn take(&mut self, uid: &str, now: Instant) -> Admission {
        if !self.tasks.contains_key(uid) {
            self.make_room(now);
        }
        let bucket = self.tasks.entry(uid.to_owned()).or_insert(Bucket { full_at: now, left_out: 0 });
        let of_task = spend(OF_A_TASK, bucket.full_at, now);
        let Some((full_at, all)) = of_task.zip(spend(OF_ALL, self.all.unwrap_or(now), now)) else {
            bucket.left_out = bucket.left_out.saturating_add(1);
            return Admission::LeftOut;
        };
        self.all = Some(all);
        bucket.full_at = full_at;
        Admission::Admitted { left_out: std::mem::take(&mut bucket.left_out) }
    }

    /// A full bucket without refused events needs no entry.
    fn make_room(&mut self, now: Instant) {
        if self.tasks.len() < MAX_TASKS {
            return;
        }
        self.tasks.retain(|_, bucket| bucket.full_at > now || bucket.left_out > 0);
        while self.tasks.len() >= MAX_TASKS {
            let idle = self.tasks.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(uid, _)| uid.clone());
            let Some(idle) = idle else { return };
            self.tasks.remove(&idle);
        }
    }
}

/// When the bucket is full again after one more event; `None` when it is empty.
fn spend(rate: Rate, full_at: Instant, now: Instant) -> Option<Instant> {
    let full_at = full_at.max(now) + rate.every;
    (full_at <= now + rate.every * rate.burst).then_some(full_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(limiter: &mut Limiter, uid: &str, times: u32, now: Instant) -> u32 {
        (0..times).map(|_| u32::from(limiter.take(uid, now) != Admission::LeftOut)).sum()
    }

    #[test]
    fn a_busy_task_publishes_a_burst_then_one_event_in_30_s() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        assert_eq!(published(&mut limiter, "busy", 1000, now), 100);
        assert_eq!(published(&mut limiter, "quiet", 3, now), 3, "others are not held back");
        let later = now + Duration::from_secs(61);
        assert_eq!(limiter.take("busy", later), Admission::Admitted { left_out: 900 });
        assert_eq!(limiter.take("busy", later), Admission::Admitted { left_out: 0 });
        assert_eq!(limiter.take("busy", later), Admission::LeftOut);
        assert_eq!(published(&mut limiter, "busy", 1000, now + Duration::from_hours(2)), 100);
    }

    #[test]
    fn all_tasks_together_are_limited() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let at_once: u32 = (0..6000).map(|n| published(&mut limiter, &n.to_string(), 1, now)).sum();
        assert_eq!(at_once, 500);
        assert!(limiter.tasks.len() <= MAX_TASKS, "{} Tasks are remembered", limiter.tasks.len());
        assert_eq!(published(&mut limiter, "later", 50, now + Duration::from_secs(1)), 10);
    }

    #[test]
    fn a_note_is_cut_and_counts_missing_events() {
        assert_eq!(note("run 7 begins", 0), "run 7 begins");
        assert_eq!(note("run 7 begins", 12), "run 7 begins; 12 events before this one were left out");
        let long = note(&"é".repeat(2000), 1);
        assert!(long.len() <= MAX_NOTE && long.ends_with("was left out"), "{}", long.len());
    }
}
