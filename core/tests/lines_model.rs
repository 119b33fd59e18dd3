//! Line numbers and windows against a model that reads a log byte by byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use bytes::Bytes;
use proptest::prelude::*;
use sentinel_core::stream::lines::{LINE_PART, LineCount, LineMark};
use sentinel_core::stream::window::{FirstLine, Line, LineState, LineWindow, WindowItem, WindowRange};
use sentinel_protocol::log::{DropReason, LogRecord, RecordHead, Stream};

/// A line as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelLine {
    position: u64,
    stream: Stream,
    text: Vec<u8>,
    continues: bool,
    state: LineState,
}

/// All lines of a log, in the order in which they begin.
fn lines_of(records: &[LogRecord]) -> Vec<ModelLine> {
    let mut lines: Vec<ModelLine> = Vec::new();
    let mut open: [Option<usize>; 2] = [None; 2];
    for record in records {
        let stream = record.head.stream;
        let slot = usize::from(stream == Stream::Stderr);
        if record.head.dropped.is_some() {
            if let Some(at) = open[slot].take() {
                lines[at].state = LineState::Ended;
            }
            continue;
        }
        for (byte, position) in record.data.iter().zip(record.head.position..) {
            let is_full = open[slot].is_some_and(|at| lines[at].text.len() as u64 == LINE_PART);
            if *byte != b'\n' && is_full {
                lines[open[slot].unwrap()].state = LineState::Continued;
            }
            if open[slot].is_none() || (*byte != b'\n' && is_full) {
                let continues = open[slot].is_some();
                open[slot] = Some(lines.len());
                let (text, state) = (Vec::new(), LineState::Open);
                lines.push(ModelLine { position, stream, text, continues, state });
            }
            let line = &mut lines[open[slot].unwrap()];
            if *byte == b'\n' {
                line.state = LineState::Ended;
                open[slot] = None;
            } else {
                line.text.push(*byte);
            }
        }
    }
    lines
}

fn log() -> impl Strategy<Value = Vec<LogRecord>> {
    let size = prop_oneof![8 => 1_usize..6, 1 => 60_000_usize..70_000, 1 => 130_000_usize..140_000];
    let piece = prop_oneof![
        5 => prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 1..8),
        1 => size.prop_map(|size| vec![b'x'; size]),
    ];
    let record = (any::<bool>(), prop_oneof![9 => piece.prop_map(Some), 1 => Just(None)]);
    prop::collection::vec(record, 0..40).prop_map(|parts| {
        let mut position = 0;
        let records = parts.into_iter().map(|(is_stderr, data)| {
            let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
            let dropped = data.is_none().then_some(DropReason::SpoolFull);
            let data = Bytes::from(data.unwrap_or_default());
            let len = if dropped.is_some() { 7 } else { data.len() as u64 };
            let head = RecordHead { stream, position, offset: 0, len, at_micros: 1, dropped };
            position += len;
            LogRecord { head, data }
        });
        records.collect()
    })
}

/// The mark before each record.
fn marks_of(records: &[LogRecord]) -> Vec<LineMark> {
    let mut mark = LineMark::default();
    let mut marks = vec![mark];
    for record in records {
        mark = mark.after(&LineCount::of([record]));
        marks.push(mark);
    }
    marks
}

