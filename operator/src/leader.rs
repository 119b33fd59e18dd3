//! Leader election: [`sentinel_core::lease`] over a `coordination.k8s.io` Lease.
//!
//! The Lease is only changed by `replace` with the resourceVersion that was read; a merge patch would let two
//! candidates win. Epoch and address are annotations, as a Lease has no field for them and its `leaseTransitions` starts
//! anew when the object is deleted.
//!
//! A process that loses the lead exits. It cannot become a follower in place: half of what a leader does is already in
//! flight when it learns that it lost.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::Api;
use sentinel_core::lease::{Candidate, LeaseAction, LeaseRecord, Role};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::Epoch;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::client::{OPERATOR_MANAGER, writes_as};

/// Annotation that holds the epoch.
pub const EPOCH_ANNOTATION: &str = "sentinelnode.dev/epoch";

/// Annotation that holds the address at which agents reach the holder.
pub const ADDRESS_ANNOTATION: &str = "sentinelnode.dev/address";

/// Deadline of a call about the Lease; a slower answer counts as a failure.
const CALL_WITHIN: Duration = Duration::from_millis(1_500);

/// How long a released lead is watched until another operator has it: a few polls of a follower.
const SUCCESSOR_WITHIN: Duration = Duration::from_millis(750);

/// How often the Lease is read meanwhile.
const SUCCESSOR_POLL: Duration = Duration::from_millis(25);

/// What the rest of the operator reads of the election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionStatus {
    /// Whether this process leads, and with which epoch.
    pub role: Role,
    /// The address of the leader, for agents that dial a follower.
    pub leader: Option<String>,
}

impl ElectionStatus {
    /// Before the Lease was read.
    pub const UNKNOWN: Self = Self { role: Role::Following, leader: None };
}

/// How a campaign ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CampaignEnd {
    /// The lead was lost: the process must exit.
    Deposed,
    /// It was stopped, and has released the lead if it had it.
    Stopped,
}

/// Takes part in the election over one Lease.
pub struct Campaign<C> {
    /// The Leases of its namespace; of a client without retries.
    pub api: Api<Lease>,
    /// Name of the Lease.
    pub name: String,
    /// The state of the election.
    pub candidate: Candidate,
    /// The monotonic clock.
    pub clock: C,
    /// Where every change is published.
    pub status: watch::Sender<ElectionStatus>,
}

impl<C: Fn() -> Monotonic> Campaign<C> {
    /// Runs until the lead is lost or `stop` is cancelled. `seen_epochs` carries the highest epoch that an agent named.
    pub async fn run(
        mut self,
        mut seen_epochs: watch::Receiver<Epoch>,
        stop: CancellationToken,
    ) -> CampaignEnd {
        let mut last_read: Option<Lease> = None;
        loop {
            self.candidate.observe_epoch(*seen_epochs.borrow_and_update());
            let next = self.candidate.next((self.clock)());
            self.publish();
            match next {
                LeaseAction::Exit => return CampaignEnd::Deposed,
                LeaseAction::Swap(record) => last_read = self.swap(&record, last_read).await,
                LeaseAction::Read { after_ms } => {
                    tokio::select! {
                        () = stop.cancelled() => {
                            if self.leads() {
                                self.release(last_read).await;
                                self.await_successor().await;
                            }
                            return CampaignEnd::Stopped;
                        }
                        _ = seen_epochs.changed() => {}
                        () = tokio::time::sleep(Duration::from_millis(after_ms)) => {}
                    }
                    // A leader reads only when it must: its swap shows whether the record is still its own.
                    if !self.leads() || after_ms == 0 {
                        last_read = self.read(last_read).await;
                    }
                }
            }
        }
    }

    fn leads(&self) -> bool {
        matches!(self.candidate.role((self.clock)()), Role::Leading(_))
    }

    fn publish(&self) {
        let now = (self.clock)();
        let leader = self.candidate.leader_address(now).map(str::to_owned);
        let current = ElectionStatus { role: self.candidate.role(now), leader };
        self.status.send_if_modified(|known| {
            let changed = *known != current;
            if changed {
                tracing::info!(role = ?current.role, leader = current.leader.as_deref(), "leadership changed");
                *known = current;
            }
            changed
        });
    }

    /// Reads the Lease; the previous one when that fails.
    async fn read(&mut self, previous: Option<Lease>) -> Option<Lease> {
        match timeout(CALL_WITHIN, self.api.get_opt(&self.name)).await {
            Ok(Ok(lease)) => {
                self.candidate.read(lease.as_ref().map(record_of), (self.clock)());
                return lease;
            }
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "unable to read the Lease"),
            Err(_) => {
                tracing::warn!(lease = self.name, within = ?CALL_WITHIN, "unable to read the Lease in time");
            }
        }
        self.candidate.read_failed((self.clock)());
        previous
    }

    /// Writes the Lease in place of the one that was read; `None` when that fails, whether it was written or not.
    async fn swap(&mut self, record: &LeaseRecord, read: Option<Lease>) -> Option<Lease> {
        let lease = lease_of(&self.name, record, read.as_ref());
        let params = writes_as(OPERATOR_MANAGER);
        let write = async {
            if read.is_some() {
                self.api.replace(&self.name, &params, &lease).await
            } else {
                self.api.create(&params, &lease).await
            }
        };
        match timeout(CALL_WITHIN, write).await {
            Ok(Ok(written)) => {
                self.candidate.swapped(renewal_of(&written), (self.clock)());
                return Some(written);
            }
            Ok(Err(error)) => tracing::info!(lease = self.name, %error, "the Lease was not written"),
            Err(_) => {
                tracing::warn!(lease = self.name, within = ?CALL_WITHIN, "unable to write the Lease in time");
            }
        }
        self.candidate.swap_failed((self.clock)());
        None
    }

    async fn release(&mut self, read: Option<Lease>) {
        if let Some(record) = self.candidate.resign((self.clock)()) {
            self.swap(&record, read).await;
        }
    }

    /// Waits until another operator leads, so that agents can be sent to it: a thousand agents that search for the leader
    /// at the same time are what delays its election.
    async fn await_successor(&mut self) {
        let polled = async {
            while self.candidate.leader_address((self.clock)()).is_none() {
                tokio::time::sleep(SUCCESSOR_POLL).await;
                self.read(None).await;
            }
        };
        // Without another operator the lead stays free.
        let _ = timeout(SUCCESSOR_WITHIN, polled).await;
        self.publish();
    }
}

