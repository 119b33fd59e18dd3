//! select → step → perform.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sentinel_core::agent::{Agent, Event, Facts, Rules};
use sentinel_core::moment::{Moment, Now};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::ToOperator;
use tokio::sync::mpsc;

use super::look::look;
use super::mailbox::{Inbox, Input, Mailbox};
use crate::host::{self, Home};
use crate::journal::{AttemptDir, Changed, JournalError, Loaded, StateDir, Watch};
use crate::link::Board;
use crate::spool;
use crate::supervisor::Launcher;
use crate::vitals::Vitals;

/// How often Attempts that are not over are looked at, though nothing was seen to change.
const TICK: Duration = Duration::from_secs(1);

/// How long new output may go unnoticed after some was noticed, so that a flood of it wakes nobody thousands of times
/// a second.
const OUTPUT_PAUSE: Duration = Duration::from_millis(5);

/// How often it wakes when there is nothing to look after.
const REST: Duration = Duration::from_mins(1);

/// What the body is made of.
pub(crate) struct Parts {
    pub(crate) journal: StateDir,
    pub(crate) launcher: Launcher,
    pub(crate) rules: Rules,
    pub(crate) inbox: Inbox,
    pub(crate) mailbox: Mailbox,
    pub(crate) board: Arc<Board>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) home: Home,
}

/// The agent's thread.
pub(crate) struct Body {
    pub(super) agent: Agent,
    pub(super) journal: StateDir,
    pub(super) launcher: Launcher,
    pub(super) watch: Watch,
    pub(super) mailbox: Mailbox,
    pub(super) board: Arc<Board>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) home: Home,
    /// Where the present Session takes its messages.
    pub(super) outbox: Option<mpsc::Sender<ToOperator>>,
    /// Which Attempt a directory is for.
    pub(super) names: BTreeMap<String, AttemptId>,
    inbox: Inbox,
    next_tick: u64,
    /// Until then changes are not listened to.
    deaf_until: Option<Instant>,
}

impl Body {
    /// Reads the Journal and begins what follows from it: adopts, starts, concludes.
    pub(crate) fn awaken(parts: Parts) -> Result<Self, JournalError> {
        let Parts { journal, launcher, rules, inbox, mailbox, board, vitals, home } = parts;
        let watch = Watch::new().map_err(|e| JournalError::Io {
            doing: "watch",
            path: journal.root().to_owned(),
            source: e,
        })?;
        let epoch = journal.highest_epoch()?;
        vitals.set_highest_epoch(epoch);
        let mut body = Self {
            agent: Agent::new(rules, epoch),
            journal,
            launcher,
            watch,
            mailbox,
            board,
            vitals,
            home,
            outbox: None,
            names: BTreeMap::new(),
            inbox,
            next_tick: 0,
            deaf_until: None,
        };
        let replayed = body.replay()?;
        body.handle(replayed);
        Ok(body)
    }

    /// Works until it is told to stop. Commands live on.
    pub(crate) fn live(mut self) {
        loop {
            match self.select() {
                Wake::Words => {
                    self.inbox.hush();
                    while let Some(input) = self.inbox.take() {
                        if let Input::Stop = input {
                            self.handle(Event::Stopping);
                            return;
                        }
                        self.hear(input);
                    }
                }
                Wake::Changes => self.notice_changes(),
                Wake::Time => {
                    self.launcher.reap();
                    self.handle(Event::Tick);
                    let busy = self.agent.living() > 0 || self.agent.unacknowledged() > 0;
                    let pause = if busy { TICK } else { REST };
                    self.next_tick = host::boot_clock_ms() + pause.as_millis() as u64;
                }
            }
        }
    }

