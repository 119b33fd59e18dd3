//! The lines of all nodes of a Run as one, on a whole operator whose History a test delays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "reads/operator.rs"]
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
mod operator;
mod stores;

use std::collections::BTreeMap;

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use gateway::{Agent, ServicedAgent, ended};
use operator::TestOperator;
use sentinel_operator::history::OutcomeName;
use sentinel_protocol::log::{DropReason, LogControl, LogRecord, RecordHead, Stream};
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::{Report, ToOperator};
use serde_json::{Value, json};
use stores::faulty::Fault;

/// A node whose command writes.
struct Writer {
    agent: ServicedAgent,
    socket: Agent,
    start: Start,
    position: u64,
    /// The position that it may write to.
    granted: u64,
}

impl Writer {
    async fn new(operator: &TestOperator, node: &str) -> Self {
        let mut agent = operator.agent(node).await;
        let start = operator.start(&mut agent).await;
        let mut socket = operator.log_socket(&agent, node).await;
        socket.send_json(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
        Self { agent: ServicedAgent::new(agent), socket, start, position: 0, granted: 0 }
    }

    async fn write(&mut self, stream: Stream, at_micros: i64, text: &str) {
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.record(stream, at_micros, None, data.len() as u64, data).await;
    }

    async fn record(
        &mut self,
        stream: Stream,
        at_micros: i64,
        dropped: Option<DropReason>,
        len: u64,
        data: Bytes,
    ) {
        while self.granted < self.position + len {
            if let LogControl::Credit { granted, .. } = self.socket.receive_log().await {
                self.granted = granted;
            }
        }
        let head = RecordHead { stream, position: self.position, offset: 0, len, at_micros, dropped };
        self.socket.record(&self.start.attempt, &LogRecord { head, data }).await;
        self.position += len;
    }

    async fn end(&mut self) {
        let report = Report {
            attempt: self.start.attempt.clone(),
            spec_hash: self.start.spec_hash.clone(),
            state: ended(self.position),
        };
        self.agent.send_json(&ToOperator::Report(Box::new(report))).await;
    }
}

/// A Run on these nodes, with a writer on each; the path of its lines.
async fn run_on(operator: &TestOperator, nodes: &[&str]) -> (Vec<Writer>, String) {
    let body = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "t", "namespace": "default"},
        "spec": {"targets": {"nodeNames": nodes}, "run": {"command": ["true"]}},
    });
    operator.apply(&body).await;
    let mut writers = Vec::new();
    for node in nodes {
        writers.push(Writer::new(operator, node).await);
    }
    let path = format!("/runs/{}/1/lines", writers[0].start.attempt.task);
    (writers, path)
}

fn texts(answer: &Value) -> Vec<String> {
    let of = |item: &Value| {
        let what = item["text"].as_str().map_or_else(|| format!("-{}", item["dropped"]), str::to_owned);
        format!("{} {what}", item["node"].as_str().unwrap())
    };
    answer["lines"].as_array().unwrap().iter().map(of).collect()
}

/// Waits for so many lines.
async fn until_lines(operator: &TestOperator, path: &str, count: usize) -> Value {
    operator
        .until(&format!("{path}?tail=1000"), |answer| answer["lines"].as_array().unwrap().len() == count)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_all_nodes_are_by_time_before_and_after_they_are_archived() {
    let operator = TestOperator::new(&["a", "b", "c"]).await;
    operator.history.set(Fault::WritesHang);
    let (mut writers, path) = run_on(&operator, &["a", "b", "c"]).await;
    for (at, writer) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 0), (6, 1), (6, 0)] {
        let stream = if at == 4 { Stream::Stderr } else { Stream::Stdout };
        writers[writer].write(stream, at, &format!("at {at}\n")).await;
    }
    writers[1].record(Stream::Stdout, 7, Some(DropReason::SpoolFull), 9, Bytes::new()).await;
    let all = until_lines(&operator, &path, 8).await;
    let expected =
        ["a at 1", "b at 2", "c at 3", "c at 4", "a at 5", "a at 6", "b at 6", "b -9"].map(str::to_owned);
    assert_eq!(texts(&all), expected);
    assert_eq!(all["ended"], false);
    assert_eq!(all["nodes"][1], json!({"node": "b", "attempt": 1}));
    let second = &all["lines"][1];
    assert_eq!(
        *second,
        json!({"node": "b", "attempt": 1, "line": 1, "position": 0, "stream": "stdout", "atMicros": 2, "text": "at 2"})
    );
    assert_eq!(
        all["lines"][7],
        json!({"node": "b", "attempt": 1, "position": 10, "stream": "stdout", "atMicros": 7, "dropped": 9, "reason": DropReason::SpoolFull.as_str()})
    );
    for writer in &mut writers {
        writer.end().await;
    }
    operator.until(&path, |answer| answer["ended"] == true).await;
    for count in 1..=8 {
        pages(&operator, &path, count, &expected).await;
    }
    operator.history.set(Fault::None);
    for node in ["a", "b", "c"] {
        operator.until_archived(writers[0].start.attempt.task.as_str(), node, OutcomeName::Succeeded).await;
    }
    // With a time up to which it is read, a Run has an end all the same: at later output, or with its own.
    for until in ["1970-01-01T00:00:00.000005Z", "2030-01-01T00:00:00Z"] {
        let some = operator.get(&format!("{path}?until={until}&tail=1000")).await;
        assert_eq!(
            (some["ended"].as_bool(), texts(&some).len()),
            (Some(true), if until < "2" { 5 } else { 8 })
        );
    }
    let archived = operator.until(&format!("{path}?tail=1000"), |answer| answer["ended"] == true).await;
    assert_eq!(archived["lines"], all["lines"]);
    pages(&operator, &path, 3, &expected).await;

    let chosen = operator.get(&format!("{path}?nodes=c,a&stream=stdout")).await;
    assert_eq!(texts(&chosen), ["a at 1", "c at 3", "a at 5", "a at 6"]);
    let time = |micros: i64| jiff::Timestamp::from_microsecond(micros).unwrap();
    let some = operator.get(&format!("{path}?since={}&until={}", time(3), time(5))).await;
    assert_eq!(texts(&some), ["c at 3", "c at 4", "a at 5"]);
    let last = operator.get(&format!("{path}?tail=2&until={}", time(4))).await;
    assert_eq!(texts(&last), ["c at 3", "c at 4"]);
}

