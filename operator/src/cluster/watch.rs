//! Watches that recover from every failure.
//!
//! A list-watch loop of our own, because kube's watcher has three habits that we cannot accept: an HTTP 410 in answer to
//! a watch request is retried with the same resourceVersion forever, a 410 inside of a watch relists in a hot loop, and
//! it does not show when it last received anything. Here
//!
//! * "gone" in any form leads to a new list, and so do a few failures in a row;
//! * two lists are at least [`BETWEEN_LISTS`] apart, with jitter;
//! * a watch lasts [`WATCH_FOR`], so that a dead one is found soon after;
//! * an object that cannot be decoded is skipped, logged once and counted; its previous version is kept;
//! * [`WatchHealth`] shows in readiness and metrics how long the API server has been silent.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, WatchEvent, WatchParams};
use kube::runtime::watcher::Event;
use kube::{Api, ResourceExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::{Backoff, jitter};
use crate::health::Health;
use crate::metrics::{Kind, Registry};

/// Least time between two lists of one kind.
pub const BETWEEN_LISTS: Duration = Duration::from_secs(5);

/// How long one watch lasts; then the server ends it, and the next continues from there.
pub const WATCH_FOR: Duration = Duration::from_mins(1);

/// Silence of the API server after which a watch counts as dead: it answers at least once in every [`WATCH_FOR`].
pub const DEAD_AFTER: Duration = Duration::from_mins(2);

/// Silence beyond the end of a watch after which it is opened again.
const OVERDUE: Duration = Duration::from_secs(10);

/// Time within which one page of a list, or the beginning of a watch, must be answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Objects on one page of a list.
const PAGE: u32 = 500;

/// Failures of a watch in a row after which it lists again.
const FAILURES_BEFORE_LIST: u32 = 3;

/// Most undecodable objects that are remembered, so that each is logged once.
const MAX_UNREADABLE: usize = 1000;

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(15) };

/// How much of each object is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole,
    /// Its metadata alone.
    Metadata,
}

/// The health of one watch.
#[derive(Debug)]
pub struct WatchHealth {
    /// What is watched, in the plural: also the label of its metrics.
    pub what: &'static str,
    /// When the API server last answered; before the first answer, when this was made.
    last_contact: Mutex<Instant>,
    lists: AtomicU64,
    failures: AtomicU64,
    unreadable: AtomicU64,
}

