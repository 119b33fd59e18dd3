//! Matches the lines of records against an expression, in memory.
//!
//! It is matched against whole records where they hold whole lines, which is much faster than line by line; only lines that
//! are divided between records are put together. A line is a hit once, with its first match.

use futures_util::{Stream, StreamExt as _};
use regex::bytes::Regex;
use sentinel_core::stream::lines::{LINE_PART, LineCount, LineMark};
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};

use crate::logs::reader::ReadError;

/// Output that is searched at a time, bytes: little where there are many hits, and more from part to part where there are
/// few.
const BATCH: (usize, usize) = (256 << 10, 16 << 20);

/// Hits, and bytes of their lines, behind which a part of a search ends before it has searched all of its output.
const HITS_AT_ONCE: (usize, usize) = (500, 64 << 10);

/// How far behind a part of a search the rest of a line is read that begins in it, bytes.
const REST_WITHIN: u64 = 16 << 20;

/// Bytes at the end of a part that are rather searched again, with the line that is open there, than left for its rest.
const SEARCHED_AGAIN: u64 = 2 * LINE_PART;

/// Most bytes of a line around its match that a hit has.
const MAX_TEXT: usize = 4 << 10;

/// Bytes before the match that a hit of a longer line has.
const TEXT_BEFORE: usize = 1 << 10;

/// A line that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Number of the line.
    pub line: u64,
    /// Position of the first byte of the line.
    pub position: u64,
    /// Its stream.
    pub stream: OutputStream,
    /// When it was written, by the node's clock, microseconds since the Unix epoch; 0 if unknown.
    pub at_micros: i64,
    /// The line, or a part of it around the match.
    pub text: Vec<u8>,
    /// Where the match begins and ends in the text, bytes.
    pub matched: (usize, usize),
}

/// A line that is not complete yet.
#[derive(Debug)]
struct OpenLine {
    text: Vec<u8>,
    /// How many lines begin earlier.
    before: LineMark,
    position: u64,
    at_micros: i64,
    /// Whether its rest is known to be far away.
    is_far: bool,
}

impl OpenLine {
    /// Adds bytes without a newline, as far as there is room; returns how many.
    fn extend(&mut self, bytes: &[u8]) -> usize {
        let room = (LINE_PART as usize).saturating_sub(self.text.len());
        let taken = room.min(bytes.len());
        self.text.extend_from_slice(&bytes[..taken]);
        taken
    }
}

/// A search in progress.
#[derive(Debug)]
pub(super) struct LineSearch {
    pattern: Regex,
    stream: Option<OutputStream>,
    mark: LineMark,
    open: [Option<OpenLine>; 2],
    /// Where the first line begins that was searched before it had ended, because no more of it existed.
    unended: Option<u64>,
    hits: Vec<Hit>,
    /// Bytes of their lines.
    bytes: usize,
    /// Bytes of the next part.
    pub(super) batch: usize,
}

impl LineSearch {
    pub(super) fn new(pattern: Regex, stream: Option<OutputStream>, mark: LineMark) -> Self {
        Self {
            pattern,
            stream,
            mark,
            open: [None, None],
            unended: None,
            hits: Vec::new(),
            bytes: 0,
            batch: BATCH.0,
        }
    }

    /// The hits since the last call, in the order in which their lines begin: a reader that stops at one continues behind
    /// it and misses none of the others.
    pub(super) fn take_hits(&mut self) -> Vec<Hit> {
        self.batch = if self.is_full() { BATCH.0 } else { BATCH.1.min(self.batch * 4) };
        let mut hits = std::mem::take(&mut self.hits);
        self.bytes = 0;
        hits.sort_by_key(|hit| hit.position);
        hits
    }

    /// Whether there are so many hits that the reader is to have them first.
    pub(super) fn is_full(&self) -> bool {
        self.hits.len() >= HITS_AT_ONCE.0 || self.bytes >= HITS_AT_ONCE.1
    }

