//! What only MongoDB's History promises: its errors, its durability, its documents.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mongodb::bson::doc;
use sentinel_operator::history::archive::{Archived, Archiver, ArchiverOptions};
use sentinel_operator::history::mongo::{MongoHistory, MongoOptions};
use sentinel_operator::history::{ExecutionQuery, History, HistoryRecord};
use sentinel_protocol::ids::RunNumber;
use sentinel_protocol::outcome::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::stores::eventually;
use crate::stores::fixtures::{
    T0, attempt_id, ended, history_record, log, read_all, run_record, running, segments,
};
use crate::stores::parts::{parts, unique};

/// Far above the limits in [`quick`], far below the defaults.
const NO_LATER_THAN: Duration = Duration::from_secs(8);

fn quick() -> MongoOptions {
    MongoOptions {
        server_selection_timeout: Duration::from_millis(500),
        operation_timeout: Duration::from_millis(1500),
        ..MongoOptions::default()
    }
}

#[tokio::test]
async fn an_unreachable_server_is_named_without_its_password() {
    let history = MongoHistory::new("mongodb://user:secret@127.0.0.1:9/", quick()).await.unwrap();
    let started = Instant::now();
    let error = history.check().await.unwrap_err();
    assert!(started.elapsed() < NO_LATER_THAN, "{:?}", started.elapsed());
    let text = error.to_string();
    assert_eq!(
        text,
        "unable to check: MongoDB at 127.0.0.1:9 is not reachable: Connection refused (os error 111)"
    );
    assert_eq!(error.category(), "Unreachable");
}

#[tokio::test]
async fn a_silent_server_fails_within_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let history = MongoHistory::new(&format!("mongodb://127.0.0.1:{port}/"), quick()).await.unwrap();
    let started = Instant::now();
    let error = history.record(vec![history_record(&running(&attempt_id("t", 1, "n")))]).await.unwrap_err();
    assert!(started.elapsed() < NO_LATER_THAN, "{:?}", started.elapsed());
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[tokio::test]
async fn rejects_invalid_uris_without_echoing_the_password() {
    for uri in [
        "",
        "localhost",
        "http://x/",
        "mongodb://",
        "mongodb://user:secret@h:99999/",
        "mongodb://user:sec/secret@h/",
        "mongodb://user:secret%ZZ@h/",
        "mongodb://user:secret:secret@h/",
        "mongodb://h/?w=x&foo=1&w=-1",
    ] {
        let error = MongoHistory::new(uri, quick()).await.map(|_| uri).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("invalid MongoDB URI"), "{uri}: {text}");
        assert!(!text.contains("secret"), "{uri}: {text}");
    }
}

/// A TCP proxy that records what the client sends and can be stopped.
struct Proxy {
    port: u16,
    server: String,
    sent: Arc<Mutex<Vec<u8>>>,
    forwarding: tokio::task::JoinSet<()>,
}

impl Proxy {
    async fn new(server: String) -> Self {
        let mut proxy =
            Self { port: 0, server, sent: Arc::default(), forwarding: tokio::task::JoinSet::new() };
        proxy.start().await;
        proxy
    }

    /// Closes all connections and stops listening.
    async fn stop(&mut self) {
        self.forwarding.shutdown().await;
    }

    /// Listens again, at the same address.
    async fn start(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (server, sent) = (self.server.clone(), Arc::clone(&self.sent));
        self.forwarding.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, server.clone(), Arc::clone(&sent)));
            }
        });
    }
}

async fn forward(client: TcpStream, server: String, sent: Arc<Mutex<Vec<u8>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(&server).await.unwrap().into_split();
    let responses = async { tokio::io::copy(&mut from_server, &mut to_client).await };
    let requests = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            sent.lock().unwrap().extend_from_slice(&buffer[..n]);
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = responses => {}
        () = requests => {}
    }
}

