//! The node's audit chain: what is asked of this agent and what it does, recorded as it steps and performs.
//!
//! A request is recorded before it is in the Journal, so no command starts without its record being written. The records are made
//! durable within about a second, by a thread of its own: no command waits for that, as the Journal is durable itself. What the
//! Journal has and the chain has not is recorded when the agent starts. A disk that is full stops no command: what is lost is
//! counted, and recorded as lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sentinel_audit::allowance::{Allowance, Terms};
use sentinel_audit::directory::{Directory, DirectoryError, SyncedHead, Unsynced, Writer, files};
use sentinel_audit::line::greatest_length;
use sentinel_audit::record::{Omission, Requested};
use sentinel_audit::{AuditHead, Record};
use sentinel_core::agent::{Effect, Event, Permit};
use sentinel_protocol::ids::{AttemptId, ChainId};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_agent::{Cancel, Start, ToAgent};
use sentinel_protocol::to_operator::{Ended, Refused, Running, ToOperator};
use serde::Deserialize;

use crate::agent_metrics::AgentMetrics;
use crate::host;
use crate::journal::{AUDIT, AttemptRecord, AttemptState};
use crate::shortage::describe;

/// How often the directory is opened again where that failed.
const REOPEN_EVERY: Duration = Duration::from_mins(1);

/// Heads of the operator's chain are recorded at most this often.
const HEADS_EVERY: Duration = Duration::from_secs(55);

/// How many records were left out is recorded at most this often.
const OMITTED_EVERY: Duration = Duration::from_mins(10);

/// Refusals that are remembered, so that a repeated one is recorded once; beyond, the first in key order is dropped.
const REFUSALS_REMEMBERED: usize = 4096;

/// The chain, and what it has of the Attempts in the Journal.
pub(crate) struct Trail {
    path: PathBuf,
    kept: u64,
    writer: Writer,
    chain: Result<Directory, Closed>,
    synced: SyncedHead,
    /// By the name of the Attempt's directory.
    recorded: BTreeMap<String, Recorded>,
    refused: BTreeSet<(AttemptId, String)>,
    operator: Option<(Instant, AuditHead)>,
    syncing: Option<JoinHandle<Option<()>>>,
    metrics: Arc<AgentMetrics>,
    lost: u64,
    minor: Minor,
}

/// Minor records: what the operator asks for, and nothing is started or ended by it.
struct Minor {
    /// The times of the allowance are since then.
    origin: Instant,
    allowance: Allowance,
    /// Records that were left out, and are not recorded as such yet.
    omitted: u64,
    recorded_at: Option<Instant>,
}

/// A directory that could not be opened, and the records that were lost since.
struct Closed {
    lost: u64,
    retry_at: Instant,
}

/// What the chain has of an Attempt.
#[derive(Debug, Clone, Copy, Default)]
struct Recorded {
    accepted: bool,
    started: bool,
    cancelled: bool,
    ended: bool,
}

/// A message of the operator that is being handled.
pub(super) enum Asked {
    /// A `Start`.
    Start(Box<Start>),
    /// A `Cancel`.
    Cancel(Cancel),
    /// Nothing: a request that was accepted, and recorded as such, could not be written to the Journal. Its refusal revokes that record.
    Unrecorded,
}

impl Trail {
    /// Opens the chain in a state directory. Where that fails, it is attempted again while the agent runs.
    pub(crate) fn open(state_dir: &Path, kept: u64, node: &str, metrics: Arc<AgentMetrics>) -> Self {
        let writer =
            Writer { program: "node-agent", version: env!("CARGO_PKG_VERSION"), on: node.to_owned() };
        let mut trail = Self {
            path: state_dir.join(AUDIT),
            kept,
            writer,
            chain: Err(Closed { lost: 0, retry_at: Instant::now() }),
            synced: SyncedHead::default(),
            recorded: BTreeMap::new(),
            refused: BTreeSet::new(),
            operator: None,
            syncing: None,
            metrics,
            lost: 0,
            minor: Minor::of(kept),
        };
        trail.reopen();
        trail
    }

