//! select → step → perform.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sentinel_core::agent::{Agent, Effect, Event, Facts, Journaled, PolicyVerdict, Rules};
use sentinel_core::time::{Monotonic, Now};
use sentinel_protocol::request::RunRequest;
use sentinel_protocol::to_agent::{Start, ToAgent};

use super::conversion::tombstone_from_journal;
use super::performer::Performer;
use crate::channel::{Inbox, Input};
use crate::host;
use crate::journal::{Accepted, AgentWakeups, Change, JournalError, Loaded, Wakeup};

/// How often active Attempts are inspected, though no change was observed.
const TICK: Duration = Duration::from_secs(1);

/// How long wake-ups are not polled for after some that were about the output of many Attempts, so that a flood of output does not
/// wake the thread thousands of times a second. A supervisor wakes it at most a hundred times a second.
const OUTPUT_DEBOUNCE: Duration = Duration::from_millis(5);

/// How long a Report that an Attempt was accepted waits for its command to start, and the start of the next supervisor for the
/// command to end.
const PUT_OFF_FOR: Duration = Duration::from_millis(10);

/// Attempts with output at once that make a flood.
const FLOOD: usize = 8;

/// Shortest time between two inspections where supervisors cannot wake the agent.
const POLL_AT_LEAST: Duration = Duration::from_millis(10);

/// Attempts that are checked for output in one tick.
const OUTPUT_CHECKS: usize = 1024;

/// How often the thread wakes when no Attempt is active.
const IDLE_TICK: Duration = Duration::from_mins(1);

/// The agent's thread.
pub(crate) struct AgentLoop {
    /// Dropped first: the performer waits for threads that may be sending to it.
    inbox: Inbox,
    agent: Agent,
    performer: Performer,
    /// Wake-ups by supervisors; `None` where the file system has no named pipes.
    wakeups: Option<AgentWakeups>,
    /// Milliseconds of the boot clock.
    next_tick: u64,
    /// Wake-ups are not polled for until then.
    debounce_until: Option<Instant>,
    /// Until when Reports that Attempts were accepted are held, and no supervisor is started in advance while another one waits.
    put_off_until: Option<Instant>,
    /// When an input was last received or a record last changed, milliseconds of the boot clock.
    changed_at: u64,
}