    /// Adds a record, and returns the position up to which it was searched: its end, unless there are enough hits before.
    fn add(&mut self, record: &LogRecord) -> u64 {
        let before = self.mark;
        self.mark = before.after(&LineCount::of([record]));
        let stream = record.head.stream;
        if self.stream.is_some_and(|only| only != stream) {
            return record.end();
        }
        if record.head.dropped.is_some() {
            self.end_open(stream);
            return record.end();
        }
        let mut from = 0;
        let open = before.of_stream(stream).open;
        if open > 0 {
            let newline = memchr::memchr(b'\n', &record.data);
            let end = newline.unwrap_or(record.data.len());
            from = newline.map_or(end, |at| at + 1);
            let line = self.open[slot(stream)].as_ref();
            // A line that began before this search, or whose rest was read ahead, was searched already.
            let known = if line.is_some() { 0 } else { (LINE_PART - open % LINE_PART) % LINE_PART };
            self.extend_open(record, before, end.min(known as usize)..end);
            if newline.is_some() {
                self.end_open(stream);
            }
        }
        let last = memchr::memrchr(b'\n', &record.data[from..]).map_or(from, |at| from + at + 1);
        let searched = self.whole_lines(record, before, from..last);
        if searched < last {
            self.mark = before.after(&LineCount::of([&part(record, 0..searched)]));
            return record.head.position + searched as u64;
        }
        if last < record.data.len() {
            self.extend_open(record, before, last..record.data.len());
        }
        record.end()
    }

    /// Adds bytes without a newline to the line that is open, or begins one. A line that is too long is searched part by
    /// part.
    fn extend_open(&mut self, record: &LogRecord, before: LineMark, range: std::ops::Range<usize>) {
        let stream = record.head.stream;
        let mut at = range.start;
        while at < range.end {
            let line = self.open[slot(stream)].get_or_insert_with(|| OpenLine {
                text: Vec::new(),
                before: before.after(&LineCount::of([&part(record, 0..at)])),
                position: record.head.position + at as u64,
                at_micros: record.head.at_micros,
                is_far: false,
            });
            at += line.extend(&record.data[at..range.end]);
            if at < range.end {
                self.end_open(stream);
            }
        }
    }

    fn end_open(&mut self, stream: OutputStream) {
        let Some(line) = self.open[slot(stream)].take() else { return };
        if let Some(found) = self.pattern.find(&line.text) {
            let range = (found.start(), found.end());
            let OpenLine { text, before, position, at_micros, .. } = line;
            self.found(hit(&text, range, before.lines(None) + 1, position, stream, at_micros));
        }
    }

    /// Goes back from the end of a part to the beginning of the first line that is open there, so that a search that
    /// continues sees all of it. Returns the new end; `None` if it began before this part, or too far back.
    fn go_back(&mut self, from: u64, position: u64) -> Option<u64> {
        let first = self.open.iter().flatten().min_by_key(|line| line.position)?;
        let (begin, before) = (first.position, first.before);
        if begin <= from || position - begin > SEARCHED_AGAIN {
            return None;
        }
        self.mark = before;
        self.open = [None, None];
        self.hits.retain(|hit| hit.position < begin);
        Some(begin)
    }

    /// Whether the rest of a line is to be read ahead.
    fn needs_rest(&self) -> bool {
        self.open.iter().flatten().any(|line| !line.is_far)
    }

    /// Reads ahead in a record behind the part, for the rest of lines that are open.
    fn add_rest(&mut self, record: &LogRecord) {
        let stream = record.head.stream;
        let Some(line) = self.open[slot(stream)].as_mut().filter(|line| !line.is_far) else { return };
        let newline = memchr::memchr(b'\n', &record.data);
        let rest = &record.data[..newline.unwrap_or(record.data.len())];
        let is_whole = line.extend(rest) < rest.len() || newline.is_some();
        if is_whole || record.head.dropped.is_some() {
            self.end_open(stream);
        }
    }

