//! The election over a Lease: one contract on a real API server and on a fake one, and faults on the fake one.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use kube::client::Body;
use sentinel_core::lease::{Candidate, Role, Timing};
use sentinel_core::time::Monotonic;
use sentinel_operator::cluster::client::writes_as;
use sentinel_operator::leader::{
    ADDRESS_ANNOTATION, Campaign, CampaignEnd, EPOCH_ANNOTATION, ElectionStatus,
};
use sentinel_protocol::ids::Epoch;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kit::Piece;

const NAME: &str = "lead";

/// One Lease, as an API server keeps it.
#[derive(Clone, Default)]
struct FakeServer {
    lease: Arc<Mutex<Option<(u64, Lease)>>>,
    is_down: Arc<Mutex<bool>>,
}

impl FakeServer {
    fn api(&self) -> Api<Lease> {
        Api::namespaced(kube::Client::new(self.clone(), "ns"), "ns")
    }

    fn set_down(&self) {
        *self.is_down.lock().unwrap() = true;
    }

    fn answer(&self, method: &Method, body: &[u8]) -> Result<Lease, (u16, &'static str)> {
        if *self.is_down.lock().unwrap() {
            return Err((503, "ServiceUnavailable"));
        }
        let mut stored = self.lease.lock().unwrap();
        let current = stored.as_ref().map(|(version, _)| *version);
        if *method == Method::GET {
            let (_, lease) = stored.as_ref().ok_or((404, "NotFound"))?;
            return Ok(lease.clone());
        }
        let mut lease: Lease = serde_json::from_slice(body).unwrap();
        let named = lease.metadata.resource_version.clone();
        match (method.as_str(), current) {
            ("POST", Some(_)) => return Err((409, "AlreadyExists")),
            ("PUT", None) => return Err((404, "NotFound")),
            ("PUT", Some(version)) if named.as_deref().is_some_and(|named| named != version.to_string()) => {
                return Err((409, "Conflict"));
            }
            _ => {}
        }
        let version = current.unwrap_or(0) + 1;
        lease.metadata.resource_version = Some(version.to_string());
        *stored = Some((version, lease.clone()));
        Ok(lease)
    }
}

impl tower_service::Service<Request<Body>> for FakeServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.unwrap();
            let (code, text) = match server.answer(&method, &body) {
                Ok(lease) => (200, serde_json::to_string(&lease).unwrap()),
                Err((code, reason)) => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "message": reason, "reason": reason, "code": code});
                    (code, status.to_string())
                }
            };
            Ok(Response::builder().status(code).body(Body::from(text.into_bytes())).unwrap())
        })
    }
}

/// A process that takes part in the election.
struct Contender {
    status: watch::Receiver<ElectionStatus>,
    stop: CancellationToken,
    campaign: JoinHandle<CampaignEnd>,
    _epochs: watch::Sender<Epoch>,
}

impl Contender {
    fn start(api: Api<Lease>, identity: &str) -> Self {
        let began = Instant::now();
        let clock = move || Monotonic(u64::try_from(began.elapsed().as_millis()).unwrap());
        let address = Some(format!("{identity}:7979"));
        let candidate = Candidate::new(identity.to_owned(), address, Timing::DEFAULT);
        let (status_in, status) = watch::channel(ElectionStatus::UNKNOWN);
        let (epochs_in, epochs) = watch::channel(Epoch::ZERO);
        let stop = CancellationToken::new();
        let campaign = Campaign { api, name: NAME.to_owned(), candidate, clock, status: status_in };
        let campaign = tokio::spawn(campaign.run(epochs, stop.clone()));
        Self { status, stop, campaign, _epochs: epochs_in }
    }

    async fn until(&mut self, wanted: impl Fn(&ElectionStatus) -> bool) {
        let reached =
            tokio::time::timeout(Duration::from_secs(30), self.status.wait_for(|s| wanted(s))).await;
        drop(reached.expect("in time").expect("the campaign runs"));
    }

    async fn stop(self) -> (CampaignEnd, Option<String>) {
        self.stop.cancel();
        let end = self.campaign.await.unwrap();
        (end, self.status.borrow().leader.clone())
    }
}

