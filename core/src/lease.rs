//! Leader election over one record that is changed only by compare-and-swap.
//!
//! ```text
//!                 record free, or unchanged for its whole duration
//!    Following ─────────────────────────────────────────────────────▶ Leading (epoch grows)
//!        ▲                                                               │
//!        └── never in the same process: a leader that lost the record, ──┘
//!            or could not renew it for 2/3 of its duration, exits
//! ```
//!
//! Clocks of different processes are never compared. A record has expired once *this* process has seen it unchanged for
//! its duration, as in client-go's leader election, and a writer that was overtaken finds out by the failed swap. The
//! **epoch** grows with each leader. Agents refuse a lower one, so a deposed leader that does not know it yet does no
//! harm.

use sentinel_protocol::ids::Epoch;

use crate::time::Monotonic;

/// How far above the leader's epoch an epoch named by an agent may be.
///
/// Agents have seen a higher epoch than the leader only after the cluster was restored from a backup or the record was
/// deleted; the leader then raises its own above theirs. One agent must not be able to exhaust the epochs: this limit is
/// more leaders than most fleets ever have, and a tiny fraction of the range.
pub const MAX_JUMP: u64 = 10_000;

/// Whether an agent may name this epoch if the leader's is `ours`.
pub fn is_credible(named: Epoch, ours: Epoch) -> bool {
    named.above(ours) <= MAX_JUMP
}

/// The content of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The identity of the holder; `None` when it was released.
    pub holder: Option<String>,
    /// Where agents reach the holder.
    pub address: Option<String>,
    /// Grows with each holder.
    pub epoch: Epoch,
    /// How long a renewal is valid, milliseconds.
    pub duration_ms: u64,
}

/// The timing of an election, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a renewal is valid.
    pub duration_ms: u64,
    /// How often the leader renews.
    pub renew_ms: u64,
    /// How often a follower reads the record.
    pub poll_ms: u64,
    /// The backoff after the second failure in a row.
    pub retry_ms: u64,
}

impl Timing {
    /// A takeover within a few seconds, at two small writes per second.
    pub const DEFAULT: Self = Self { duration_ms: 3_000, renew_ms: 500, poll_ms: 250, retry_ms: 100 };

    /// The age of the last renewal at which a leader stops acting: well before another may take over.
    pub fn give_up_ms(self) -> u64 {
        self.duration_ms / 3 * 2
    }
}

/// The role of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Another process leads, or none.
    Following,
    /// It leads.
    Leading(Epoch),
    /// It led and must not act any more: the process exits.
    Deposed,
}

/// What a candidate should do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAction {
    /// Read the record again after so many milliseconds.
    Read {
        /// Milliseconds to wait.
        after_ms: u64,
    },
    /// Replace the record last read by this one; create it if there was none.
    Swap(LeaseRecord),
    /// Exit the process.
    Exit,
}

/// One candidate.
#[derive(Debug, Clone)]
pub struct Candidate {
    identity: String,
    address: Option<String>,
    timing: Timing,
    role: Role,
    /// The record as last read, with the mark of its renewal, and since when it has been unchanged.
    seen: Option<(Option<(LeaseRecord, u64)>, Monotonic)>,
    /// The highest epoch that the record or an agent has named.
    highest: Epoch,
    /// When the last successful renewal was *begun*: its validity counts from then.
    renewed_at: Monotonic,
    /// When the pending swap was begun, and what it writes.
    swapping: Option<(Monotonic, LeaseRecord)>,
    /// Failures since the last success, and when the latest was.
    failures: u32,
    failed_at: Monotonic,
}

impl Candidate {
    /// A candidate that has read nothing yet.
    pub fn new(identity: String, address: Option<String>, timing: Timing) -> Self {
        Self {
            identity,
            address,
            timing,
            role: Role::Following,
            seen: None,
            highest: Epoch::ZERO,
            renewed_at: Monotonic(0),
            swapping: None,
            failures: 0,
            failed_at: Monotonic(0),
        }
    }

    /// Its current role. A leader with an outdated renewal is deposed, whether it has noticed or not.
    pub fn role(&self, now: Monotonic) -> Role {
        match self.role {
            Role::Leading(_) if now.since(self.renewed_at) >= self.timing.give_up_ms() => Role::Deposed,
            role => role,
        }
    }

    /// The address of this process, for agents.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The leader's address in the record; `None` once the holder has not renewed for so long that it does not lead any
    /// more.
    pub fn leader_address(&self, now: Monotonic) -> Option<&str> {
        let (record, since) = self.seen.as_ref()?;
        let (record, _) = record.as_ref().filter(|(record, _)| record.holder.is_some())?;
        let is_fresh = now.since(*since) < self.timing.give_up_ms();
        is_fresh.then_some(record.address.as_deref())?
    }

