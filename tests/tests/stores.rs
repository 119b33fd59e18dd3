//! MongoDB and Redis over TLS with client certificates and users, whose passwords change while the operator runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use redis::AsyncCommands as _;
use sentinel_tests::certificates::{Ca, ServerCertificate};
use sentinel_tests::cluster::repository;
use sentinel_tests::ports::free_port;
use sentinel_tests::programs::Program;
use sentinel_tests::testbed::{Testbed, secret};
use sentinel_tests::wait::until;
use serde_json::Value;

/// Longer than the operator takes to read its files again (30 s).
const RELOADED_WITHIN: Duration = Duration::from_secs(60);

const PATIENCE: Duration = Duration::from_secs(30);

/// Both servers, with TLS and client certificates, on ports of their own; and their administrators.
struct Stores {
    files: tempfile::TempDir,
    ca: Ca,
    certificate: ServerCertificate,
    ferretdb: Option<Program>,
    mongodb_port: u16,
    redis: Program,
    redis_port: u16,
    /// Redis without TLS, for the administrator.
    redis_plain: u16,
    admin: mongodb::Database,
}

impl Stores {
    async fn start(mongodb_uri: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let ca = Ca::new(files.path(), "ca");
        let certificate = ca.issue(files.path(), "certificate", "localhost");
        let (redis_plain, redis_port) = (free_port(), free_port());
        let arguments = [
            files.path().join("redis").display().to_string(),
            redis_plain.to_string(),
            format!("--tls-port {redis_port}"),
            format!("--tls-cert-file {}", certificate.certificate.display()),
            format!("--tls-key-file {}", certificate.key.display()),
            format!("--tls-ca-cert-file {}", ca.certificate.display()),
        ];
        let arguments: Vec<String> =
            arguments.iter().flat_map(|argument| argument.split(' ')).map(str::to_owned).collect();
        let redis = Program::start_binary(&part("serve-redis"), "redis", files.path(), &arguments);
        let admin = mongodb::Client::with_uri_str(mongodb_uri).await.unwrap().database("admin");
        let mongodb_port = free_port();
        let mut stores = Self {
            files,
            ca,
            certificate,
            ferretdb: None,
            mongodb_port,
            redis,
            redis_port,
            redis_plain,
            admin,
        };
        stores.restart_ferretdb().await;
        until("Redis answers", PATIENCE, || stores.redis_admin(&["PING"])).await;
        stores
    }

    /// Kills it, with every connection, and starts it again.
    async fn restart_ferretdb(&mut self) {
        if let Some(ferretdb) = self.ferretdb.take() {
            ferretdb.kill().await;
        }
        let arguments = [
            self.files.path().join("ferretdb").display().to_string(),
            "0".to_owned(),
            postgres_port().to_string(),
            "--no-auth=false".to_owned(),
            "--listen-addr=".to_owned(),
            format!("--listen-tls=127.0.0.1:{}", self.mongodb_port),
            format!("--listen-tls-cert-file={}", self.certificate.certificate.display()),
            format!("--listen-tls-key-file={}", self.certificate.key.display()),
            format!("--listen-tls-ca-file={}", self.ca.certificate.display()),
        ];
        let serve = part("serve-ferretdb");
        self.ferretdb = Some(Program::start_binary(&serve, "ferretdb", self.files.path(), &arguments));
        let port = self.mongodb_port;
        until("FerretDB listens", PATIENCE, || tokio::net::TcpStream::connect(("127.0.0.1", port))).await;
    }

    async fn redis_admin(&self, command: &[&str]) -> redis::RedisResult<()> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.redis_plain))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await
    }

    /// A user of both; the files hold its URLs from then on.
    async fn change_to(&self, user: &str, prefix: &str) {
        let roles = [
            doc! { "role": "clusterAdmin", "db": "admin" },
            doc! { "role": "readWriteAnyDatabase", "db": "admin" },
        ];
        let create = doc! { "createUser": user, "pwd": "password", "roles": roles.as_slice() };
        self.admin.run_command(create).await.unwrap();
        let keys = format!("~{prefix}presence:*");
        let rights = ["on", ">password", &keys, "+set", "+mget", "+scan", "+ping"];
        self.redis_admin(&[&["ACL", "SETUSER", user][..], &rights].concat()).await.unwrap();
        let (mongodb, redis) = (self.mongodb_port, self.redis_port);
        self.put("mongodb-url", &format!("mongodb://{user}:password@localhost:{mongodb}/?tls=true"));
        self.put("redis-url", &format!("rediss://{user}:password@localhost:{redis}/"));
    }

    fn put(&self, name: &str, text: &str) {
        let (fresh, path) = (self.files.path().join("new"), self.files.path().join(name));
        secret(&fresh, text);
        std::fs::rename(fresh, path).unwrap();
    }

    /// No password and no connection of this user is left.
    async fn revoke(&mut self, user: &str) {
        self.admin.run_command(doc! { "dropUser": user }).await.unwrap();
        self.redis_admin(&["ACL", "DELUSER", user]).await.unwrap();
        self.restart_ferretdb().await;
    }

    /// The flags of an operator that uses them, in place of those of the testbed.
    fn operator_arguments(&self, testbed: &Testbed) -> Vec<String> {
        let path = |name: &str| self.files.path().join(name).display().to_string();
        let client = self.ca.issue(self.files.path(), "client", "operator");
        let pem = [&client.certificate, &client.key].map(|file| std::fs::read_to_string(file).unwrap());
        self.put("client.pem", &pem.concat());
        let mut arguments = testbed.operator_arguments();
        for (flag, file) in [("--mongodb-url-file", "mongodb-url"), ("--redis-url-file", "redis-url")] {
            let at = arguments.iter().position(|argument| argument == flag).unwrap();
            arguments[at + 1] = path(file);
        }
        let ca = self.ca.certificate.display().to_string();
        let tls = [
            ("--mongodb-tls-ca-file", ca.clone()),
            ("--mongodb-tls-cert-key-file", path("client.pem")),
            ("--redis-tls-ca-file", ca),
            ("--redis-tls-cert-file", client.certificate.display().to_string()),
            ("--redis-tls-key-file", client.key.display().to_string()),
        ];
        arguments.extend(tls.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        arguments
    }
}

