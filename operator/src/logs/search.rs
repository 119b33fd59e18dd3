//! Searches a log for lines that match a regular expression.
//!
//! The expression is matched against whole records where they hold whole lines, which is much faster than line by line; only
//! lines that are divided between records are put together. A line is a hit once, with its first match.

use std::ops::Range;

use futures_util::stream::{BoxStream, iter, unfold};
use futures_util::{Stream, StreamExt as _};
use regex::bytes::Regex;
use sentinel_core::stream::lines::{LINE_PART, LineCount, LineMark};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogRecord, Stream as OutputStream};
use tokio_util::task::AbortOnDropHandle;

use super::lines::KnownLines;
use super::reader::{LogReader, ReadError};
use crate::history::error::HistoryError;

/// Output that is searched at a time, bytes: little where there are many hits, and more from part to part where there are
/// few.
const BATCH: (usize, usize) = (256 << 10, 16 << 20);

/// Output that is read at a time, while what precedes it is searched, bytes.
const READ: usize = 1 << 20;

/// Parts of that size that are read at the same time.
const AT_ONCE: usize = 2;

/// Largest such part, bytes; where the checkpoints of a log are further apart, it is read piece by piece.
const MAX_PART: u64 = 4 << 20;

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

/// What a part of a search found.
#[derive(Debug)]
pub struct SearchUpdate {
    /// Hits, in the order in which their lines begin.
    pub hits: Vec<Hit>,
    /// Every line that begins before this position was searched; another search can continue here. Only the rest of a line
    /// that ends more than 16 MiB behind it is not found by another one.
    pub position: u64,
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
        let KnownLines { mark, position } = self.lines_known_before(attempt, from).await?;
        let (reader, attempt) = (self.clone(), attempt.clone());
        let search = Some(LineSearch::new(pattern, stream, mark));
        Ok(unfold((search, position), move |(search, position)| {
            let (reader, attempt) = (reader.clone(), attempt.clone());
            async move {
                let search = search?;
                let part = async move { reader.search_part(attempt, search, position).await };
                // A task of its own: a search whose client does not read holds no permit.
                let part = AbortOnDropHandle::new(tokio::spawn(part)).await;
                // The runtime is shutting down, or an invariant is broken; either way there is nothing to send.
                match part.ok().flatten()? {
                    Ok(mut part) => {
                        part.update.hits.retain(|hit| hit.position >= from);
                        Some((Ok(part.update), (part.more, part.position)))
                    }
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
        let search_bytes = search.batch;
        let mut records = match self.read_ahead(attempt, from, search_bytes as u64).await {
            Ok(records) => records.fuse(),
            Err(error) => return Some(Err(error)),
        };
        let (mut position, mut bytes) = (from, 0);
        let mut read = read_some(&mut records).await;
        let (unsearched, is_last) = loop {
            let batch = match read {
                Ok(batch) if batch.is_empty() => break (batch, true),
                Ok(batch) => batch,
                Err(error) => return Some(Err(error)),
            };
            bytes += batch.iter().map(|record| record.data.len()).sum::<usize>();
            let searching =
                tokio::task::spawn_blocking(move || (search.add_all(&batch, position), batch, search));
            let wants_more = bytes < search_bytes;
            let more = async { if wants_more { read_some(&mut records).await } else { Ok(Vec::new()) } };
            // What follows is read while this is searched.
            let (searched, more) = tokio::join!(searching, more);
            // The runtime is shutting down, or an invariant is broken; either way there is nothing to send.
            let (reached, batch, returned) = searched.ok()?;
            (position, search) = (reached, returned);
            if search.is_full() || !wants_more {
                break match more {
                    Ok(more) => (batch.into_iter().chain(more).collect(), false),
                    Err(error) => return Some(Err(error)),
                };
            }
            read = more;
        };
        let added = search.end_part(from, position, &unsearched, is_last);
        if !added.is_last
            && let Err(error) = search.read_rest(records).await
        {
            return Some(Err(error));
        }
        drop(permit);
        let Added { position, is_last } = added;
        let update = SearchUpdate { hits: search.take_hits(), position };
        Some(Ok(SearchPart { update, more: (!is_last).then_some(search), position }))
    }
}

impl LogReader {
    /// The records of a log as it is now, from a position on. Of so many bytes, some parts are read at the same time: to unpack
    /// the archive takes longer than to search it.
    async fn read_ahead(
        &self,
        attempt: AttemptId,
        from: u64,
        bytes: u64,
    ) -> Result<BoxStream<'static, Result<LogRecord, ReadError>>, ReadError> {
        let index = self.line_index(&attempt).await?;
        let (mut parts, mut end) = (Vec::new(), from);
        while end - from < bytes
            && let Some(next) = index.within(end, READ as u64).filter(|next| next - end <= MAX_PART)
        {
            parts.push(end..next);
            end = next;
        }
        let rest = self.open_briefly(attempt.clone(), end, READ as u64);
        let reader = self.clone();
        let read = move |part: Range<u64>| {
            let (reader, attempt, position) = (reader.clone(), attempt.clone(), part.start);
            let of = attempt.clone();
            let reading = tokio::spawn(async move { reader.read_part(of, part).await });
            let reading = AbortOnDropHandle::new(reading);
            async move {
                let source = HistoryError::Panicked { action: "read output" };
                reading.await.unwrap_or_else(|_| vec![Err(ReadError { attempt, position, source })])
            }
        };
        Ok(iter(parts).map(read).buffered(AT_ONCE).flat_map(iter).chain(rest).boxed())
    }

    async fn read_part(&self, attempt: AttemptId, part: Range<u64>) -> Vec<Result<LogRecord, ReadError>> {
        let mut records = Box::pin(self.open_briefly(attempt, part.start, part.end - part.start));
        let (mut read, mut at) = (Vec::new(), part.start);
        while at < part.end
            && let Some(record) = records.next().await
        {
            at = record.as_ref().map_or(part.end, LogRecord::end);
            // One that is not archived may reach into the next part.
            read.extend(record.map(|record| record.until_position(part.end)).transpose());
        }
        read
    }
}

/// Records of about [`READ`] bytes; none at the end of the log.
async fn read_some(
    records: &mut (impl Stream<Item = Result<LogRecord, ReadError>> + Unpin),
) -> Result<Vec<LogRecord>, ReadError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < READ
        && let Some(record) = records.next().await.transpose()?
    {
        bytes += record.data.len();
        batch.push(record);
    }
    Ok(batch)
}

/// What a part of a search came to.
struct Added {
    /// Where to read on.
    position: u64,
    /// Whether it is the end of the log.
    is_last: bool,
}

impl LineSearch {
    /// Adds records until there are enough hits. Returns the position up to which they were searched.
    fn add_all(&mut self, records: &[LogRecord], from: u64) -> u64 {
        let mut position = from;
        for record in records {
            position = self.add(record);
            if self.is_full() {
                break;
            }
        }
        position
    }

    /// Ends a part that was searched up to a position, and of which some more was read.
    fn end_part(&mut self, from: u64, position: u64, read: &[LogRecord], is_last: bool) -> Added {
        if is_last {
            self.end_open(OutputStream::Stdout);
            self.end_open(OutputStream::Stderr);
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
    async fn read_rest(
        &mut self,
        mut records: impl Stream<Item = Result<LogRecord, ReadError>> + Unpin,
    ) -> Result<(), ReadError> {
        let mut read = 0;
        while self.needs_rest() && read < REST_WITHIN {
            let Some(record) = records.next().await.transpose()? else {
                self.end_near();
                return Ok(());
            };
            read += record.head.len;
            self.add_rest(&record);
        }
        self.leave_far();
        Ok(())
    }

    /// The log ends behind the lines that are open.
    fn end_near(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if self.open[slot(stream)].as_ref().is_some_and(|line| !line.is_far) {
                self.end_open(stream);
            }
        }
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