/// Reads all pages forward and backward: together they are all lines, each once and in order.
async fn pages(operator: &TestOperator, path: &str, count: usize, expected: &[String]) {
    let first = operator.get(&format!("{path}?since=1970-01-01T00:00:00Z&count={count}")).await;
    let (mut forward, mut next) = (texts(&first), first["next"].as_str().unwrap().to_owned());
    loop {
        let page = operator.get(&format!("{path}?from={next}&count={count}")).await;
        if texts(&page).is_empty() {
            assert_eq!(page["ended"], true, "{page}");
            break;
        }
        page["next"].as_str().unwrap().clone_into(&mut next);
        forward.extend(texts(&page));
    }
    assert_eq!(forward, expected, "forward by {count}");
    let last = operator.get(&format!("{path}?tail={count}")).await;
    let (mut backward, mut before) = (texts(&last), last["before"].as_str().unwrap().to_owned());
    loop {
        let page = operator.get(&format!("{path}?to={before}&count={count}")).await;
        if texts(&page).is_empty() {
            break;
        }
        assert_eq!(page["next"].as_str().unwrap(), before);
        page["before"].as_str().unwrap().clone_into(&mut before);
        backward.splice(0..0, texts(&page));
    }
    assert_eq!(backward, expected, "backward by {count}");
}