fn part(name: &str) -> PathBuf {
    repository().join("tests/parts").join(name)
}

/// Port of the set's PostgreSQL, which any FerretDB can use.
fn postgres_port() -> u64 {
    let file =
        std::env::var_os("SENTINEL_PARTS").expect("SENTINEL_PARTS: run through tests/parts/with-parts");
    let parts: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let all = parts["processes"].as_array().unwrap();
    let postgres = all.iter().find(|process| process["name"] == "postgres");
    postgres.expect("a set with a MongoDB-compatible server of its own")["port"].as_u64().unwrap()
}

/// A Task whose command writes lines until the file exists.
async fn apply(testbed: &Testbed, release: &Path) {
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.1; done; echo ended", release.display());
    let node = testbed.namespace.node_name("a");
    let task = serde_json::json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": { "name": "during" },
        "spec": { "targets": { "nodeNames": [node] }, "run": { "command": ["sh", "-c", script], "sandbox": "Privileged" } },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
    until("the command runs", PATIENCE, || async {
        let path = "jsonpath={.status.run.counts.running}";
        let running = testbed.namespace.kubectl(&["get", "stask", "during", "-o", path]).await?;
        if running == "1" { Ok(()) } else { Err(running) }
    })
    .await;
}

/// The stored results of the test's operator.
async fn archived(stores: &Stores, testbed: &Testbed) -> Vec<Document> {
    let database = stores.admin.client().database(&testbed.database);
    let mut cursor = database.collection::<Document>("executions").find(doc! {}).await.unwrap();
    let mut found = Vec::new();
    while cursor.advance().await.unwrap() {
        found.push(cursor.deserialize_current().unwrap());
    }
    found
}

async fn both_answer(testbed: &Testbed) {
    until("both stores answer", PATIENCE, || async {
        for up in ["sentinel_history_up", "sentinel_presence_up"] {
            if testbed.metric(up).await? != 1.0 {
                return Err(format!("{up} is not 1"));
            }
        }
        Ok(())
    })
    .await;
}

/// The key of the node is written again after it was deleted.
async fn presence_is_renewed(stores: &Stores, testbed: &Testbed) {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", stores.redis_plain)).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("{}presence:{}", testbed.prefix, testbed.namespace.node_name("a"));
    let _: () = redis.del(&key).await.unwrap();
    until("presence is written again", PATIENCE, || async {
        let found: bool = redis.clone().exists(&key).await.map_err(|error| error.to_string())?;
        if found { Ok(()) } else { Err("no key".to_owned()) }
    })
    .await;
}

/// What the command wrote, once its result is archived.
async fn output(stores: &Stores, testbed: &Testbed) -> String {
    let wait = ["wait", "--for=condition=Complete", "--timeout=40s", "tasks.sentinelnode.dev", "during"];
    testbed.namespace.kubectl(&wait).await.unwrap();
    let result = until("the result is archived", PATIENCE, || async {
        let all = archived(stores, testbed).await;
        match all.as_slice() {
            [one] if one.get_str("outcome").is_ok_and(|outcome| outcome == "Succeeded") => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let (uid, node) = (result.get_str("taskUid").unwrap(), testbed.namespace.node_name("a"));
    let url = format!("{}/api/v1/executions/{uid}/1/{node}/log", testbed.api);
    testbed.http.get(url).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_the_stores_change_while_a_command_runs_and_no_session_ends() {
    let mut testbed = Testbed::new("stores").await;
    testbed.operator.take().unwrap().stop(PATIENCE).await;
    let mut stores = Stores::start(&testbed.namespace.parts.mongodb_uri).await;
    let (first, second) = (format!("first-{}", testbed.database), format!("second-{}", testbed.database));
    stores.change_to(&first, &testbed.prefix).await;
    let arguments = stores.operator_arguments(&testbed);
    let operator = Program::start("operator", "operator-over-tls", testbed.path(), &arguments);
    testbed.operator = Some(operator);
    let _agent = testbed.agent("a", &[]).await;
    let release = stores.files.path().join("release");
    apply(&testbed, &release).await;
    both_answer(&testbed).await;

    stores.change_to(&second, &testbed.prefix).await;
    until("both stores use the second user", RELOADED_WITHIN, || async {
        let reloads = testbed.metric("sentinel_store_credentials_reloads_total").await?;
        if reloads >= 2.0 { Ok(()) } else { Err(reloads.to_string()) }
    })
    .await;
    assert_eq!(testbed.metric("sentinel_store_credentials_reloads_total").await.unwrap(), 2.0);
    stores.revoke(&first).await;
    presence_is_renewed(&stores, &testbed).await;

    std::fs::write(&release, "").unwrap();
    assert_eq!(output(&stores, &testbed).await, "begun\nended\n");
    for (metric, expected) in
        [("sentinel_gateway_sessions_begun_total", 1.0), ("sentinel_gateway_sessions_ended_total", 0.0)]
    {
        assert_eq!(testbed.metric(metric).await.unwrap(), expected, "{metric}");
    }
    testbed.close().await;
    stores.admin.run_command(doc! { "dropUser": &second }).await.unwrap();
    drop(stores.redis);
}
