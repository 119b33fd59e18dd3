//! Values of Secrets: read when a `Start` is dispatched, and what a Task shows where there are none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sentinel_operator::cluster::{ClusterError, SecretKeys};
use sentinel_protocol::secret::SecretKeyRef;
use sentinel_secrets::values::{SecretValue, SecretValues};

use super::kit::{Stage, condition, failed, running};
use super::server::Server;

const PASSWORD: &str = "{targets: {all: true}, run: {command: [x], env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}]}, timeouts: {start: 1m}}";

fn keys(pairs: &[(&str, &str)]) -> SecretKeys {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), SecretValue::new(value.as_bytes().to_vec()));
    pairs.iter().map(pair).collect()
}

/// A Task on a node, in a cluster that answers each read of a Secret with this.
async fn stage(
    spec: &str,
    answer: impl Fn() -> Result<Option<SecretKeys>, ClusterError> + Send + 'static,
) -> (Stage, Arc<Server>) {
    let (stage, server) = Stage::on_a_server(&["a"]);
    server.pass_finalizer();
    server.secrets.answer(move |namespace, name| {
        assert_eq!((namespace, name), ("default", "db"));
        answer()
    });
    stage.apply("t", spec).await;
    (stage, server)
}

fn value(stage: &Stage, at: usize, key: &str) -> Option<Vec<u8>> {
    let reference = SecretKeyRef { name: "db".into(), key: key.into(), optional: false };
    let (_, values) = &stage.fleet.values()[at];
    values.as_ref()?.get(&reference).map(|value| value.expose().to_vec())
}

#[tokio::test(start_paused = true)]
async fn values_go_with_the_start_and_nowhere_else() {
    let (stage, server) =
        stage(PASSWORD, || Ok(Some(keys(&[("password", "hunter2hunter2"), ("x", "y")])))).await;
    let (start, _) = stage.starts(1).await.remove(0);
    assert_eq!(value(&stage, 0, "password").as_deref(), Some(&b"hunter2hunter2"[..]));
    assert_eq!(value(&stage, 0, "x"), None, "only what is asked for");
    assert_eq!(start.secrets, None, "the gateway seals it");
    let reference = start.request.env[0].value_from.as_ref().unwrap();
    assert_eq!((reference.name.as_str(), reference.key.as_str()), ("db", "password"));
    let task = stage.until("t", |task| task.status.is_some()).await;
    let shown = format!("{start:?} {} {:?}", serde_json::to_string(&task).unwrap(), stage.reasons("t"));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(server.secrets.reads(), 1);
}

