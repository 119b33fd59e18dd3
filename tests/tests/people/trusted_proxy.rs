//! A real nginx in front of the operator, with the configuration of docs/access.md: it signs people in, and names them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::api::{Api, DeleteParams, PostParams};
use sentinel_tests::certificates::{Ca, ServerCertificate};
use sentinel_tests::cluster::repository;
use sentinel_tests::ports::free_port;
use sentinel_tests::programs::Program;
use sentinel_tests::requests::{Answered, ClientIdentity, Request, encrypted};
use sentinel_tests::testbed::{Options, Testbed};
use sentinel_tests::wait::until;

/// Longer than the operator takes to read the file of authorities again (30 s).
const RELOADED_WITHIN: Duration = Duration::from_secs(60);

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether nginx is installed; without it the test prints that. CI has it (`tests/parts/install proxy`).
fn has_nginx() -> bool {
    let found = Command::new("nginx").arg("-v").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "nginx is missing");
    if !found {
        eprintln!("NOT RUN: nginx is missing: tests/parts/install proxy");
    }
    found
}

/// The configuration in docs/access.md.
fn documented() -> String {
    let page = std::fs::read_to_string(repository().join("docs/access.md")).unwrap();
    let (_, rest) = page.split_once("```nginx\n").expect("a configuration");
    rest.split_once("```\n").expect("its end").0.to_owned()
}

/// An operator that trusts a proxy, and nginx in front of it.
struct Piece {
    testbed: Testbed,
    files: tempfile::TempDir,
    site: Ca,
    operator: Ca,
    proxies: Ca,
    proxy: ServerCertificate,
    /// Of the operator.
    api: u16,
    /// Of nginx.
    port: u16,
    _nginx: Program,
}

impl Piece {
    async fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let at = files.path();
        let [site, operator, proxies] = ["site-ca", "operator-ca", "proxy-ca"].map(|name| Ca::new(at, name));
        let proxy = proxies.issue(at, "proxy", "sentinel-proxy");
        let flags = [
            "--api-auth=kubernetes".to_owned(),
            format!("--trusted-proxy-ca-file={}", proxies.certificate.display()),
            "--trusted-proxy-names=sentinel-proxy".to_owned(),
        ];
        let tls = Some(operator.issue(at, "operator", "localhost"));
        let options = Options { tls, flags: flags.to_vec(), ..Options::default() };
        let testbed = Testbed::with("proxied", options).await;
        let api = testbed.api.rsplit(':').next().unwrap().parse().unwrap();
        let port = free_port();
        site.issue(at, "site", "localhost");
        std::fs::copy(&operator.certificate, at.join("ca.crt")).unwrap();
        let nginx = start(at, api, port);
        Self { testbed, files, site, operator, proxies, proxy, api, port, _nginx: nginx }
    }

    /// Those in group `operators` may see the Tasks of the namespace.
    async fn bind_role(&self) {
        let namespace = &self.testbed.namespace;
        let client = namespace.client.clone();
        let role: ClusterRole = serde_json::from_value(serde_json::json!({
            "metadata": {"name": namespace.name},
            "rules": [{"apiGroups": ["ops.sentinelnode.dev"], "resources": ["tasks"], "verbs": ["get", "list", "watch"]}],
        }))
        .unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &role).await.unwrap();
        let group = "rbac.authorization.k8s.io";
        let binding: RoleBinding = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "operators"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": namespace.name},
            "subjects": [{"apiGroup": group, "kind": "Group", "name": "operators"}],
        }))
        .unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(client, &namespace.name);
        bindings.create(&PostParams::default(), &binding).await.unwrap();
    }

    fn tasks(&self) -> Request {
        Request::new("GET", &format!("/api/v1/tasks?namespace={}", self.testbed.namespace.name))
    }

    /// By nginx, as a user with a password.
    async fn by_proxy(&self, user: &str, request: Request) -> Answered {
        let password = STANDARD.encode(format!("{user}:{user}-password"));
        let request = request.with("Authorization", &format!("Basic {password}"));
        encrypted(self.port, &self.site.certificate, None, &request).await.unwrap()
    }

    /// At the operator itself.
    async fn direct(
        &self,
        client: Option<&ServerCertificate>,
        request: &Request,
    ) -> Result<Answered, String> {
        let client = client.map(|client| ClientIdentity {
            certificate: client.certificate.clone(),
            key: client.key.clone(),
        });
        encrypted(self.api, &self.operator.certificate, client.as_ref(), request).await
    }

    async fn close(self) {
        let roles: Api<ClusterRole> = Api::all(self.testbed.namespace.client.clone());
        roles.delete(&self.testbed.namespace.name, &DeleteParams::default()).await.unwrap();
        self.testbed.close().await;
    }
}

