//! Who asked: the admission webhook of a real operator, called by a real API server, for people whom that authenticates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

mod staff;

use std::time::{Duration, Instant};

use sentinel_tests::wait::until;
use serde_json::{Value, json};
use staff::liar::Liar;
use staff::{PATIENCE, Piece, STAMP, author, has_text, stamp};

/// T69: the stamp equals the authenticated user of the last change.
#[tokio::test(flavor = "multi_thread")]
async fn the_stamp_is_of_the_authenticated_user_of_the_last_change() {
    let piece = Piece::new("requesters").await;
    let forged = json!({"author": {"user": "root"}}).to_string();
    let made = piece
        .create("alice", json!({"metadata": {"name": "job", "annotations": {STAMP: forged}}}))
        .await
        .unwrap();
    assert_eq!(stamp(&made)["author"]["user"], "alice", "what the user wrote is replaced");
    assert_eq!(stamp(&made)["author"]["uid"], "uid-of-them");
    let run = piece.ended("job", 1).await;
    assert_eq!(author(&run), "alice");
    assert!(run["requestedBy"]["author"]["groups"].as_array().unwrap().contains(&json!("staff")));
    piece.noted("job", "RunStarted", "as alice asked").await;

    // Edited and removed by another: undone, and no change of the author.
    for change in [format!("{STAMP}={forged}"), format!("{STAMP}-"), format!("{STAMP}-signature-")] {
        piece
            .kubectl("bob", &["annotate", "tasks.sentinelnode.dev", "job", "--overwrite", &change])
            .await
            .unwrap();
        let task = piece.get("job").await.unwrap();
        assert_eq!(task["metadata"]["annotations"], made["metadata"]["annotations"], "after {change}");
    }
    // Server-side apply by bob takes the ownership of the annotation, and changes the spec.
    let applied = json!({"metadata": {"name": "job", "annotations": {STAMP: forged}}, "spec": {"run": {"command": ["echo", "2"]}}});
    let flags = ["--server-side", "--force-conflicts", "--field-manager=bobs"];
    let dry =
        piece.sent("apply", "bob", &applied, &[&flags[..], &["--dry-run=server"]].concat()).await.unwrap();
    assert_eq!(
        (stamp(&dry)["author"]["user"].as_str(), stamp(&dry)["creator"]["user"].as_str()),
        (Some("bob"), Some("alice"))
    );
    assert_eq!(
        piece.get("job").await.unwrap()["metadata"]["annotations"],
        made["metadata"]["annotations"],
        "a dry run stores nothing"
    );
    piece.sent("apply", "bob", &applied, &flags).await.unwrap();
    let run = piece.ended("job", 2).await;
    assert_eq!((author(&run), &run["requestedBy"]["creator"]["user"]), (&json!("bob"), &json!("alice")));

    // Carol asks for the same again: the spec stays bob's.
    let rerun = "sentinelnode.dev/rerun=again";
    piece.kubectl("carol", &["annotate", "tasks.sentinelnode.dev", "job", rerun]).await.unwrap();
    let run = piece.ended("job", 3).await;
    assert_eq!((author(&run), &run["requestedBy"]["rerun"]["user"]), (&json!("bob"), &json!("carol")));
    until("History has who asked", PATIENCE, || async {
        let runs = piece.testbed.get("/api/v1/runs?task=job").await?;
        let of = |number: u64| {
            runs["items"].as_array().and_then(|all| all.iter().find(|run| run["run"] == number)).cloned()
        };
        let names = (of(2).unwrap_or_default(), of(3).unwrap_or_default());
        let found = (&names.0["requestedBy"]["author"]["user"], &names.1["requestedBy"]["rerun"]["user"]);
        if found == (&json!("bob"), &json!("carol")) { Ok(()) } else { Err(runs.to_string()) }
    })
    .await;
    assert_eq!(piece.counted("Known").await, 3);
    piece.close().await;
}