    /// Waits, and says what for. Words come first, then changes: whoever waits for an answer waits least.
    fn select(&self) -> Wake {
        loop {
            let left = Duration::from_millis(self.next_tick.saturating_sub(host::boot_clock_ms()));
            if left.is_zero() {
                return Wake::Time;
            }
            let deaf = self.deaf_until.map(|until| until.saturating_duration_since(Instant::now()));
            let deaf = deaf.filter(|pause| !pause.is_zero());
            let left = deaf.map_or(left, |pause| pause.min(left));
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let changes = if deaf.is_some() { PollFlags::empty() } else { PollFlags::IN };
            let mut ready = [PollFd::new(&self.inbox, PollFlags::IN), PollFd::new(&self.watch, changes)];
            // An interrupted wait is begun again with the time that is left.
            if poll(&mut ready, Some(&timeout)).is_err() {
                continue;
            }
            let [words, changes] = ready.map(|fd| !fd.revents().is_empty());
            if words {
                return Wake::Words;
            }
            if changes {
                return Wake::Changes;
            }
        }
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Connected { epoch, outbox } => {
                self.outbox = Some(outbox);
                self.handle(Event::Connected { epoch });
            }
            Input::Disconnected => {
                self.outbox = None;
                self.handle(Event::Disconnected);
            }
            Input::Message(message) => {
                let facts = self.facts(&message);
                self.handle(Event::Received { message, facts });
            }
            Input::Happened(event) => self.handle(*event),
            Input::Archived { attempt, position } => self.note_archived(&attempt, position),
            Input::Stop => {}
        }
        // Something may live now that is to be looked after.
        self.next_tick = self.next_tick.min(host::boot_clock_ms() + TICK.as_millis() as u64);
    }

    fn notice_changes(&mut self) {
        let changes = match self.watch.changes() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(%error, "unable to read changes of the journal; looking every second instead");
                self.deaf_until = Some(Instant::now() + TICK);
                return;
            }
        };
        for change in changes {
            match change.what {
                Changed::Record => {
                    if let Some(event) = self.observe(&change.attempt) {
                        self.handle(event);
                    }
                }
                Changed::Output => {
                    self.deaf_until = Some(Instant::now() + OUTPUT_PAUSE);
                    if let Some(attempt) = self.names.get(change.attempt.name()) {
                        self.board.wrote(attempt);
                    }
                }
            }
        }
    }

    /// Steps and performs until nothing more follows.
    pub(super) fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.agent.step(event, now()) {
                let led_to = self.perform(effect);
                let stop = matches!(led_to, Some(Event::JournalFailed { .. } | Event::NotRecorded { .. }));
                events.extend(led_to);
                if stop {
                    break;
                }
            }
        }
        self.vitals.set_counts(self.agent.living(), self.agent.unacknowledged());
    }

    fn replay(&mut self) -> Result<Event, JournalError> {
        let mut seen = Vec::new();
        let mut unreadable = Vec::new();
        for (dir, loaded) in self.journal.load()? {
            if let Loaded::Corrupt { why, .. } = &loaded {
                tracing::error!(attempt = dir.name(), why, "the record of an attempt is unreadable");
            }
            let one = match look(&dir, &self.home) {
                Ok(one) => one,
                Err(error) => {
                    tracing::error!(attempt = dir.name(), %error, "failed to read the record of an attempt");
                    None
                }
            };
            let Some(one) = one else {
                unreadable.push(dir.name().to_owned());
                continue;
            };
            self.names.insert(dir.name().to_owned(), one.attempt.clone());
            if one.ended.is_none() {
                self.watch_attempt(&dir);
            }
            if let Loaded::Entry(entry) = &loaded {
                let end = entry.exit.as_ref().map(|ended| ended.output.end);
                if end.is_none_or(|end| entry.delivery.archived < end) {
                    self.resume_output(&one.attempt, &dir, end);
                }
            }
            seen.push(one);
        }
        Ok(Event::Replayed { seen, unreadable })
    }

    fn resume_output(&self, attempt: &AttemptId, dir: &AttemptDir, end: Option<u64>) {
        match spool::Reader::open(dir).and_then(|mut reader| reader.oldest()) {
            Ok(oldest) => {
                self.board.resume(attempt, dir, oldest);
                if let Some(end) = end {
                    self.board.ended(attempt, end);
                }
            }
            Err(error) => tracing::error!(%attempt, %error, "failed to open the output of an attempt"),
        }
    }

    fn facts(&self, message: &ToAgent) -> Facts {
        let (attempt, spec_hash) = match message {
            ToAgent::Start(start) => (&start.attempt, &start.spec_hash),
            ToAgent::Cancel(cancel) => (&cancel.attempt, &cancel.spec_hash),
            _ => return Facts::default(),
        };
        let tombstone =
            self.journal.tombstone(attempt).map(|buried| super::perform::recall(buried, spec_hash));
        // A disk that does not say how full it is will say so at the write.
        Facts { tombstone, free: self.journal.free_bytes().unwrap_or(u64::MAX) }
    }
}

enum Wake {
    Words,
    Changes,
    Time,
}

fn now() -> Now {
    Now { moment: Moment(host::boot_clock_ms()), wall: host::wall_clock() }
}
