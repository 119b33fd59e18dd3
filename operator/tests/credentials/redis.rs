//! Credentials of Redis, replaced while presence is mirrored.

use std::sync::Arc;
use std::time::Duration;

use sentinel_operator::credentials::Store;
use sentinel_operator::presence::mirror::{MirrorOptions, PresenceMirror};
use sentinel_operator::presence::redis::{RedisOptions, RedisPresence};
use sentinel_operator::presence::{Presence, PresenceRecord};
use sentinel_protocol::metrics::NodeMetrics;
use sentinel_protocol::time::UnixMillis;

use crate::servers::{Mounted, Pki, Reloading, Server, free_port};
use crate::stores::eventually;
use crate::stores::fixtures::node;
use crate::stores::parts::parts;

/// What an operator needs, and no more: as `docs/operating.md` has it.
pub(crate) const RIGHTS: [&str; 6] = ["resetkeys", "~sentinel:presence:*", "+set", "+mget", "+scan", "+ping"];

/// Of the listener that asks for no certificate.
pub(crate) struct Admin(redis::aio::MultiplexedConnection);

impl Admin {
    pub(crate) async fn of(port: u16) -> Self {
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        Self(client.get_multiplexed_async_connection().await.unwrap())
    }

    pub(crate) async fn run(&mut self, command: &[&str]) {
        let mut all = ::redis::cmd(command[0]);
        all.arg(&command[1..]);
        let _: ::redis::Value = all.query_async(&mut self.0).await.unwrap();
    }

    pub(crate) async fn create(&mut self, user: &str, password: &str) {
        let password = format!(">{password}");
        let command = ["ACL", "SETUSER", user, "on", &password];
        self.run(&[&command[..], &RIGHTS].concat()).await;
    }
}

pub(crate) fn url(user: &str, password: &str, port: u16) -> String {
    format!("rediss://{user}:{password}@localhost:{port}/")
}

fn record(round: i64) -> PresenceRecord {
    PresenceRecord {
        node: node("n"),
        session: "s-1".parse().unwrap(),
        last_seen: UnixMillis(round),
        agent_version: "0.1.0".to_owned(),
        boot_id: "b00t".to_owned(),
        metrics: NodeMetrics::default(),
    }
}

/// Presence that is mirrored all the time.
struct Mirrored {
    mirror: PresenceMirror,
    presence: Arc<RedisPresence>,
    round: i64,
}

impl Mirrored {
    /// Waits until a new record is in Redis.
    async fn progress(&mut self) {
        self.round += 1;
        let renewed = self.mirror.status().renewed;
        self.mirror.renew(record(self.round));
        eventually("presence is written", || self.mirror.status().renewed > renewed).await;
        assert_eq!(self.presence.list().await.unwrap(), [record(self.round)]);
    }

    fn failures(&self) -> u64 {
        self.mirror.status().total_failures()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_redis_are_rotated_under_load() {
    let Some(parts) = parts("credentials_of_redis_are_rotated_under_load") else { return };
    let (pki, plain, data) = (Pki::new(), free_port(), tempfile::tempdir().unwrap());
    let clients = &pki.old.ca.certificate;
    let Some(server) = Server::redis(&parts, data.path(), &pki.old.server, clients, plain) else {
        eprintln!("NOT TESTED, because the Redis in use was not started by the tests");
        return;
    };
    let mut admin = Admin::of(plain).await;
    admin.create("first", "pass-1").await;
    let url_of = |user, password| url(user, password, server.port);
    let mounted =
        Mounted::new(Store::Redis, &url_of("first", "pass-1"), &pki.old.ca.certificate, &pki.old.client);
    let presence = Arc::new(RedisPresence::connect(&mounted.read(), RedisOptions::default()).unwrap());
    let quick = MirrorOptions { flush_interval: Duration::from_millis(5), ..MirrorOptions::default() };
    let (mirror, work) = PresenceMirror::new(presence.clone(), quick);
    let work = tokio::spawn(work.run());
    let mut mirrored = Mirrored { mirror, presence: presence.clone(), round: 0 };
    mirrored.progress().await;
    let reloading = Reloading::start(presence.clone(), &mounted);

    // A user without the right to write is not taken, although it answers a PING; the old one stays in use.
    admin.run(&["ACL", "SETUSER", "second", "on", ">pass-2", "~*", "+ping"]).await;
    mounted.set_url(&url_of("second", "pass-2"));
    eventually("the user without rights was refused", || reloading.attempts("Rejected") > 0).await;
    assert!(reloading.is_stale());
    mirrored.progress().await;
    reloading.after(admin.create("second", "pass-2")).await;
    assert!(!reloading.is_stale());
    mirrored.progress().await;
    reloading.after(async { mounted.set_ca(&pki.both()) }).await;
    mirrored.progress().await;
    assert_eq!(mirrored.failures(), 0, "a flush failed during a rotation");

    // Revoked: Redis closes its connections.
    admin.run(&["ACL", "DELUSER", "first"]).await;
    mirrored.progress().await;
    // The server changes to the new CA, and closes all connections.
    let path = |path: &std::path::Path| path.display().to_string();
    let both = path(&pki.both());
    admin.run(&["CONFIG", "SET", "tls-ca-cert-file", &both]).await;
    reloading.after(async { mounted.set_client(&pki.new.client) }).await;
    let (certificate, key) = (path(&pki.new.server.certificate), path(&pki.new.server.key));
    let new_ca = path(&pki.new.ca.certificate);
    let of_server = ["tls-cert-file", &certificate, "tls-key-file", &key, "tls-ca-cert-file", &new_ca];
    admin.run(&[&["CONFIG", "SET"][..], &of_server].concat()).await;
    admin.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    mirrored.progress().await;
    reloading.after(async { mounted.set_ca(&pki.new.ca.certificate) }).await;
    admin.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    mirrored.progress().await;
    work.abort();
}
