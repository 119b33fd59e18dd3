//! Searches in the logs of all nodes of a Run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "reads/operator.rs"]
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
mod operator;
mod stores;
#[path = "reads/writer.rs"]
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
mod writer;

use operator::TestOperator;
use sentinel_protocol::log::Stream;
use serde_json::{Value, json};
use writer::{run_on, until_lines};

/// The lines of the answer to a search.
async fn search(operator: &TestOperator, path: &str, query: &str) -> Vec<Value> {
    let (head, body) = operator.download(&format!("{path}?{query}"), "").await;
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
    let text = String::from_utf8(body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn hits(found: &[Value]) -> Vec<String> {
    let hits = found.iter().filter(|line| line["kind"] == "hit");
    hits.map(|hit| {
        format!(
            "{}:{}:{}",
            hit["node"].as_str().unwrap(),
            hit["line"],
            hit["text"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect::<String>()
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_of_a_run_finds_the_lines_of_all_its_nodes() {
    let operator = TestOperator::new(&["a", "b", "c"]).await;
    let (mut writers, lines) = run_on(&operator, &["a", "b", "c"]).await;
    let path = lines.replace("/lines", "/search");
    writers[0].write(Stream::Stdout, 1_000_000, "fine\nerror: one\nfine\n").await;
    writers[1].write(Stream::Stderr, 2_000_000, "error: two\nan error").await;
    writers[2].write(Stream::Stdout, 3_000_000, "fine\n").await;
    until_lines(&operator, &lines, 6).await;

    let found = search(&operator, &path, "pattern=error").await;
    let all = ["a:2:error: one", "b:1:error: two", "b:2:an error"];
    assert_eq!(hits(&found), all);
    let hit = found.iter().find(|line| line["kind"] == "hit").unwrap();
    assert_eq!((&hit["attempt"], &hit["position"], &hit["stream"]), (&json!(1), &json!(5), &json!("stdout")));
    assert_eq!(hit["text"], json!(["", "error", ": one"]));
    let end = found.last().unwrap();
    assert_eq!((&end["kind"], &end["complete"]), (&json!("end"), &json!(true)));
    let last = found.iter().rev().find(|line| line["kind"] == "progress").unwrap();
    assert_eq!(
        (&last["node"], &last["searched"], &last["size"]),
        (&json!("c"), &json!(37), &json!(45)),
        "without the line that has not ended"
    );

    assert_eq!(hits(&search(&operator, &path, "pattern=error&stream=stdout").await), all[..1]);
    assert_eq!(hits(&search(&operator, &path, "pattern=error&nodes=b,c").await), all[1..]);

    // Hit by hit: nothing is missing, and nothing is repeated.
    let (mut one_by_one, mut from) = (Vec::new(), String::new());
    loop {
        let found = search(&operator, &path, &format!("pattern=error&limit=1{from}")).await;
        one_by_one.extend(hits(&found));
        let end = found.last().unwrap();
        from = format!("&from={}", end["next"].as_str().unwrap());
        if end["complete"] == true {
            break;
        }
    }
    assert_eq!(one_by_one, all);

    // What has been written since is found from there, whatever the names of the nodes; also in a line that had not ended,
    // which is found again.
    writers[0].write(Stream::Stdout, 4_000_000, "error: three\n").await;
    writers[1].write(Stream::Stderr, 4_000_000, " and its end\n").await;
    until_lines(&operator, &lines, 7).await;
    operator.until(&lines, |answer| answer.to_string().contains("an error and its end")).await;
    let found = search(&operator, &path, &format!("pattern=error{from}")).await;
    assert_eq!(hits(&found), ["a:4:error: three", "b:2:an error and its end"]);
    let found = search(&operator, &path, &format!("pattern=its%20end{from}")).await;
    assert_eq!(hits(&found), ["b:2:an error and its end"]);
    for writer in &mut writers {
        writer.end().await;
    }
    operator.until(&lines, |answer| answer["ended"] == true).await;
    let found = search(&operator, &path, "pattern=error").await;
    let next = found.last().unwrap()["next"].as_str().unwrap();
    assert_eq!(hits(&search(&operator, &path, &format!("pattern=error&from={next}")).await), [""; 0]);

    for query in ["", "pattern=(", "pattern=a&limit=0", "pattern=a&from=x", "pattern=a&nodes=A_"] {
        let (status, body) = operator.ask(&format!("{path}?{query}")).await;
        assert_eq!((status, &body["reason"]), (400, &json!("InvalidQuery")), "{query}: {body}");
    }
    assert_eq!(operator.ask(&format!("{path}?pattern=a&nodes=d")).await.0, 404);
}
