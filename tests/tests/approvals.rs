//! Ceilings and approvals: a real operator with a file of ceilings, a real API server that authenticates people, and a Run that
//! begins only when another person than its author has approved it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

mod staff;

use sentinel_tests::ports::free_port;
use sentinel_tests::requests::{Answered, ClientIdentity, Request, encrypted};
use sentinel_tests::wait::until;
use serde_json::{Value, json};
use staff::{PATIENCE, Piece};

const CEILINGS: &str = "apiVersion: sentinelnode.dev/v1alpha1
kind: Ceilings
ceilings:
- name: everybody
  namespaces: ['*']
  environments: [Container]
  approval: {above: {count: 0}, validFor: 1h}
";

struct Office {
    piece: Piece,
    port: u16,
    file: tempfile::NamedTempFile,
    audit: tempfile::TempDir,
}

impl Office {
    async fn new(test: &str) -> Self {
        let (file, port) = (tempfile::NamedTempFile::new().unwrap(), free_port());
        let audit = tempfile::tempdir().unwrap();
        std::fs::write(file.path(), CEILINGS).unwrap();
        let flags = [
            "--api-auth=kubernetes".to_owned(),
            "--public-url=https://sentinel.example.com".to_owned(),
            format!("--aggregated-listen=127.0.0.1:{port}"),
            format!("--ceilings-file={}", file.path().display()),
            format!("--audit-dir={}", audit.path().display()),
        ];
        Self { piece: Piece::with(test, &flags).await, port, file, audit }
    }

    /// A request to the aggregated API, as the API server passes it on.
    async fn send(&self, who: &str, group: &str, method: &str, path: &str) -> Answered {
        let namespace = &self.piece.testbed.namespace;
        let pki = |file: &str| namespace.parts.pki(file);
        let proxy =
            ClientIdentity { certificate: pki("front-proxy-client.crt"), key: pki("front-proxy-client.key") };
        let path = format!("{}/namespaces/{}{path}", sentinel_api::aggregated::PREFIX, namespace.name);
        let request = Request::new(method, &path)
            .with("X-Remote-User", who)
            .with("X-Remote-Group", group)
            .with(sentinel_api::OWN_HEADER, "1");
        encrypted(self.port, &self.piece.ca, Some(&proxy), &request).await.unwrap()
    }

    async fn approve(&self, who: &str, group: &str, name: &str, awaiting: &Value) -> Answered {
        let (spec, targets) = (text(awaiting, "specHash"), text(awaiting, "targetsDigest"));
        let path =
            format!("/tasks/{name}/approve?run={}&specHash={spec}&targetsDigest={targets}", awaiting["run"]);
        self.send(who, group, "POST", &path).await
    }

