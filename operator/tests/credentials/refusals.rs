//! Servers and clients that do not accept each other: the error names the file and what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_operator::credentials::{ClientFiles, CredentialFiles, Store};
use sentinel_operator::history::History as _;
use sentinel_operator::history::mongo::{MongoHistory, MongoOptions};
use sentinel_operator::presence::Presence as _;
use sentinel_operator::presence::redis::{RedisOptions, RedisPresence};

use crate::servers::{Mounted, Pki, Server, free_port};
use crate::stores::parts::{parts, unique};

/// A working configuration; each case changes one thing of it.
struct Site {
    store: Store,
    pki: Pki,
    mounted: Mounted,
    /// A server whose certificate has expired.
    expired: u16,
    port: u16,
}

impl Site {
    /// Why a store with these files fails.
    async fn failure(&self, files: &CredentialFiles) -> String {
        match check(files).await {
            Err(error) => error,
            Ok(()) => panic!("{files:?} was accepted"),
        }
    }

    async fn refused(&self, change: impl FnOnce(&mut CredentialFiles), expected: &[&str]) {
        let mut files = self.mounted.files.clone();
        change(&mut files);
        let error = self.failure(&files).await;
        for part in expected {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert!(!error.contains("right-pass") && !error.contains("wrong-pass"), "{error}");
    }

    /// A file of another URL.
    fn url(&self, name: &str, change: impl FnOnce(&str) -> String) -> PathBuf {
        let path = self.pki.folder.path().join(name);
        let url = std::fs::read_to_string(&self.mounted.files.url).unwrap();
        std::fs::write(&path, change(&url)).unwrap();
        path
    }

    async fn every_case(&self) {
        check(&self.mounted.files).await.unwrap();
        let (ca_flag, cert_flag) = (self.store.ca_flag(), self.store.certificate_flag());
        let url_flag = self.store.url_flag();
        let other_ca = &self.pki.new.ca.certificate;
        let shown = other_ca.display().to_string();
        self.refused(|files| files.ca = Some(other_ca.clone()), &["UnknownIssuer", &shown, ca_flag]).await;
        self.refused(|files| files.ca = None, &["UnknownIssuer", "not of a public CA", ca_flag]).await;

        let by_address = self.url("by-address", |url| url.replace("localhost", "127.0.0.1"));
        let shown = by_address.display().to_string();
        self.refused(|files| files.url = by_address, &["not valid for name", &shown, url_flag]).await;

        let (from, to) = (format!(":{}/", self.port), format!(":{}/", self.expired));
        let expired = self.url("expired", |url| url.replace(&from, &to));
        self.refused(|files| files.url = expired, &["certificate expired", "renew the server's"]).await;

        self.refused(|files| files.client = None, &["client certificate", cert_flag]).await;
        let foreign = self.foreign_client();
        let shown = foreign.certificate.display().to_string();
        self.refused(|files| files.client = Some(foreign), &["refused the client", &shown, cert_flag]).await;

        let wrong = self.url("other-login", |url| url.replace("right-pass", "wrong-pass"));
        let shown = wrong.display().to_string();
        self.refused(|files| files.url = wrong, &["refused the user and the password", &shown, url_flag])
            .await;
    }

    /// A client certificate of a CA that the server does not trust.
    fn foreign_client(&self) -> ClientFiles {
        let client = &self.pki.new.client;
        let text = crate::servers::concatenated(&[&client.certificate, &client.key]);
        let path = self.pki.folder.path().join("foreign.pem");
        std::fs::write(&path, text).unwrap();
        ClientFiles { certificate: path.clone(), key: path }
    }
}

/// Uses a store with these files.
async fn check(files: &CredentialFiles) -> Result<(), String> {
    let credentials = files.read().map_err(|error| error.to_string())?;
    match files.store {
        Store::Mongodb => {
            let options = MongoOptions {
                server_selection_timeout: Duration::from_millis(500),
                ..MongoOptions::default()
            };
            let history = MongoHistory::connect(&credentials, options).await.map_err(|e| e.to_string())?;
            history.check().await.map_err(|error| error.to_string())
        }
        Store::Redis => {
            let options = RedisOptions {
                response_timeout: Duration::from_secs(5),
                connection_timeout: Duration::from_secs(5),
                ..RedisOptions::default()
            };
            let presence =
                RedisPresence::connect(&credentials, options).map_err(|error| error.to_string())?;
            presence.check().await.map_err(|error| error.to_string())
        }
    }
}

fn folder(of: &Path, name: &str) -> PathBuf {
    let path = of.join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mongodb_refuses_is_reported_with_its_file_and_what_to_do() {
    let Some(parts) = parts("what_mongodb_refuses_is_reported_with_its_file_and_what_to_do") else { return };
    let pki = Pki::new();
    let clients = &pki.old.ca.certificate;
    let state = folder(pki.folder.path(), "state");
    let Some(server) = Server::ferretdb(&parts, &state, &pki.old.server, clients) else {
        eprintln!("NOT TESTED, because the MongoDB in use was not started by the tests");
        return;
    };
    let certificate = pki.old.ca.issue_expired(pki.folder.path(), "expired", "localhost");
    let state = folder(pki.folder.path(), "state-of-expired");
    let expired = Server::ferretdb(&parts, &state, &certificate, clients).unwrap();
    let (users, user) = (crate::mongodb::Users::of(&parts).await, unique("refusals"));
    users.create(&user, "right-pass").await;
    let url = crate::mongodb::url(&user, "right-pass", server.port);
    let mounted = Mounted::new(Store::Mongodb, &url, clients, &pki.old.client);
    let site = Site { store: Store::Mongodb, mounted, expired: expired.port, port: server.port, pki };
    site.every_case().await;
    users.remove(&user).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_refuses_is_reported_with_its_file_and_what_to_do() {
    let Some(parts) = parts("what_redis_refuses_is_reported_with_its_file_and_what_to_do") else { return };
    let (pki, plain) = (Pki::new(), free_port());
    let clients = &pki.old.ca.certificate;
    let data = folder(pki.folder.path(), "data");
    let Some(server) = Server::redis(&parts, &data, &pki.old.server, clients, plain) else {
        eprintln!("NOT TESTED, because the Redis in use was not started by the tests");
        return;
    };
    let certificate = pki.old.ca.issue_expired(pki.folder.path(), "expired", "localhost");
    let data = folder(pki.folder.path(), "data-of-expired");
    let expired = Server::redis(&parts, &data, &certificate, clients, free_port()).unwrap();
    crate::redis::Admin::of(plain).await.create("user", "right-pass").await;
    let url = crate::redis::url("user", "right-pass", server.port);
    let mounted = Mounted::new(Store::Redis, &url, clients, &pki.old.client);
    let site = Site { store: Store::Redis, mounted, expired: expired.port, port: server.port, pki };
    site.every_case().await;
}
