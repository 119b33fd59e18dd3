//! The handle by which records are queued.

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sentinel_audit::directory::{Directory, DirectoryError, MIN_KEPT, SyncedHead, Writer};
use sentinel_audit::line::greatest_length;
use sentinel_audit::record::{Access, RunBegan};
use sentinel_audit::request::{Command, Request};
use sentinel_audit::{AuditHead, Chain, Record};
use sentinel_protocol::ids::{ChainId, NodeName, TaskRef};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;

use super::accesses::Accesses;
use super::bounds::{Bounds, Kind};
use super::heads::Heads;
use super::queue::{Counted, Queued};
use super::stream::{Destination, Stream};
use super::unsaved::Unsaved;
use super::writer::{AuditWriter, Kept, append};
use crate::clock::Clock;
use crate::metrics::Registry;

/// Records that may be queued, and their bytes; beyond, they are lost, counted and recorded as lost.
const QUEUE: usize = 16_384;
const QUEUE_BYTES: usize = 32 << 20;

/// The name of a party that has none.
const NOT_KNOWN: &str = "not known";

/// What a record without a command takes, about.
const USUAL_BYTES: usize = 1024;

/// Where audit records go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditOptions {
    /// The directory of the chain.
    pub directory: Option<PathBuf>,
    /// Bytes to keep in it.
    pub kept: u64,
    /// A copy for those who collect it; alone it is the only place of the chain.
    pub stream: Option<Destination>,
}

/// Why audit records cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The destination of the copy cannot be used.
    #[error("failed to open {destination} for audit records (--audit-log)")]
    Stream {
        /// The destination.
        destination: Destination,
        /// The cause.
        source: std::io::Error,
    },
    /// No thread can be started.
    #[error("failed to start the thread that writes audit records")]
    Thread(#[source] std::io::Error),
}

impl AuditError {
    /// A label for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Directory(DirectoryError::InUse { .. }) => "locked",
            Self::Directory(DirectoryError::Io { .. }) | Self::Stream { .. } => "io",
            Self::Thread(_) => "resources",
        }
    }

    /// Whether a restart with the same configuration may succeed.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Directory(DirectoryError::Io { .. }) | Self::Stream { .. })
    }
}

/// Queues audit records. Clones share the queue; by default nothing is recorded.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    open: Option<Arc<Open>>,
    unsaved: Arc<Unsaved>,
}

#[derive(Debug)]
struct Open {
    queue: Mutex<Option<SyncSender<Queued>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counted: Arc<Counted>,
    clock: Clock,
    head: SyncedHead,
    heads: Mutex<Heads>,
    accesses: Mutex<Accesses>,
    bounds: Mutex<Bounds>,
}

