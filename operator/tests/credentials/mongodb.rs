//! Credentials of MongoDB, replaced while results and output are archived.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use sentinel_operator::credentials::Store;
use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions};
use sentinel_operator::history::mongo::{MongoHistory, MongoOptions};
use sentinel_operator::history::{ExecutionQuery, History};
use sentinel_protocol::ids::{AttemptId, RunNumber};
use sentinel_protocol::log::LogRecord;
use sentinel_protocol::outcome::Outcome;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::certificates::ServerCertificate;
use crate::servers::{Mounted, Pki, Reloading, Server};
use crate::stores::eventually;
use crate::stores::fixtures::{attempt_id, ended, history_record, log, read_all};
use crate::stores::parts::{Parts, parts, unique};

/// Longer than anything here takes; a test that hangs ends.
const PATIENCE: Duration = Duration::from_mins(1);

/// Users of the set's FerretDB, made by its listener that asks for none.
pub(crate) struct Users(mongodb::Database);

impl Users {
    pub(crate) async fn of(parts: &Parts) -> Self {
        Self(mongodb::Client::with_uri_str(&parts.mongodb_uri).await.unwrap().database("admin"))
    }

    pub(crate) async fn create(&self, name: &str, password: &str) {
        let roles = [
            doc! { "role": "clusterAdmin", "db": "admin" },
            doc! { "role": "readWriteAnyDatabase", "db": "admin" },
        ];
        let create = doc! { "createUser": name, "pwd": password, "roles": roles.as_slice() };
        self.0.run_command(create).await.unwrap();
    }

    pub(crate) async fn remove(&self, name: &str) {
        self.0.run_command(doc! { "dropUser": name }).await.unwrap();
    }
}

pub(crate) fn url(user: &str, password: &str, port: u16) -> String {
    format!("mongodb://{user}:{password}@localhost:{port}/?tls=true&authMechanism=SCRAM-SHA-256")
}

/// Results and output that arrive all the time, as from agents.
struct Load {
    archiver: Archiver,
    archived: mpsc::Receiver<Archived>,
    work: JoinHandle<()>,
    arriving: JoinHandle<u32>,
    stop: Arc<AtomicBool>,
}

/// The records of an endless output.
fn output_records(count: u32) -> Vec<LogRecord> {
    log((0..count as usize).map(|n| n * 97 % 700 + 1))
}

/// Enough for minutes.
const OUTPUT_RECORDS: u32 = 30_000;

fn writer() -> AttemptId {
    attempt_id("load", 1, "writer")
}

impl Load {
    fn start(history: Arc<dyn History>) -> Self {
        let (done, archived) = mpsc::channel(100_000);
        let (archiver, work) = Archiver::new(history, ArchiverOptions::default(), done);
        archiver.open_output(&writer(), 0);
        let stop = Arc::new(AtomicBool::new(false));
        let arriving = tokio::spawn(arrive(archiver.clone(), stop.clone()));
        Self { archiver, archived, work: tokio::spawn(work.run()), arriving, stop }
    }