fn model_of(line: &Line) -> ModelLine {
    let Line { position, stream, text, continues, state, .. } = line.clone();
    ModelLine { position, stream, text, continues, state }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn parts_are_counted_apart_and_added_up(records in log(), cuts in prop::collection::vec(0_usize..40, 0..4)) {
        let lines = lines_of(&records);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= records.len()).collect();
        cuts.extend([0, records.len()]);
        cuts.sort_unstable();
        let mut mark = LineMark::default();
        for cut in cuts.windows(2) {
            mark = mark.after(&LineCount::of(&records[cut[0]..cut[1]]));
            let end = records.get(cut[1]).map_or(u64::MAX, |record| record.head.position);
            for stream in [None, Some(Stream::Stdout), Some(Stream::Stderr)] {
                let begun = lines.iter().filter(|line| line.position < end && stream.is_none_or(|s| s == line.stream));
                prop_assert_eq!(mark.lines(stream), begun.count() as u64);
            }
        }
    }

    #[test]
    fn a_window_of_one_stream_begins_at_a_line_of_that_stream(records in log(), first in 1_u64..40, stderr in any::<bool>()) {
        let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
        let mut window = LineWindow::new(
            WindowRange { first: FirstLine::OfStream(first), count: usize::MAX, stream: Some(stream) },
            LineMark::default(),
        );
        let mut seen: Vec<Line> = Vec::new();
        for record in &records {
            window.add(record);
            // As a reader that follows: an open line replaces what was sent of it.
            for item in window.take_changed() {
                if let WindowItem::Line(line) = item {
                    seen.retain(|known| known.number != line.number);
                    seen.push(line);
                }
            }
        }
        seen.sort_by_key(|line| line.number);
        let lines = lines_of(&records);
        let expected: Vec<ModelLine> =
            lines.into_iter().filter(|line| line.stream == stream).skip(first as usize - 1).collect();
        prop_assert_eq!(seen.iter().map(model_of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_window_has_its_lines_wherever_reading_begins(
        records in log(),
        first in 1_u64..60,
        count in 1_usize..20,
        stream in prop::sample::select(vec![None, Some(Stream::Stdout), Some(Stream::Stderr)]),
    ) {
        let lines = lines_of(&records);
        let is_wanted = |(number, line): &(u64, &ModelLine)| *number >= first && stream.is_none_or(|s| s == line.stream);
        let expected: Vec<(u64, ModelLine)> =
            (1..).zip(&lines).filter(is_wanted).take(count).map(|(number, line)| (number, line.clone())).collect();
        for (start, mark) in marks_of(&records).into_iter().enumerate() {
            if mark.lines(None) >= first {
                break;
            }
            let mut window = LineWindow::new(WindowRange { first: FirstLine::Number(first), count, stream }, mark);
            for record in &records[start..] {
                if window.is_complete() {
                    break;
                }
                window.add(record);
            }
            let found: Vec<(u64, ModelLine)> = window.into_items().iter().filter_map(|item| match item {
                WindowItem::Line(line) => Some((line.number, model_of(line))),
                WindowItem::Gap { .. } => None,
            }).collect();
            prop_assert_eq!(found, expected.clone());
        }
    }
}

fn record(stream: Stream, position: u64, data: Vec<u8>) -> LogRecord {
    let head =
        RecordHead { stream, position, offset: 0, len: data.len() as u64, at_micros: 5, dropped: None };
    LogRecord { head, data: data.into() }
}

fn window(first: u64, count: usize) -> LineWindow {
    LineWindow::new(WindowRange { first: FirstLine::Number(first), count, stream: None }, LineMark::default())
}

#[test]
fn a_character_that_crosses_a_part_is_shown_once() {
    let mut text = vec![b'x'; LINE_PART as usize - 2];
    text.extend_from_slice("日本".as_bytes());
    for cut in 0..=text.len() - (LINE_PART as usize - 2) {
        let at = LINE_PART as usize - 2 + cut;
        let mut all = window(1, 10);
        let mut second = window(2, 10);
        for part in [(0, &text[..at]), (at as u64, &text[at..])] {
            let record = record(Stream::Stdout, part.0, part.1.to_vec());
            all.add(&record);
            second.add(&record);
        }
        let text_of = |item: &WindowItem| match item {
            WindowItem::Line(line) => String::from_utf8(line.text.clone()).unwrap(),
            WindowItem::Gap { .. } => panic!("a gap"),
        };
        let texts: Vec<String> = all.into_items().iter().map(text_of).collect();
        assert!(texts[0].ends_with("x日"), "cut at {cut}");
        assert_eq!(texts[1], "本", "cut at {cut}");
        assert_eq!(second.into_items().iter().map(text_of).collect::<Vec<_>>(), ["本"], "cut at {cut}");
    }
}

/// As JSON, a control character is six bytes: an answer with 4 MiB of them as text had 20 MB.
#[test]
fn a_window_is_bounded_by_what_its_text_is_as_json() {
    for text in [vec![0; 60_000], vec![0xff; 60_000], vec![b'"'; 60_000], b"x".repeat(60_000)] {
        let mut all = window(1, 1000);
        let mut position = 0;
        for _ in 0..200 {
            let line = [&text[..], b"\n"].concat();
            position += line.len() as u64;
            all.add(&record(Stream::Stdout, position - line.len() as u64, line));
        }
        assert!(all.is_complete());
        let (items, largest) = (all.into_items(), 60_000 * 6);
        let json = |item: &WindowItem| match item {
            WindowItem::Line(line) => {
                serde_json::to_string(&String::from_utf8_lossy(&line.text)).unwrap().len()
            }
            WindowItem::Gap { .. } => panic!("a gap"),
        };
        let bytes: usize = items.iter().map(json).sum();
        assert!((4 << 20..(4 << 20) + largest).contains(&bytes), "{bytes} bytes of {:?}", text[0]);
    }
}

#[test]
fn a_gap_stands_where_it_was_and_ends_the_line_of_its_stream() {
    let mut all = window(1, 10);
    all.add(&record(Stream::Stdout, 0, b"half".to_vec()));
    for position in [4, 11] {
        let mut gap = record(Stream::Stdout, position, Vec::new());
        (gap.head.len, gap.head.dropped) = (7, Some(DropReason::SpoolFull));
        gap.head.at_micros += position as i64;
        all.add(&gap);
    }
    all.add(&record(Stream::Stdout, 18, b"rest\n".to_vec()));
    let items = all.into_items();
    assert_eq!(items.len(), 3, "{items:?}");
    assert!(matches!(items[1], WindowItem::Gap { position: 4, len: 14, at_micros: 9, .. }), "{items:?}");
    assert!(matches!(&items[2], WindowItem::Line(line) if line.number == 2 && line.text == b"rest"));
}

#[test]
fn a_prompt_is_complete_once_its_answer_follows() {
    let mut prompt = window(1, 1);
    prompt.add(&record(Stream::Stdout, 0, b"Continue? ".to_vec()));
    prompt.add(&record(Stream::Stderr, 10, b"warning\n".to_vec()));
    assert!(!prompt.is_complete());
    assert_eq!(prompt.beyond(), Some((2, 10)));
    prompt.add(&record(Stream::Stdout, 18, b"yes\n".to_vec()));
    assert!(prompt.is_complete());
    let WindowItem::Line(line) = &prompt.into_items()[0] else { panic!() };
    assert_eq!(line.text, b"Continue? yes");
}
