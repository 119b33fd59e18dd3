//! Logs as files: of one Execution and of a Run, as text and as JSON lines, compressed, followed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "reads/operator.rs"]
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
mod operator;
mod stores;
#[path = "reads/writer.rs"]
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
mod writer;

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use operator::TestOperator;
use sentinel_protocol::log::{DropReason, Stream};
use serde_json::{Value, json};
use writer::{run_on, until_lines};

/// The text of a download that is not compressed.
async fn text(operator: &TestOperator, path: &str) -> String {
    String::from_utf8(operator.download(path, "").await.1).unwrap()
}

/// The objects of a download.
async fn objects(operator: &TestOperator, path: &str) -> Vec<Value> {
    text(operator, path).await.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_a_run_is_a_file_of_the_lines_of_all_nodes() {
    let operator = TestOperator::new(&["a", "bbb"]).await;
    let (mut writers, lines) = run_on(&operator, &["a", "bbb"]).await;
    let path = lines.replace("/lines", "/log");
    writers[0].write(Stream::Stdout, 1_000_000, "one\ntwo \u{fffd}\n").await;
    writers[1].write(Stream::Stderr, 2_000_000, "three\n").await;
    writers[1].record(Stream::Stdout, 3_000_000, Some(DropReason::SpoolFull), 9, Bytes::new()).await;
    writers[0].write(Stream::Stdout, 4_000_000, "not end").await;
    until_lines(&operator, &lines, 5).await;
    let expected = "a   | one\na   | two \u{fffd}\nbbb | three\n\
                    bbb | [sentinel: 9 bytes dropped here: the spool on the node was full]\na   | not end\n";
    assert_eq!(text(&operator, &path).await, expected);
    let (head, _) = operator.download(&path, "").await;
    assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
    assert!(head.contains("content-disposition: attachment; filename=\"t-1.txt\""), "{head}");
    let time = |micros: i64| jiff::Timestamp::from_microsecond(micros).unwrap();
    let some = format!("{path}?timestamps=true&since={}&until={}", time(2_000_000), time(2_500_000));
    assert_eq!(text(&operator, &some).await, "bbb | 1970-01-01T00:00:02.000000Z three\n");
    assert_eq!(text(&operator, &format!("{path}?nodes=bbb&stream=stderr")).await, "bbb | three\n");

    let all = operator.get(&format!("{lines}?tail=1000")).await;
    let mut found = objects(&operator, &format!("{path}?format=jsonl")).await;
    assert_eq!(found.pop().unwrap(), json!({"kind": "end", "ended": false}));
    assert_eq!(Value::from(found), all["lines"]);
    let (head, _) = operator.download(&format!("{path}?format=jsonl"), "").await;
    assert!(head.contains("filename=\"t-1.jsonl\""), "{head}");

    // The end of a command may be known before all of its output.
    writers[0].end().await;
    writers[1].position += 7;
    writers[1].end().await;
    let of = |node: &str| format!("/executions/{}/1/{node}", writers[0].start.attempt.task);
    for node in ["a", "bbb"] {
        operator.until(&of(node), |execution| execution["outcome"] != Value::Null).await;
    }
    let whole = format!("{expected}bbb | [sentinel: 7 bytes have not arrived from the node yet]\n");
    assert_eq!(text(&operator, &path).await, whole);
    let found = objects(&operator, &format!("{path}?format=jsonl")).await;
    assert_eq!(*found.last().unwrap(), json!({"kind": "end", "ended": false, "missing": 7}));
    let found = objects(&operator, &format!("{path}?format=jsonl&nodes=a")).await;
    assert!(found[2].get("open").is_some(), "{found:?}");
    assert_eq!(*found.last().unwrap(), json!({"kind": "end", "ended": true}));
    // Output that has not arrived yet is later than this.
    let past = objects(&operator, &format!("{path}?format=jsonl&until={}", time(2_500_000))).await;
    assert_eq!(*past.last().unwrap(), json!({"kind": "end", "ended": true}));
    for query in ["format=json", "from=1", "until=yesterday", "nodes=A_"] {
        assert_eq!(operator.ask(&format!("{path}?{query}")).await.0, 400, "{query}");
    }
    assert_eq!(operator.ask(&format!("{path}?nodes=c")).await.0, 404);
    let (head, _) = operator.download(&format!("{path}?format=jsonl&nodes=a&stream=stderr"), "").await;
    assert!(head.contains("filename=\"t-1-a-stderr.jsonl\""), "{head}");
}

/// More than a reader holds of all logs together, and lines that are open for longer than it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_a_run_has_each_line_once_however_long_it_is() {
    const PIECES: i64 = 60;
    let operator = TestOperator::new(&["a", "b"]).await;
    let (mut writers, lines) = run_on(&operator, &["a", "b"]).await;
    for writer in &mut writers {
        writer.write(Stream::Stdout, 1, "begun, ").await;
    }
    let many = format!("{}\n", "x".repeat(999)).repeat(60);
    for at in 0..PIECES {
        for writer in &mut writers {
            writer.write(Stream::Stderr, 10 + at, &many).await;
            if at % 20 == 19 {
                writer.write(Stream::Stdout, 10 + at, "then ").await;
            }
        }
    }
    for writer in &mut writers {
        writer.write(Stream::Stdout, 100, "ended\n").await;
        writer.end().await;
    }
    operator.until(&lines, |answer| answer["ended"] == true).await;
    let found = objects(&operator, &lines.replace("/lines", "/log?format=jsonl")).await;
    assert_eq!(*found.last().unwrap(), json!({"kind": "end", "ended": true}));
    for node in ["a", "b"] {
        let of = |stream: &str| -> Vec<&Value> {
            found.iter().filter(|line| line["node"] == node && line["stream"] == stream).collect()
        };
        let long = of("stdout");
        assert_eq!(long.len(), 1, "{long:?}");
        assert_eq!((&long[0]["text"], long[0].get("open")), (&json!("begun, then then then ended"), None));
        let numbers: Vec<u64> = of("stderr").iter().map(|line| line["line"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = (2..=1 + 60 * PIECES as u64).collect();
        assert!(numbers == expected, "{} lines of {node}", numbers.len());
    }
    let file = text(&operator, &lines.replace("/lines", "/log")).await;
    assert_eq!(file.lines().count(), found.len() - 1);
    assert_eq!(file.matches(" | begun, then then then ended\n").count(), 2);
}

/// More text than an answer with lines has, at once: as JSON, a NUL takes six bytes. Everything behind it was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_a_run_of_control_characters_and_of_empty_lines_is_whole() {
    let operator = TestOperator::new(&["a", "b"]).await;
    let (mut writers, lines) = run_on(&operator, &["a", "b"]).await;
    writers[1].write(Stream::Stdout, 1, "begun").await;
    for at in 0..60 {
        writers[0].write(Stream::Stdout, 1 + at, &"\0".repeat(60 << 10)).await;
        writers[1].write(Stream::Stderr, 1 + at, &"\n".repeat(2_000)).await;
    }
    for writer in &mut writers {
        writer.end().await;
    }
    operator.until(&lines, |answer| answer["ended"] == true || answer["lines"] != json!([])).await;
    for node in ["a", "b"] {
        let of_one = format!("/executions/{}/1/{node}", writers[0].start.attempt.task);
        operator.until(&of_one, |execution| execution["outcome"] != Value::Null).await;
        let one = text(&operator, &format!("{of_one}/log?format=jsonl")).await.lines().count();
        assert!(one > 50, "{node}: {one}");
        let of_run = lines.replace("/lines", "/log");
        let merged = text(&operator, &format!("{of_run}?format=jsonl&nodes={node}")).await;
        assert!(merged.lines().count() == one, "{node}: {} of {one}", merged.lines().count());
        let plain = text(&operator, &format!("{of_run}?nodes={node}")).await;
        assert_eq!(plain.matches('\n').count() + 1, one, "{node}, without the line of the end");
    }
}

/// Each log that is read takes a place among the readers of the archive: those of one file took all of them, and waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_a_run_of_many_nodes_is_read_from_the_archive() {
    let nodes: Vec<String> = (0..12).map(|node| format!("n{node}")).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let operator = TestOperator::new(&nodes).await;
    let (mut writers, lines) = run_on(&operator, &nodes).await;
    let many = format!("{}\n", "x".repeat(99)).repeat(600);
    for at in 0..20 {
        for writer in &mut writers {
            writer.write(Stream::Stdout, 1 + at, &many).await;
        }
    }
    for writer in &mut writers {
        writer.end().await;
    }
    operator.until(&lines, |answer| answer["ended"] == true).await;
    let file = text(&operator, &lines.replace("/lines", "/log")).await;
    assert_eq!(file.lines().count(), 12 * 20 * 600);
}