/// Who made it could become unknown, and then approve their own Run.
#[tokio::test(flavor = "multi_thread")]
async fn who_made_a_task_with_a_generated_name_stays_known_whatever_its_prefix_is_changed_to() {
    let piece = Piece::new("generated").await;
    let generated = piece.create("alice", json!({"metadata": {"generateName": "made-"}})).await.unwrap();
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert_eq!(author(&piece.ended(name, 1).await), "alice");
    let patched = ["patch", "tasks.sentinelnode.dev", name, "--type=merge", "-p"];
    for (who, change) in [
        ("alice", json!({"metadata": {"generateName": "other-"}})),
        ("bob", json!({"spec": {"rerunToken": "again"}})),
    ] {
        piece.kubectl(who, &[&patched[..], &[&change.to_string()]].concat()).await.unwrap();
    }
    let run = piece.ended(name, 2).await;
    assert_eq!((author(&run), &run["requestedBy"]["creator"]["user"]), (&json!("bob"), &json!("alice")));
    piece.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_is_named_and_a_request_without_a_person_is_unknown() {
    let piece = Piece::new("cancels").await;
    let sleeps =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"run": {"command": ["sleep", "300"]}}});
    for name in ["by-kubectl", "by-api"] {
        piece.create("alice", sleeps(name)).await.unwrap();
        until(&format!("{name} runs"), PATIENCE, || async {
            let task = piece.get(name).await?;
            if task["status"]["run"]["counts"]["running"] == 1 {
                Ok(())
            } else {
                Err(task["status"].to_string())
            }
        })
        .await;
    }
    let journal = piece.testbed.path().join("n1.state");
    assert!(has_text(&journal, "uid-of-them"), "the agent's journal has who asked");
    let cancel = "sentinelnode.dev/cancel=1";
    piece.kubectl("carol", &["annotate", "tasks.sentinelnode.dev", "by-kubectl", cancel]).await.unwrap();
    let run = piece.ended("by-kubectl", 1).await;
    assert_eq!((author(&run), &run["cancelledBy"]["user"]), (&json!("alice"), &json!("carol")));
    piece.noted("by-kubectl", "RunCancelled", "as carol asked").await;
    // The API of this operator has no authentication.
    let path = format!("{}/api/v1/tasks/{}/by-api/cancel", piece.testbed.api, piece.testbed.namespace.name);
    let answer = piece.testbed.http.post(path).header(sentinel_api::OWN_HEADER, "1").send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let run = piece.ended("by-api", 1).await;
    assert_eq!((author(&run), &run["cancelledBy"]), (&json!("alice"), &Value::Null));
    piece.noted("by-api", "RunCancelled", "unknown").await;
    piece.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_webhook_nothing_is_written_or_it_is_unknown_who_asked() {
    let mut piece = Piece::new("webhook-down").await;
    let made = piece.create("alice", json!({"metadata": {"name": "before"}})).await.unwrap();
    piece.ended("before", 1).await;
    let operator = piece.testbed.operator.take().unwrap();
    operator.stop(Duration::from_secs(30)).await;

    let refused = piece.create("alice", json!({"metadata": {"name": "job"}})).await.unwrap_err();
    assert!(refused.contains("failed calling webhook \"tasks.sentinelnode.dev\""), "{refused}");
    // A label does not wait for the operator.
    piece.kubectl("bob", &["label", "tasks.sentinelnode.dev", "before", "team=ops"]).await.unwrap();

    piece.set(json!({"failurePolicy": "Ignore", "timeoutSeconds": 2})).await;
    let name = |name: &str| json!({"metadata": {"name": name}});
    until("the API server continues without the webhook", PATIENCE, || async {
        piece.create("alice", name("job")).await.map(|_| ())
    })
    .await;
    // Mallory claims to be alice, with a stamp that is alice's, of another Task.
    let annotations = &made["metadata"]["annotations"];
    let claimed = json!({"metadata": {"name": "claimed", "annotations": annotations}});
    piece.create("mallory", claimed).await.unwrap();
    let spec = json!({"metadata": {"name": "before"}, "spec": {"run": {"command": ["id"]}}});
    piece.sent("apply", "mallory", &spec, &["--server-side", "--force-conflicts"]).await.unwrap();

    piece.testbed.start_operator().await;
    for (task, run, why) in
        [("job", 1, "NotStamped"), ("claimed", 1, "Signature"), ("before", 2, "SpecChanged")]
    {
        let run = piece.ended(task, run).await;
        assert_eq!((&run["requestedBy"]["unknown"], author(&run)), (&json!(why), &Value::Null), "{task}");
        piece.noted(task, "RequesterUnknown", "it is unknown who asked for it").await;
        assert_eq!(piece.counted(why).await, 1);
    }
    let runs = piece.testbed.get("/api/v1/runs?task=claimed").await.unwrap();
    assert!(runs["items"][0].get("requestedBy").is_none(), "{runs}");

    // One that takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port());
    let operator = piece.testbed.operator.take().unwrap();
    operator.stop(Duration::from_secs(30)).await;
    piece.set(json!({"failurePolicy": "Fail", "timeoutSeconds": 1, "clientConfig": {"url": url}})).await;
    until("the API server waits for it, and then refuses", PATIENCE, || async {
        let begun = Instant::now();
        match piece.create("alice", json!({"metadata": {"generateName": "late-"}})).await {
            Err(error) if error.contains("deadline exceeded") || error.contains("Timeout") => {
                assert!(begun.elapsed() < Duration::from_secs(20));
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    piece.close().await;
}

/// The API server calls a webhook that is not the operator's. It can write what it likes, and no name is taken from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_lies_makes_it_unknown_who_asked() {
    let piece = Piece::new("liar").await;
    let files = tempfile::tempdir().unwrap();
    let liar = Liar::start(files.path()).await;
    let genuine = piece.create("alice", json!({"metadata": {"name": "genuine"}})).await.unwrap();
    piece.ended("genuine", 1).await;
    piece.set(json!({"clientConfig": liar.client})).await;
    let replace = |path: &str, value: &Value| json!({"op": "add", "path": path, "value": value});
    let forged = json!({
        STAMP: json!({"author": {"user": "alice", "uid": "uid-of-them"}, "creator": {"user": "alice"}}).to_string(),
        format!("{STAMP}-signature"): "Zm9yZ2Vk",
    });
    let copied = &genuine["metadata"]["annotations"];
    let name = |name: &str| json!({"metadata": {"name": name}});
    let is_lied_to = async |annotations: &Value| {
        liar.answer(json!([replace("/metadata/annotations", annotations)]));
        until("the API server calls the liar", PATIENCE, || async {
            let probe = piece.sent("create", "mallory", &name("probe"), &["--dry-run=server"]).await?;
            if probe["metadata"]["annotations"][STAMP] == annotations[STAMP] {
                Ok(())
            } else {
                Err(probe.to_string())
            }
        })
        .await;
    };
    for (task, annotations) in [("forged", &forged), ("copied", copied)] {
        is_lied_to(annotations).await;
        piece.create("mallory", name(task)).await.unwrap();
        let run = piece.ended(task, 1).await;
        assert_eq!(
            (&run["requestedBy"]["unknown"], author(&run)),
            (&json!("Signature"), &Value::Null),
            "{task}"
        );
    }
    // It keeps alice's stamp of this very Task, and runs another command under it.
    liar.answer(json!([replace("/spec/run/command", &json!(["id"]))]));
    let edit = json!({"metadata": {"name": "genuine"}, "spec": {"run": {"command": ["echo", "edited"]}}});
    piece.sent("apply", "mallory", &edit, &["--server-side", "--force-conflicts"]).await.unwrap();
    let run = piece.ended("genuine", 2).await;
    assert_eq!((&run["requestedBy"]["unknown"], author(&run)), (&json!("SpecChanged"), &Value::Null));
    piece.close().await;
}
