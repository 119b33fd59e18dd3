//! select → step → perform.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sentinel_core::agent::{Agent, Event, Facts, Rules};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::to_agent::ToAgent;
use sentinel_protocol::to_operator::ToOperator;
use tokio::sync::mpsc;

use super::look::look;
use super::mailbox::{Inbox, Input, Mailbox};
use crate::host::{self, Home};
use crate::journal::{AttemptDir, Bell, Changed, Heard, JournalError, Loaded, StateDir};
use crate::link::Board;
use crate::spool;
use crate::supervisor::Launcher;
use crate::vitals::Vitals;

/// How often Attempts that are not over are looked at, though nothing was seen to change.
const TICK: Duration = Duration::from_secs(1);

/// How long new output may go unnoticed after some was noticed, so that a flood of it wakes nobody thousands of times
/// a second.
const OUTPUT_PAUSE: Duration = Duration::from_millis(5);

/// How often Attempts are looked at at most where supervisors cannot ring.
const POLL_AT_LEAST: Duration = Duration::from_millis(10);

/// Attempts whose output is looked for in one turn, at most.
const OUTPUT_LOOKS: usize = 1024;

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
    /// Rung by supervisors; `None` where there is no such thing.
    bell: Option<Bell>,
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
    /// When a word came or a record changed last, milliseconds of the boot clock.
    news_at: u64,
}

impl Body {
    /// Reads the Journal and begins what follows from it: adopts, starts, concludes.
    pub(crate) fn awaken(parts: Parts) -> Result<Self, JournalError> {
        let Parts { journal, launcher, rules, inbox, mailbox, board, vitals, home } = parts;
        let bell = Bell::open(journal.root());
        if let Err(error) = &bell {
            tracing::warn!(%error, "supervisors cannot ring; their records are looked at in short turns instead");
        }
        let epoch = journal.highest_epoch()?;
        vitals.set_highest_epoch(epoch);
        let mut body = Self {
            agent: Agent::new(rules, epoch),
            journal,
            launcher,
            bell: bell.ok(),
            mailbox,
            board,
            vitals,
            home,
            outbox: None,
            names: BTreeMap::new(),
            inbox,
            next_tick: 0,
            deaf_until: None,
            news_at: host::boot_clock_ms(),
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
                    let begun = Instant::now();
                    self.launcher.reap();
                    self.handle(Event::Tick);
                    self.look_for_output();
                    let pause = self.pause(begun.elapsed());
                    self.next_tick = host::boot_clock_ms() + pause.as_millis() as u64;
                }
            }
        }
    }

    /// How long until everything is looked at once more, when looking took so long.
    fn pause(&self, took: Duration) -> Duration {
        if self.agent.living() == 0 {
            return if self.agent.unacknowledged() > 0 { TICK } else { REST };
        }
        if self.bell.is_some() {
            return TICK;
        }
        // What has just begun is likely to end soon; and looking never takes more than a tenth of the time.
        let age = host::boot_clock_ms().saturating_sub(self.news_at);
        Duration::from_millis(age / 16).clamp(POLL_AT_LEAST, TICK).max(took * 9).min(10 * TICK)
    }

    /// Output of which nobody rang: the supervisor is of an older release, or its ring was turned away.
    fn look_for_output(&mut self) {
        for attempt in self.names.values().filter(|id| self.agent.is_living(id)).take(OUTPUT_LOOKS) {
            self.board.wrote(attempt);
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
            let mut ready = vec![PollFd::new(&self.inbox, PollFlags::IN)];
            ready.extend(self.bell.as_ref().map(|bell| PollFd::new(bell, changes)));
            // An interrupted wait is begun again with the time that is left.
            if poll(&mut ready, Some(&timeout)).is_err() {
                continue;
            }
            let words = !ready[0].revents().is_empty();
            let changes = ready.get(1).is_some_and(|fd| !fd.revents().is_empty());
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
        self.news_at = host::boot_clock_ms();
        let pause = if self.bell.is_some() { TICK } else { POLL_AT_LEAST };
        self.next_tick = self.next_tick.min(self.news_at + pause.as_millis() as u64);
    }

    fn notice_changes(&mut self) {
        let Some(bell) = &mut self.bell else { return };
        let (rings, heard) = match bell.rings() {
            Ok(heard) => heard,
            Err(error) => {
                tracing::warn!(%error, "unable to hear the bell; looking in short turns instead");
                self.bell = None;
                return;
            }
        };
        if heard == Heard::Some {
            self.next_tick = 0;
        }
        for ring in rings {
            let Some(attempt) = self.names.get(&ring.attempt).cloned() else { continue };
            match ring.what {
                Changed::Record => {
                    if self.agent.is_living(&attempt)
                        && let Some(event) = self.observe(&self.journal.attempt(&attempt))
                    {
                        self.handle(event);
                    }
                }
                Changed::Output => {
                    self.deaf_until = Some(Instant::now() + OUTPUT_PAUSE);
                    self.board.wrote(&attempt);
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
    Now { monotonic: Monotonic(host::boot_clock_ms()), wall: host::wall_clock() }
}