impl Audit {
    /// Begins or continues the chain, and records that.
    ///
    /// # Errors
    /// [`AuditError`]: an operator that is to record and cannot does not start.
    pub fn start(
        options: AuditOptions,
        host: &str,
        clock: &Clock,
        metrics: &Registry,
    ) -> Result<Self, AuditError> {
        let counted = Arc::new(Counted::new(metrics));
        let not_streamed = metrics.counter(
            "sentinel_audit_stream_failures_total",
            "Audit records that the destination of --audit-log did not take.",
        );
        let AuditOptions { directory, kept: to_keep, stream } = options;
        if directory.is_none() && stream.is_none() {
            return Ok(Self::default());
        }
        let stream = stream.map(|destination| {
            Stream::open(destination.clone()).map_err(|source| AuditError::Stream { destination, source })
        });
        let mut stream = stream.transpose()?;
        let head = SyncedHead::default();
        let writer = Writer { program: "operator", version: env!("CARGO_PKG_VERSION"), on: host.to_owned() };
        let at = clock.reading().wall;
        let mut copy = |line: &[u8]| {
            counted.written.add(1);
            if let Some(stream) = &mut stream
                && stream.write(line).is_err()
            {
                not_streamed.add(1);
            }
        };
        let kept = match directory {
            Some(path) => {
                let opened = Directory::open(&path, to_keep, new_id(), &writer, head.clone(), at, &mut copy)?;
                Kept::Directory(Box::new(opened))
            }
            None => Kept::Memory(begun(&writer, at, &mut copy), head.clone()),
        };
        let (queue, received) = sync_channel(QUEUE);
        let writer =
            AuditWriter { kept, stream, counted: counted.clone(), clock: clock.clone(), not_streamed };
        let thread =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&received));
        let open = Open {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread.map_err(AuditError::Thread)?)),
            counted,
            clock: clock.clone(),
            head,
            heads: Mutex::default(),
            accesses: Mutex::default(),
            bounds: Mutex::new(Bounds::new(to_keep.max(MIN_KEPT))),
        };
        Ok(Self { open: Some(Arc::new(open)), unsaved: Arc::default() })
    }

    /// Queues a record of what happens, which is made only where records are kept.
    pub fn record(&self, record: impl FnOnce() -> Record) {
        let Some(open) = &self.open else { return };
        open.queue(record(), true);
    }

    /// Queues a minor record of what a Task asks for and does not get, unless its namespace has caused too many.
    pub fn refusal(&self, task: &TaskRef, record: impl FnOnce() -> Record) {
        let Some(open) = &self.open else { return };
        open.queue_minor((Kind::Namespace, task.namespace.as_str()), vec![record()]);
    }

    /// A Run began, or was taken over. On no node it starts nothing, and its record is a minor one, without the request where there is no
    /// room for that.
    pub fn run_began(&self, record: impl FnOnce() -> RunBegan) {
        let Some(open) = &self.open else { return };
        let began = record();
        if began.targets > 0 {
            return open.queue(Record::RunBegan(Box::new(began)), true);
        }
        let short = RunBegan { request: None, ..began.clone() };
        let namespace = began.task.namespace.clone();
        let forms = vec![Record::RunBegan(Box::new(began)), Record::RunBegan(Box::new(short))];
        open.queue_minor((Kind::Namespace, namespace.as_str()), forms);
    }

    /// Queues what happened to a Task on so many nodes, as a minor record where those are none.
    pub fn on_nodes(&self, targets: usize, task: &TaskRef, record: impl FnOnce() -> Record) {
        if targets > 0 { self.record(record) } else { self.refusal(task, record) }
    }

    /// The last durable record for an agent to keep, after it was sent that of this number. Only if there is more than heads
    /// and minor records since: otherwise two chains would record each other's heads forever, and nothing else.
    pub fn head_after(&self, sent: Option<u64>) -> Option<AuditHead> {
        let head = self.head()?;
        let news = self.open.as_ref()?.counted.news.load(Relaxed);
        sent.is_none_or(|sent| (sent + 1..=head.seq).contains(&news)).then_some(head)
    }

    /// The last durable record.
    pub fn head(&self) -> Option<AuditHead> {
        self.open.as_ref()?.head.get()
    }

    /// The heads that History does not have yet, its own as that of `operator`. They are taken, and those that History does not take are
    /// to be put back.
    pub fn take_unsaved(&self) -> Vec<(String, AuditHead)> {
        if let Some(open) = &self.open {
            open.queue_omitted(false);
        }
        let own = self.head().map(|head| ("operator".to_owned(), head));
        own.into_iter().chain(self.unsaved.take()).collect()
    }

    /// Puts back heads that History did not take.
    pub fn put_back(&self, heads: Vec<(String, AuditHead)>) {
        self.unsaved.put_back(heads);
    }

    /// A node states the head of its chain.
    pub fn node_head(&self, node: &NodeName, head: &AuditHead) {
        self.unsaved.note(node, head);
        let Some(open) = &self.open else { return };
        if open.heads.lock().unwrap_or_else(PoisonError::into_inner).take(node, head) {
            open.queue(Record::HeadSeen { of: node.as_str().into(), head: head.clone() }, false);
        }
    }

    /// A person reads output, and may.
    pub fn output_read(&self, access: impl FnOnce() -> Access) {
        self.access(None, access);
    }

    /// A request of a person is denied with this status and for this reason.
    pub fn denied(&self, status: u16, reason: &str, access: impl FnOnce() -> Access) {
        self.access(Some((status, reason)), access);
    }

    /// An approval by this person is refused. `about` is the same where it is refused again for the same reason.
    pub fn approval_refused(&self, by: Option<&Requester>, about: &str, record: impl FnOnce() -> Record) {
        let Some(open) = &self.open else { return };
        let caller = by.map(|by| by.user.as_str());
        if open.accesses.lock().unwrap_or_else(PoisonError::into_inner).take(caller, about, Some(409)) {
            open.queue_minor((Kind::User, caller.unwrap_or(NOT_KNOWN)), vec![record()]);
        }
    }

    /// This person approves a Run, again perhaps: the one that counts is in the record of the Run that begins.
    pub fn approved(&self, by: &Requester, record: impl FnOnce() -> Record) {
        let Some(open) = &self.open else { return };
        open.queue_minor((Kind::Approver, by.user.as_str()), vec![record()]);
    }

    fn access(&self, denied: Option<(u16, &str)>, access: impl FnOnce() -> Access) {
        let Some(open) = &self.open else { return };
        let access = Box::new(access());
        // Without a user, by address: one that guesses tokens does not hide another.
        let caller = access.user.as_deref().or(access.from.as_deref());
        let status = denied.map(|(status, _)| status);
        if !open.accesses.lock().unwrap_or_else(PoisonError::into_inner).take(caller, &access.path, status) {
            return;
        }
        let caller = caller.unwrap_or(NOT_KNOWN).to_owned();
        let kind = match (&access.user, denied) {
            (None, _) => Kind::Address,
            (Some(_), None) => Kind::Reader,
            (Some(_), Some(_)) => Kind::User,
        };
        let record = match denied {
            Some((status, reason)) => Record::AccessDenied { status, message: reason.into(), access },
            None => Record::OutputRead(access),
        };
        open.queue_minor((kind, &caller), vec![record]);
    }

    /// Writes what is queued, makes it durable, and records nothing more.
    pub fn close(&self) {
        let Some(open) = &self.open else { return };
        open.queue_omitted(true);
        drop(open.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = open.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes audit records panicked");
        }
    }
}