    /// The last record that is durable, for the Heartbeats.
    pub(crate) fn synced(&self) -> SyncedHead {
        self.synced.clone()
    }

    fn reopen(&mut self) {
        let Err(closed) = &mut self.chain else { return };
        if Instant::now() < closed.retry_at {
            return;
        }
        let opened = new_id().and_then(|id| {
            let synced = self.synced.clone();
            Directory::open(&self.path, self.kept, id, &self.writer, synced, host::wall_clock(), &mut |_| {})
        });
        match opened {
            Ok(mut directory) => {
                if closed.lost > 0 {
                    directory.lose(closed.lost, "the directory could not be opened".to_owned());
                }
                // Those were counted when they were lost.
                self.lost = directory.lost();
                self.chain = Ok(directory);
            }
            Err(error) => {
                closed.retry_at = Instant::now() + REOPEN_EVERY;
                tracing::error!(
                    error = describe(&error),
                    "failed to open the audit records of this node; commands run without, and it is attempted again"
                );
            }
        }
    }

    fn append(&mut self, record: &Record) {
        match &mut self.chain {
            Ok(directory) => {
                directory.append(host::wall_clock(), record);
                let lost = directory.lost();
                if lost > self.lost {
                    self.metrics.count_unrecorded(lost - self.lost);
                    self.lost = lost;
                }
            }
            Err(closed) => {
                closed.lost += 1;
                self.metrics.count_unrecorded(1);
            }
        }
    }

    /// Appends the first of these minor records for which there is room; otherwise it is left out.
    fn append_minor(&mut self, forms: &[Record]) {
        if let Some(record) = forms.iter().find(|record| self.minor.has_room(record)) {
            return self.append(record);
        }
        self.minor.omitted += 1;
        self.metrics.count_omitted();
    }

    /// Records how many were left out, if that is due.
    fn record_omitted(&mut self, is_end: bool) {
        if !self.minor.is_due(is_end) || self.chain.is_err() {
            return;
        }
        self.minor.recorded_at = Some(Instant::now());
        let (omitted, lost) = (self.minor.omitted, self.lost);
        let by = vec![Omission { cause: "operator".into(), omitted }];
        self.append(&Record::Omitted { omitted, by });
        if self.lost == lost {
            self.minor.omitted = 0;
        }
    }

    // --- what happens ----------------------------------------------------------------------------------------------

    /// Records what an event states, before it is handled. Returns what it asks for.
    pub(super) fn note_event(&mut self, event: &Event) -> Option<Asked> {
        match event {
            Event::Received { message: ToAgent::Start(start), .. } => {
                return Some(Asked::Start(start.clone()));
            }
            Event::Received { message: ToAgent::Cancel(cancel), .. } => {
                return Some(Asked::Cancel(cancel.clone()));
            }
            Event::Received { message: ToAgent::AuditHead(head), .. } => self.head_seen(head),
            Event::Observed(seen) => {
                if let Some(running) = &seen.running {
                    self.started(&seen.attempt, running);
                }
                if let Some(ended) = &seen.ended {
                    self.ended(&seen.attempt, ended);
                }
            }
            Event::NotRecorded { .. } | Event::JournalFailed { .. } => return Some(Asked::Unrecorded),
            Event::Concluded { attempt, ended } => self.ended(attempt, ended),
            Event::TombstoneWritten(tombstone) => {
                let (attempt, end) = (tombstone.attempt.clone(), Box::new(tombstone.ended.clone()));
                self.append_minor(&[Record::Ended { attempt, end }]);
            }
            Event::Compacted { attempt } => drop(self.recorded.remove(&attempt.directory_name())),
            _ => {}
        }
        None
    }

    /// Records what follows from that, before it is performed.
    pub(super) fn note_effects(&mut self, asked: Option<&Asked>, effects: &[Effect]) {
        if let Some(Asked::Cancel(cancel)) = asked {
            self.cancel_requested(cancel, effects);
        }
        for effect in effects {
            match effect {
                Effect::Record(admitted) => {
                    self.accepted(requested(&admitted.start, admitted.permit.as_ref()));
                }
                // After a reboot, by whom and by which rule may be another.
                Effect::Confirm(admitted) => {
                    self.recorded.remove(&admitted.start.attempt.directory_name());
                    self.accepted(requested(&admitted.start, admitted.permit.as_ref()));
                }
                Effect::Send(ToOperator::Refused(refused)) => self.refused(refused, asked),
                _ => {}
            }
        }
    }

