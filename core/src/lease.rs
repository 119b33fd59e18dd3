//! Who leads: the election over one record that is changed by compare-and-swap alone.
//!
//! ```text
//!                 record free, or unchanged for its whole duration
//!    Following ─────────────────────────────────────────────────────▶ Leading (epoch grows)
//!        ▲                                                               │
//!        └── never in place: who loses the record, or could not renew ───┘
//!            it for two thirds of its duration, ends its process
//! ```
//!
//! No two clocks are compared. Whether a record has run out is judged by how long *we* have seen it unchanged, as in
//! Kubernetes' own election; and a writer that was overtaken learns it from the failed swap. The **epoch** grows with
//! each new leader and is what agents believe: a leader that does not know yet that it was deposed is refused by them.

use sentinel_protocol::ids::Epoch;

use crate::time::Monotonic;

/// How far above the leader's an epoch may lie that an agent names, at most.
///
/// Agents have seen a higher epoch than the leader only when the cluster came back from an older state, or the record was
/// deleted; then the leader rises above theirs. One agent's word must not carry the whole fleet further than that
/// takes: this is more leaders than most fleets ever had, and a ten-thousand-millionth of what there is.
pub const MAX_JUMP: u64 = 10_000;

/// Whether an epoch that an agent names can be one that it has seen, where the leader's is `ours`.
pub fn is_credible(named: Epoch, ours: Epoch) -> bool {
    named.above(ours) <= MAX_JUMP
}

/// What the record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Who holds it; `None` when it was given back.
    pub holder: Option<String>,
    /// Where agents reach the holder.
    pub address: Option<String>,
    /// Grows with each new holder.
    pub epoch: Epoch,
    /// How long it is good for after a renewal, milliseconds.
    pub duration_ms: u64,
    /// Changes with every renewal; compared for equality only.
    pub renewal: u64,
}

/// The numbers of an election, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a renewal is good for.
    pub duration_ms: u64,
    /// How often the leader renews.
    pub renew_ms: u64,
    /// How often a follower reads the record.
    pub poll_ms: u64,
    /// How long nothing is asked after a second failure in a row.
    pub retry_ms: u64,
}

impl Timing {
    /// A takeover within a few seconds at two small writes a second.
    pub const DEFAULT: Self = Self { duration_ms: 3_000, renew_ms: 500, poll_ms: 250, retry_ms: 100 };

    /// The age of the last renewal at which a leader stops acting: well before anybody may take over.
    pub fn give_up_ms(self) -> u64 {
        self.duration_ms / 3 * 2
    }
}

/// What the candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Somebody else leads, or nobody.
    Following,
    /// It leads.
    Leading(Epoch),
    /// It led and must not act any more: the process ends.
    Deposed,
}

/// What the candidate should do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAction {
    /// Read the record again after so many milliseconds.
    Read {
        /// Milliseconds to wait.
        after_ms: u64,
    },
    /// Write this in place of the record last read; create it when there was none.
    Swap(LeaseRecord),
    /// End the process.
    End,
}

/// One candidate.
#[derive(Debug, Clone)]
pub struct Candidate {
    identity: String,
    address: Option<String>,
    timing: Timing,
    role: Role,
    /// The record as last read, and since when we see it unchanged.
    seen: Option<(Option<LeaseRecord>, Monotonic)>,
    /// The highest epoch that anybody named.
    highest: Epoch,
    /// When the last successful renewal was *begun*: its duration counts from there.
    renewed_at: Monotonic,
    /// When the swap under way was begun, and what it writes.
    swapping: Option<(Monotonic, LeaseRecord)>,
    /// Failures since the election last went its way, and when the latest was.
    failures: u32,
    failed_at: Monotonic,
    renewals: u64,
}