impl WatchHealth {
    /// Nothing was received yet.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            last_contact: Mutex::new(Instant::now()),
            lists: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }

    /// Time since the API server last answered this watch, or since the start when it never has.
    pub fn silence(&self) -> Duration {
        self.last_contact.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Why the watch counts as dead; `None` while it does not.
    pub fn problem(&self) -> Option<String> {
        let silence = self.silence();
        (silence > DEAD_AFTER).then(|| {
            format!(
                "the watch of {} has received nothing from the API server for {} s",
                self.what,
                silence.as_secs()
            )
        })
    }

    /// Lists made so far.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Lists and watches that failed so far.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Objects that could not be decoded, each version counted once.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Makes it part of readiness and of the metrics.
    pub fn publish(self: &Arc<Self>, health: &Health, metrics: &Registry) {
        let watch = Arc::clone(self);
        health.check(self.check_name(), move || watch.problem());
        let series = |kind, name, help, value: fn(&Self) -> f64| {
            let watch = Arc::clone(self);
            metrics.computed(kind, name, help, &[("what", self.what)], move || value(&watch));
        };
        let silence = "Seconds since the API server last answered a watch.";
        series(Kind::Gauge, "sentinel_watch_silence_seconds", silence, |watch| watch.silence().as_secs_f64());
        let lists = "Lists made by a watch.";
        series(Kind::Counter, "sentinel_watch_lists_total", lists, |watch| watch.lists() as f64);
        let failures = "Failed lists and watch requests.";
        series(Kind::Counter, "sentinel_watch_failures_total", failures, |watch| watch.failures() as f64);
        let unreadable = "Versions of objects that could not be decoded.";
        series(Kind::Counter, "sentinel_watch_unreadable_total", unreadable, |watch| {
            watch.unreadable() as f64
        });
    }

    fn check_name(&self) -> &'static str {
        match self.what {
            "tasks" => "the watch of tasks",
            "nodes" => "the watch of nodes",
            other => other,
        }
    }

    fn received(&self) {
        *self.last_contact.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Decodes one object; the reason when it cannot.
pub type Decode<K> = fn(DynamicObject) -> Result<K, String>;

/// All objects of a kind and then every change; it never ends.
pub fn follow<K>(
    api: Api<DynamicObject>,
    content: Content,
    decode: Decode<K>,
    health: Arc<WatchHealth>,
) -> BoxStream<'static, Event<K>>
where
    K: Debug + Send + 'static,
{
    let follower = Follower {
        api,
        content,
        decode,
        health,
        phase: Phase::List,
        next_list: Instant::now(),
        failures: 0,
        unreadable: HashMap::new(),
        ready: VecDeque::new(),
    };
    stream::unfold(follower, |mut follower| async move {
        loop {
            if let Some(event) = follower.ready.pop_front() {
                return Some((event, follower));
            }
            follower.step().await;
        }
    })
    .boxed()
}

struct Follower<K> {
    api: Api<DynamicObject>,
    content: Content,
    decode: Decode<K>,
    health: Arc<WatchHealth>,
    phase: Phase,
    next_list: Instant,
    failures: u32,
    /// Undecodable objects by uid, with the version that was logged.
    unreadable: HashMap<String, String>,
    ready: VecDeque<Event<K>>,
}

/// ```text
/// List ──all pages──▶ Watch(version) ──end──▶ Watch(later version)
///   ▲                     │
///   └───── gone, or failed a few times ◀─┘
/// ```
enum Phase {
    List,
    Watch(String),
    Watching(String, BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>),
}

/// Why a step failed.
enum Failure {
    /// The version is too old for the server: a list is needed.
    Gone,
    /// Anything else.
    Other(String),
}

impl<K: Debug + Send + 'static> Follower<K> {
    /// One step; its events go to `ready`. Cancellation safe: the phase changes after the last await.
    async fn step(&mut self) {
        let failed = match &mut self.phase {
            Phase::List => {
                sleep_until(self.next_list).await;
                self.next_list = Instant::now() + BETWEEN_LISTS + jitter(BETWEEN_LISTS / 5);
                self.list().await
            }
            Phase::Watch(_) => self.begin_watch().await,
            Phase::Watching(..) => self.read_watch().await,
        };
        let Err(failure) = failed else {
            self.health.received();
            return;
        };
        self.health.failures.fetch_add(1, Ordering::Relaxed);
        self.failures += 1;
        match failure {
            Failure::Gone => {
                tracing::info!(what = self.health.what, "resourceVersion is too old; listing again");
                self.phase = Phase::List;
            }
            Failure::Other(error) => {
                tracing::warn!(what = self.health.what, %error, failures = self.failures, "watch failed; will retry");
                self.phase = match std::mem::replace(&mut self.phase, Phase::List) {
                    Phase::Watch(version) | Phase::Watching(version, _)
                        if self.failures < FAILURES_BEFORE_LIST =>
                    {
                        Phase::Watch(version)
                    }
                    _ => Phase::List,
                };
                tokio::time::sleep(BACKOFF.after(self.failures)).await;
            }
        }
    }

    async fn list(&mut self) -> Result<(), Failure> {
        self.health.lists.fetch_add(1, Ordering::Relaxed);
        let mut params = ListParams::default().limit(PAGE);
        let mut events = VecDeque::from([Event::Init]);
        loop {
            let page = within(ANSWER_WITHIN, list_page(&self.api, self.content, &params)).await?;
            let version = page.metadata.resource_version.clone().unwrap_or_default();
            events.extend(
                page.items.into_iter().filter_map(|object| self.decode(object)).map(Event::InitApply),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None if version.is_empty() => {
                    return Err(Failure::Other("the list has no resourceVersion".to_owned()));
                }
                None => {
                    events.push_back(Event::InitDone);
                    self.ready.append(&mut events);
                    self.phase = Phase::Watch(version);
                    return Ok(());
                }
            }
        }
    }

    async fn begin_watch(&mut self) -> Result<(), Failure> {
        let Phase::Watch(version) = &self.phase else { return Ok(()) };
        let version = version.clone();
        let params = WatchParams::default().timeout(u32::try_from(WATCH_FOR.as_secs()).unwrap_or(60));
        let stream = within(ANSWER_WITHIN, watch(&self.api, self.content, &params, &version)).await?;
        self.phase = Phase::Watching(version, stream);
        Ok(())
    }

    async fn read_watch(&mut self) -> Result<(), Failure> {
        let Phase::Watching(version, stream) = &mut self.phase else { return Ok(()) };
        let next = timeout(WATCH_FOR + OVERDUE, stream.next()).await;
        let event = match next {
            Err(_) => return Err(Failure::Other("the watch did not end in time".to_owned())),
            // The server ends a watch after its timeout.
            Ok(None) => {
                self.phase = Phase::Watch(std::mem::take(version));
                // A server that ends watches at once must not cause a busy loop.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Ok(());
            }
            Ok(Some(Err(error))) => return Err(failure(&error)),
            Ok(Some(Ok(event))) => event,
        };
        let object = match event {
            WatchEvent::Bookmark(bookmark) => {
                *version = bookmark.metadata.resource_version;
                self.failures = 0;
                return Ok(());
            }
            WatchEvent::Error(status) => return Err(status_failure(status.code, &status.message)),
            WatchEvent::Added(ref object)
            | WatchEvent::Modified(ref object)
            | WatchEvent::Deleted(ref object) => object.resource_version(),
        };
        *version = object.unwrap_or_else(|| version.clone());
        self.failures = 0;
        let change = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => self.decode(object).map(Event::Apply),
            WatchEvent::Deleted(object) => {
                self.unreadable.remove(&object.uid().unwrap_or_default());
                self.decode(object).map(Event::Delete)
            }
            _ => None,
        };
        self.ready.extend(change);
        Ok(())
    }

    /// The decoded object; `None` when it cannot be decoded, which is logged once per version.
    fn decode(&mut self, object: DynamicObject) -> Option<K> {
        let (uid, name) = (object.uid().unwrap_or_default(), object.name_any());
        let version = object.resource_version().unwrap_or_default();
        match (self.decode)(object) {
            Ok(decoded) => {
                self.unreadable.remove(&uid);
                Some(decoded)
            }
            Err(error) => {
                if self.unreadable.len() < MAX_UNREADABLE
                    && self.unreadable.insert(uid, version.clone()).is_none_or(|logged| logged != version)
                {
                    self.health.unreadable.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(what = self.health.what, name, %error, "skipped an object that cannot be decoded");
                }
                None
            }
        }
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => Err(Failure::Other(format!("no answer within {} s", limit.as_secs()))),
    }
}