/// The record in a Lease, and the mark of its renewal.
fn record_of(lease: &Lease) -> (LeaseRecord, u64) {
    let annotation = |key: &str| lease.metadata.annotations.as_ref()?.get(key).cloned();
    let spec = lease.spec.clone().unwrap_or_default();
    let record = LeaseRecord {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        address: annotation(ADDRESS_ANNOTATION),
        epoch: epoch_of(annotation(EPOCH_ANNOTATION).as_deref()),
        duration_ms: u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0) * 1000,
    };
    (record, renewal_of(lease))
}

/// The mark of a renewal: `renewTime` in microseconds. It is compared for equality only, never with a clock.
fn renewal_of(lease: &Lease) -> u64 {
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    renewed.map_or(0, |MicroTime(at)| at.as_microsecond()).unsigned_abs()
}

/// The epoch of the Lease. An invalid one was not written by an operator of this release: the next leader then starts
/// from what agents have seen, as after a Lease that was deleted.
fn epoch_of(annotation: Option<&str>) -> Epoch {
    let Some(text) = annotation else { return Epoch::ZERO };
    let epoch =
        text.parse().ok().and_then(|number| Epoch::new(number).ok()).filter(|epoch| *epoch < Epoch::MAX);
    epoch.unwrap_or_else(|| {
        tracing::error!(
            annotation = EPOCH_ANNOTATION, value = text, highest = %Epoch::MAX,
            "invalid epoch in the Lease; treated as unknown: see \"A poisoned epoch\" in docs/security.md"
        );
        Epoch::ZERO
    })
}

fn lease_of(name: &str, record: &LeaseRecord, read: Option<&Lease>) -> Lease {
    let now = MicroTime(Timestamp::now());
    let mut lease = read.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: None,
    });
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(EPOCH_ANNOTATION.to_owned(), record.epoch.to_string());
    match &record.address {
        Some(address) => annotations.insert(ADDRESS_ANNOTATION.to_owned(), address.clone()),
        None => annotations.remove(ADDRESS_ANNOTATION),
    };
    let previous = lease.spec.take().unwrap_or_default();
    let taken_over = previous.holder_identity.as_deref() != record.holder.as_deref();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder.clone().unwrap_or_default()),
        lease_duration_seconds: i32::try_from(record.duration_ms.div_ceil(1000)).ok(),
        acquire_time: if taken_over { Some(now.clone()) } else { previous.acquire_time },
        renew_time: Some(now),
        lease_transitions: Some(previous.lease_transitions.unwrap_or(0) + i32::from(taken_over)),
        ..LeaseSpec::default()
    });
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: Option<&str>, epoch: u32) -> LeaseRecord {
        LeaseRecord {
            holder: holder.map(str::to_owned),
            address: holder.map(|name| format!("{name}:7979")),
            epoch: Epoch::from(epoch),
            duration_ms: 3_000,
        }
    }

    #[test]
    fn a_record_survives_the_way_through_a_lease() {
        for record in [record(Some("a"), 7), record(None, 8)] {
            assert_eq!(record_of(&lease_of("lead", &record, None)).0, record);
        }
    }

    #[test]
    fn a_renewal_keeps_the_acquire_time_and_a_takeover_counts() {
        let first = lease_of("lead", &record(Some("a"), 1), None);
        let renewed = lease_of("lead", &record(Some("a"), 1), Some(&first));
        let taken = lease_of("lead", &record(Some("b"), 2), Some(&renewed));
        let spec = |lease: &Lease| lease.spec.clone().unwrap();
        assert_eq!(spec(&renewed).acquire_time, spec(&first).acquire_time);
        assert_ne!(renewal_of(&renewed), renewal_of(&first), "every write changes the mark");
        assert_ne!(spec(&taken).acquire_time, spec(&first).acquire_time);
        let transitions = [&first, &renewed, &taken].map(|lease| spec(lease).lease_transitions);
        assert_eq!(transitions, [Some(1), Some(1), Some(2)]);
    }

    #[test]
    fn an_invalid_epoch_in_a_lease_is_treated_as_unknown() {
        assert_eq!(epoch_of(None), Epoch::ZERO);
        assert_eq!(epoch_of(Some("41")), Epoch::from(41));
        let highest = Epoch::MAX.get();
        for poisoned in [u64::MAX, i64::MAX as u64, highest + 1, highest] {
            assert_eq!(epoch_of(Some(&poisoned.to_string())), Epoch::ZERO, "{poisoned} is believed");
        }
        for garbage in ["", "-1", "x", "18446744073709551616"] {
            assert_eq!(epoch_of(Some(garbage)), Epoch::ZERO, "{garbage:?} is believed");
        }
    }
}