/// A new leader may have less of a log than the readers of the previous one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_json_lines_ahead_of_the_operator_gets_the_numbers_that_lines_have() {
    let operator = TestOperator::new(&["a"]).await;
    let (mut writers, _) = run_on(&operator, &["a"]).await;
    let writer = &mut writers[0];
    let path = format!("/executions/{}/1/a", writer.start.attempt.task);
    writer.write(Stream::Stdout, 1, "one\n").await;
    operator.until(&format!("{path}/lines"), |answer| answer["totalLines"] == 1).await;
    let follower = operator.follow(&format!("{path}/log?format=jsonl&follow=true&from=8")).await;
    writer.write(Stream::Stdout, 2, "two\nthree\n").await;
    writer.end().await;
    let rest = follower.rest().await;
    let first: Value = serde_json::from_str(rest.lines().next().unwrap()).unwrap();
    assert_eq!((&first["line"], &first["text"], &first["position"]), (&json!(3), &json!("three"), &json!(8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_an_execution_has_its_lines_as_json() {
    let operator = TestOperator::new(&["a"]).await;
    let (mut writers, _) = run_on(&operator, &["a"]).await;
    let writer = &mut writers[0];
    let path = format!("/executions/{}/1/a", writer.start.attempt.task);
    let follower = operator.follow(&format!("{path}/log?format=jsonl&follow=true")).await;
    writer.write(Stream::Stdout, 1, "one\nstill ").await;
    writer.write(Stream::Stderr, 2, "two\n").await;
    writer.record(Stream::Stderr, 3, Some(DropReason::LimitReached), 5, Bytes::new()).await;
    writer.write(Stream::Stdout, 4, "open\nfour\n").await;
    writer.write(Stream::Stdout, 5, "last").await;
    writer.end().await;
    let all = operator.until(&format!("{path}/lines"), |answer| answer["ended"] == true).await;
    let mut found = objects(&operator, &format!("{path}/log?format=jsonl")).await;
    let end = json!({"kind": "end", "position": all["end"], "ended": true});
    assert_eq!(found.pop().unwrap(), end);
    assert_eq!(Value::from(found), all["lines"]);
    let (head, _) = operator.download(&format!("{path}/log?format=jsonl"), "").await;
    assert!(head.contains("content-disposition: attachment; filename=\"t-1-a.jsonl\""), "{head}");
    let last = objects(&operator, &format!("{path}/log?format=jsonl&tail=1&stream=stdout")).await;
    assert_eq!(
        (&last[0]["line"], &last[0]["text"], &last[0]["open"], last.len()),
        (&json!(5), &json!("last"), &json!(true), 2)
    );
    // A follower has each line when it has ended.
    let followed: Vec<Value> =
        follower.rest().await.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<Option<u64>> = followed.iter().map(|line| line["line"].as_u64()).collect();
    assert_eq!(
        numbers.iter().flatten().copied().collect::<std::collections::BTreeSet<_>>().len(),
        5,
        "{followed:?}"
    );
    assert_eq!(followed.len(), 7, "{followed:?}");
    assert_eq!(*followed.last().unwrap(), end);
}

/// The heads of frames, with their data as it stands in JSON.
fn frames(mut bytes: &[u8]) -> Vec<Value> {
    let mut found = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let (head, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        let mut head: Value = serde_json::from_slice(head).unwrap();
        let has_data = head["kind"] == "record" && head["dropped"].is_null();
        let (data, rest) = rest.split_at(if has_data { head["len"].as_u64().unwrap() as usize } else { 0 });
        if has_data {
            head["data"] = json!(STANDARD.encode(data));
        }
        found.push(head);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{bytes:?}");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_the_same_as_they_are_and_as_json() {
    const RECORDS: &str = "accept: application/vnd.sentinelnode.records";
    let operator = TestOperator::new(&["a"]).await;
    let (mut writers, _) = run_on(&operator, &["a"]).await;
    let writer = &mut writers[0];
    let path = format!("/executions/{}/1/a", writer.start.attempt.task);
    let log = format!("{path}/log?format=json");
    let mut follower = operator.follow_with(&format!("{log}&follow=true"), RECORDS).await;
    let long = Bytes::from(b"\xff\0\r\n".repeat(30_000));
    writer.record(Stream::Stdout, 1_000_000, None, long.len() as u64, long).await;
    writer.record(Stream::Stderr, 2_000_000, Some(DropReason::LimitReached), 5, Bytes::new()).await;
    for at in 0..50 {
        let stream = if at % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
        writer.write(stream, 3_000_000 + at, "short\n").await;
    }
    operator.until(&format!("{path}/lines"), |answer| answer["end"] == json!(120_305)).await;
    let since = jiff::Timestamp::from_microsecond(3_000_010).unwrap();
    let of_time = format!("{log}&since={since}");
    for query in ["", "&from=3", "&from=119999", "&from=120001", "&stream=stderr", "&tail=7", "&attempt=1"]
        .map(|query| format!("{log}{query}"))
        .iter()
        .chain([&of_time])
    {
        let expected = objects(&operator, query).await;
        let (head, body) = operator.download_with(query, RECORDS).await;
        assert!(head.contains("content-type: application/vnd.sentinelnode.records"), "{head}");
        assert!(head.contains("vary: accept-encoding, accept"), "{head}");
        assert!(head.contains("sentinel-log-from: ") && head.contains("sentinel-attempt: "), "{head}");
        assert!(head.contains("filename=\"t-1-a") && head.contains(".records\""), "{head}");
        let found = frames(&body);
        assert!(found == expected, "{query}: {} frames, {} lines", found.len(), expected.len());
        assert_eq!(found.last().unwrap()["ended"], false, "{query}");
    }
    for (format, kind) in [("text", "text/plain"), ("jsonl", "application/x-ndjson"), ("json", "records")] {
        let (head, _) = operator.download_with(&format!("{path}/log?format={format}"), RECORDS).await;
        let line = head.lines().find(|line| line.starts_with("content-type: ")).unwrap();
        assert!(line.contains(kind), "{format}: {line}");
    }
    let (head, body) = operator.download_with(&log, &format!("{RECORDS}\r\naccept-encoding: zstd")).await;
    assert!(head.contains("content-encoding: zstd"), "{head}");
    assert_eq!(frames(&zstd::decode_all(&body[..]).unwrap()).len(), 53);
    let refused = operator.ask(&format!("{path}/log?format=records")).await;
    assert_eq!(refused.0, 400, "{refused:?}");

    writer.write(Stream::Stdout, 4_000_000, "the end").await;
    writer.end().await;
    while follower.more().await {}
    let followed = frames(&follower.head_and_body().1);
    assert_eq!(followed.last().unwrap(), &json!({"kind": "end", "position": writer.position, "ended": true}));
    assert_eq!(followed.iter().filter(|head| head["kind"] == "record").count(), 53);
}

fn gunzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_compressed_as_their_readers_ask() {
    let operator = TestOperator::new(&["a", "b"]).await;
    let (mut writers, lines) = run_on(&operator, &["a", "b"]).await;
    let many = "a line that is written often\n".repeat(2000);
    for writer in &mut writers {
        writer.write(Stream::Stdout, 1, &many).await;
    }
    let one = format!("/executions/{}/1/a/log", writers[0].start.attempt.task);
    operator
        .until(&format!("{}/lines?tail=1", one.trim_end_matches("/log")), |answer| {
            answer["totalLines"] == 2000
        })
        .await;
    until_lines(&operator, &lines, 1000).await;
    for path in [
        &one,
        &format!("{one}?format=jsonl"),
        &lines.replace("/lines", "/log"),
        &lines.replace("/lines", "/log?format=jsonl"),
    ] {
        let (head, plain) = operator.download(path, "gzip;q=0, br").await;
        assert!(head.contains("vary: accept-encoding") && !head.contains("content-encoding"), "{head}");
        let plain = String::from_utf8(plain).unwrap();
        let (head, gzip) = operator.download(path, "gzip, zstd;q=0").await;
        assert!(head.contains("vary: accept-encoding") && head.contains("content-encoding: gzip"), "{head}");
        assert!(gzip.len() * 5 < plain.len(), "{} of {}", gzip.len(), plain.len());
        assert!(gunzipped(&gzip) == plain, "{path}");
        let (head, zstd) = operator.download(path, "gzip, deflate, br, zstd").await;
        assert!(head.contains("content-encoding: zstd"), "{head}");
        assert!(zstd::decode_all(&zstd[..]).unwrap() == plain.as_bytes(), "{path}");
    }
    let events = operator.follow_as(&format!("{lines}/events"), "gzip, zstd").await;
    assert!(!events.head_and_body().0.contains("content-encoding"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_log_that_is_followed_has_each_line_as_it_is_written() {
    let operator = TestOperator::new(&["a"]).await;
    let (mut writers, _) = run_on(&operator, &["a"]).await;
    let writer = &mut writers[0];
    let path = format!("/executions/{}/1/a/log?follow=true", writer.start.attempt.task);
    for accept in ["gzip", "zstd"] {
        let mut followed = operator.follow_as(&path, accept).await;
        writer.write(Stream::Stdout, 1, &format!("as {accept}\n")).await;
        loop {
            let (head, body) = followed.head_and_body();
            assert!(head.contains(&format!("content-encoding: {accept}")), "{head}");
            let mut text = Vec::new();
            if accept == "gzip" {
                let mut decoder = flate2::write::GzDecoder::new(&mut text);
                decoder.write_all(&body).unwrap();
                decoder.flush().unwrap();
            } else {
                let mut decoder = zstd::stream::write::Decoder::new(&mut text).unwrap();
                decoder.write_all(&body).unwrap();
                decoder.flush().unwrap();
            }
            // The command has not ended.
            if String::from_utf8(text).unwrap().ends_with(&format!("as {accept}\n")) {
                break;
            }
            assert!(followed.more().await, "{accept}");
        }
    }
    writer.end().await;
}