    fn found(&mut self, hit: Hit) {
        self.bytes += hit.text.len();
        self.hits.push(hit);
    }

    /// Searches whole lines of a record, until there are enough hits. Returns the offset of the first line that was not
    /// searched.
    fn whole_lines(&mut self, record: &LogRecord, before: LineMark, range: std::ops::Range<usize>) -> usize {
        let lines = &record.data[range.clone()];
        let mut at = 0;
        // Lines are counted from one hit to the next, not from the beginning for each.
        let (mut counted, mut mark) = (0, before);
        // Behind the last newline no line begins, though an empty expression matches there.
        while at < lines.len()
            && let Some(found) = self.pattern.find_at(lines, at)
            && found.start() < lines.len()
        {
            let begin = memchr::memrchr(b'\n', &lines[..found.start()]).map_or(0, |at| at + 1);
            let end =
                memchr::memchr(b'\n', &lines[found.start()..]).map_or(lines.len(), |at| found.start() + at);
            let line = &lines[begin..end];
            // An expression that matches newlines may have found more than this line has.
            if let Some(found) = self.pattern.find(line) {
                mark = mark.after(&LineCount::of([&part(record, counted..range.start + begin)]));
                counted = range.start + begin;
                let position = record.head.position + counted as u64;
                let found_at = (found.start(), found.end());
                let number = mark.lines(None) + 1;
                let stream = record.head.stream;
                self.found(hit(line, found_at, number, position, stream, record.head.at_micros));
            }
            at = end + 1;
            if self.is_full() {
                return range.end.min(range.start + at);
            }
        }
        range.end
    }
}

fn part(record: &LogRecord, range: std::ops::Range<usize>) -> LogRecord {
    LogRecord { head: record.head, data: record.data.slice(range) }
}

fn slot(stream: OutputStream) -> usize {
    usize::from(stream == OutputStream::Stderr)
}

fn hit(
    line: &[u8],
    (start, end): (usize, usize),
    number: u64,
    position: u64,
    stream: OutputStream,
    at_micros: i64,
) -> Hit {
    // A line of more than one part has a number for each.
    let parts = start as u64 / LINE_PART;
    let from = if line.len() > MAX_TEXT { start.saturating_sub(TEXT_BEFORE) } else { 0 };
    let to = line.len().min(from + MAX_TEXT);
    Hit {
        line: number + parts,
        position: position + parts * LINE_PART,
        stream,
        at_micros,
        text: line[from..to].to_vec(),
        matched: (start - from, end.min(to) - from),
    }
}

/// What a part of a search came to.
pub(super) struct Added {
    /// Where to read on.
    pub(super) position: u64,
    /// Whether it is the end of the log.
    pub(super) is_last: bool,
}

impl LineSearch {
    /// Adds records until there are enough hits. Returns the position up to which they were searched.
    pub(super) fn add_all(&mut self, records: &[LogRecord], from: u64) -> u64 {
        let mut position = from;
        for record in records {
            position = self.add(record);
            if self.is_full() {
                break;
            }
        }
        position
    }

    /// Ends a part that was searched up to a position; `read` is what was read of it, and perhaps behind it.
    pub(super) fn end_part(&mut self, from: u64, position: u64, read: &[LogRecord], is_last: bool) -> Added {
        if is_last {
            self.end_unended(|_| true);
            return Added { position, is_last: true };
        }
        if let Some(position) = self.go_back(from, position) {
            return Added { position, is_last: false };
        }
        for record in read.iter().filter_map(|record| record.clone().from_position(position)) {
            self.add_rest(&record);
        }
        Added { position, is_last: false }
    }