fn leads(epoch: u32) -> impl Fn(&ElectionStatus) -> bool {
    move |status| status.role == Role::Leading(Epoch::from(epoch))
}

fn facts(lease: &Lease) -> (Option<&str>, Option<&str>, Option<&str>, Option<i32>) {
    let annotation = |key| lease.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let spec = lease.spec.as_ref().unwrap();
    let holder = spec.holder_identity.as_deref();
    (holder, annotation(EPOCH_ANNOTATION), annotation(ADDRESS_ANNOTATION), spec.lease_transitions)
}

/// Writes another holder into the Lease; false when it was renewed meanwhile.
async fn steal(api: &Api<Lease>) -> bool {
    let lease = api.get(NAME).await.unwrap();
    let spec = LeaseSpec { holder_identity: Some("c".to_owned()), ..lease.spec.clone().unwrap() };
    let stolen = Lease { spec: Some(spec), ..lease };
    match api.replace(NAME, &writes_as("a-test"), &stolen).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 409 => false,
        Err(error) => panic!("{error}"),
    }
}

/// What every API server shows of an election from its beginning to a takeover by force.
async fn contract(api: &Api<Lease>) {
    let mut first = Contender::start(api.clone(), "a");
    first.until(leads(1)).await;
    let taken = api.get(NAME).await.unwrap();
    assert_eq!(facts(&taken), (Some("a"), Some("1"), Some("a:7979"), Some(1)));
    let spec = |lease: &Lease| lease.spec.clone().unwrap();
    assert_eq!(spec(&taken).lease_duration_seconds, Some(3));

    let mut second = Contender::start(api.clone(), "b");
    second.until(|status| status.leader.as_deref() == Some("a:7979")).await;
    assert_eq!(second.status.borrow().role, Role::Following);
    let renewed = loop {
        let lease = api.get(NAME).await.unwrap();
        if spec(&lease).renew_time > spec(&taken).renew_time {
            break lease;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(facts(&renewed), facts(&taken), "a renewal is not a takeover");
    assert_eq!(spec(&renewed).acquire_time, spec(&taken).acquire_time);

    assert_eq!(first.stop().await, (CampaignEnd::Stopped, Some("b:7979".to_owned())));
    second.until(leads(2)).await;
    let released_and_taken = api.get(NAME).await.unwrap();
    assert_eq!(facts(&released_and_taken), (Some("b"), Some("2"), Some("b:7979"), Some(3)));

    // Another process replaces the record; the leader must exit.
    while !steal(api).await {}
    let end = tokio::time::timeout(Duration::from_secs(30), second.campaign).await.unwrap().unwrap();
    assert_eq!(end, CampaignEnd::Deposed);
    assert_eq!(facts(&api.get(NAME).await.unwrap()).0, Some("c"), "it did not write over the winner");
}

#[tokio::test(start_paused = true)]
async fn an_election_on_a_fake_server_keeps_the_contract() {
    contract(&FakeServer::default().api()).await;
}

#[tokio::test]
async fn an_election_on_a_real_server_keeps_the_contract() {
    let Some(piece) = Piece::new("lease").await else { return };
    contract(&Api::namespaced(piece.client.clone(), &piece.namespace)).await;
    piece.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_an_api_server_is_deposed_before_another_can_lead() {
    let server = FakeServer::default();
    let mut leader = Contender::start(server.api(), "a");
    leader.until(leads(1)).await;
    let began = Instant::now();
    server.set_down();
    assert_eq!(leader.campaign.await.unwrap(), CampaignEnd::Deposed);
    let took = began.elapsed();
    assert!(took <= Duration::from_millis(Timing::DEFAULT.give_up_ms()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_is_taken_after_its_duration() {
    let server = FakeServer::default();
    let mut dead = Contender::start(server.api(), "a");
    dead.until(leads(1)).await;
    dead.campaign.abort();
    let began = Instant::now();
    let mut next = Contender::start(server.api(), "b");
    next.until(leads(2)).await;
    let took = began.elapsed().as_millis();
    let duration = u128::from(Timing::DEFAULT.duration_ms);
    assert!((duration..duration + 500).contains(&took), "{took} ms");
}
