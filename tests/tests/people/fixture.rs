//! An operator for people on the real API server, two Tasks that have run, and callers with roles.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use sentinel_api::aggregated::ROWS;
use sentinel_tests::certificates::Ca;
use sentinel_tests::ports::free_port;
use sentinel_tests::programs::Program;
use sentinel_tests::requests::{Answered, ClientIdentity, Request, encrypted, plain};
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;

use crate::callers::{Bound, Caller, Role, Way};

const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Fixture {
    pub(crate) testbed: Testbed,
    pub(crate) ca: Ca,
    pub(crate) api: u16,
    pub(crate) aggregated: u16,
    pub(crate) node: String,
    /// Uid of a Task that has run.
    pub(crate) mine: String,
    /// Uid of another one.
    pub(crate) theirs: String,
    pub(crate) callers: Vec<Caller>,
    _agent: Program,
    _certificates: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn new(test: &str) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let ca = Ca::new(certificates.path(), "ca");
        let certificate = ca.issue(certificates.path(), "operator", "localhost");
        let aggregated = free_port();
        let flags = [
            "--api-auth=kubernetes".to_owned(),
            "--metrics-auth=kubernetes".to_owned(),
            "--public-url=https://sentinel.example.com".to_owned(),
            format!("--aggregated-listen=127.0.0.1:{aggregated}"),
        ];
        let options = Options { tls: Some(certificate), flags: flags.to_vec(), ..Options::default() };
        let testbed = Testbed::with(test, options).await;
        let api = testbed.api.rsplit(':').next().unwrap().parse().unwrap();
        testbed.add_node("n1", &[]).await;
        let gateway = format!("wss://localhost:{}", testbed.gateway_port());
        let agent = testbed.start_agent_at("n1", &gateway, Some(&ca.certificate));
        let node = testbed.namespace.node_name("n1");
        let mut fixture = Self {
            testbed,
            ca,
            api,
            aggregated,
            node,
            mine: String::new(),
            theirs: String::new(),
            callers: Vec::new(),
            _agent: agent,
            _certificates: certificates,
        };
        fixture.mine = fixture.has_run("mine").await;
        fixture.theirs = fixture.has_run("theirs").await;
        fixture.callers = fixture.callers().await;
        fixture
    }

    /// A Task as JSON.
    pub(crate) fn task(&self, name: &str) -> String {
        let namespace = &self.testbed.namespace.name;
        serde_json::json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"targets": {"nodeNames": [self.node]}, "run": {"command": ["echo", "hello"]}},
        })
        .to_string()
    }

    /// The uid of a Task whose Run is over.
    async fn has_run(&self, name: &str) -> String {
        let namespace = &self.testbed.namespace;
        namespace.apply(&self.task(name)).await.unwrap();
        let task = format!("tasks.sentinelnode.dev/{name}");
        let wait = ["wait", "--for=condition=Complete", "--timeout=40s", task.as_str()];
        namespace.kubectl(&wait).await.unwrap();
        namespace.kubectl(&["get", &task, "-o", "jsonpath={.metadata.uid}"]).await.unwrap()
    }

    pub(crate) async fn send(&self, way: Way, request: &Request) -> Answered {
        match way {
            Way::Token => plain(self.api, request).await,
            Way::FrontProxy => {
                let parts = &self.testbed.namespace.parts;
                let pki = |file: &str| -> PathBuf { parts.pki(file) };
                let proxy = ClientIdentity {
                    certificate: pki("front-proxy-client.crt"),
                    key: pki("front-proxy-client.key"),
                };
                encrypted(self.aggregated, &self.ca.certificate, Some(&proxy), request).await.unwrap()
            }
        }
    }

    pub(crate) async fn close(self) {
        let prefix = self.testbed.namespace.name.clone();
        let client = self.testbed.namespace.client.clone();
        for name in ["viewer", "logs", "runner"] {
            let name = format!("{prefix}-{name}");
            let gone = DeleteParams::default();
            Api::<ClusterRole>::all(client.clone()).delete(&name, &gone).await.unwrap();
            let _ = Api::<ClusterRoleBinding>::all(client.clone()).delete(&name, &gone).await;
        }
        self.testbed.close().await;
    }

    async fn callers(&self) -> Vec<Caller> {
        let ours = self.testbed.namespace.name.clone();
        self.roles().await;
        let mut callers = Vec::new();
        for (name, role, bound) in [
            ("no-role", Role::None, Bound::Everywhere),
            ("viewer", Role::Viewer, Bound::Everywhere),
            ("logs", Role::LogReader, Bound::Everywhere),
            ("runner", Role::Runner, Bound::Everywhere),
            ("viewer-here", Role::Viewer, Bound::In(ours.clone())),
            ("logs-here", Role::LogReader, Bound::In(ours.clone())),
            ("runner-here", Role::Runner, Bound::In(ours.clone())),
            ("runner-elsewhere", Role::Runner, Bound::In("default".to_owned())),
        ] {
            self.account(name).await;
            self.bind(name, role, &bound).await;
            let token = self.token_of(name, &[], None).await;
            let user = format!("system:serviceaccount:{ours}:{name}");
            let groups = format!("system:serviceaccounts:{ours}");
            let by_proxy = [("X-Remote-User", user.as_str()), ("X-Remote-Group", groups.as_str())];
            let bearer = format!("Bearer {token}");
            for (way, headers) in
                [(Way::Token, vec![("Authorization", bearer.as_str())]), (Way::FrontProxy, by_proxy.to_vec())]
            {
                callers.push(caller(name, way, &headers, true, role, bound.clone()));
            }
        }
        callers.extend(self.strangers().await);
        callers
    }

    /// Whom the API server does not know, or who is not a person.
    async fn strangers(&self) -> Vec<Caller> {
        let audience = sentinel_tests::cluster::AUDIENCE.to_owned();
        let agent = std::fs::read_to_string(self.testbed.path().join("n1.token")).unwrap();
        self.testbed.namespace.node("n2", &[]).await;
        let other_node = self.testbed.namespace.node_name("n2");
        let other_agent = self.testbed.namespace.agent_token(&other_node).await;
        let wrong_audience = self.token_of("runner", &[audience], None).await;
        let tokens = [
            ("an agent", agent),
            ("the agent of another node", other_agent),
            ("wrong audience", wrong_audience),
            ("expired", self.expired_token().await),
            ("deleted pod", self.token_of_deleted_pod().await),
            ("no token at all", "x".to_owned()),
        ];
        let mut strangers: Vec<Caller> = tokens
            .iter()
            .map(|(name, token)| {
                let header = format!("Bearer {token}");
                let headers = [("Authorization", header.as_str())];
                caller(name, Way::Token, &headers, false, Role::None, Bound::Everywhere)
            })
            .collect();
        for (name, headers) in [
            ("anonymous", vec![]),
            ("its own name", vec![("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")]),
            ("impersonating", vec![("Impersonate-User", "admin")]),
        ] {
            strangers.push(caller(name, Way::Token, &headers, false, Role::None, Bound::Everywhere));
        }
        strangers.push(caller("unnamed", Way::FrontProxy, &[], false, Role::None, Bound::Everywhere));
        strangers
    }

    async fn account(&self, name: &str) {
        let account = ServiceAccount { metadata: named(name), ..ServiceAccount::default() };
        self.api::<ServiceAccount>().create(&PostParams::default(), &account).await.unwrap();
    }

    /// A role for each kind, with the rows that it allows.
    async fn roles(&self) {
        for (name, role) in [("viewer", Role::Viewer), ("logs", Role::LogReader), ("runner", Role::Runner)] {
            let rules =
                ROWS.iter().flat_map(|row| row.access).filter(|access| role.allows(access)).map(|access| {
                    PolicyRule {
                        api_groups: Some(vec![access.group.to_owned()]),
                        resources: Some(vec![access.path()]),
                        verbs: vec![access.verb.to_owned()],
                        ..PolicyRule::default()
                    }
                });
            let mut rules: Vec<PolicyRule> = rules.collect();
            if role == Role::Runner {
                // What server-side apply reads before it writes.
                rules.push(PolicyRule {
                    api_groups: Some(vec![sentinel_api::aggregated::TASK_GROUP.to_owned()]),
                    resources: Some(vec!["tasks".to_owned()]),
                    verbs: vec!["get".to_owned()],
                    ..PolicyRule::default()
                });
                rules.push(PolicyRule {
                    non_resource_urls: Some(vec!["/metrics".to_owned()]),
                    verbs: vec!["get".to_owned()],
                    ..PolicyRule::default()
                });
            }
            let name = format!("{}-{name}", self.testbed.namespace.name);
            let role = ClusterRole { metadata: named(&name), rules: Some(rules), ..ClusterRole::default() };
            let api = Api::<ClusterRole>::all(self.testbed.namespace.client.clone());
            api.create(&PostParams::default(), &role).await.unwrap();
        }
    }

    async fn bind(&self, account: &str, role: Role, bound: &Bound) {
        let ours = &self.testbed.namespace.name;
        let role = match role {
            Role::None => return,
            Role::Viewer => "viewer",
            Role::LogReader => "logs",
            Role::Runner => "runner",
        };
        let role_ref = RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "ClusterRole".into(),
            name: format!("{ours}-{role}"),
        };
        let subject = Subject {
            kind: "ServiceAccount".into(),
            name: account.to_owned(),
            namespace: Some(ours.clone()),
            ..Subject::default()
        };
        let (metadata, subjects) = (named(&format!("{ours}-{account}")), Some(vec![subject]));
        let client = self.testbed.namespace.client.clone();
        let params = PatchParams::apply("sentinel-tests").force();
        match bound {
            Bound::Everywhere => {
                let binding = ClusterRoleBinding { metadata, role_ref, subjects };
                let name = binding.metadata.name.clone().unwrap();
                let api = Api::<ClusterRoleBinding>::all(client);
                api.patch(&name, &params, &Patch::Apply(&binding)).await.unwrap();
            }
            Bound::In(namespace) => {
                let binding = RoleBinding { metadata, role_ref, subjects };
                let name = binding.metadata.name.clone().unwrap();
                let api = Api::<RoleBinding>::namespaced(client, namespace);
                api.patch(&name, &params, &Patch::Apply(&binding)).await.unwrap();
            }
        }
    }

    async fn token_of(&self, account: &str, audiences: &[String], pod: Option<(&str, String)>) -> String {
        let bound = pod.map(|(name, uid)| BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(name.to_owned()),
            uid: Some(uid),
        });
        let spec = TokenRequestSpec {
            audiences: audiences.to_vec(),
            bound_object_ref: bound,
            expiration_seconds: Some(3_600),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = self.api::<ServiceAccount>();
        let made = made.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        made.status.unwrap().token
    }

    /// A token of a pod that is gone.
    async fn token_of_deleted_pod(&self) -> String {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "gone"},
            "spec": {"serviceAccountName": "runner", "nodeName": self.node, "containers": [{"name": "c", "image": "none"}]},
        }))
        .unwrap();
        let pods = self.api::<Pod>();
        let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
        let token = self.token_of("runner", &[], Some(("gone", pod.metadata.uid.unwrap()))).await;
        pods.delete("gone", &DeleteParams::default().grace_period(0)).await.unwrap();
        until("the pod is gone", PATIENCE, || async {
            let found = pods.get_opt("gone").await.map_err(|error| error.to_string())?;
            found.map_or(Ok(()), |_| Err("it is still there".to_owned()))
        })
        .await;
        token
    }

    /// A token that the API server itself would have accepted until an hour ago: signed with its key.
    async fn expired_token(&self) -> String {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let token = self.token_of("runner", &[], None).await;
        let [head, payload, _] = token.split('.').collect::<Vec<_>>()[..] else { panic!("no token") };
        let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
        let mut claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        for claim in ["exp", "iat", "nbf"] {
            claims[claim] = (claims[claim].as_i64().unwrap() - 7_200).into();
        }
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let key = self.testbed.namespace.parts.pki("service-accounts.key");
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(key);
        let text = self.testbed.path().join("claims");
        std::fs::write(&text, &signed).unwrap();
        let output = openssl.arg(text).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.testbed.namespace.client.clone(), &self.testbed.namespace.name)
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn caller(
    name: &'static str,
    way: Way,
    headers: &[(&str, &str)],
    is_known: bool,
    role: Role,
    bound: Bound,
) -> Caller {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let is_scraper = role == Role::Runner && bound == Bound::Everywhere;
    Caller {
        name,
        way,
        headers,
        is_known,
        role,
        bound,
        paths: if is_scraper { vec!["/metrics"] } else { vec![] },
    }
}