    /// Who is named by the operator's audit records of this kind, each with their reason.
    fn recorded(&self, kind: &str) -> Vec<(String, String)> {
        let mut files: Vec<_> =
            std::fs::read_dir(self.audit.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        let text: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        records
            .filter(|record| record["kind"] == kind)
            .map(|record| (of(&record["by"]["user"]), of(&record["message"])))
            .collect()
    }

    /// What the Task waits for.
    async fn awaits(&self, name: &str, run: u64) -> Value {
        until(&format!("run {run} of {name} waits"), PATIENCE, || async {
            let task = self.piece.get(name).await?;
            if task["status"]["awaitingApproval"]["run"] == run { Ok(()) } else { Err(task.to_string()) }
        })
        .await;
        self.piece.get(name).await.unwrap()["status"]["awaitingApproval"].clone()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn refused(answered: &Answered, status: u16, part: &str) {
    assert_eq!(answered.status, status, "{}", answered.text);
    assert!(answered.text.contains(part), "{part:?} is not in {}", answered.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_begins_when_another_than_its_author_has_approved_it() {
    let office = Office::new("approvals").await;
    let piece = &office.piece;
    piece.create("alice", json!({"metadata": {"name": "job"}})).await.unwrap();
    let shown = office.awaits("job", 1).await;
    assert_eq!((&shown["targetCount"], &shown["requestedBy"]), (&json!(1), &json!(["alice"])));
    piece.noted("job", "AwaitingApproval", "sentinel approve").await;

    // Who asked cannot; who has no right to, neither; nor a person who was shown something else.
    refused(&office.approve("alice", "staff", "job", &shown).await, 403, "another person has to approve it");
    refused(&office.approve("carol", "guests", "job", &shown).await, 403, "tasks/approve");
    let mut other = shown.clone();
    other["targetsDigest"] = json!("0".repeat(64));
    refused(&office.approve("bob", "staff", "job", &other).await, 409, "the list of nodes has changed");
    refused(
        &office.send("bob", "staff", "POST", "/tasks/job/approve?run=1").await,
        400,
        "specHash is missing",
    );
    // Written by hand, by one who may change the Task.
    let mut forged = json!({"approver": {"user": "bob"}, "task": "x", "at": 0, "expiresAt": 9_000_000_000_000_u64,
        "signature": "x.y"});
    for key in ["run", "specHash", "targetsDigest"] {
        forged[key] = shown[key].clone();
    }
    let annotation = format!("sentinelnode.dev/approval={forged}");
    piece.kubectl("alice", &["annotate", "tasks.sentinelnode.dev", "job", &annotation]).await.unwrap();
    until("the forged approval is recorded", PATIENCE, || async {
        let refused = office.recorded("ApprovalRefused");
        if refused.iter().any(|(by, _)| by.is_empty()) { Ok(()) } else { Err(format!("{refused:?}")) }
    })
    .await;
    let task = piece.get("job").await.unwrap();
    assert_eq!(task["status"]["run"], Value::Null, "{task}");

    let answered = office.approve("bob", "staff", "job", &shown).await;
    assert_eq!(answered.status, 202, "{}", answered.text);
    let run = piece.ended("job", 1).await;
    assert_eq!((&run["approvedBy"]["user"], &run["verdict"]), (&json!("bob"), &json!("Complete")));
    piece.noted("job", "RunApproved", "as bob approved").await;
    refused(&office.approve("bob", "staff", "job", &shown).await, 409, "waits for no approval");
    let runs = office.send("bob", "staff", "GET", "/runs?task=job").await;
    assert!(runs.text.contains("\"approvedBy\":{\"user\":\"bob\""), "{}", runs.text);

    // Another command: what was approved is not that.
    let spec = json!({"metadata": {"name": "job"}, "spec": {"run": {"command": ["echo", "more"]}}});
    piece.sent("apply", "alice", &spec, &["--server-side", "--force-conflicts"]).await.unwrap();
    let next = office.awaits("job", 2).await;
    refused(&office.approve("bob", "staff", "job", &shown).await, 409, "the Run that is due has changed");
    let mut other = shown.clone();
    other["run"] = json!(2);
    refused(&office.approve("bob", "staff", "job", &other).await, 409, "what it runs has changed");
    // Carol is not behind it, so she may approve it.
    assert_eq!(office.approve("carol", "staff", "job", &next).await.status, 202);
    assert_eq!(piece.ended("job", 2).await["approvedBy"]["user"], "carol");
    are_recorded(&office).await;
    office.piece.close().await;
}

/// Each approval is recorded, and each that was refused with the reason.
async fn are_recorded(office: &Office) {
    until("the approvals are recorded", PATIENCE, || async {
        let approved = office.recorded("Approved");
        if approved.len() == 2 { Ok(()) } else { Err(format!("{approved:?}")) }
    })
    .await;
    let by: Vec<String> = office.recorded("Approved").into_iter().map(|(by, _)| by).collect();
    assert_eq!(by, ["bob", "carol"]);
    let refused = office.recorded("ApprovalRefused");
    let expected = [
        ("alice", "another person has to approve it"),
        ("bob", "the list of nodes has changed"),
        ("", "must be signed by an operator for this Task"),
        ("bob", "waits for no approval"),
        ("bob", "the Run that is due has changed"),
        ("bob", "what it runs has changed"),
    ];
    assert_eq!(refused.len(), expected.len(), "{refused:?}");
    for ((by, message), (who, part)) in refused.iter().zip(expected) {
        assert!(by == who && message.contains(part), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_beyond_its_ceiling_is_refused_until_the_file_allows_it() {
    let office = Office::new("ceilings").await;
    let piece = &office.piece;
    let on_host =
        json!({"metadata": {"name": "host"}, "spec": {"run": {"environment": "Host", "command": ["true"]}}});
    piece.create("alice", on_host).await.unwrap();
    piece.noted("host", "CeilingExceeded", "environments allows only Container").await;
    let task = piece.get("host").await.unwrap();
    assert_eq!((&task["status"]["phase"], &task["status"]["run"]), (&json!("Rejected"), &Value::Null));
    // A file that cannot be used lets nothing begin, and the Task shows why.
    std::fs::write(office.file.path(), "ceilings: {").unwrap();
    let is_shown = async |reason: &str| {
        until(&format!("host shows {reason}"), PATIENCE, || async {
            let task = piece.get("host").await?;
            let conditions = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|one| one["reason"] == reason) { Ok(()) } else { Err(task.to_string()) }
        })
        .await;
    };
    is_shown("CeilingsUnreadable").await;
    std::fs::write(office.file.path(), CEILINGS.replace("environments: [Container]", "maxConcurrency: 1"))
        .unwrap();
    is_shown("AwaitingApproval").await;
    office.piece.close().await;
}