/// The events of a stream, until it ends or the reader has enough: newest form of each line, and the last id.
async fn follow(
    operator: &TestOperator,
    path: &str,
    from: Option<&str>,
    enough: usize,
    known: &mut BTreeMap<(String, u64), Value>,
) -> (Option<String>, bool) {
    let query = from.map_or(String::new(), |from| format!("?from={from}"));
    let mut response = operator.follow(&format!("{path}/events{query}")).await;
    let (mut id, mut count) = (from.map(str::to_owned), 0);
    while let Some((kind, event_id, data)) = response.event().await {
        if kind == "end" {
            return (id, true);
        }
        id = Some(event_id);
        for line in data["lines"].as_array().unwrap() {
            let key = (line["node"].as_str().unwrap().to_owned(), line["line"].as_u64().unwrap());
            let earlier = known.insert(key, line.clone());
            assert!(earlier.is_none_or(|line| line["open"] == true), "a line was repeated: {line}");
            count += 1;
        }
        if count >= enough {
            break;
        }
    }
    (id, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_often_misses_and_repeats_no_line() {
    const CUTS: usize = 100;
    let operator = TestOperator::new(&["a", "b", "c"]).await;
    operator.history.set(Fault::WritesHang);
    let (mut writers, path) = run_on(&operator, &["a", "b", "c"]).await;
    let mut known = BTreeMap::new();
    let (mut id, mut written) = (None, [0_u64; 3]);
    for cut in 0..CUTS {
        if cut == CUTS / 2 {
            operator.history.set(Fault::None);
        }
        let at = operator.now().0 * 1000;
        for (number, writer) in writers.iter_mut().enumerate() {
            for piece in 0..=(cut + number) % 3 {
                let stream = if (cut + piece).is_multiple_of(4) { Stream::Stderr } else { Stream::Stdout };
                writer.write(stream, at + piece as i64, &format!("{cut} {piece}\n")).await;
                written[number] += 1;
            }
            // A line that stays open over some cuts.
            let text = if cut % 5 == 4 { ".\n" } else { "." };
            writer.write(Stream::Stdout, at + 9, if cut % 4 == 3 { ".\n" } else { text }).await;
        }
        let (next, _) = follow(&operator, &path, id.as_deref(), 1 + cut % 7, &mut known).await;
        id = next;
    }
    for writer in &mut writers {
        writer.write(Stream::Stdout, 1, "\nlast\n").await;
        writer.end().await;
    }
    let (_, is_over) = follow(&operator, &path, id.as_deref(), usize::MAX, &mut known).await;
    assert!(is_over);
    // Against each log alone.
    for writer in &writers {
        let attempt = &writer.start.attempt;
        let mut expected = Vec::new();
        loop {
            let from = expected.len() + 1;
            let page = operator
                .get(&format!("/executions/{}/1/{}/lines?line={from}&count=1000", attempt.task, attempt.node))
                .await;
            let lines = page["lines"].as_array().unwrap().clone();
            if lines.is_empty() {
                break;
            }
            expected.extend(lines);
        }
        let found: Vec<&Value> = known
            .iter()
            .filter(|((node, _), _)| *node == attempt.node.as_str())
            .map(|(_, line)| line)
            .collect();
        assert_eq!(found.len(), expected.len());
        for (line, found) in expected.iter().zip(found) {
            for field in ["line", "position", "text", "stream"] {
                assert_eq!(found[field], line[field], "{found}");
            }
            assert_eq!(found.get("open"), None, "{found}");
        }
    }
    assert!(written.iter().all(|written| *written > 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_without_any_of_the_last_lines_continues_where_it_was() {
    let operator = TestOperator::new(&["a", "b"]).await;
    let (mut writers, path) = run_on(&operator, &["a", "b"]).await;
    writers[0].write(Stream::Stdout, 1, "early\n").await;
    writers[1].write(Stream::Stdout, 2, "late\n").await;
    until_lines(&operator, &path, 2).await;
    let last = operator.get(&format!("{path}?tail=1")).await;
    assert_eq!(texts(&last), ["b late"]);
    writers[0].write(Stream::Stdout, 3, "later\n").await;
    until_lines(&operator, &path, 3).await;
    let next = operator.get(&format!("{path}?from={}", last["next"].as_str().unwrap())).await;
    assert_eq!(texts(&next), ["a later"]);
    let before = operator.get(&format!("{path}?to={}", last["before"].as_str().unwrap())).await;
    assert_eq!(texts(&before), ["a early"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_cursors_and_queries_are_refused() {
    let operator = TestOperator::new(&["a", "b"]).await;
    let (_writers, path) = run_on(&operator, &["a", "b"]).await;
    let many: Vec<String> = (0..257).map(|node| format!("n{node}")).collect();
    let queries = [
        "from=".to_owned(),
        "from=AA".to_owned(),
        "from=!".to_owned(),
        "from=AgAAAAAAAAAA".to_owned(),
        format!("to={}", "A".repeat(12_289)),
        "from=AQAAAAAAAAAA&tail=1".to_owned(),
        "from=AQAAAAAAAAAA".to_owned(),
        "since=1h&tail=1".to_owned(),
        "count=0".to_owned(),
        "count=1001".to_owned(),
        "until=yesterday".to_owned(),
        "nodes=A_".to_owned(),
        format!("nodes={}", many.join(",")),
    ];
    for query in queries {
        let (status, body) = operator.ask(&format!("{path}?{query}")).await;
        assert_eq!((status, &body["reason"]), (400, &json!("InvalidQuery")), "{query}: {body}");
    }
    assert_eq!(operator.ask(&format!("{path}?nodes=c")).await.0, 404);
    assert_eq!(operator.ask(&format!("{path}/events?from=AA")).await.0, 400);
    // One of another Run would skip lines.
    let another = TestOperator::new(&["a", "b"]).await;
    let (_others, of_another) = run_on(&another, &["a", "b"]).await;
    let next = another.get(&of_another).await["next"].as_str().unwrap().to_owned();
    assert_eq!(another.ask(&format!("{of_another}?from={next}")).await.0, 200);
    for query in
        [format!("{path}?from={next}"), format!("{path}?to={next}"), format!("{path}/events?from={next}")]
    {
        assert_eq!(operator.ask(&query).await.0, 400, "{query}");
    }
    let (_, body) = operator.ask(&format!("{path}?since=1h&tail=1")).await;
    assert_eq!((&body["field"], &body["value"]), (&json!("since"), &json!("1h")), "{body}");
}

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