/// Starts nginx with the documented configuration; ports, folder and the name of the operator are those of the test.
fn start(at: &Path, api: u16, port: u16) -> Program {
    let mut passwords = String::new();
    for user in ["alice", "bob"] {
        let output = Command::new("openssl").args(["passwd", "-apr1", &format!("{user}-password")]).output();
        passwords += &format!("{user}:{}", String::from_utf8(output.unwrap().stdout).unwrap());
    }
    std::fs::write(at.join("passwords"), passwords).unwrap();
    let mut site = documented();
    for (from, to) in [
        ("/etc/nginx/sentinel/", format!("{}/", at.display())),
        (" 443 ssl;", format!(" 127.0.0.1:{port} ssl;")),
        ("sentinel-node-api.sentinel-system.svc:443", format!("127.0.0.1:{api}")),
        ("sentinel-node-api.sentinel-system.svc", "localhost".to_owned()),
    ] {
        assert!(site.contains(from), "no {from} in docs/access.md");
        site = site.replace(from, &to);
    }
    std::fs::write(at.join("site.conf"), site).unwrap();
    let folder = at.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {folder}/{kind}; "))
        .collect();
    // The workers read files that only this test's user can.
    let all = format!(
        "user root; worker_processes 1; pid {folder}/pid; error_log stderr info;\nevents {{}}\n\
         http {{ access_log off; {temporary}\ninclude {folder}/site.conf; }}\n"
    );
    let config = at.join("nginx.conf");
    std::fs::write(&config, all).unwrap();
    // One process: killed, a master leaves its workers behind.
    let alone = "daemon off; master_process off;";
    let arguments = ["-p", &folder.to_string(), "-c", &config.display().to_string(), "-g", alone];
    Program::start_binary(&PathBuf::from("nginx"), "nginx", at, &arguments.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_proxy_names_people_and_no_client_passes_for_another() {
    if !has_nginx() {
        return;
    }
    let piece = Piece::new().await;
    piece.bind_role().await;
    until("nginx answers", PATIENCE, || async {
        let answered = encrypted(piece.port, &piece.site.certificate, None, &piece.tasks()).await?;
        if answered.status == 401 { Ok(()) } else { Err(format!("{answered:?}")) }
    })
    .await;
    until("the role counts", PATIENCE, || async {
        let answered = piece.by_proxy("alice", piece.tasks()).await;
        if answered.status == 200 { Ok(()) } else { Err(format!("{answered:?}")) }
    })
    .await;
    let events = format!("/api/v1/events?namespace={}", piece.testbed.namespace.name);
    assert_eq!(piece.by_proxy("alice", Request::new("GET", &events)).await.status, 200, "a stream");
    let page = |origin: &str| piece.tasks().with("Origin", origin);
    assert_eq!(piece.by_proxy("alice", page("https://localhost")).await.status, 200, "the page");
    assert_eq!(piece.by_proxy("alice", page("https://evil.test")).await.status, 403);

    // Whom nginx knows and who has no group is just that, whatever they send.
    let tasks = || piece.tasks();
    for forged in [
        tasks(),
        tasks().with("X-Forwarded-User", "alice").with("X-Forwarded-Groups", "operators"),
        tasks().with("x-forwarded-user", "alice").with("x-forwarded-groups", "system:masters"),
        tasks().with("X_Forwarded_User", "alice").with("X_Forwarded_Groups", "operators"),
        tasks().with("X-Forwarded-Groups", "operators").with("X-Forwarded-Groups", "system:masters"),
        tasks().with("X-Remote-User", "alice").with("X-Remote-Group", "system:masters"),
        tasks().with("Impersonate-User", "alice").with("Impersonate-Group", "operators"),
        tasks().with("Sentinel-Authorization", "Bearer not-a-token"),
    ] {
        let answered = piece.by_proxy("bob", forged.clone()).await;
        assert_eq!(answered.status, 403, "{forged:?}: {answered:?}");
        assert!(answered.text.contains("bob"), "{forged:?}: {answered:?}");
    }

    // The same headers from another than the proxy.
    let named = tasks().with("X-Forwarded-User", "alice").with("X-Forwarded-Groups", "operators");
    let files = piece.files.path();
    assert_eq!(piece.direct(Some(&piece.proxy), &named).await.unwrap().status, 200, "as nginx sends them");
    assert_eq!(piece.direct(None, &named).await.unwrap().status, 401, "without a certificate");
    let other = piece.proxies.issue(files, "other", "another-proxy");
    assert_eq!(piece.direct(Some(&other), &named).await.unwrap().status, 401, "another name");
    let foreign = Ca::new(files, "foreign-ca").issue(files, "foreign", "sentinel-proxy");
    assert!(piece.direct(Some(&foreign), &named).await.is_err(), "another authority");

    replaced_authority(&piece).await;
    piece.close().await;
}

/// The authority of the proxy is replaced while nginx runs.
async fn replaced_authority(piece: &Piece) {
    let files = piece.files.path();
    let next = Ca::new(files, "next-ca");
    let fresh = files.join("fresh.crt");
    std::fs::copy(&next.certificate, &fresh).unwrap();
    std::fs::rename(fresh, &piece.proxies.certificate).unwrap();
    until("the old authority is refused", RELOADED_WITHIN, || async {
        let answered = piece.by_proxy("alice", piece.tasks()).await;
        if answered.status == 502 { Ok(()) } else { Err(format!("{answered:?}")) }
    })
    .await;
    let renewed = next.issue(files, "renewed", "sentinel-proxy");
    let named = piece.tasks().with("X-Forwarded-User", "alice").with("X-Forwarded-Groups", "operators");
    assert_eq!(piece.direct(Some(&renewed), &named).await.unwrap().status, 200, "of the new authority");
}