    /// Reads ahead for the rest of lines that are open, so that a search that continues need not see them.
    pub(super) async fn read_rest(
        &mut self,
        mut records: impl Stream<Item = Result<LogRecord, ReadError>> + Unpin,
    ) -> Result<(), ReadError> {
        let mut read = 0;
        while self.needs_rest() && read < REST_WITHIN {
            let Some(record) = records.next().await.transpose()? else {
                self.end_unended(|line| !line.is_far);
                return Ok(());
            };
            read += record.head.len;
            self.add_rest(&record);
        }
        self.leave_far();
        Ok(())
    }

    /// Searches lines that are open as they are: no more of them exists now.
    fn end_unended(&mut self, is_wanted: impl Fn(&OpenLine) -> bool) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if let Some(line) = self.open[slot(stream)].as_ref().filter(|line| is_wanted(line)) {
                self.unended = Some(self.unended.map_or(line.position, |first| first.min(line.position)));
                self.end_open(stream);
            }
        }
    }

    /// From where a log that grows is searched again for lines that had not ended, when it was searched up to a position.
    pub(super) fn unended(&self, position: u64) -> Option<u64> {
        self.unended.filter(|begin| position.saturating_sub(*begin) <= REST_WITHIN)
    }

    /// Gives up what was read ahead of lines whose end was not found: it follows in the next parts.
    fn leave_far(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let open = self.mark.of_stream(stream).open;
            if let Some(line) = &mut self.open[slot(stream)] {
                line.text.truncate((open - open.saturating_sub(1) / LINE_PART * LINE_PART) as usize);
                line.is_far = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sentinel_protocol::log::RecordHead;

    use super::*;

    fn records(parts: &[(bool, Vec<u8>)]) -> Vec<LogRecord> {
        let mut position = 0;
        let of = |(is_stderr, data): &(bool, Vec<u8>)| {
            let stream = if *is_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            let len = data.len() as u64;
            let head = RecordHead { stream, position, offset: 0, len, at_micros: 1, dropped: None };
            position += len;
            LogRecord { head, data: data.clone().into() }
        };
        parts.iter().map(of).collect()
    }

    fn found(records: &[LogRecord], pattern: &str) -> Vec<(u64, u64, Vec<u8>)> {
        let mut search = LineSearch::new(Regex::new(pattern).unwrap(), None, LineMark::default());
        for record in records {
            search.add(record);
        }
        search.end_open(OutputStream::Stdout);
        search.end_open(OutputStream::Stderr);
        let mut hits: Vec<_> =
            search.hits.into_iter().map(|hit| (hit.line, hit.position, hit.text)).collect();
        hits.sort_unstable();
        hits
    }

    /// Every line, from a window of all.
    fn lines(records: &[LogRecord]) -> Vec<(u64, u64, Vec<u8>)> {
        use sentinel_core::stream::window::{FirstLine, LineWindow, WindowItem};
        let mut window = LineWindow::unbounded(FirstLine::Number(1), None, LineMark::default());
        for record in records {
            window.add(record);
        }
        let of = |item| match item {
            WindowItem::Line(line) => Some((line.number, line.position, line.text)),
            WindowItem::Gap { .. } => None,
        };
        window.into_items().into_iter().filter_map(of).collect()
    }

    proptest! {
        #[test]
        fn finds_what_matching_each_line_finds(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 1..9)), 0..30),
            pattern in prop::sample::select(vec!["a", "ab", "a.b", "^a", "b$", r"a\nb", r"a\s*b", r"^$", "aa|bb", r"\Aab\z"]),
        ) {
            let records = records(&parts);
            let pattern = format!("(?m){pattern}");
            let single = Regex::new(&pattern).unwrap();
            let expected: Vec<_> = lines(&records).into_iter().filter(|(_, _, text)| single.is_match(text)).collect();
            // Of a record with whole lines, expressions about the whole text see more than the line.
            if !pattern.contains(r"\A") && !pattern.contains(r"\z") {
                prop_assert_eq!(found(&records, &pattern), expected);
            }
        }

        #[test]
        fn parts_find_what_a_whole_search_finds(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 1..9)), 0..30),
            batches in prop::collection::vec((1..6usize, 0..6usize), 30),
            pattern in prop::sample::select(vec!["a", "ab", "a.b", "^a", "b$", "aa|bb"]),
        ) {
            let records = records(&parts);
            let regex = Regex::new(&format!("(?m){pattern}")).unwrap();
            let mut search = LineSearch::new(regex, None, LineMark::default());
            let (mut hits, mut from) = (Vec::new(), 0);
            for (batch, ahead) in batches.into_iter().cycle() {
                let begun = from;
                let mut left = records.iter().filter_map(|record| record.clone().from_position(begun));
                let batch: Vec<_> = left.by_ref().take(batch).collect();
                if batch.is_empty() {
                    break;
                }
                let searched = search.add_all(&batch, from);
                from = search.end_part(from, searched, &batch, false).position;
                for record in left.take(ahead) {
                    search.add_rest(&record);
                }
                search.leave_far();
                hits.extend(search.take_hits());
            }
            search.end_open(OutputStream::Stdout);
            search.end_open(OutputStream::Stderr);
            hits.extend(search.take_hits());
            let mut hits: Vec<_> = hits.into_iter().map(|hit| (hit.line, hit.position, hit.text)).collect();
            hits.sort_unstable();
            prop_assert_eq!(hits, found(&records, &format!("(?m){pattern}")));
        }
    }

    /// A search that was cut at the second would have continued behind the first, which it had not sent.
    #[test]
    fn hits_are_in_the_order_in_which_their_lines_begin() {
        let mut search = LineSearch::new(Regex::new("x").unwrap(), None, LineMark::default());
        for record in
            records(&[(false, b"x out".to_vec()), (true, b"x err\n".to_vec()), (false, b"\n".to_vec())])
        {
            search.add(&record);
        }
        let positions: Vec<u64> = search.take_hits().iter().map(|hit| hit.position).collect();
        assert_eq!(positions, [0, 5]);
    }

    #[test]
    fn enough_hits_end_a_part_within_a_record() {
        let text = "x\n".repeat(1_700) + "open";
        let [record] = &records(&[(false, text.into_bytes())])[..] else { panic!("one record") };
        let mut search = LineSearch::new(Regex::new("x|open").unwrap(), None, LineMark::default());
        let (mut numbers, mut rest) = (Vec::new(), Some(record.clone()));
        while let Some(record) = rest.take() {
            let position = search.add(&record);
            let hits = search.take_hits();
            assert!(hits.len() <= HITS_AT_ONCE.0, "{} hits at once", hits.len());
            numbers.extend(hits.iter().map(|hit| (hit.line, hit.position)));
            rest = record.from_position(position);
        }
        search.end_open(OutputStream::Stdout);
        numbers.extend(search.take_hits().iter().map(|hit| (hit.line, hit.position)));
        assert_eq!(numbers, (0..1_701).map(|at| (at + 1, 2 * at)).collect::<Vec<_>>());
    }

    #[test]
    fn a_hit_of_a_long_line_has_the_text_around_its_match() {
        let mut line = vec![b'x'; 200_000];
        line[150_000..150_006].copy_from_slice(b"needle");
        line.push(b'\n');
        let mut search = LineSearch::new(Regex::new("needle").unwrap(), None, LineMark::default());
        for record in records(&[(false, b"first\n".to_vec()), (false, line)]) {
            search.add(&record);
        }
        let [hit] = &search.hits[..] else { panic!("{:?}", search.hits) };
        assert_eq!((hit.line, hit.position), (2 + 2, 6 + 2 * LINE_PART));
        assert_eq!(&hit.text[hit.matched.0..hit.matched.1], b"needle");
        assert!(hit.text.len() <= MAX_TEXT);
    }
}
