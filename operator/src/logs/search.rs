//! Searches a log for lines that match a regular expression.
//!
//! The expression is matched against whole records where they hold whole lines, which is much faster than line by line; only
//! lines that are divided between records are put together. A line is a hit once, with its first match.

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use regex::bytes::Regex;
use sentinel_core::stream::lines::{LINE_PART, LineCount, LineMark};
use sentinel_core::stream::tail::Follow;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};

use super::reader::{LogReader, ReadError};

/// Output that is searched at a time, bytes: little where there are many hits, and more from part to part where there are
/// few.
const BATCH: (usize, usize) = (256 << 10, 4 << 20);

/// Hits, and bytes of their lines, behind which a part of a search ends before it has searched all of its output.
const HITS_AT_ONCE: (usize, usize) = (500, 64 << 10);

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

/// What a part of a search found.
#[derive(Debug)]
pub struct SearchUpdate {
    /// Hits, in the order in which their lines begin.
    pub hits: Vec<Hit>,
    /// Everything before this position was searched; another search can continue here.
    pub position: u64,
}

/// A line that is not complete yet.
#[derive(Debug, Default)]
struct OpenLine {
    text: Vec<u8>,
    number: u64,
    position: u64,
    at_micros: i64,
}

/// A search in progress.
#[derive(Debug)]
struct LineSearch {
    pattern: Regex,
    stream: Option<OutputStream>,
    mark: LineMark,
    open: [Option<OpenLine>; 2],
    hits: Vec<Hit>,
    /// Bytes of their lines.
    bytes: usize,
    /// Bytes of the next part.
    batch: usize,
}

impl LineSearch {
    fn new(pattern: Regex, stream: Option<OutputStream>, mark: LineMark) -> Self {
        Self { pattern, stream, mark, open: [None, None], hits: Vec::new(), bytes: 0, batch: BATCH.0 }
    }

    /// The hits since the last call, in the order in which their lines begin: a reader that stops at one continues behind
    /// it and misses none of the others.
    fn take_hits(&mut self) -> Vec<Hit> {
        self.batch = if self.is_full() { BATCH.0 } else { BATCH.1.min(self.batch * 4) };
        let mut hits = std::mem::take(&mut self.hits);
        self.bytes = 0;
        hits.sort_by_key(|hit| hit.position);
        hits
    }

    /// Whether there are so many hits that the reader is to have them first.
    fn is_full(&self) -> bool {
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
        if before.of_stream(stream).open > 0 {
            let newline = memchr::memchr(b'\n', &record.data);
            from = newline.map_or(record.data.len(), |at| at + 1);
            // Without a known beginning, it precedes the search: the line is a hit of an earlier part.
            if self.open[slot(stream)].is_some() {
                self.extend_open(record, before, 0..newline.unwrap_or(from));
            }
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
                number: number_at(record, before, at),
                position: record.head.position + at as u64,
                at_micros: record.head.at_micros,
            });
            let room = (LINE_PART as usize).saturating_sub(line.text.len());
            let taken = room.min(range.end - at);
            line.text.extend_from_slice(&record.data[at..at + taken]);
            at += taken;
            if at < range.end {
                self.end_open(stream);
            }
        }
    }

    fn end_open(&mut self, stream: OutputStream) {
        let Some(line) = self.open[slot(stream)].take() else { return };
        if let Some(found) = self.pattern.find(&line.text) {
            let range = (found.start(), found.end());
            let OpenLine { text, number, position, at_micros } = line;
            self.found(hit(&text, range, number, position, stream, at_micros));
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

/// The number of the line that begins at an offset of a record.
fn number_at(record: &LogRecord, before: LineMark, at: usize) -> u64 {
    before.after(&LineCount::of([&part(record, 0..at)])).lines(None) + 1
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

impl LogReader {
    /// Searches a log from a position on, as far as it exists now. Each item is a part of it, with its hits. An error is the
    /// last item. Only some searches run at a time; others wait.
    ///
    /// # Errors
    /// Those of reading, before the first part.
    pub async fn search(
        &self,
        attempt: &AttemptId,
        from: u64,
        stream: Option<OutputStream>,
        pattern: Regex,
    ) -> Result<BoxStream<'static, Result<SearchUpdate, ReadError>>, ReadError> {
        let mark = self.line_mark(attempt, from).await?;
        let (reader, attempt) = (self.clone(), attempt.clone());
        let search = Some(LineSearch::new(pattern, stream, mark));
        Ok(unfold((search, from), move |(search, position)| {
            let (reader, attempt) = (reader.clone(), attempt.clone());
            async move {
                match reader.search_part(attempt, search?, position).await? {
                    Ok(part) => Some((Ok(part.update), (part.more, part.position))),
                    Err(error) => Some((Err(error), (None, position))),
                }
            }
        })
        .boxed())
    }

    /// Searches some output from a position on. Nothing of it is held when this returns, however long the next part is not
    /// asked for.
    async fn search_part(
        &self,
        attempt: AttemptId,
        mut search: LineSearch,
        from: u64,
    ) -> Option<Result<SearchPart, ReadError>> {
        // Before anything is read: those that wait hold nothing.
        let permit = self.search_permit().await;
        let mut records = Box::pin(self.open_briefly(attempt, from, Follow::No));
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < search.batch
            && let Some(record) = records.next().await
        {
            match record {
                Ok(record) => {
                    bytes += record.data.len();
                    batch.push(record);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        let searched = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let end = batch.last().map_or(from, LogRecord::end);
            let mut position = from;
            for record in &batch {
                position = search.add(record);
                if search.is_full() {
                    break;
                }
            }
            let is_last = bytes < search.batch && position == end;
            if is_last {
                search.end_open(OutputStream::Stdout);
                search.end_open(OutputStream::Stderr);
            }
            (search, position, is_last)
        });
        // The runtime is shutting down, or an invariant is broken; either way there is nothing to send.
        let (mut search, position, is_last) = searched.await.ok()?;
        // A line that is open is searched again by a search that continues.
        let open = search.open.iter().flatten().map(|line| line.position).min();
        let update = SearchUpdate { hits: search.take_hits(), position: open.unwrap_or(position) };
        Some(Ok(SearchPart { update, more: (!is_last).then_some(search), position }))
    }
}

/// A part of a search, and how it continues.
struct SearchPart {
    update: SearchUpdate,
    /// `None` at the end.
    more: Option<LineSearch>,
    /// Where to read on.
    position: u64,
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
        use sentinel_core::stream::window::{FirstLine, LineWindow, WindowItem, WindowRange};
        let range = WindowRange { first: FirstLine::Number(1), count: usize::MAX, stream: None };
        let mut window = LineWindow::new(range, LineMark::default());
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
