//! Lines of a log by number, position and time, over History, the hub and the seam between them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;
mod stores;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use gateway::{Agent, ServicedAgent, Setup, World, attempt, ended, eventually, report, within, world};
use sentinel_core::stream::lines::LineMark;
use sentinel_core::stream::window::{FirstLine, Line, LineState, LineWindow, WindowItem, WindowRange};
use sentinel_operator::history::OutputSegment;
use sentinel_operator::logs::{Follow, LinesFrom, LinesParams, LogLines, SearchUpdate};
use sentinel_protocol::log::{LogControl, LogRecord, RecordHead, Stream};
use sentinel_protocol::to_operator::ToOperator;
use stores::faulty::{Fault, FaultyHistory};

const ID: &str = "t/1/n/1";

/// Lines of the log in these tests; every fifth is on stderr.
const LINES: u64 = 3_000;

/// When line `n` is written, microseconds.
fn time_of(number: u64) -> i64 {
    1_000_000 + number as i64 * 1000
}

fn text_of(number: u64) -> String {
    format!("line {number}")
}

fn stream_of(number: u64) -> Stream {
    if number.is_multiple_of(5) { Stream::Stderr } else { Stream::Stdout }
}

/// One record a line.
fn log() -> Vec<LogRecord> {
    let mut position = 0;
    let records = (1..=LINES).map(|number| {
        let data = Bytes::from(format!("{}\n", text_of(number)));
        let (len, at_micros) = (data.len() as u64, time_of(number));
        let head =
            RecordHead { stream: stream_of(number), position, offset: 0, len, at_micros, dropped: None };
        position += len;
        LogRecord { head, data }
    });
    records.collect()
}

/// A log in three parts: one was archived by a release that did not count lines, one since then, and one is in the
/// hub only, because History takes nothing more.
async fn three_thirds(records: &[LogRecord]) -> (World, Arc<FaultyHistory>, ServicedAgent, Agent) {
    let history = FaultyHistory::new();
    let world = world(Setup { history: Some(history.clone()), ..Setup::default() }).await;
    let third = records.len() / 3;
    let mut old: Vec<OutputSegment> = segments(&records[..third]);
    for segment in &mut old {
        segment.lines = None;
    }
    world.history.append_output(old).await.unwrap();
    world.history.append_output(segments(&records[third..2 * third])).await.unwrap();
    history.set(Fault::WritesHang);
    let agent = ServicedAgent::new(world.agent("n").await);
    let mut socket = world.log_socket_of(agent.session(), "n").await;
    let oldest = records[2 * third].head.position;
    socket.send_json(&LogControl::Open { attempt: attempt(ID), oldest }).await;
    let LogControl::Credit { granted, .. } = socket.receive_log().await else { panic!("no credit") };
    assert!(granted >= records.last().unwrap().end(), "the rest does not fit the first credit");
    for record in &records[2 * third..] {
        socket.record(&attempt(ID), record).await;
    }
    let end = records.last().unwrap().end();
    eventually("the hub has all of it", || world.hub.held_position(&attempt(ID)) == Some(end)).await;
    (world, history, agent, socket)
}

fn segments(records: &[LogRecord]) -> Vec<OutputSegment> {
    segments_of(records, 70)
}

fn segments_of(records: &[LogRecord], count: usize) -> Vec<OutputSegment> {
    records.chunks(count).map(|some| OutputSegment::pack(attempt(ID), some).unwrap()).collect()
}

async fn lines(world: &World, from: LinesFrom, count: usize, stream: Option<Stream>) -> LogLines {
    let params = LinesParams { from, count, stream };
    within("lines are read", world.reader.lines(&attempt(ID), params)).await.unwrap()
}

