//! Agents' tokens, reviewed by a real API server: only a token of the agents' service account, for our audience and bound
//! to a live pod on a node, authenticates an agent, and its node is that of the token.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
mod real_cluster;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use gateway::*;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Namespace, Node, Pod, PodSpec, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, PostParams};
use real_cluster::cluster;
use sentinel_operator::gateway::{Authenticate, TokenReviews, TokenRules, routes};
use sentinel_operator::metrics::Registry as Metrics;
use sentinel_protocol::to_operator::{Inventory, ToOperator};
use tokio_tungstenite::tungstenite::Error as SocketError;

/// A namespace with two service accounts, a node, and pods of agents.
struct Piece {
    client: kube::Client,
    namespace: String,
    node: String,
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

impl Piece {
    async fn new(client: kube::Client) -> Self {
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let (namespace, node) = (format!("tokens-{}", &suffix[..8]), format!("node-{}", &suffix[..8]));
        let made = PostParams::default();
        let space = Namespace { metadata: named(&namespace), ..Namespace::default() };
        Api::all(client.clone()).create(&made, &space).await.unwrap();
        let object = Node { metadata: named(&node), ..Node::default() };
        Api::all(client.clone()).create(&made, &object).await.unwrap();
        let piece = Self { client, namespace, node };
        for account in ["agent", "other"] {
            let account = ServiceAccount { metadata: named(account), ..ServiceAccount::default() };
            piece.api::<ServiceAccount>().create(&made, &account).await.unwrap();
        }
        piece
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A pod of this account on our node; its uid.
    async fn pod(&self, name: &str, account: &str) -> String {
        let container = Container {
            name: "agent".into(),
            image: Some("nowhere.invalid/agent".into()),
            ..Container::default()
        };
        let spec = PodSpec {
            node_name: Some(self.node.clone()),
            service_account_name: Some(account.to_owned()),
            containers: vec![container],
            ..PodSpec::default()
        };
        let pod = Pod { metadata: named(name), spec: Some(spec), ..Pod::default() };
        let made = self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        made.metadata.uid.unwrap()
    }

    async fn token(&self, account: &str, audience: &str, pod: Option<(&str, &str)>) -> String {
        let bound = pod.map(|(name, uid)| BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
        });
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: bound,
            expiration_seconds: Some(600),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = self
            .api::<ServiceAccount>()
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        answer.unwrap().status.unwrap().token
    }

    fn rules(&self) -> TokenRules {
        TokenRules { believe: Duration::ZERO, ..TokenRules::new(&self.namespace, "agent") }
    }

    async fn close(self) {
        let now = DeleteParams::default().grace_period(0);
        Api::<Node>::all(self.client.clone()).delete(&self.node, &now).await.unwrap();
        Api::<Namespace>::all(self.client).delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn authenticates_only_tokens_bound_to_a_live_pod_of_the_agents() {
    const OURS: &str = TokenRules::DEFAULT_AUDIENCE;
    let Some(client) = cluster("tokens of agents").await else { return };
    let piece = Piece::new(client).await;
    let reviews = TokenReviews::new(piece.client.clone(), piece.rules(), &Metrics::new());
    let uid = piece.pod("agent-1", "agent").await;
    let foreign = piece.pod("other-1", "other").await;
    let good = piece.token("agent", OURS, Some(("agent-1", &uid))).await;
    let identity = reviews.agent(&good).await.unwrap();
    assert_eq!((identity.node.as_str(), identity.pod_uid), (piece.node.as_str(), Some(uid.clone())));
    assert!(identity.node_uid.is_some());
    for (token, reason, text) in [
        (piece.token("agent", "elsewhere", Some(("agent-1", &uid))).await, "Invalid", "audience"),
        (piece.token("agent", OURS, None).await, "NotAnAgent", "not bound to a pod on a node"),
        (piece.token("other", OURS, Some(("other-1", &foreign))).await, "NotAnAgent", ":other"),
        ("x.y.z".to_owned(), "Invalid", "not accepted"),
    ] {
        let error = reviews.agent(&token).await.unwrap_err();
        assert_eq!(error.category(), reason, "{error}");
        assert!(error.to_string().contains(text), "{error} does not contain {text:?}");
    }
    piece.api::<Pod>().delete("agent-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    // The API server itself caches a review for some seconds.
    let mut gone = None;
    for _ in 0..300 {
        match reviews.agent(&good).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => {
                gone = Some(error);
                break;
            }
        }
    }
    assert_eq!(gone.expect("the token of a deleted pod is still valid").category(), "Invalid");
    piece.close().await;
}

#[tokio::test]
async fn a_session_over_a_real_token_ends_with_its_pod() {
    let Some(client) = cluster("a session over a real token").await else { return };
    let piece = Piece::new(client).await;
    let reviews = Arc::new(TokenReviews::new(piece.client.clone(), piece.rules(), &Metrics::new()));
    let setup = Setup {
        settings: sentinel_operator::gateway::Settings {
            review_every: Duration::from_millis(500),
            ..Default::default()
        },
        auth: Some(reviews),
        ..Setup::default()
    };
    let world = world(setup).await;
    let uid = piece.pod("agent-1", "agent").await;
    let token = piece.token("agent", TokenRules::DEFAULT_AUDIENCE, Some(("agent-1", &uid))).await;
    let mut agent = Agent::dial(world.addr, routes::CONTROL_PATH, &token).await.unwrap();
    agent.send_json(&ToOperator::Hello(hello())).await;
    agent.expect_welcome().await;
    agent
        .send_json(&ToOperator::Inventory(Inventory { attempts: vec![], more: false, sealing_key: None }))
        .await;
    let name = node_name(&piece.node);
    eventually("the session stands", || world.registry.active_session(&name).is_some()).await;
    piece.api::<Pod>().delete("agent-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    agent.expect_refusal("no longer valid").await;
    let error = Agent::dial(world.addr, routes::CONTROL_PATH, &token).await.err().expect("refused");
    assert!(matches!(error, SocketError::Http(answer) if answer.status() == 401));
    piece.close().await;
}

#[tokio::test]
async fn an_unavailable_api_server_is_a_retryable_error() {
    rustls::crypto::ring::default_provider().install_default().ok();
    // A closed port.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = kube::Config::new(format!("http://{closed}").parse().unwrap());
    let rules = TokenRules { timeout: Duration::from_secs(2), ..TokenRules::new("a", "b") };
    let reviews = TokenReviews::new(kube::Client::try_from(config).unwrap(), rules, &Metrics::new());
    let claims = r#"{"sub":"system:serviceaccount:a:b","aud":["sentinel-operator"],"exp":99999999999}"#;
    let token = format!("e30.{}.c2ln", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims));
    let error = reviews.agent(&token).await.unwrap_err();
    let (category, status) = (error.category(), error.status().as_u16());
    assert_eq!((category, status, error.is_retryable()), ("Unavailable", 503, true));
}