/// A proxy to the real server, and a URI that goes through it.
async fn proxy(test: &str) -> Option<(Proxy, String)> {
    let server = parts(test)?.mongodb_uri;
    let host = server.trim_start_matches("mongodb://").split('/').next().unwrap().to_owned();
    if host.contains('@') || host.contains(',') {
        eprintln!("NOT TESTED, because it needs a single server without a password: {test}");
        return None;
    }
    let proxy = Proxy::new(host).await;
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port);
    Some((proxy, uri))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_archived_after_an_outage() {
    let Some((mut proxy, uri)) = proxy("everything_is_archived_after_an_outage").await else { return };
    let options = MongoOptions { database: Some(unique("outage")), ..quick() };
    let history = Arc::new(MongoHistory::new(&uri, options).await.unwrap());
    history.prepare().await.unwrap();
    let (done, mut archived) = tokio::sync::mpsc::channel(1000);
    let (archiver, work) = Archiver::new(history.clone(), ArchiverOptions::default(), done);
    let work = tokio::spawn(work.run());
    let records = log((0..200).map(|n| n * 97 % 700 + 1));
    let output = attempt_id("outage", 1, "writer");
    archiver.open_output(&output, 0);
    for (round, batch) in (1..).zip(records.chunks(40)) {
        for record in batch {
            archiver.output(&output, record.clone()).unwrap();
        }
        for on in 0..100 {
            let id = attempt_id("outage", round, &format!("n{on}"));
            archiver.record(history_record(&ended(&id, Outcome::TimedOut))).unwrap();
        }
        if round % 2 == 1 {
            let failures = archiver.status().total_failures();
            proxy.stop().await;
            archiver.record(HistoryRecord::Run(Box::new(run_record("outage", round)))).unwrap();
            eventually("a write has failed", || archiver.status().total_failures() > failures).await;
            assert!(!archiver.status().is_up);
            proxy.start().await;
        }
    }
    let (mut end, mut attempts, mut runs) = (0, 0, 0);
    while end < records.last().unwrap().end() || attempts < 500 || runs < 3 {
        match tokio::time::timeout(Duration::from_secs(30), archived.recv()).await.unwrap().unwrap() {
            Archived::Output { end: now, .. } => end = now,
            Archived::Attempt { .. } => attempts += 1,
            Archived::Run { .. } => runs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(archiver.status().is_up);
    assert_eq!(read_all(&*history, &output, 0, 10_000).await, records);
    for round in 1..=5 {
        let query = ExecutionQuery { run: Some(RunNumber(round)), ..ExecutionQuery::default() };
        assert_eq!(history.executions(query).await.unwrap().items.len(), 100);
    }
    drop(archiver);
    work.await.unwrap();
    history.drop_database().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_has_a_majority_journaled_concern() {
    let Some((proxy, uri)) = proxy("every_write_has_a_majority_journaled_concern").await else { return };
    let options = MongoOptions { database: Some(unique("durable")), ..MongoOptions::default() };
    let history = MongoHistory::new(&uri, options).await.unwrap();
    let id = attempt_id("durable", 1, "n");
    let is_durable = |what: &str| {
        let bytes = std::mem::take(&mut *proxy.sent.lock().unwrap());
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        // As BSON has them: w: "majority", j: true.
        assert!(has(b"\x02w\0\x09\0\0\0majority\0"), "{what}: no majority requested");
        assert!(has(b"\x08j\0\x01"), "{what}: no journal requested");
    };
    history.record(vec![history_record(&running(&id))]).await.unwrap();
    is_durable("a new record");
    history.record(vec![history_record(&ended(&id, Outcome::TimedOut))]).await.unwrap();
    is_durable("a changed record");
    history.append_output(segments(&id, &log([10; 3]), 3)).await.unwrap();
    is_durable("output");
    history.drop_database().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_queryable_by_hand_and_expire() {
    let Some(parts) = parts("documents_are_queryable_by_hand_and_expire") else { return };
    let name = unique("shell");
    let options = MongoOptions { database: Some(name.clone()), ..MongoOptions::default() };
    let history = MongoHistory::new(&parts.mongodb_uri, options).await.unwrap();
    history.prepare().await.unwrap();
    let id = attempt_id("shell", 1, "web-1");
    history.record(vec![history_record(&ended(&id, Outcome::Failed { exit_code: 3 }))]).await.unwrap();

    let database = mongodb::Client::with_uri_str(&parts.mongodb_uri).await.unwrap().database(&name);
    let executions = database.collection::<mongodb::bson::Document>("executions");
    let filter = doc! { "node": "web-1", "exitCode": 3, "startedAt": { "$gt": mongodb::bson::DateTime::from_millis(T0) } };
    let found = executions.find_one(filter).await.unwrap().unwrap();
    assert_eq!(found.get_str("command").unwrap(), "df -h");
    assert!(found.get_str("message").unwrap().starts_with("exited with code 3; left 9 processes"));
    assert_eq!(found.get_datetime("endedAt").unwrap().timestamp_millis(), T0 + 9000);
    let days = (found.get_datetime("expireAt").unwrap().timestamp_millis()
        - mongodb::bson::DateTime::now().timestamp_millis())
        / 86_400_000;
    assert!((29..=30).contains(&days), "kept for {days} days");
    let indexes = indexes(&executions).await;
    let expires = |index: &mongodb::IndexModel| {
        let after = index.options.as_ref().and_then(|o| o.expire_after);
        index.keys.contains_key("expireAt") && after == Some(Duration::ZERO)
    };
    assert!(indexes.iter().any(expires), "{indexes:?}");
    let runs = self::indexes(&database.collection("runs")).await;
    let by_spec = doc! { "namespace": 1, "name": 1, "specHash": 1, "order": 1 };
    assert!(runs.iter().any(|index| index.keys == by_spec), "{runs:?}");
    history.drop_database().await.unwrap();
}

async fn indexes(collection: &mongodb::Collection<mongodb::bson::Document>) -> Vec<mongodb::IndexModel> {
    let mut indexes = Vec::new();
    let mut cursor = collection.list_indexes().await.unwrap();
    while cursor.advance().await.unwrap() {
        indexes.push(cursor.deserialize_current().unwrap());
    }
    indexes
}