impl Candidate {
    /// A candidate that has seen nothing yet. `seed` makes its renewals differ from those of an earlier process of
    /// the same identity.
    pub fn new(identity: String, address: Option<String>, timing: Timing, seed: u64) -> Self {
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
            renewals: seed,
        }
    }

    /// What it is now. A leader whose renewal is too old is deposed, whether it has noticed or not.
    pub fn role(&self, now: Monotonic) -> Role {
        match self.role {
            Role::Leading(_) if now.since(self.renewed_at) >= self.timing.give_up_ms() => Role::Deposed,
            role => role,
        }
    }

    /// Where the leader is, as far as the record says; nowhere once its holder has not renewed it for so long that it
    /// does not lead any more.
    pub fn leader_address(&self, now: Monotonic) -> Option<&str> {
        let (record, since) = self.seen.as_ref()?;
        let record = record.as_ref().filter(|record| record.holder.is_some())?;
        let is_fresh = now.since(*since) < self.timing.give_up_ms();
        is_fresh.then_some(record.address.as_deref())?
    }

    /// An agent named an epoch; the next one of ours lies above it, unless it cannot be one that was led.
    pub fn observe_epoch(&mut self, epoch: Epoch) {
        if is_credible(epoch, self.highest) {
            self.raise_to(epoch);
        }
    }

    /// An epoch without a successor would leave none to lead with.
    fn raise_to(&mut self, epoch: Epoch) {
        if epoch < Epoch::MAX {
            self.highest = self.highest.max(epoch);
        }
    }

    /// The epoch above every one that was heard of.
    fn above_highest(&self) -> Epoch {
        self.highest.next().unwrap_or(self.highest)
    }

    /// The record was read.
    pub fn read(&mut self, record: Option<LeaseRecord>, now: Monotonic) {
        if let Some(record) = &record {
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

    /// The swap that was asked for came through.
    pub fn swapped(&mut self, now: Monotonic) {
        let Some((begun, record)) = self.swapping.take() else { return };
        self.failures = 0;
        self.raise_to(record.epoch);
        self.role = match record.holder {
            Some(_) => Role::Leading(record.epoch),
            None => Role::Deposed,
        };
        self.renewed_at = begun;
        self.seen = Some((Some(record), now));
    }

    /// The swap did not come through, or nobody knows whether it did. The record is read again before anything else.
    pub fn swap_failed(&mut self, now: Monotonic) {
        self.read_failed(now);
        self.swapping = None;
        // Forgetting what was seen restarts the wait for an expiry, which is the safe side.
        self.seen = None;
    }

    /// What to do now.
    pub fn next(&mut self, now: Monotonic) -> LeaseAction {
        match self.role(now) {
            Role::Deposed => LeaseAction::End,
            Role::Leading(epoch) => self.lead(epoch, now),
            Role::Following => self.follow(now),
        }
    }

    /// What to write to give the lead back, so that nobody has to wait for it to run out.
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
        // An agent has seen a higher epoch than ours (a restored cluster): rise above it.
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
            Some(record) if record.holder.is_none() => true,
            // Our own earlier process is as dead as any other that no longer renews, and not before.
            Some(record) => now.since(since) >= record.duration_ms,
        };
        if !free {
            self.failures = 0;
            return LeaseAction::Read { after_ms: self.timing.poll_ms };
        }
        self.swap(self.above_highest(), now)
    }

    /// At once, but not again and again: an API server that is away refuses within a millisecond.
    fn read_soon(&self, now: Monotonic) -> LeaseAction {
        let until = if self.failures < 2 { now } else { self.failed_at.plus(self.timing.retry_ms) };
        LeaseAction::Read { after_ms: until.since(now) }
    }

    fn swap(&mut self, epoch: Epoch, now: Monotonic) -> LeaseAction {
        self.renewals = self.renewals.wrapping_add(1);
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
            renewal: self.renewals,
        }
    }

    /// A leader that reads another's name in the record has been deposed.
    fn notice_loss(&mut self) {
        let Role::Leading(epoch) = self.role else { return };
        let Some((record, _)) = &self.seen else { return };
        let ours = record
            .as_ref()
            .is_some_and(|record| record.holder.as_deref() == Some(&self.identity) && record.epoch >= epoch);
        if !ours {
            self.role = Role::Deposed;
        }
    }
}
