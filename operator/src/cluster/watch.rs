//! Streams of changes that survive whatever a watch does.
//!
//! A loop of list and watch of our own, because the usual one has three habits we cannot live with: an HTTP 410 in
//! answer to a watch is repeated with the same resourceVersion for ever, a 410 inside of a watch lists again in a hot
//! loop, and one object that cannot be read ends the view of all others. Here
//!
//! * "gone" in any shape means a new list, and so do a few failures in a row;
//! * between two lists are at least [`BETWEEN_LISTS`], with jitter;
//! * a watch lasts [`WATCH_FOR`], so a dead one is found soon after;
//! * an object that cannot be read is set aside, said once and counted; what was known of it before stays.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, WatchEvent, WatchParams};
use kube::runtime::watcher::Event;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::{Backoff, jitter};

/// Least time between two lists of one kind.
pub const BETWEEN_LISTS: Duration = Duration::from_secs(5);

/// How long one watch lasts; the server ends it then, and the next goes on where it was.
pub const WATCH_FOR: Duration = Duration::from_mins(1);

/// Silence beyond the end of a watch after which it is taken for dead.
const OVERDUE: Duration = Duration::from_secs(10);

/// Time within which one page of a list, or the beginning of a watch, must be answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Objects on one page of a list.
const PAGE: u32 = 500;

/// Failures of a watch in a row after which a list is tried instead.
const FAILURES_BEFORE_LIST: u32 = 3;

/// Most objects that are remembered as unreadable, so that each is said once.
const MAX_UNREADABLE: usize = 1000;

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(15) };

/// How much of each object is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole,
    /// Its metadata alone.
    Metadata,
}

/// How a stream of changes does: for health and metrics.
#[derive(Debug)]
pub struct WatchHealth {
    /// What is watched, for people.
    pub what: &'static str,
    last_contact: Mutex<Option<Instant>>,
    lists: AtomicU64,
    failures: AtomicU64,
    unreadable: AtomicU64,
}

impl WatchHealth {
    /// Nothing was heard yet.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            last_contact: Mutex::new(None),
            lists: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }

    /// Time since the API server last answered anything; `None` when it never has.
    pub fn silence(&self) -> Option<Duration> {
        self.last_contact.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// Lists made so far.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Lists and watches that failed so far.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Objects that could not be read, each version counted once.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    fn heard(&self) {
        *self.last_contact.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// One object as it came; the reason when it cannot be read.
pub type Decode<K> = fn(DynamicObject) -> Result<K, String>;

/// All objects of a kind and then every change, for ever.
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
    /// Objects that cannot be read, by uid, with the version that was said.
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

/// Why a step did not succeed.
enum Failure {
    /// The version is too old for the server: only a list helps.
    Gone,
    /// Anything else.
    Other(String),
}

impl<K: Debug + Send + 'static> Follower<K> {
    /// One step; whatever it learns goes to `ready`. Safe to drop at any await: the phase changes after it.
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
            self.health.heard();
            return;
        };
        self.health.failures.fetch_add(1, Ordering::Relaxed);
        self.failures += 1;
        match failure {
            Failure::Gone => {
                tracing::info!(what = self.health.what, "watch: the version is gone, listing anew");
                self.phase = Phase::List;
            }
            Failure::Other(error) => {
                tracing::warn!(what = self.health.what, %error, failures = self.failures, "unable to watch");
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
            Err(_) => return Err(Failure::Other("the watch is silent beyond its end".to_owned())),
            // The server ends a watch after its time.
            Ok(None) => {
                self.phase = Phase::Watch(std::mem::take(version));
                // A server that ends watches at once must not make us busy.
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
        let learned = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => self.decode(object).map(Event::Apply),
            WatchEvent::Deleted(object) => {
                self.unreadable.remove(&object.uid().unwrap_or_default());
                self.decode(object).map(Event::Delete)
            }
            _ => None,
        };
        self.ready.extend(learned);
        Ok(())
    }

    /// The object, or nothing when it cannot be read; said once per version of it.
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
                    && self.unreadable.insert(uid, version.clone()).is_none_or(|said| said != version)
                {
                    self.health.unreadable.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(what = self.health.what, name, %error, "set aside an object that cannot be read");
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

/// The whole kind `K`, for [`follow`].
pub(super) fn resource<K: kube::Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}
