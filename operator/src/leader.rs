//! Leadership: the election of [`sentinel_core::lease`] over a `coordination.k8s.io` Lease of our own.
//!
//! The Lease is changed by `replace` with the resourceVersion that was read, and by nothing else; a merge patch would
//! let two candidates win. Epoch and address live in annotations, as a Lease has no field for them and its
//! `leaseTransitions` starts anew when somebody deletes the object.
//!
//! Who loses the lead ends its process. There is no way back in place: half of what a leader does is already on its
//! way when it learns that it lost.

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

use crate::cluster::kube::{OPERATOR_MANAGER, writes_as};

/// Annotation that holds the epoch.
pub const EPOCH_ANNOTATION: &str = "sentinelnode.dev/epoch";

/// Annotation that holds the address at which agents reach the holder.
pub const ADDRESS_ANNOTATION: &str = "sentinelnode.dev/address";

/// A call about the Lease must be answered within this time; a slower answer is as good as none.
const CALL_WITHIN: Duration = Duration::from_millis(1_500);

/// How long is waited for another to take the lead that was given back: some looks of a follower.
const TAKEN_WITHIN: Duration = Duration::from_millis(750);

/// How often is looked meanwhile.
const TAKEN_EVERY: Duration = Duration::from_millis(25);

/// What the rest of the operator needs to know about the lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Whether this process leads, and with which epoch.
    pub role: Role,
    /// Where the leader is, for agents that dial a follower.
    pub leader: Option<String>,
}

impl Leadership {
    /// Before anything is known.
    pub const UNKNOWN: Self = Self { role: Role::Following, leader: None };
}

/// How a campaign ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The lead was lost: the process must end.
    Deposed,
    /// It was asked to stop, and gave the lead back if it had it.
    Stopped,
}

/// Takes part in the election until the lead is lost or `stop` is cancelled.
///
/// `api` should belong to a client of its own, without retries. `heard` carries the highest epoch that an agent named.
pub async fn campaign(
    api: Api<Lease>,
    name: &str,
    mut candidate: Candidate,
    clock: impl Fn() -> Monotonic,
    mut heard: watch::Receiver<Epoch>,
    leadership: watch::Sender<Leadership>,
    stop: CancellationToken,
) -> Ended {
    let mut last_read: Option<Lease> = None;
    loop {
        candidate.observe_epoch(*heard.borrow_and_update());
        let next = candidate.next(clock());
        publish(&leadership, &candidate, clock());
        match next {
            LeaseAction::Exit => return Ended::Deposed,
            LeaseAction::Swap(record) => {
                last_read = swap(&api, name, &mut candidate, &clock, &record, last_read).await;
            }
            LeaseAction::Read { after_ms } => {
                tokio::select! {
                    () = stop.cancelled() => {
                        if matches!(candidate.role(clock()), Role::Leading(_)) {
                            give_back(&api, name, &mut candidate, &clock, last_read).await;
                            see_it_taken(&api, name, &mut candidate, &clock, &leadership).await;
                        }
                        return Ended::Stopped;
                    }
                    _ = heard.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(after_ms)) => {}
                }
                // A leader reads only when it must: its swap tells it whether the record is still its own.
                if !matches!(candidate.role(clock()), Role::Leading(_)) || after_ms == 0 {
                    last_read = read(&api, name, &mut candidate, &clock, last_read).await;
                }
            }
        }
    }
}

fn publish(leadership: &watch::Sender<Leadership>, candidate: &Candidate, now: Monotonic) {
    let current =
        Leadership { role: candidate.role(now), leader: candidate.leader_address(now).map(str::to_owned) };
    leadership.send_if_modified(|known| {
        let changed = *known != current;
        if changed {
            tracing::info!(role = ?current.role, leader = current.leader.as_deref(), "leadership changed");
            *known = current;
        }
        changed
    });
}

async fn read(
    api: &Api<Lease>,
    name: &str,
    candidate: &mut Candidate,
    clock: &impl Fn() -> Monotonic,
    before: Option<Lease>,
) -> Option<Lease> {
    match timeout(CALL_WITHIN, api.get_opt(name)).await {
        Ok(Ok(lease)) => {
            candidate.read(lease.as_ref().map(record_of), clock());
            lease
        }
        Ok(Err(error)) => {
            tracing::warn!(lease = name, %error, "unable to read the lease");
            candidate.read_failed(clock());
            before
        }
        Err(_) => {
            tracing::warn!(lease = name, within = ?CALL_WITHIN, "unable to read the lease in time");
            candidate.read_failed(clock());
            before
        }
    }
}

