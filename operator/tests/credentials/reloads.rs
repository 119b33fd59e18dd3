//! The files of credentials, without a server.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sentinel_operator::credentials::{CredentialFiles, Credentials, Reconnect, ReconnectError, Store};

use crate::servers::{Mounted, Pki, Reloading};
use crate::stores::eventually;

/// A store that accepts the URLs that end with `good`, and panics at those that end with `panic`.
#[derive(Default)]
struct Picky {
    used: Mutex<Option<String>>,
    asked: AtomicUsize,
}

impl Reconnect for Picky {
    fn reconnect(&self, credentials: Arc<Credentials>) -> BoxFuture<'_, Result<(), ReconnectError>> {
        async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            assert!(!credentials.url().ends_with("panic"), "as the test asks for");
            if !credentials.url().ends_with("good") {
                return Err("the server refused it".into());
            }
            *self.used.lock().unwrap() = Some(credentials.url().to_owned());
            Ok(())
        }
        .boxed()
    }
}

/// A log that the test reads.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, part: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(part).count()
    }
}

#[tokio::test]
async fn unusable_credentials_are_reported_once_and_the_previous_ones_stay() {
    let log = Log::default();
    let lines = {
        let log = log.clone();
        move || log.clone()
    };
    let subscriber = tracing_subscriber::fmt().with_writer(lines).with_ansi(false).finish();
    // Of the whole process: with one of this thread, a line that a test beside this one logs first is logged by none later.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let pki = Pki::new();
    let ca = &pki.old.ca.certificate;
    let mounted = Mounted::new(Store::Redis, "rediss://a:hunter2@db/good", ca, &pki.old.client);
    let store = Arc::new(Picky::default());
    let reloading = Reloading::start(store.clone(), &mounted);
    let used = || store.used.lock().unwrap().clone();

    // What the server refuses is tried again, and reported once.
    mounted.set_url("rediss://b:hunter2@db/bad");
    eventually("it was refused three times", || reloading.attempts("Rejected") >= 3).await;
    assert_eq!(log.count("the server refused it"), 1);
    assert!(reloading.is_stale() && used().is_none());
    // So is a file that cannot be used; the server is not asked.
    let asked = store.asked.load(Ordering::SeqCst);
    mounted.set_url("http://hunter2");
    eventually("it was read three times", || reloading.attempts("Invalid") >= 3).await;
    assert_eq!(store.asked.load(Ordering::SeqCst), asked);
    assert_eq!(log.count("its scheme is http://"), 1);
    // A panic of a client ends one attempt.
    mounted.set_url("rediss://b@db/panic");
    eventually("it has panicked", || reloading.attempts("Panicked") >= 2).await;
    // And all the same the next file is used.
    reloading.after(async { mounted.set_url("rediss://c:hunter2@db/good") }).await;
    assert_eq!(used().as_deref(), Some("rediss://c:hunter2@db/good"));
    assert!(!reloading.is_stale());
    // A file that returns to what is in use is not an error either.
    mounted.set_url("rediss://d@db/bad");
    eventually("it is stale", || reloading.is_stale()).await;
    mounted.set_url("rediss://c:hunter2@db/good");
    eventually("it is not stale", || !reloading.is_stale()).await;
    assert_eq!(reloading.attempts("Reloaded"), 1);
    assert_eq!(log.count("hunter2"), 0);
}

#[tokio::test]
async fn a_certificate_whose_key_is_not_there_yet_is_waited_for() {
    let pki = Pki::new();
    let mounted = Mounted::new(Store::Redis, "rediss://a@db/good", &pki.old.ca.certificate, &pki.old.client);
    let store = Arc::new(Picky::default());
    let reloading = Reloading::start(store.clone(), &mounted);
    let used = mounted.files.client.as_ref().unwrap();
    std::fs::copy(&pki.new.client.certificate, &used.certificate).unwrap();
    eventually("the pair was refused", || reloading.attempts("Invalid") >= 1).await;
    assert_eq!(store.asked.load(Ordering::SeqCst), 0);
    let in_use = reloading.expiry("redis-client");
    reloading.after(async { mounted.set_client(&pki.new.client) }).await;
    assert_eq!(store.asked.load(Ordering::SeqCst), 1);
    // What is in use counts, not what is on the disk.
    assert_eq!(in_use, ends(&pki.old.client.certificate));
    assert_eq!(reloading.expiry("redis-client"), ends(&pki.new.client.certificate));
    assert_eq!(reloading.expiry("redis-authority"), ends(&pki.old.ca.certificate));
    assert_eq!(reloading.expiry("mongodb-client"), 0);
}

/// When the certificate in this file expires.
fn ends(file: &std::path::Path) -> i64 {
    let pem = std::fs::read(file).unwrap();
    sentinel_operator::expiry::of_chain(&pem).unwrap().not_after
}

/// Why files cannot be used, as it is printed.
fn refused(files: &CredentialFiles) -> String {
    match files.read() {
        Err(error) => error.to_string(),
        Ok(credentials) => panic!("{credentials:?} was accepted"),
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let pki = Pki::new();
    for store in Store::ALL {
        let (plain, tls) = match store {
            Store::Mongodb => ("mongodb://u:hunter2@db/", "mongodb://u:hunter2@db/?tls=true"),
            Store::Redis => ("redis://u:hunter2@db/", "rediss://u:hunter2@db/"),
        };
        let mounted = Mounted::new(store, plain, &pki.old.ca.certificate, &pki.old.client);
        let text = refused(&mounted.files);
        assert!(text.starts_with(&format!("--{} needs TLS", store.certificate_flag())), "{text}");
        assert!(text.contains(if store == Store::Redis { "rediss://" } else { "add tls=true" }), "{text}");
        let without_client = CredentialFiles { client: None, ..mounted.files.clone() };
        assert!(refused(&without_client).starts_with(&format!("--{} needs TLS", store.ca_flag())));
        assert!(!text.contains("hunter2"), "{text}");

        mounted.set_url(tls);
        mounted.files.read().unwrap();
        let mut mixed = mounted.files.clone();
        let client = mixed.client.as_mut().unwrap();
        client.key.clone_from(&pki.new.client.key);
        assert!(refused(&mixed).contains(&format!("--{}", store.key_flag())), "{}", refused(&mixed));
        let swapped = CredentialFiles { ca: Some(pki.old.client.key.clone()), ..mounted.files.clone() };
        assert!(refused(&swapped).contains("it has no certificate"), "{}", refused(&swapped));
        let missing = CredentialFiles { ca: Some("/nowhere/ca.crt".into()), ..mounted.files.clone() };
        let expected = format!("failed to read the file of --{}, /nowhere/ca.crt", store.ca_flag());
        assert!(refused(&missing).starts_with(&expected), "{}", refused(&missing));
    }
}