fn numbers(lines: &LogLines) -> Vec<u64> {
    let of = |item: &WindowItem| match item {
        WindowItem::Line(line) => {
            assert_eq!(line.text, text_of(line.number).as_bytes(), "line {}", line.number);
            assert_eq!((line.stream, line.state), (stream_of(line.number), LineState::Ended));
            line.number
        }
        WindowItem::Gap { .. } => panic!("a gap"),
    };
    lines.items.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_found_by_number_position_and_time_in_history_and_in_the_hub() {
    let records = log();
    let (world, _history, _agent, _socket) = three_thirds(&records).await;
    let end = records.last().unwrap().end();
    for first in [1, 2, 69, 70, 71, 500, 999, 1000, 1001, 1500, 1999, 2000, 2001, 2500, 2999, 3000] {
        let last = (first + 119).min(LINES);
        let by_number = lines(&world, LinesFrom::Line(first), 120, None).await;
        assert_eq!(numbers(&by_number), (first..=last).collect::<Vec<_>>(), "from line {first}");
        assert_eq!((by_number.total, by_number.end), (LINES, end));
        let record = &records[first as usize - 1];
        assert_eq!(by_number.next, records.get(last as usize).map_or(end, |record| record.head.position));
        // Any byte of the line, its newline too.
        for position in [record.head.position, record.end() - 1] {
            let found = lines(&world, LinesFrom::Position(position), 1, None).await;
            assert_eq!(numbers(&found), [first], "at position {position}");
        }
        for (micros, found) in
            [(time_of(first), first), (time_of(first) - 1, first), (time_of(first) + 1, first + 1)]
        {
            let since = lines(&world, LinesFrom::Since(micros), 1, None).await;
            assert_eq!(numbers(&since), if found > LINES { vec![] } else { vec![found] }, "since {micros}");
        }
        let tail = lines(&world, LinesFrom::Tail(LINES - first + 1), 1, None).await;
        assert_eq!(numbers(&tail), [first]);
        let errors = lines(&world, LinesFrom::Line(first), 3, Some(Stream::Stderr)).await;
        let expected: Vec<u64> = (first..=LINES).filter(|number| number.is_multiple_of(5)).take(3).collect();
        assert_eq!(numbers(&errors), expected, "of stderr from line {first}");
    }
    let last_errors = lines(&world, LinesFrom::Tail(450), 2, Some(Stream::Stderr)).await;
    assert_eq!(numbers(&last_errors), [755, 760]);
    for (from, found) in [
        (LinesFrom::Line(0), vec![1]),
        (LinesFrom::Line(LINES + 1), vec![]),
        (LinesFrom::Line(u64::MAX), vec![]),
        (LinesFrom::Position(u64::MAX), vec![LINES]),
        (LinesFrom::Tail(0), vec![]),
        (LinesFrom::Tail(u64::MAX), vec![1]),
        (LinesFrom::Since(i64::MIN), vec![1]),
        (LinesFrom::Since(i64::MAX), vec![]),
    ] {
        assert_eq!(numbers(&lines(&world, from, 1, None).await), found, "{from:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_numbers_stay_when_the_rest_is_archived() {
    let records = log();
    let (world, history, _agent, mut socket) = three_thirds(&records).await;
    let before = lines(&world, LinesFrom::Line(1_990), 20, None).await;
    history.set(Fault::None);
    let end = records.last().unwrap().end();
    loop {
        if let LogControl::Credit { archived, .. } = socket.receive_log().await
            && archived == end
        {
            break;
        }
    }
    let after = lines(&world, LinesFrom::Line(1_990), 20, None).await;
    assert_eq!((before.items, before.total), (after.items, after.total));
}

/// Follows from a position until so many updates or the end; keeps the newest form of each line.
async fn follow(world: &World, from: u64, updates: usize, known: &mut BTreeMap<u64, Line>) -> Option<u64> {
    let mut stream = world.reader.follow_lines(&attempt(ID), from, None).await.unwrap();
    let mut next = from;
    for _ in 0..updates {
        match within("lines are followed", stream.next()).await {
            Some(update) => {
                let update = update.unwrap();
                next = update.next;
                for item in update.items {
                    let WindowItem::Line(line) = item else { panic!("a gap") };
                    let earlier = known.insert(line.number, line);
                    assert!(earlier.is_none_or(|line| line.state == LineState::Open), "a line was repeated");
                }
            }
            None => return None,
        }
    }
    Some(next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_misses_and_repeats_no_line() {
    let records = log();
    let (world, history, agent, mut socket) = three_thirds(&records).await;
    let mut known = BTreeMap::new();
    let mut next = follow(&world, 0, 1, &mut known).await.unwrap();
    // A line that is written in three pieces, with a reader that reconnects between them.
    let end = records.last().unwrap().end();
    let mut position = end;
    for piece in ["a li", "ne in ", "pieces\n"] {
        let data = Bytes::from(piece);
        let len = data.len() as u64;
        let head =
            RecordHead { stream: Stream::Stdout, position, offset: 0, len, at_micros: 5, dropped: None };
        socket.record(&attempt(ID), &LogRecord { head, data }).await;
        position += len;
        eventually("it has arrived", || world.hub.held_position(&attempt(ID)) == Some(position)).await;
        // Until this reader has seen it.
        while known.get(&(LINES + 1)).is_none_or(|line| position > line.position + line.text.len() as u64 + 1)
        {
            next = follow(&world, next, 1, &mut known).await.unwrap();
        }
    }
    history.set(Fault::None);
    agent.send_json(&ToOperator::Report(Box::new(report(ID, ended(position))))).await;
    assert_eq!(follow(&world, next, usize::MAX, &mut known).await, None, "it ends with the log");
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), (1..=LINES + 1).collect::<Vec<_>>());
    let last = known.remove(&(LINES + 1)).unwrap();
    assert_eq!((last.text, last.state), (b"a line in pieces".to_vec(), LineState::Ended));
    assert!(known.values().all(|line| line.text == text_of(line.number).as_bytes()));
}

/// A new leader has less of a log than its readers, until the agent has sent it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_ahead_of_the_operator_gets_the_numbers_that_lines_have() {
    let records = log();
    let world = world(Setup::default()).await;
    let agent = ServicedAgent::new(world.agent("n").await);
    let mut socket = world.log_socket_of(agent.session(), "n").await;
    socket.send_json(&LogControl::Open { attempt: attempt(ID), oldest: 0 }).await;
    let LogControl::Credit { .. } = socket.receive_log().await else { panic!("no credit") };
    for record in &records[..10] {
        socket.record(&attempt(ID), record).await;
    }
    let (sent, from) = (records[10].head.position, records[20].head.position);
    eventually("the first lines have arrived", || world.hub.held_position(&attempt(ID)) == Some(sent)).await;
    let mut stream = world.reader.follow_lines(&attempt(ID), from, None).await.unwrap();
    for record in &records[10..30] {
        socket.record(&attempt(ID), record).await;
    }
    let update = within("lines are followed", stream.next()).await.unwrap().unwrap();
    let WindowItem::Line(first) = &update.items[0] else { panic!("a gap") };
    assert_eq!((first.number, first.position), (21, from));
}

/// Readers that stall keep what they have read; others still read everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_whole_beside_many_readers_that_stall() {
    let mut position = 0;
    let records: Vec<LogRecord> = (0..30u8)
        .map(|number| {
            let data = Bytes::from(vec![b'a' + number % 26; 100_000]);
            let len = data.len() as u64;
            let head = RecordHead {
                stream: Stream::Stdout,
                position,
                offset: position,
                len,
                at_micros: 1,
                dropped: None,
            };
            position += len;
            LogRecord { head, data }
        })
        .collect();
    let world = world(Setup::default()).await;
    world.history.append_output(segments_of(&records, 5)).await.unwrap();
    let mut stalled = Vec::new();
    let mut pieces = 0;
    for _ in 0..40 {
        let mut reader = Box::pin(world.reader.open(attempt(ID), 0, Follow::No));
        let first = within("a first record", reader.next()).await.unwrap().unwrap();
        pieces += usize::from(first.data.len() < 100_000);
        stalled.push(reader);
    }
    assert!((20..40).contains(&pieces), "{pieces} of 40 readers hold a piece only");
    let reader = world.reader.open(attempt(ID), 0, Follow::No);
    let read: Vec<LogRecord> = within("the log", reader.map(Result::unwrap).collect()).await;
    assert!(read.windows(2).all(|pair| pair[0].end() == pair[1].head.position));
    let bytes = |of: &[LogRecord]| of.iter().flat_map(|record| record.data.to_vec()).collect::<Vec<u8>>();
    assert!(bytes(&read) == bytes(&records), "other bytes were read");
    let resumed: Vec<LogRecord> = within("the rest", stalled.remove(39).map(Result::unwrap).collect()).await;
    assert_eq!(resumed.last().map(LogRecord::end), Some(position));
}

/// What `search` finds from a position on: the hits of each part as line and position, and where it ends.
async fn search(world: &World, from: u64, pattern: &str) -> Vec<(Vec<(u64, u64)>, u64)> {
    let pattern = regex::bytes::Regex::new(pattern).unwrap();
    let parts = world.reader.search(&attempt(ID), from, None, pattern).await.unwrap();
    let part = |part: Result<SearchUpdate, _>| {
        let part = part.unwrap();
        (part.hits.iter().map(|hit| (hit.line, hit.position)).collect(), part.position)
    };
    within("the log is searched", parts.map(part).collect()).await
}

/// Records of one text each.
fn records_of(texts: &[(Stream, String)]) -> Vec<LogRecord> {
    let mut position = 0;
    let record = |(stream, text): &(Stream, String)| {
        let len = text.len() as u64;
        let head = RecordHead { stream: *stream, position, offset: 0, len, at_micros: 1, dropped: None };
        position += len;
        LogRecord { head, data: text.clone().into() }
    };
    texts.iter().map(record).collect()
}

/// Searches a log, and again from wherever a reader of it may have stopped.
async fn searches_continue(name: &str, texts: &[(Stream, String)]) {
    const PATTERN: &str = r"hit \d+|begin.*end";
    let records = records_of(texts);
    let world = world(Setup::default()).await;
    world.history.append_output(segments(&records)).await.unwrap();
    let range = WindowRange { first: FirstLine::Number(1), count: usize::MAX, stream: None };
    let mut window = LineWindow::new(range, LineMark::default());
    for record in &records {
        window.add(record);
    }
    let pattern = regex::bytes::Regex::new(PATTERN).unwrap();
    let expected: Vec<(u64, u64)> = window
        .into_items()
        .iter()
        .filter_map(|item| match item {
            WindowItem::Line(line) if pattern.is_match(&line.text) => Some((line.number, line.position)),
            WindowItem::Line(_) | WindowItem::Gap { .. } => None,
        })
        .collect();
    let parts = search(&world, 0, PATTERN).await;
    let all: Vec<_> = parts.iter().flat_map(|(hits, _)| hits.clone()).collect();
    assert_eq!(all, expected, "{name}");
    let (mut sent, mut cuts) = (0, Vec::new());
    for (hits, position) in &parts {
        let within = hits.iter().enumerate().filter(|(at, _)| at % 199 == 0);
        cuts.extend(within.map(|(at, (_, begin))| (sent + at + 1, begin + 1)));
        sent += hits.len();
        cuts.push((sent, *position));
    }
    // The log may grow: lines that have not ended, and those behind them, are searched again.
    if let Some((sent, position)) = cuts.last_mut() {
        *sent = expected.partition_point(|(_, begin)| begin < position);
    }
    for (sent, position) in cuts {
        let rest = search(&world, position, PATTERN).await;
        let rest: Vec<_> = rest.into_iter().flat_map(|(hits, _)| hits).collect();
        assert_eq!(rest, expected[sent..], "{name}: behind {sent} hits, from {position}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_that_is_cut_continues_without_a_missed_or_repeated_line() {
    use Stream::{Stderr, Stdout};
    let hits =
        |from: u64| (Stderr, (from..from + 20).fold(String::new(), |text, at| text + &format!("hit {at}\n")));
    let filler = || (Stderr, "another line\n".repeat(500));
    let some_hits = || (0..30).map(|at| hits(at * 20));
    let many = |count: usize| std::iter::repeat_with(filler).take(count);
    let one = |text: &str| std::iter::once((Stdout, text.to_owned()));
    // A line around more hits than a part has.
    let near: Vec<_> = one("begin").chain(some_hits()).chain(one(" end\nhit 7\n")).collect();
    searches_continue("near", &near).await;
    // Around the end of a part.
    let last = many(10).chain(one("end\nbegin")).chain(some_hits()).chain(one("end"));
    let at_end: Vec<_> = many(30).chain([hits(1)]).chain(one("begin ")).chain(last).collect();
    searches_continue("at the end of a part", &at_end).await;
    let far: Vec<_> = one("fine\nbegin ")
        .chain(many(40))
        .chain(some_hits())
        .chain(many(200))
        .chain(one("end\nbegin, end"))
        .collect();
    searches_continue("far", &far).await;
    // Its parts are lines of their own.
    let long = (0..40).flat_map(|at| [(Stdout, "x".repeat(8000) + "begin, end"), hits(at * 20)]);
    searches_continue("long", &long.collect::<Vec<_>>()).await;
}
