//! The lines of all nodes of a Run as one, on a whole operator whose History a test delays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
#[path = "reads/operator.rs"]
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
mod operator;
mod stores;
#[path = "reads/writer.rs"]
#[allow(dead_code, reason = "each test program uses its own part of the fixtures")]
mod writer;

use std::collections::BTreeMap;

use bytes::Bytes;
use gateway::within;
use operator::TestOperator;
use sentinel_operator::history::OutcomeName;
use sentinel_protocol::log::{DropReason, Stream};
use serde_json::{Value, json};
use stores::faulty::Fault;
use writer::{run_on, texts, until_lines};

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

/// Logs that begin later are found by lists; one that does not come back held up the lines of those that are known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_followed_while_history_does_not_answer() {
    let operator = TestOperator::new(&["a", "b"]).await;
    let (mut writers, path) = run_on(&operator, &["a", "b"]).await;
    let mut response = operator.follow(&format!("{path}/events")).await;
    writers[0].write(Stream::Stdout, 1, "first\n").await;
    let (_, _, data) = within("the first line", response.event()).await.unwrap();
    assert_eq!(texts(&data), ["a first"]);
    operator.history.set(Fault::ReadsHang);
    within("a list of the logs", operator.history.until_a_read_hangs()).await;
    writers[1].write(Stream::Stdout, 2, "second\n").await;
    let (_, _, data) = within("a line beside it", response.event()).await.unwrap();
    assert_eq!(texts(&data), ["b second"]);
    operator.history.set(Fault::None);
    for writer in &mut writers {
        writer.end().await;
    }
    while let Some((kind, ..)) = within("the end", response.event()).await {
        if kind == "end" {
            return;
        }
    }
    panic!("the stream was cut");
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