async fn list_page(
    api: &Api<DynamicObject>,
    content: Content,
    params: &ListParams,
) -> kube::Result<kube::core::ObjectList<DynamicObject>> {
    match content {
        Content::Whole => api.list(params).await,
        Content::Metadata => {
            let page = api.list_metadata(params).await?;
            let items = page.items.into_iter().map(bare).collect();
            Ok(kube::core::ObjectList { types: page.types, metadata: page.metadata, items })
        }
    }
}

async fn watch(
    api: &Api<DynamicObject>,
    content: Content,
    params: &WatchParams,
    version: &str,
) -> kube::Result<BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>> {
    match content {
        Content::Whole => Ok(api.watch(params, version).await?.boxed()),
        Content::Metadata => {
            let stream = api.watch_metadata(params, version).await?;
            Ok(stream.map(|event| event.map(bare_event)).boxed())
        }
    }
}

fn bare(partial: PartialObjectMeta<DynamicObject>) -> DynamicObject {
    DynamicObject { types: partial.types, metadata: partial.metadata, data: serde_json::Value::Null }
}

fn bare_event(event: WatchEvent<PartialObjectMeta<DynamicObject>>) -> WatchEvent<DynamicObject> {
    match event {
        WatchEvent::Added(object) => WatchEvent::Added(bare(object)),
        WatchEvent::Modified(object) => WatchEvent::Modified(bare(object)),
        WatchEvent::Deleted(object) => WatchEvent::Deleted(bare(object)),
        WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
        WatchEvent::Error(status) => WatchEvent::Error(status),
    }
}

fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => status_failure(status.code, &status.message),
        other => Failure::Other(other.to_string()),
    }
}

fn status_failure(code: u16, message: &str) -> Failure {
    if code == 410 { Failure::Gone } else { Failure::Other(format!("{code}: {message}")) }
}

/// The kind `K` untyped, for [`follow`].
pub(super) fn resource<K: kube::Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}