    fn accepted(&mut self, requested: Requested) {
        let recorded = self.recorded.entry(requested.attempt.directory_name()).or_default();
        if !std::mem::replace(&mut recorded.accepted, true) {
            self.append(&Record::Accepted(Box::new(requested)));
        }
    }

    fn refused(&mut self, refused: &Refused, asked: Option<&Asked>) {
        let of = |requested| {
            let (attempt, refusal) = (refused.attempt.clone(), refused.refusal.clone());
            Record::Refused { attempt, refusal, requested }
        };
        if matches!(asked, Some(Asked::Unrecorded)) {
            // Another request can be accepted for it.
            self.recorded.remove(&refused.attempt.directory_name());
            return self.append(&of(None));
        }
        // Each copy of a `Start` is answered with the same refusal. A busy node refuses each offer.
        let reason = match &refused.refusal {
            Refusal::TooManyAttempts { .. } => "busy".to_owned(),
            refusal => refusal.to_string(),
        };
        if !self.refused.insert((refused.attempt.clone(), reason)) {
            return;
        }
        if self.refused.len() > REFUSALS_REMEMBERED {
            self.refused.pop_first();
        }
        let requested = match asked {
            Some(Asked::Start(start)) if start.attempt == refused.attempt => {
                Some(Box::new(Requested::of(start)))
            }
            _ => None,
        };
        self.append_minor(&[of(requested), of(None)]);
    }

    fn cancel_requested(&mut self, cancel: &Cancel, effects: &[Effect]) {
        if effects.iter().any(|effect| matches!(effect, Effect::Ignored { .. })) {
            return;
        }
        let Cancel { attempt, epoch, requested_by, .. } = cancel.clone();
        let record = Record::CancelRequested { attempt, epoch, requested_by: requested_by.map(|by| *by) };
        // Of another spec, or of one that this node never had: it ends nothing.
        let is_minor = |effect: &Effect| {
            matches!(effect, Effect::Send(ToOperator::Refused(_)) | Effect::WriteTombstone(_))
        };
        if effects.iter().any(is_minor) {
            return self.append_minor(&[record]);
        }
        let Some(recorded) = self.recorded.get_mut(&cancel.attempt.directory_name()) else { return };
        if !recorded.ended && !std::mem::replace(&mut recorded.cancelled, true) {
            self.append(&record);
        }
    }

    fn started(&mut self, attempt: &AttemptId, running: &Running) {
        let Some(recorded) = self.recorded.get_mut(&attempt.directory_name()) else { return };
        if !recorded.ended && !std::mem::replace(&mut recorded.started, true) {
            let (attempt, pid, started_at) = (attempt.clone(), running.pid, running.started_at);
            self.append(&Record::Started { attempt, pid, started_at });
        }
    }

    fn ended(&mut self, attempt: &AttemptId, ended: &Ended) {
        let Some(recorded) = self.recorded.get_mut(&attempt.directory_name()) else { return };
        if !std::mem::replace(&mut recorded.ended, true) {
            self.append(&Record::Ended { attempt: attempt.clone(), end: Box::new(ended.clone()) });
        }
    }

    fn head_seen(&mut self, head: &AuditHead) {
        let is_due = match &self.operator {
            Some((at, known)) => known != head && at.elapsed() >= HEADS_EVERY,
            None => true,
        };
        if is_due {
            self.operator = Some((Instant::now(), head.clone()));
            self.append(&Record::HeadSeen { of: "operator".into(), head: head.clone() });
        }
    }

    // --- a restart -------------------------------------------------------------------------------------------------

