//! The election, connected to the components that act on it: the controller's [`Leadership`], the gateway, the registry.
//!
//! The campaign has a thread, a runtime and a connection of its own. A renewal must not wait for the work that the lead is
//! for: a leader that has just taken over is busy, and would be deposed by its own first seconds.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kube::Api;
use sentinel_core::lease::{Candidate, Role};
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::tasks::until;
use crate::clock::Clock;
use crate::cluster::client::client;
use crate::controller::{Leadership, LeadershipSetter};
use crate::gateway::Gateway;
use crate::leader::{Campaign, CampaignEnd, ElectionStatus};
use crate::metrics::Registry;
use crate::server::Place;

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
    /// How the API server is reached.
    pub kubernetes: kube::Config,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// This process in the election.
    pub candidate: Candidate,
    /// Where its calls of the API server are counted.
    pub metrics: Registry,
    /// Gets where people's connections are served, where operators pass them on to each other.
    pub places: Option<watch::Sender<Place>>,
}

impl Election {
    /// The name of the Lease.
    pub(super) fn lease(&self) -> Option<&str> {
        match self {
            Self::Alone(_) => None,
            Self::Lease(lease) => Some(&lease.name),
        }
    }
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
    let name = election.name.clone();
    let places = election.places.clone();
    let own = election.candidate.address().map(host_of);
    let (status, mut changes) = watch::channel(ElectionStatus::UNKNOWN);
    let (epochs_in, epochs) = watch::channel(Epoch::ZERO);
    let campaign = on_own_thread(election, clock.clone(), status, epochs, stop.clone());
    let apply_changes = async {
        loop {
            let status = changes.borrow_and_update().clone();
            apply(&status, &leadership, &gateway, &clock);
            if let Some(places) = &places {
                places.send_replace(place(&status, own.as_deref()));
            }
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
        end = campaign => match end {
            Ok(end) => end,
            Err(error) => {
                tracing::error!(lease = %name, error = &*error, "the election ended; exiting");
                return;
            }
        },
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

/// Campaigns on a thread of its own; see the module.
///
/// # Errors
/// The thread could not be started, or no client could be made.
async fn on_own_thread(
    election: LeaseElection,
    clock: Clock,
    status: watch::Sender<ElectionStatus>,
    epochs: watch::Receiver<Epoch>,
    stop: CancellationToken,
) -> Result<CampaignEnd, Box<dyn std::error::Error + Send + Sync>> {
    let LeaseElection { kubernetes, namespace, name, candidate, metrics, places: _ } = election;
    let (ended_in, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let campaign = move || {
        let end = runtime.block_on(async {
            let api = Api::namespaced(client(kubernetes, &metrics)?, &namespace);
            let clock = move || clock.monotonic();
            Ok(Campaign { api, name, candidate, clock, status }.run(epochs, stop).await)
        });
        // The receiver is dropped when the process exits for another reason.
        let _ = ended_in.send(end);
    };
    std::thread::Builder::new().name("election".to_owned()).spawn(campaign)?;
    ended.await?
}

/// Where people's connections are served: by the leader, whose host is that of its address for agents. A Lease of a process that
/// ran at our own address before leads nowhere: a connection that was passed on to it would come back to us.
fn place(status: &ElectionStatus, own: Option<&str>) -> Place {
    match (&status.role, status.leader.as_deref().map(host_of)) {
        (Role::Leading(_), _) => Place::Here,
        (Role::Following, Some(leader)) if Some(leader.as_str()) != own => Place::Elsewhere(leader),
        (Role::Following | Role::Deposed, _) => Place::Unknown,
    }
}

/// The host of HOST:PORT, without the brackets of IPv6.
fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_not_passed_on_to_the_process_that_ran_here_before() {
        let following =
            |leader: &str| ElectionStatus { role: Role::Following, leader: Some(leader.to_owned()) };
        let of = |leader| place(&following(leader), Some("10.0.0.1"));
        assert_eq!(of("10.0.0.2:7979"), Place::Elsewhere("10.0.0.2".to_owned()));
        assert_eq!(of("10.0.0.1:7979"), Place::Unknown);
        assert_eq!(of("[fd00::2]:7979"), Place::Elsewhere("fd00::2".to_owned()));
        let unknown = place(&ElectionStatus::UNKNOWN, None);
        assert_eq!(unknown, Place::Unknown);
    }
}
