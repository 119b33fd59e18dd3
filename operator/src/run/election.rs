//! Leadership, joined to the parts that act on it: the controller's [`Lead`], the gateway, the registry's epoch.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use sentinel_core::lease::{Candidate, Role};
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::controller::{LeadSetter, Moments};
use crate::gateway::Gateway;
use crate::leader::{Ended, Leadership, campaign};

/// How often is looked for a higher epoch that an agent named.
const LISTEN_EVERY: Duration = Duration::from_millis(500);

/// How an operator comes to lead.
pub enum Election {
    /// It has no rivals, and this epoch.
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
    /// Who stands.
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

/// Takes part in the election, and tells everybody how it stands. Ends when the lead is lost, and then the process
/// must; or when told to stop, with the lead given back. Where the next leader is, if it is known then, is said to
/// `successor`.
pub(super) async fn stand(
    election: LeaseElection,
    lead: LeadSetter,
    gateway: Gateway,
    moments: Moments,
    successor: oneshot::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let LeaseElection { api, name, candidate } = election;
    let (standing, mut news) = watch::channel(Leadership::UNKNOWN);
    let (heard_in, heard) = watch::channel(Epoch::ZERO);
    let clock = {
        let moments = moments.clone();
        move || moments.moment()
    };
    let asked_to_stop = stop.clone();
    let tell = async {
        loop {
            apply(&news.borrow_and_update().clone(), &lead, &gateway, &moments);
            if news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let listen = async {
        loop {
            tokio::time::sleep(LISTEN_EVERY).await;
            let highest = gateway.registry().highest_epoch();
            heard_in.send_if_modified(|known| {
                let higher = highest > *known;
                *known = highest.max(*known);
                higher
            });
        }
    };
    let ended = tokio::select! {
        ended = campaign(api, &name, candidate, clock, heard, standing, stop) => ended,
        () = tell => return,
        () = listen => return,
    };
    if ended == Ended::Stopped || asked_to_stop.is_cancelled() {
        // Nobody waits for it when the process ends for another reason.
        let _ = successor.send(news.borrow().leader.clone());
        asked_to_stop.cancelled().await;
    } else {
        tracing::error!(lease = %name, "the lead was lost: this process ends, so that nothing of it goes on acting");
    }
}

fn apply(standing: &Leadership, lead: &LeadSetter, gateway: &Gateway, moments: &Moments) {
    match standing.role {
        Role::Leading(epoch) => {
            gateway.registry().set_epoch(epoch);
            lead.take(epoch, moments.now());
            gateway.accept();
        }
        Role::Following => {
            gateway.decline_as_follower(SessionRefusal::NotLeader { leader: standing.leader.clone() });
        }
        // The campaign ends with it, and the process with the campaign.
        Role::Deposed => {}
    }
}
