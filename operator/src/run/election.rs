//! The election, connected to the components that act on it: the controller's [`Leadership`], the gateway, the registry.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use sentinel_core::lease::{Candidate, Role};
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::tasks::until;
use crate::clock::Clock;
use crate::controller::{Leadership, LeadershipSetter};
use crate::gateway::Gateway;
use crate::leader::{Campaign, CampaignEnd, ElectionStatus};

/// How often the highest epoch that an agent named is read.
const EPOCH_POLL: Duration = Duration::from_millis(500);

/// How an operator becomes the leader.
pub enum Election {
    /// Without an election, with this epoch.
    Alone(Epoch),
    /// By a Lease.
    Lease(Box<LeaseElection>),
}

/// An election by a Lease.
pub struct LeaseElection {
    /// The Leases of its namespace; of a client without retries.
    pub api: Api<Lease>,
    /// Name of the Lease.
    pub name: String,
    /// This process in the election.
    pub candidate: Candidate,
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alone(epoch) => write!(f, "Alone({epoch})"),
            Self::Lease(lease) => write!(f, "Lease({})", lease.name),
        }
    }
}

/// An election that was set up.
pub(super) struct Elected {
    /// Whether this operator leads.
    pub(super) leadership: Leadership,
    /// The work, which ends when the lead is lost; the process must exit then.
    pub(super) work: BoxFuture<'static, ()>,
    /// The address of the next leader once the lead is released, where it is known.
    pub(super) successor: oneshot::Receiver<Option<String>>,
}

/// Sets the election up. It ends with `stop`, and releases the lead then.
pub(super) fn elect(
    election: Election,
    gateway: &Gateway,
    clock: &Clock,
    stop: CancellationToken,
) -> Elected {
    let (successor_in, successor) = oneshot::channel();
    match election {
        Election::Alone(epoch) => {
            gateway.registry().set_epoch(epoch);
            let (setter, leadership) = Leadership::always(epoch, clock.reading());
            Elected { leadership, work: until(stop, hold(setter)).boxed(), successor }
        }
        Election::Lease(election) => {
            gateway.decline(Some(SessionRefusal::NotLeader { leader: None }));
            let (setter, leadership) = Leadership::new();
            let work =
                campaign(*election, setter, gateway.clone(), clock.clone(), successor_in, stop).boxed();
            Elected { leadership, work, successor }
        }
    }
}

/// Keeps the leadership of an operator without an election.
async fn hold(leadership: LeadershipSetter) {
    std::future::pending::<()>().await;
    drop(leadership);
}

/// Takes part in the election and applies every change of it. Ends when the lead is lost, or when stopped, with the lead
/// released; then it sends the address of the next leader, if it is known, to `successor`.
async fn campaign(
    election: LeaseElection,
    leadership: LeadershipSetter,
    gateway: Gateway,
    clock: Clock,
    successor: oneshot::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let LeaseElection { api, name, candidate } = election;
    let (status, mut changes) = watch::channel(ElectionStatus::UNKNOWN);
    let (epochs_in, epochs) = watch::channel(Epoch::ZERO);
    let monotonic = {
        let clock = clock.clone();
        move || clock.monotonic()
    };
    let campaign = Campaign { api, name: name.clone(), candidate, clock: monotonic, status };
    let apply_changes = async {
        loop {
            apply(&changes.borrow_and_update().clone(), &leadership, &gateway, &clock);
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let poll_epochs = async {
        loop {
            tokio::time::sleep(EPOCH_POLL).await;
            let highest = gateway.registry().highest_epoch();
            epochs_in.send_if_modified(|known| {
                let higher = highest > *known;
                *known = highest.max(*known);
                higher
            });
        }
    };
    let end = tokio::select! {
        end = campaign.run(epochs, stop.clone()) => end,
        () = apply_changes => return,
        () = poll_epochs => return,
    };
    if end == CampaignEnd::Stopped || stop.is_cancelled() {
        // The receiver is dropped when the process exits for another reason.
        let _ = successor.send(changes.borrow().leader.clone());
        stop.cancelled().await;
    } else {
        tracing::error!(lease = %name, "lost leadership; exiting");
    }
}

fn apply(status: &ElectionStatus, leadership: &LeadershipSetter, gateway: &Gateway, clock: &Clock) {
    match status.role {
        Role::Leading(epoch) => {
            gateway.registry().set_epoch(epoch);
            leadership.lead(epoch, clock.reading());
            gateway.accept();
        }
        Role::Following => {
            gateway.decline_as_follower(SessionRefusal::NotLeader { leader: status.leader.clone() });
        }
        // The campaign ends with it, and the process with the campaign.
        Role::Deposed => {}
    }
}