    /// Searches the chain for these Attempts, the newest records first, until it has found the beginning of each.
    pub(super) fn search(&mut self, journal: impl Iterator<Item = AttemptId>) {
        let mut wanted: BTreeSet<AttemptId> = journal.collect();
        let mut files = files(&self.path).unwrap_or_default();
        while !wanted.is_empty()
            && let Some(file) = files.pop()
        {
            // One that cannot be read counts as empty: records are then made twice, and none is missing.
            let Ok(file) = File::open(file) else { continue };
            let mut found = BTreeSet::new();
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                let Some(Seen { kind, attempt }) = serde_json::from_slice(&line).ok() else { continue };
                if !wanted.contains(&attempt) {
                    continue;
                }
                let recorded = self.recorded.entry(attempt.directory_name()).or_default();
                match kind.as_str() {
                    "Accepted" => {
                        recorded.accepted = true;
                        found.insert(attempt);
                    }
                    "Started" => recorded.started = true,
                    "CancelRequested" => recorded.cancelled = true,
                    "Ended" => recorded.ended = true,
                    _ => {}
                }
            }
            wanted.retain(|attempt| !found.contains(attempt));
        }
    }

    /// Records what the Journal has of an Attempt and the chain has not: the agent had ended in between, or its disk was full.
    pub(super) fn catch_up(&mut self, journal: &AttemptRecord) {
        let start = &journal.accepted.start;
        let accepted = requested(start, journal.accepted.permit.as_ref());
        self.accepted(Requested { from_journal: true, ..accepted });
        if let AttemptState::Running { command, started_at, .. } = &journal.state {
            self.started(&start.attempt, &Running { started_at: *started_at, pid: command.pid });
        }
        if let Some(ended) = &journal.exit {
            self.ended(&start.attempt, ended);
        }
    }

    // --- durability ------------------------------------------------------------------------------------------------

    /// Whether [`Trail::sync_later`] has something to do.
    pub(super) fn has_unsynced(&self) -> bool {
        self.minor.is_due(false) || self.chain.as_ref().map_or(true, Directory::has_unsynced)
    }

    /// Makes the records durable in a thread, unless one is at work. Opens the directory again where that failed.
    pub(super) fn sync_later(&mut self) {
        self.reopen();
        self.record_omitted(false);
        if self.syncing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let Ok(directory) = &mut self.chain else { return };
        directory.record_gap(host::wall_clock(), &mut |_| {});
        let Some(unsynced) = directory.take_unsynced() else { return };
        let job = Arc::new(Mutex::new(Some(unsynced)));
        let given = job.clone();
        match thread::Builder::new().name("audit".to_owned()).spawn(move || take(&given).map(sync)) {
            Ok(thread) => self.syncing = Some(thread),
            Err(error) => {
                tracing::warn!(
                    error = describe(&error),
                    "unable to start a thread that syncs audit records; will retry"
                );
                if let Some(unsynced) = take(&job) {
                    directory.put_back(unsynced);
                }
            }
        }
    }

    /// The same now: the agent is exiting.
    pub(super) fn sync(&mut self) {
        if let Some(thread) = self.syncing.take() {
            let _ = thread.join();
        }
        self.record_omitted(true);
        if let Ok(directory) = &mut self.chain
            && let Some(unsynced) = directory.take_unsynced()
        {
            sync(unsynced);
        }
    }
}

impl Minor {
    /// Of so many bytes that are kept: an eighth at once, and a sixteenth a day.
    fn of(kept: u64) -> Self {
        let terms = Terms { at_once: kept / 8, per_day: kept / 16 };
        let allowance = Allowance::full(terms, Duration::ZERO);
        Self { origin: Instant::now(), allowance, omitted: 0, recorded_at: None }
    }

    fn has_room(&mut self, record: &Record) -> bool {
        self.allowance.take(greatest_length(record), self.origin.elapsed())
    }

    fn is_due(&self, is_end: bool) -> bool {
        let is_due = is_end || self.recorded_at.is_none_or(|at| at.elapsed() >= OMITTED_EVERY);
        self.omitted > 0 && is_due
    }
}