    /// Observes an epoch named by an agent: the next own epoch will be above it, unless it is not credible.
    pub fn observe_epoch(&mut self, epoch: Epoch) {
        if is_credible(epoch, self.highest) {
            self.raise_to(epoch);
        }
    }

    /// The highest possible epoch is ignored: it has no successor to lead with.
    fn raise_to(&mut self, epoch: Epoch) {
        if epoch < Epoch::MAX {
            self.highest = self.highest.max(epoch);
        }
    }

    /// The epoch above every known one.
    fn above_highest(&self) -> Epoch {
        self.highest.next().unwrap_or(self.highest)
    }

    /// The record was read, with a mark that changes with every renewal and is compared for equality only.
    pub fn read(&mut self, record: Option<(LeaseRecord, u64)>, now: Monotonic) {
        if let Some((record, _)) = &record {
            self.raise_to(record.epoch);
        }
        let unchanged = self.seen.as_ref().is_some_and(|(seen, _)| *seen == record);
        if !unchanged {
            self.seen = Some((record, now));
        }
        self.notice_loss();
    }

    /// The record could not be read.
    pub fn read_failed(&mut self, now: Monotonic) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
    }

    /// The requested swap succeeded; `renewal` is the mark that a read of the record finds now.
    pub fn swapped(&mut self, renewal: u64, now: Monotonic) {
        let Some((begun, record)) = self.swapping.take() else { return };
        self.failures = 0;
        self.raise_to(record.epoch);
        self.role = match record.holder {
            Some(_) => Role::Leading(record.epoch),
            None => Role::Deposed,
        };
        self.renewed_at = begun;
        self.seen = Some((Some((record, renewal)), now));
    }

    /// The swap failed, or its result is unknown. The record is read again before anything else.
    pub fn swap_failed(&mut self, now: Monotonic) {
        self.read_failed(now);
        self.swapping = None;
        // Dropping the record restarts the wait for its expiry, which is safe.
        self.seen = None;
    }

    /// What to do next.
    pub fn next(&mut self, now: Monotonic) -> LeaseAction {
        match self.role(now) {
            Role::Deposed => LeaseAction::Exit,
            Role::Leading(epoch) => self.lead(epoch, now),
            Role::Following => self.follow(now),
        }
    }

    /// What to write to release the lead, so that no other process has to wait until it expires.
    pub fn resign(&mut self, now: Monotonic) -> Option<LeaseRecord> {
        let Role::Leading(epoch) = self.role(now) else { return None };
        let record = LeaseRecord { holder: None, address: None, ..self.record(epoch) };
        self.swapping = Some((now, record.clone()));
        Some(record)
    }

    fn lead(&mut self, epoch: Epoch, now: Monotonic) -> LeaseAction {
        if self.seen.is_none() {
            return self.read_soon(now);
        }
        // An agent has observed a higher epoch (a restored cluster): raise ours above it.
        let epoch = if self.highest > epoch { self.above_highest() } else { epoch };
        let due = self.renewed_at.plus(self.timing.renew_ms);
        let rises = Role::Leading(epoch) != self.role;
        if !rises && now < due {
            return LeaseAction::Read { after_ms: due.since(now) };
        }
        self.swap(epoch, now)
    }

    fn follow(&mut self, now: Monotonic) -> LeaseAction {
        let Some((record, since)) = self.seen.clone() else { return self.read_soon(now) };
        let free = match &record {
            None => true,
            Some((record, _)) if record.holder.is_none() => true,
            // The holder may be an earlier process of this identity: it expires like any other.
            Some((record, _)) => now.since(since) >= record.duration_ms,
        };
        if !free {
            self.failures = 0;
            return LeaseAction::Read { after_ms: self.timing.poll_ms };
        }
        self.swap(self.above_highest(), now)
    }

    /// At once, but not in a hot loop: an unavailable API server may refuse within a millisecond.
    fn read_soon(&self, now: Monotonic) -> LeaseAction {
        let until = if self.failures < 2 { now } else { self.failed_at.plus(self.timing.retry_ms) };
        LeaseAction::Read { after_ms: until.since(now) }
    }

    fn swap(&mut self, epoch: Epoch, now: Monotonic) -> LeaseAction {
        let record = self.record(epoch);
        self.swapping = Some((now, record.clone()));
        LeaseAction::Swap(record)
    }

    fn record(&self, epoch: Epoch) -> LeaseRecord {
        LeaseRecord {
            holder: Some(self.identity.clone()),
            address: self.address.clone(),
            epoch,
            duration_ms: self.timing.duration_ms,
        }
    }

    /// A leader that reads another holder in the record has been deposed.
    fn notice_loss(&mut self) {
        let Role::Leading(epoch) = self.role else { return };
        let Some((record, _)) = &self.seen else { return };
        let ours = record.as_ref().is_some_and(|(record, _)| {
            record.holder.as_deref() == Some(&self.identity) && record.epoch >= epoch
        });
        if !ours {
            self.role = Role::Deposed;
        }
    }
}
