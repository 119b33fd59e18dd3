//! The lines of one Execution, and a search in them.

use sentinel_operator::history::OutcomeName;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::to_operator::{Report, ToOperator};
use serde_json::{Value, json};

use super::body;
use super::gateway::{ended, record};
use super::operator::TestOperator;
use super::stores::faulty::Fault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_read_before_and_after_they_are_archived() {
    let operator = TestOperator::new(&["a"]).await;
    operator.history.set(Fault::WritesHang);
    let mut agent = operator.agent("a").await;
    operator.apply(&body("t", &["a"], &json!({}))).await;
    let start = operator.start(&mut agent).await;
    let path = format!("/executions/{}/1/a/lines", start.attempt.task);
    let none = operator.get(&path).await;
    let empty = json!({"attempt": 1, "lines": [], "next": 0, "totalLines": 0, "end": 0, "ended": false});
    assert_eq!(none, empty);

    let mut socket = operator.log_socket(&agent, "a").await;
    socket.send_json(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
    let text = "one\ntwo \u{202e}<b>\nthr";
    for (position, data) in [(0, text.as_bytes()), (text.len() as u64, b"ee\xff\n".as_slice())] {
        let mut record = record(position, data.len() as u64);
        record.data = data.to_vec().into();
        socket.record(&start.attempt, &record).await;
    }
    let (len, total) = (text.len() as u64, text.len() as u64 + 4);
    let shown = operator.until(&path, |shown| shown["end"] == total).await;
    let line = |number: u64, position: u64, text: &str| json!({"line": number, "position": position, "stream": "stdout", "atMicros": 7, "text": text});
    let lines = [line(1, 0, "one"), line(2, 4, "two \u{202e}<b>"), line(3, len - 3, "three\u{fffd}")];
    assert_eq!(shown["lines"], json!(lines));
    assert_eq!((&shown["totalLines"], &shown["ended"]), (&json!(3), &json!(false)), "{shown}");
    assert_eq!(operator.get(&format!("{path}?line=2&count=1")).await["lines"], json!(lines[1..2]));
    assert_eq!(operator.get(&format!("{path}?tail=1")).await["lines"], json!(lines[2..]));
    assert_eq!(operator.get(&format!("{path}?position=5&count=1")).await["lines"], json!(lines[1..2]));
    assert_eq!(operator.get(&format!("{path}?stream=stderr")).await["lines"], json!([]));

    let state = ended(total);
    let report = Report { attempt: start.attempt.clone(), spec_hash: start.spec_hash.clone(), state };
    agent.send_json(&ToOperator::Report(Box::new(report))).await;
    let whole = operator.until(&path, |shown| shown["ended"] == true).await;
    let events = operator.follow(&format!("{path}/events?from=4")).await.rest().await;
    let expected = format!(
        "id: {total}\nevent: lines\ndata: {}\n\nevent: end\ndata: {{}}\n\n",
        json!({"lines": lines[1..]})
    );
    assert_eq!(unordered(&events), unordered(&expected));
    operator.history.set(Fault::None);
    operator.until_archived(start.attempt.task.as_str(), "a", OutcomeName::Succeeded).await;
    assert_eq!(operator.get(&path).await, whole);
}

/// Events with their data as values: the order of fields in JSON means nothing.
fn unordered(events: &str) -> Vec<Result<Value, String>> {
    let of = |line: &str| match line.strip_prefix("data: ") {
        Some(data) => Ok(serde_json::from_str(data).unwrap()),
        None => Err(line.to_owned()),
    };
    events.lines().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_lines_and_continues_where_it_ended() {
    let operator = TestOperator::new(&["a"]).await;
    operator.history.set(Fault::WritesHang);
    let mut agent = operator.agent("a").await;
    operator.apply(&body("t", &["a"], &json!({}))).await;
    let start = operator.start(&mut agent).await;
    let path = format!("/executions/{}/1/a/search", start.attempt.task);
    let mut socket = operator.log_socket(&agent, "a").await;
    socket.send_json(&LogControl::Open { attempt: start.attempt.clone(), oldest: 0 }).await;
    let text = "fine\nerror: one\nfine\nerror: two\nerror";
    // Divided inside a line, and inside the match.
    let mut position = 0;
    for piece in [&text[..8], &text[8..20], &text[20..]] {
        let mut record = record(position, piece.len() as u64);
        record.data = piece.as_bytes().to_vec().into();
        socket.record(&start.attempt, &record).await;
        position += piece.len() as u64;
    }
    operator
        .until(&format!("/executions/{}/1/a/lines", start.attempt.task), |lines| lines["end"] == position)
        .await;
    let search = async |query: &str| -> Vec<Value> {
        let text = operator.log(&format!("{path}?{query}")).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let hit = |line: u64, position: u64, text: [&str; 3]| json!({"kind": "hit", "line": line, "position": position, "stream": "stdout", "atMicros": 7, "text": text});
    let hits = [
        hit(2, 5, ["", "error", ": one"]),
        hit(4, 21, ["", "error", ": two"]),
        hit(5, 32, ["", "error", ""]),
    ];
    let end =
        |position: u64, complete: bool| json!({"kind": "end", "position": position, "complete": complete});
    let all = search("pattern=error").await;
    assert_eq!(all[..3], hits, "{all:?}");
    // The last line has not ended: a search that continues searches it again.
    assert_eq!(all[3..], [json!({"kind": "progress", "position": 32, "end": 37}), end(32, true)]);
    let first = search("pattern=error&limit=1").await;
    assert_eq!(first, [hits[0].clone(), end(6, false)]);
    assert_eq!(search("pattern=error&from=6&limit=1").await, [hits[1].clone(), end(22, false)]);
    assert_eq!(search("pattern=%5Ee.*e%24").await[0], hit(2, 5, ["", "error: one", ""]));
    assert_eq!(search("pattern=error&stream=stderr").await.len(), 2, "progress and end only");
    for (query, parameter) in [
        ("", "pattern"),
        ("pattern=%28", "pattern"),
        ("pattern=%5CAa", "pattern"),
        ("pattern=a%28b%7C%5Cz%29", "pattern"),
        ("pattern=%28a%7B1000%7D%29%7B1000%7D", "pattern"),
        ("pattern=a&limit=0", "limit"),
        ("pattern=a&from=x", "from"),
    ] {
        let (status, body) = operator.ask(&format!("{path}?{query}")).await;
        assert_eq!((status, &body["field"]), (400, &json!(parameter)), "{query}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_queries_of_lines_are_refused() {
    let operator = TestOperator::new(&["a"]).await;
    let mut agent = operator.agent("a").await;
    operator.apply(&body("t", &["a"], &json!({}))).await;
    let start = operator.start(&mut agent).await;
    let path = format!("/executions/{}/1/a/lines", start.attempt.task);
    for (query, parameter) in [
        ("line=x", "line"),
        ("line=1&tail=1", "line"),
        ("position=-1", "position"),
        ("tail=1&since=5m", "tail"),
        ("since=yesterday", "since"),
        ("count=0", "count"),
        ("count=1001", "count"),
        ("stream=both", "stream"),
        ("attempt=0x1", "attempt"),
    ] {
        let (status, body) = operator.ask(&format!("{path}?{query}")).await;
        assert_eq!((status, &body["field"]), (400, &json!(parameter)), "{query}: {body}");
    }
    let (status, body) = operator.ask(&format!("{path}/events?from=x")).await;
    assert_eq!((status, &body["field"]), (400, &json!("from")), "{body}");
    let missing = operator.ask(&format!("/executions/{}/7/a/lines", start.attempt.task)).await;
    assert_eq!(missing.0, 404, "{}", missing.1);
}