    /// Waits until more is stored.
    async fn progress(&self) {
        let before = self.archiver.status().stored_records;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.archiver.status().stored_records <= before || !self.archiver.status().is_up {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", self.archiver.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it; everything that arrived must be stored, once.
    async fn verify(mut self, history: &dyn History) {
        self.stop.store(true, Ordering::SeqCst);
        let sent = self.arriving.await.unwrap();
        let records = output_records(sent);
        let end = records.last().unwrap().end();
        let (mut stored_end, mut attempts) = (0, 0);
        while stored_end < end || attempts < sent {
            match tokio::time::timeout(PATIENCE, self.archived.recv()).await.unwrap().unwrap() {
                Archived::Output { end: now, .. } => stored_end = now,
                Archived::Attempt { .. } => attempts += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(attempts, sent, "a result was acknowledged twice");
        assert_eq!(read_all(history, &writer(), 0, 1 << 20).await, records);
        let mut query = ExecutionQuery { run: Some(RunNumber(2)), limit: 500, ..ExecutionQuery::default() };
        let mut found = 0;
        loop {
            let page = history.executions(query.clone()).await.unwrap();
            found += page.items.len();
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(found, sent as usize);
        drop(self.archiver);
        self.work.await.unwrap();
    }
}

/// One result and one record of output every few milliseconds, until `stop`; returns how many of each.
async fn arrive(archiver: Archiver, stop: Arc<AtomicBool>) -> u32 {
    let mut sent = 0;
    for record in output_records(OUTPUT_RECORDS) {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        archiver.output(&writer(), record).unwrap();
        let id = attempt_id("load", 2, &format!("n{sent}"));
        archiver.record(history_record(&ended(&id, Outcome::Succeeded { exit_code: 0 }))).unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    sent
}

/// Segments of output by their first position; one that was stored twice would be two of them.
async fn first_positions(parts: &Parts, database: &str) -> Vec<i64> {
    let client = mongodb::Client::with_uri_str(&parts.mongodb_uri).await.unwrap();
    let segments = client.database(database).collection::<Document>("output");
    let mut cursor = segments.find(doc! {}).projection(doc! { "first": 1 }).await.unwrap();
    let mut found = Vec::new();
    while cursor.advance().await.unwrap() {
        found.push(cursor.deserialize_current().unwrap().get_i64("first").unwrap());
    }
    found.sort_unstable();
    found
}

/// A server of the test's own, and History on it under load.
struct Rotated {
    pki: Pki,
    server: Server,
    /// What the server presents.
    served: ServerCertificate,
    /// The CAs of clients that the server trusts.
    clients: PathBuf,
    mounted: Mounted,
    database: String,
    history: Arc<MongoHistory>,
    load: Load,
    reloading: Reloading,
}

impl Rotated {
    async fn start(parts: &Parts, user: &str) -> Option<Self> {
        let pki = Pki::new();
        let served = pki.old.ca.issue(pki.folder.path(), "served", "localhost");
        let clients = pki.folder.path().join("clients.crt");
        std::fs::copy(&pki.old.ca.certificate, &clients).unwrap();
        let server = Server::ferretdb(parts, pki.folder.path(), &served, &clients)?;
        let url = url(user, "password", server.port);
        let mounted = Mounted::new(Store::Mongodb, &url, &pki.old.ca.certificate, &pki.old.client);
        let database = unique("rotated");
        let options = MongoOptions { database: Some(database.clone()), ..MongoOptions::default() };
        let history = Arc::new(MongoHistory::connect(&mounted.read(), options).await.unwrap());
        history.prepare().await.unwrap();
        let load = Load::start(history.clone());
        load.progress().await;
        let reloading = Reloading::start(history.clone(), &mounted);
        Some(Self { pki, server, served, clients, mounted, database, history, load, reloading })
    }

    /// To another user and one more CA, while the server accepts old and new: no operation fails.
    async fn change_user_and_add_ca(&self, users: &Users, second: &str) {
        // A user that does not exist yet is not taken; the old one stays in use.
        self.mounted.set_url(&url(second, "password", self.server.port));
        eventually("the unknown user was refused", || self.reloading.attempts("Rejected") > 0).await;
        assert!(self.reloading.is_stale());
        self.load.progress().await;
        self.reloading.after(users.create(second, "password")).await;
        assert!(!self.reloading.is_stale());
        self.load.progress().await;
        self.reloading.after(async { self.mounted.set_ca(&self.pki.both()) }).await;
        self.load.progress().await;
        let status = self.load.archiver.status();
        assert_eq!(status.total_failures(), 0, "{:?}", status.last_error);
    }

    /// The server changes to the new CA, and with each change to it every connection is closed.
    async fn change_ca(&mut self) {
        std::fs::copy(self.pki.both(), &self.clients).unwrap();
        self.server.restart();
        self.load.progress().await;
        self.reloading.after(async { self.mounted.set_client(&self.pki.new.client) }).await;
        self.served.replace_with(&self.pki.new.server);
        std::fs::copy(&self.pki.new.ca.certificate, &self.clients).unwrap();
        self.server.restart();
        self.load.progress().await;
        self.reloading.after(async { self.mounted.set_ca(&self.pki.new.ca.certificate) }).await;
        self.server.restart();
        self.load.progress().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_mongodb_are_rotated_under_load() {
    let Some(parts) = parts("credentials_of_mongodb_are_rotated_under_load") else { return };
    let (users, first, second) = (Users::of(&parts).await, unique("first"), unique("second"));
    users.create(&first, "password").await;
    let Some(mut rotated) = Rotated::start(&parts, &first).await else {
        eprintln!("NOT TESTED, because the MongoDB in use was not started by the tests");
        return;
    };
    rotated.change_user_and_add_ca(&users, &second).await;
    users.remove(&first).await;
    rotated.change_ca().await;

    rotated.load.verify(&*rotated.history).await;
    let firsts = first_positions(&parts, &rotated.database).await;
    assert!(firsts.windows(2).all(|pair| pair[0] < pair[1]), "output was stored twice: {firsts:?}");
    rotated.history.drop_database().await.unwrap();
    users.remove(&second).await;
}