impl AgentLoop {
    /// Reads the Journal and does what follows from it: adopts, starts, concludes.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub(crate) fn start(performer: Performer, rules: Rules, inbox: Inbox) -> Result<Self, JournalError> {
        let wakeups = AgentWakeups::open(performer.journal().root());
        if let Err(error) = &wakeups {
            tracing::warn!(%error, "supervisors cannot wake the agent; their records are polled instead");
        }
        let epoch = performer.journal().highest_epoch()?;
        performer.metrics().set_highest_epoch(epoch);
        let mut agent_loop = Self {
            agent: Agent::new(rules, epoch),
            performer,
            wakeups: wakeups.ok(),
            inbox,
            next_tick: 0,
            debounce_until: None,
            put_off_until: None,
            changed_at: host::boot_clock_ms(),
        };
        let replayed = agent_loop.replay()?;
        agent_loop.step_and_perform(replayed);
        Ok(agent_loop)
    }

    /// Runs until it receives [`Input::Stop`]. Commands continue without it.
    pub(crate) fn run(mut self) {
        loop {
            // Not after each event: its cost grows with the number of Attempts, and there can be many while History is down.
            self.performer.metrics().set_counts(self.agent.living(), self.agent.unacknowledged());
            match self.select() {
                Ready::Inputs => {
                    self.inbox.drain_wakeups();
                    while let Some(input) = self.inbox.try_recv() {
                        if let Input::Stop = input {
                            self.step_and_perform(Event::Stopping);
                            self.performer.write_deliveries();
                            self.performer.trail().sync();
                            return;
                        }
                        self.on_input(input);
                    }
                    // The one that waited has an Attempt now.
                    if self.performer.has_no_standby() {
                        self.performer.prefork();
                    }
                }
                Ready::Wakeups => self.on_wakeups(),
                Ready::PutOff => self.do_put_off(),
                Ready::Tick => self.on_tick(),
            }
        }
    }

    /// Waits. Inputs take precedence over wake-ups: a party waits for their answer.
    fn select(&self) -> Ready {
        loop {
            let left = Duration::from_millis(self.next_tick.saturating_sub(host::boot_clock_ms()));
            if left.is_zero() {
                return Ready::Tick;
            }
            let debounce = self.debounce_until.map(|until| until.saturating_duration_since(Instant::now()));
            let debounce = debounce.filter(|pause| !pause.is_zero());
            let left = debounce.map_or(left, |pause| pause.min(left));
            let put_off = self.put_off_until.map(|until| until.saturating_duration_since(Instant::now()));
            if put_off.is_some_and(|put_off| put_off.is_zero()) {
                return Ready::PutOff;
            }
            let left = put_off.map_or(left, |put_off| put_off.min(left));
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let polled = if debounce.is_some() { PollFlags::empty() } else { PollFlags::IN };
            let mut fds = vec![PollFd::new(&self.inbox, PollFlags::IN)];
            fds.extend(self.wakeups.as_ref().map(|wakeups| PollFd::new(wakeups, polled)));
            // After EINTR the wait is resumed with the time that is left.
            if poll(&mut fds, Some(&timeout)).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                return Ready::Inputs;
            }
            if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                return Ready::Wakeups;
            }
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Connected { epoch, outbox } => {
                self.performer.set_outbox(Some(outbox));
                self.step_and_perform(Event::Connected { epoch });
            }
            Input::Disconnected => {
                self.performer.set_outbox(None);
                self.step_and_perform(Event::Disconnected);
            }
            Input::Message { message, secrets } => {
                let mut facts = self.facts(&message);
                if let ToAgent::Start(start) = &message {
                    facts.secrets = self.performer.secrets.receive(start, secrets);
                }
                self.step_and_perform(Event::Received { message, facts });
                self.performer.secrets.drop_received();
            }
            Input::Event(event) => {
                if let Event::Compacted { attempt } = &*event {
                    self.performer.note_compacted(attempt);
                }
                self.step_and_perform(*event);
            }
            Input::Archived { attempt, position } => self.performer.note_archived(&attempt, position),
            Input::Stop => {}
        }
        // An Attempt may be active now that has to be inspected, or an acknowledgement to be written.
        self.changed_at = host::boot_clock_ms();
        let pause = if self.wakeups.is_some() { TICK } else { POLL_AT_LEAST };
        self.next_tick = self.next_tick.min(self.changed_at + pause.as_millis() as u64);
    }

    fn on_wakeups(&mut self) {
        let Some(wakeups) = &mut self.wakeups else { return };
        let received = match wakeups.drain() {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "unable to read the wake-up pipe; records are polled instead");
                self.wakeups = None;
                return;
            }
        };
        if received.may_be_incomplete {
            self.next_tick = 0;
        }
        let mut with_output = 0;
        for Wakeup { attempt, change } in received.wakeups {
            let Some(attempt) = self.performer.attempt_in(&attempt) else { continue };
            match change {
                Change::Record => {
                    if self.agent.is_living(&attempt)
                        && let Some(event) = self.performer.perform(Effect::Inspect(attempt))
                    {
                        let has_ended = matches!(&event, Event::Observed(seen) if seen.ended.is_some());
                        self.step_and_perform(event);
                        if has_ended {
                            self.performer.prefork();
                        }
                    }
                }
                Change::Output => {
                    with_output += 1;
                    self.performer.notices().written(&attempt);
                }
            }
        }
        if with_output >= FLOOD {
            self.debounce_until = Some(Instant::now() + OUTPUT_DEBOUNCE);
        }
    }

    fn on_tick(&mut self) {
        let began = Instant::now();
        self.performer.reap();
        self.performer.write_deliveries();
        self.performer.prefork();
        self.performer.checkpoint();
        self.performer.trail().sync_later();
        self.step_and_perform(Event::Tick);
        // Output without a wake-up: the supervisor is of an older release, or the pipe was full.
        let active = self.performer.attempts().filter(|id| self.agent.is_living(id));
        for attempt in active.take(OUTPUT_CHECKS) {
            self.performer.notices().written(attempt);
        }
        let pause = self.pause(began.elapsed());
        let pause = if self.performer.trail().has_unsynced() { pause.min(TICK) } else { pause };
        self.next_tick = host::boot_clock_ms() + pause.as_millis() as u64;
    }

    /// How long until the next tick, when the last one took this long.
    fn pause(&self, took: Duration) -> Duration {
        if self.agent.living() == 0 {
            let waits = self.agent.unacknowledged() > 0 || self.performer.has_deliveries();
            return if waits { TICK } else { IDLE_TICK };
        }
        if self.wakeups.is_some() {
            return TICK;
        }
        // A command that has just started is likely to end soon; and polling never takes more than a tenth of the time.
        let age = host::boot_clock_ms().saturating_sub(self.changed_at);
        Duration::from_millis(age / 16).clamp(POLL_AT_LEAST, TICK).max(took * 9).min(10 * TICK)
    }

    /// Steps and performs until no event is left.
    fn step_and_perform(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let asked = self.performer.trail().note_event(&event);
            let effects = self.agent.step(event, now());
            self.performer.trail().note_effects(asked.as_ref(), &effects);
            for effect in effects {
                let result = self.performer.perform(effect);
                let failed = matches!(result, Some(Event::JournalFailed { .. } | Event::NotRecorded { .. }));
                events.extend(result);
                if failed {
                    break;
                }
            }
        }
        self.performer.publish_begun();
        let waits = self.performer.has_held() || self.performer.lacks_standby();
        self.put_off_until =
            waits.then(|| self.put_off_until.unwrap_or_else(|| Instant::now() + PUT_OFF_FOR));
    }

    /// Does what was put off, so that commands could start.
    fn do_put_off(&mut self) {
        self.put_off_until = None;
        self.performer.prefork();
        if let Some(failed) = self.performer.send_held() {
            self.step_and_perform(failed);
        }
    }

    fn replay(&mut self) -> Result<Event, JournalError> {
        let mut seen = Vec::new();
        let mut unreadable = Vec::new();
        let journal = self.performer.journal().load()?;
        let readable = journal.iter().filter_map(|(_, loaded)| match loaded {
            Loaded::Readable(record) => Some(record.accepted.start.attempt.clone()),
            Loaded::Corrupt { .. } => None,
        });
        self.performer.trail().search(readable);
        for (dir, loaded) in journal {
            if let Loaded::Corrupt { why } = &loaded {
                tracing::error!(attempt = dir.name(), why, "the record of an attempt is corrupt");
            }
            match self.performer.replay(&dir, &loaded) {
                Some(snapshot) => seen.push(snapshot),
                None => unreadable.push(dir.name().to_owned()),
            }
        }
        Ok(Event::Replayed { seen, unreadable })
    }

    fn facts(&mut self, message: &ToAgent) -> Facts {
        let (mut policy, mut journaled) = (PolicyVerdict::default(), Journaled::default());
        if let ToAgent::Start(start) = message {
            let known = self.performer.attempt_in(&start.attempt.directory_name());
            let is_known = known.as_ref() == Some(&start.attempt);
            let accepted = is_known.then(|| self.performer.accepted(&start.attempt));
            journaled = compared(accepted.as_ref(), start);
            let accepted = accepted.and_then(|accepted| accepted.ok().flatten());
            if !self.agent.is_settled(&start.attempt) {
                policy = self.performer.permission.verdict(start, accepted.as_ref());
            }
        }
        let (attempt, spec_hash) = match message {
            ToAgent::Start(start) => (&start.attempt, &start.spec_hash),
            ToAgent::Cancel(cancel) => (&cancel.attempt, &cancel.spec_hash),
            _ => return Facts::default(),
        };
        let journal = self.performer.journal();
        let kept = journal.tombstone(attempt);
        let tombstone = kept.map(|kept| tombstone_from_journal(kept, spec_hash));
        // Where the free space is unknown, the write shows whether there is enough.
        let free = journal.free_bytes().unwrap_or(u64::MAX);
        Facts { tombstone, free, policy, journaled, ..Facts::default() }
    }
}

/// What was accepted, if the Journal has it, beside what is asked for.
fn compared(accepted: Option<&Result<Option<Accepted>, JournalError>>, start: &Start) -> Journaled {
    match accepted {
        None => Journaled::Same,
        Some(Ok(Some(accepted))) if asks_for_the_same(accepted, start) => Journaled::Same,
        Some(Ok(Some(_))) => Journaled::Another,
        Some(Ok(None) | Err(_)) => Journaled::Unknown,
    }
}

/// Whether a `Start` asks for what was accepted. How much output is kept may change while a Task runs.
fn asks_for_the_same(accepted: &Accepted, start: &Start) -> bool {
    let then = &accepted.start;
    let request = RunRequest { output: then.request.output, ..start.request.clone() };
    then.task == start.task && then.request == request
}

/// What the thread was woken for.
enum Ready {
    Inputs,
    Wakeups,
    PutOff,
    Tick,
}

fn now() -> Now {
    Now { monotonic: Monotonic(host::boot_clock_ms()), wall: host::wall_clock() }
}