impl Open {
    /// Queues a minor record of a party in the first of these forms for which there is room, unless that has caused too many.
    fn queue_minor(&self, party: (Kind, &str), mut forms: Vec<Record>) {
        let now = Duration::from_millis(self.clock.monotonic().0);
        let bytes: Vec<u64> = forms.iter().map(greatest_length).collect();
        let taken = self.bounds.lock().unwrap_or_else(PoisonError::into_inner).take(party, &bytes, now);
        match taken {
            Some(form) => self.queue(forms.swap_remove(form), false),
            None => self.counted.omitted.add(1),
        }
        self.queue_omitted(false);
    }

    /// Queues the record of what was left out, if it is due. Without room it stays due, and is not lost.
    fn queue_omitted(&self, is_end: bool) {
        let now = Duration::from_millis(self.clock.monotonic().0);
        let mut bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = bounds.due(now, is_end)
            && self.has_queued(record, false)
        {
            bounds.note(now);
        }
    }

    /// Queues a record. Without news, such as heads of other chains, no heads are exchanged.
    fn queue(&self, record: Record, is_news: bool) {
        if !self.has_queued(record, is_news) {
            self.counted.overflowed.fetch_add(1, Relaxed);
            self.counted.lost.add(1);
        }
    }

    fn has_queued(&self, record: Record, is_news: bool) -> bool {
        let weight = weight(&record);
        let bytes = self.counted.queued_bytes.fetch_add(weight, Relaxed);
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let is_queued = bytes <= QUEUE_BYTES
            && queue.as_ref().is_some_and(|queue| {
                // Read in the order of the queue: an earlier time behind a later one would be a clock that was set back.
                let at = self.clock.reading().wall;
                queue.try_send(Queued { at, record, weight, is_news }).is_ok()
            });
        drop(queue);
        if !is_queued {
            self.counted.queued_bytes.fetch_sub(weight, Relaxed);
        }
        is_queued
    }
}

/// What a record takes in the queue, about.
fn weight(record: &Record) -> usize {
    let Record::RunBegan(began) = record else { return USUAL_BYTES };
    let command = match &began.request {
        Some(Request { program: Command::Argv(argv), .. }) => argv.iter().map(String::len).sum(),
        Some(Request { program: Command::Script { text, .. }, .. }) => text.len(),
        None => 0,
    };
    USUAL_BYTES + command
}

fn begun(writer: &Writer, at: UnixMillis, written: &mut dyn FnMut(&[u8])) -> Chain {
    let mut chain = Chain::new(new_id());
    let Writer { program, version, on } = writer;
    let (program, version, on) = ((*program).into(), (*version).into(), on.as_str().into());
    append(&mut chain, at, &Record::Began { program, version, on, torn: None }, written);
    chain
}

fn new_id() -> ChainId {
    let id = uuid::Uuid::new_v4().to_string();
    #[expect(clippy::expect_used, reason = "32 hexadecimal digits and hyphens were just written")]
    ChainId::new(id).expect("a UUID is a chain id")
}