/// The Outcome's message of the only node, when the Run has failed.
async fn refused(stage: &Stage) -> String {
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let node = task.status.unwrap().nodes.remove(0);
    assert_eq!(node.state, "Refused", "{node:?}");
    assert_eq!(stage.count_starts(), 0, "nothing was sent");
    node.message
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_secret_is_named_and_nothing_is_started() {
    let long = "x".repeat(65_537);
    let cases: Vec<(Option<SecretKeys>, &str)> = vec![
        (None, "Secret default/db does not exist; run.env variable PASSWORD needs its key \"password\""),
        (
            Some(keys(&[("user", "hunter2"), ("b", "c")])),
            "has no key \"password\", which run.env variable PASSWORD needs; it has 2 others",
        ),
        (Some(keys(&[("password", &long)])), "key \"password\" of Secret db has 65537 bytes; at most 65536"),
        (Some(keys(&[("password", "hunter2\0")])), "contains a zero byte"),
        (
            Some(BTreeMap::from([("password".to_owned(), SecretValue::new(b"hunter2\xff".to_vec()))])),
            "not valid UTF-8 at byte 7",
        ),
    ];
    for (answer, expected) in cases {
        let (stage, _server) = stage(PASSWORD, move || Ok(answer.clone())).await;
        let message = refused(&stage).await;
        assert!(message.contains(expected) && !message.contains("hunter2"), "{message:?} lacks {expected:?}");
    }
}

/// Each fits, and all of them together do not.
#[tokio::test(start_paused = true)]
async fn secrets_that_are_too_large_together_are_refused() {
    let variable = |name: &str| {
        format!("{{name: {}, valueFrom: {{secretKeyRef: {{name: db, key: {name}}}}}}}", name.to_uppercase())
    };
    let names = ["a", "b", "c", "d", "e"];
    let env: Vec<String> = names.iter().map(|name| variable(name)).collect();
    let spec = format!("{{targets: {{all: true}}, run: {{command: [x], env: [{}]}}}}", env.join(", "));
    let value = "x".repeat(60_000);
    let all: Vec<(&str, &str)> = names.iter().map(|name| (*name, value.as_str())).collect();
    let all = keys(&all);
    let (stage, _server) = stage(&spec, move || Ok(Some(all.clone()))).await;
    let message = refused(&stage).await;
    assert!(message.contains("have 300000 bytes together; at most 262144 are allowed"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_has_not_opted_in_is_named_with_what_to_do() {
    let forbidden = || {
        let message = "secrets \"db\" is forbidden".to_owned();
        Err(ClusterError::Refused { doing: "read Secret default/db".into(), code: 403, message })
    };
    let (stage, _server) = stage(PASSWORD, forbidden).await;
    let message = refused(&stage).await;
    for part in ["may not read Secret default/db: check its name", "secrets.namespaces", "is forbidden"] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

/// The gateway once sent nothing then, so that the agent refused the command.
#[tokio::test(start_paused = true)]
async fn an_optional_key_may_be_missing() {
    let spec = PASSWORD.replace("key: password", "key: password, optional: true");
    let (stage, _server) = stage(&spec, || Ok(None)).await;
    stage.starts(1).await;
    assert_eq!(stage.fleet.values()[0].1, Some(SecretValues::default()));
}

/// With the operator's keys one could be the operator. Its Role lets it read them, so no API server would refuse it.
#[tokio::test(start_paused = true)]
async fn no_command_gets_a_secret_of_the_operator() {
    let (stage, server) = Stage::on_a_server(&["a"]);
    server.pass_finalizer();
    server.secrets.are_own.store(true, Ordering::Relaxed);
    stage.apply("t", PASSWORD).await;
    let message = refused(&stage).await;
    assert!(message.contains("Secret default/db has keys of the operator"), "{message:?}");
    assert_eq!(server.secrets.reads(), 0);
}

/// A token that was rotated, for example: only what no one but a person can change ends an Attempt.
#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_authenticated_is_made_again() {
    let reads = Arc::new(AtomicBool::new(false));
    let answer = move || {
        if reads.swap(true, Ordering::Relaxed) {
            return Ok(Some(keys(&[("password", "hunter2hunter2")])));
        }
        let (doing, message) = ("read Secret default/db".into(), "Unauthorized".into());
        Err(ClusterError::Refused { doing, code: 401, message })
    };
    let (stage, _server) = stage(PASSWORD, answer).await;
    stage.starts(1).await;
    assert_eq!(value(&stage, 0, "password").as_deref(), Some(&b"hunter2hunter2"[..]));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_asked_again_within_the_start_clock() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = is_up.clone();
    let answer = move || {
        if up.load(Ordering::Relaxed) {
            return Ok(Some(keys(&[("password", "hunter2hunter2")])));
        }
        Err(ClusterError::Unavailable { doing: "read Secret default/db".into(), source: "down".into() })
    };
    let (stage, server) = stage(PASSWORD, answer).await;
    while server.secrets.reads() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(stage.count_starts(), 0);
    is_up.store(true, Ordering::Relaxed);
    stage.starts(1).await;
}

#[tokio::test(start_paused = true)]
async fn each_attempt_reads_anew_and_one_without_its_secret_is_refused() {
    let exists = Arc::new(AtomicBool::new(true));
    let present = exists.clone();
    let answer = move || Ok(present.load(Ordering::Relaxed).then(|| keys(&[("password", "hunter2hunter2")])));
    let spec = PASSWORD
        .replace("timeouts:", "retry: {limit: 1, backoff: {initial: 1s}, causes: [Failed]}, timeouts:");
    let (stage, _server) = stage(&spec, answer).await;
    stage.starts(1).await;
    stage.report("t", 1, "a", running());
    exists.store(false, Ordering::Relaxed);
    stage.report("t", 1, "a", failed(1));
    let task = stage.until("t", |task| condition(task, "Failed") == "True").await;
    let node = task.status.unwrap().nodes.remove(0);
    assert_eq!(node.state, "Refused");
    assert!(node.message.contains("Secret default/db does not exist"));
    assert_eq!(stage.count_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_sent_is_sent_again_without_values_that_are_gone() {
    let exists = Arc::new(AtomicBool::new(true));
    let present = exists.clone();
    let answer = move || Ok(present.load(Ordering::Relaxed).then(|| keys(&[("password", "hunter2hunter2")])));
    let (stage, _server) = stage(PASSWORD, answer).await;
    stage.starts(1).await;
    exists.store(false, Ordering::Relaxed);
    // It has accepted the Attempt and restarted: it reports what it has, and the operator concludes nothing.
    stage.connect("a");
    stage.starts(2).await;
    assert_eq!(value(&stage, 1, "password"), None);
    stage.report("t", 1, "a", running());
    let task = stage.until("t", |task| condition(task, "Reconciling") == "True").await;
    assert_eq!(condition(&task, "Failed"), "");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_no_values_is_sent_nothing() {
    let (stage, server) = Stage::on_a_server(&["a"]);
    stage.fleet.take_no_secrets();
    server.pass_finalizer();
    stage.apply("t", PASSWORD).await;
    let message = refused(&stage).await;
    assert!(message.contains("upgrade the agent"), "{message}");
    assert_eq!(server.secrets.reads(), 0, "nothing is read for it");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_short_to_be_masked_is_warned_of() {
    let (stage, _server) = stage(PASSWORD, || Ok(Some(keys(&[("password", "abcde\n")])))).await;
    stage.until_event("t", "SecretNotMasked").await;
    assert_eq!(stage.count_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn dev_mode_has_no_secrets_and_refuses() {
    let stage = Stage::with_nodes(&["a"]);
    stage.apply("t", PASSWORD).await;
    let message = refused(&stage).await;
    assert!(message.contains("dev mode has no Secrets"), "{message}");
}