fn take(job: &Mutex<Option<Unsynced>>) -> Option<Unsynced> {
    job.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn sync(unsynced: Unsynced) {
    if let Err(error) = unsynced.sync() {
        tracing::error!(
            error = describe(&error),
            "failed to make audit records durable; no head of them is sent to the operator any more"
        );
    }
}

/// What the search reads of a record.
#[derive(Deserialize)]
struct Seen {
    kind: String,
    attempt: AttemptId,
}

fn new_id() -> Result<ChainId, DirectoryError> {
    let id = uuid::Uuid::new_v4().to_string();
    ChainId::new(id).map_err(|error| DirectoryError::Io {
        doing: "name",
        path: AUDIT.into(),
        source: std::io::Error::other(error),
    })
}
/// A request that was accepted, with what has allowed it.
fn requested(start: &Start, permit: Option<&Permit>) -> Requested {
    let allowed_by = permit.map(|permit| permit.rule.clone());
    let signed_by = permit.and_then(|permit| Some(permit.signed.as_ref()?.signer.clone()));
    Requested { allowed_by, signed_by, ..Requested::of(start) }
}

#[cfg(test)]
mod tests {
    use sentinel_audit::export::Export;
    use sentinel_audit::verify::verify;
    use sentinel_core::agent::Admitted;
    use sentinel_protocol::text::Message;

    use super::*;

    /// A second request of the Attempt would have run without a record, or a record would not have been revoked.
    #[test]
    fn a_request_that_was_not_written_to_the_journal_is_not_taken_for_the_next_one_of_its_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let mut trail = Trail::open(dir.path(), 1 << 20, "n-1", Arc::default());
        let golden = include_str!("../../../protocol/tests/golden/v1/start-command.json");
        let ToAgent::Start(first) = serde_json::from_str(golden).unwrap() else { panic!("{golden}") };
        let (mut second, first_dir) = (first.clone(), first.request.working_dir.clone());
        second.request.working_dir = "/second".to_owned();
        for start in [first, second] {
            let (attempt, spec_hash) = (start.attempt.clone(), start.spec_hash.clone());
            let accepted = Effect::Record(Box::new(Admitted { start: *start, permit: None }));
            trail.note_effects(None, &[accepted]);
            let message: Message = "no space left".into();
            let why = Refusal::JournalUnsafe { message };
            let asked = trail.note_event(&Event::NotRecorded { attempt: attempt.clone(), why: why.clone() });
            let refused = Refused { attempt, spec_hash, refusal: why, offer: 1 };
            trail.note_effects(asked.as_ref(), &[Effect::Send(ToOperator::Refused(refused))]);
        }
        let mut seen = Vec::new();
        let export = BufReader::new(Export::open(&dir.path().join(AUDIT)).unwrap());
        verify(export, |_, line| {
            seen.push(match line.record.clone().unwrap() {
                Record::Accepted(requested) => format!("Accepted in {}", requested.request.working_dir),
                other => other.kind().to_owned(),
            });
        })
        .unwrap();
        let first = format!("Accepted in {first_dir}");
        assert_eq!(seen, ["Began", &first, "Refused", "Accepted in /second", "Refused"]);
    }

    #[test]
    fn what_is_lost_while_the_directory_cannot_be_opened_is_counted_once_and_recorded_when_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(AUDIT), "not a directory").unwrap();
        let mut trail = Trail::open(dir.path(), 1 << 20, "n-1", Arc::default());
        let lost = Record::Omitted { omitted: 1, by: Vec::new() };
        trail.append(&lost);
        trail.append(&lost);
        std::fs::remove_file(dir.path().join(AUDIT)).unwrap();
        trail.sync_later();
        assert!(trail.chain.is_err(), "it is attempted again from time to time only");
        if let Err(closed) = &mut trail.chain {
            closed.retry_at = Instant::now();
        }
        trail.sync_later();
        assert_eq!(trail.lost, 2, "counted before");
        trail.append(&Record::Omitted { omitted: 7, by: Vec::new() });
        trail.sync();
        let mut records = Vec::new();
        let export = BufReader::new(Export::open(&dir.path().join(AUDIT)).unwrap());
        verify(export, |_, line| records.push(line.record.clone().unwrap())).unwrap();
        assert!(
            matches!(
                &records[..],
                [Record::Began { .. }, Record::Gap { lost: 2, .. }, Record::Omitted { omitted: 7, .. }]
            ),
            "{records:?}"
        );
    }
}