async fn swap(
    api: &Api<Lease>,
    name: &str,
    candidate: &mut Candidate,
    clock: &impl Fn() -> Monotonic,
    record: &LeaseRecord,
    read: Option<Lease>,
) -> Option<Lease> {
    let lease = lease_of(name, record, read.as_ref());
    let params = writes_as(OPERATOR_MANAGER);
    let write = async {
        if read.is_some() {
            api.replace(name, &params, &lease).await
        } else {
            api.create(&params, &lease).await
        }
    };
    match timeout(CALL_WITHIN, write).await {
        Ok(Ok(written)) => {
            candidate.swapped(clock());
            Some(written)
        }
        Ok(Err(error)) => {
            tracing::info!(lease = name, %error, "the lease was not ours to write");
            candidate.swap_failed(clock());
            None
        }
        Err(_) => {
            tracing::warn!(lease = name, within = ?CALL_WITHIN, "unable to write the lease in time");
            candidate.swap_failed(clock());
            None
        }
    }
}

async fn give_back(
    api: &Api<Lease>,
    name: &str,
    candidate: &mut Candidate,
    clock: &impl Fn() -> Monotonic,
    read: Option<Lease>,
) {
    if let Some(record) = candidate.resign(clock()) {
        swap(api, name, candidate, clock, &record, read).await;
    }
}

/// Waits until another leads, so that agents can be told who does: a thousand that look for the leader by themselves
/// all at once are what keeps it from being found.
async fn see_it_taken(
    api: &Api<Lease>,
    name: &str,
    candidate: &mut Candidate,
    clock: &impl Fn() -> Monotonic,
    leadership: &watch::Sender<Leadership>,
) {
    let looking = async {
        while candidate.leader_address(clock()).is_none() {
            tokio::time::sleep(TAKEN_EVERY).await;
            read(api, name, candidate, clock, None).await;
        }
    };
    // Where there is no other operator, nobody takes it.
    let _ = timeout(TAKEN_WITHIN, looking).await;
    publish(leadership, candidate, clock());
}

fn record_of(lease: &Lease) -> LeaseRecord {
    let annotation = |key: &str| lease.metadata.annotations.as_ref()?.get(key).cloned();
    let spec = lease.spec.clone().unwrap_or_default();
    let renewed = spec.renew_time.map_or(0, |MicroTime(at)| at.as_microsecond());
    LeaseRecord {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        address: annotation(ADDRESS_ANNOTATION),
        epoch: epoch_of(annotation(EPOCH_ANNOTATION).as_deref()),
        duration_ms: u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0) * 1000,
        renewal: renewed.unsigned_abs(),
    }
}

/// The epoch of the Lease. What is none was not written by an operator of this release: the next leader then begins from
/// what agents have seen, as after a Lease that was deleted.
fn epoch_of(annotation: Option<&str>) -> Epoch {
    let Some(text) = annotation else { return Epoch::ZERO };
    let epoch =
        text.parse().ok().and_then(|number| Epoch::new(number).ok()).filter(|epoch| *epoch < Epoch::MAX);
    epoch.unwrap_or_else(|| {
        tracing::error!(
            annotation = EPOCH_ANNOTATION, value = text, highest = %Epoch::MAX,
            "the lease holds an epoch that no leader can have had; it is treated as unknown: see \"A poisoned epoch\" \
             in docs/security.md"
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
    let before = lease.spec.take().unwrap_or_default();
    let taken_over = before.holder_identity.as_deref() != record.holder.as_deref();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder.clone().unwrap_or_default()),
        lease_duration_seconds: i32::try_from(record.duration_ms.div_ceil(1000)).ok(),
        acquire_time: if taken_over { Some(now.clone()) } else { before.acquire_time },
        renew_time: Some(now),
        lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(taken_over)),
        ..LeaseSpec::default()
    });
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_with_an_epoch_that_no_leader_can_have_had_is_treated_as_one_without() {
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
