//! A window of lines, made of the records of a log.
//!
//! A line appears where it begins, though its rest may follow much later, behind lines of the other stream. So the lines of
//! a window are complete only once its records were followed until none of them is open, or the log ends.

use sentinel_protocol::log::{DropReason, LogRecord, Stream};

use super::lines::{LINE_PART, LineMark};

/// Most bytes of the text of all lines in a window, as JSON; a window with more has fewer lines. The answer with them is
/// about as large: a client may have only so many bytes of answers that it has not read.
const MAX_TEXT: usize = 4 << 20;

/// Memory of a line or gap besides its text, and where it waits, bytes; about.
pub const ITEM_COST: usize = 192;

/// Most UTF-8 bytes of a character behind its first one.
const MAX_CONTINUATION: u64 = 3;

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// Its end is not there yet.
    Open,
    /// It ended with a newline, or where output was dropped.
    Ended,
    /// It is longer than [`LINE_PART`]; the rest is another line.
    Continued,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// Position of its first byte.
    pub position: u64,
    /// Its stream.
    pub stream: Stream,
    /// When its first byte was written, by the node's clock, microseconds since the Unix epoch; 0 if unknown.
    pub at_micros: i64,
    /// Its bytes, without the newline.
    pub text: Vec<u8>,
    /// Whether it continues the previous line of its stream, which was too long.
    pub continues: bool,
    /// How it stands.
    pub state: LineState,
}

/// What stands in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowItem {
    /// A line.
    Line(Line),
    /// Output that was dropped here.
    Gap {
        /// Position of the first byte.
        position: u64,
        /// Bytes that are missing.
        len: u64,
        /// The stream they belong to.
        stream: Stream,
        /// When the first were dropped, by the node's clock, microseconds since the Unix epoch; 0 if unknown.
        at_micros: i64,
        /// Why they are missing.
        reason: DropReason,
    },
}

impl WindowItem {
    /// Position of its first byte.
    pub fn position(&self) -> u64 {
        match self {
            Self::Line(line) => line.position,
            Self::Gap { position, .. } => *position,
        }
    }

    /// When it was written or dropped, by the node's clock, microseconds since the Unix epoch; 0 if unknown.
    pub fn at_micros(&self) -> i64 {
        match self {
            Self::Line(Line { at_micros, .. }) | Self::Gap { at_micros, .. } => *at_micros,
        }
    }

    /// Bytes that its text takes as JSON, which are at least those that it takes in memory.
    pub fn size(&self) -> usize {
        match self {
            Self::Line(line) => json_size(&line.text),
            Self::Gap { .. } => 0,
        }
    }
}

/// Bytes of text as JSON (RFC 8259, section 7): a control character takes up to six, and what is not UTF-8 is replaced by
/// U+FFFD.
fn json_size(text: &[u8]) -> usize {
    let escaped = |byte: u8| match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    let chunks = text.utf8_chunks();
    chunks.map(|chunk| chunk.valid().bytes().map(escaped).sum::<usize>() + chunk.invalid().len() * 3).sum()
}

/// The first line of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstLine {
    /// The one with this number, from 1.
    Number(u64),
    /// The one with this number among the lines of its stream.
    OfStream(u64),
}

/// Which lines a window has.
#[derive(Debug, Clone, Copy)]
pub struct WindowRange {
    /// The first line.
    pub first: FirstLine,
    /// Most lines.
    pub count: usize,
    /// Only lines of this stream. Their numbers are those of the whole log.
    pub stream: Option<Stream>,
}

/// A window that is being filled.
#[derive(Debug)]
pub struct LineWindow {
    range: WindowRange,
    /// Most bytes of text, as JSON.
    most_text: usize,
    mark: LineMark,
    items: Vec<WindowItem>,
    lines: usize,
    text: usize,
    /// The first line that had no room.
    beyond: Option<(u64, u64)>,
    /// For each stream, the item of the line that is open.
    open: [Option<usize>; 2],
    /// For each stream, the item of the part before the one that is open.
    previous: [Option<usize>; 2],
    /// For each stream, whether the line that is open has changed since changes were taken.
    has_changed: [bool; 2],
}

impl LineWindow {
    /// An empty window; records follow from the position of `mark` on, which must not lie behind the first line.
    pub fn new(range: WindowRange, mark: LineMark) -> Self {
        Self {
            range,
            most_text: MAX_TEXT,
            mark,
            items: Vec::new(),
            lines: 0,
            text: 0,
            beyond: None,
            open: [None; 2],
            previous: [None; 2],
            has_changed: [false; 2],
        }
    }

    /// A window without an end, for a reader that takes its lines as they come, and bounds what is held by that.
    pub fn unbounded(first: FirstLine, stream: Option<Stream>, mark: LineMark) -> Self {
        let range = WindowRange { first, count: usize::MAX, stream };
        Self { most_text: usize::MAX, ..Self::new(range, mark) }
    }

    /// The lines before the records that follow.
    pub fn mark(&self) -> LineMark {
        self.mark
    }

    /// Whether it is full and none of its lines is open.
    pub fn is_complete(&self) -> bool {
        self.beyond.is_some() && self.open == [None; 2]
    }

    /// Number and position of the first line behind the window, once one has begun.
    pub fn beyond(&self) -> Option<(u64, u64)> {
        self.beyond
    }

    /// What it has.
    pub fn into_items(self) -> Vec<WindowItem> {
        self.items
    }

    /// The lines that are new or have changed since the last call, for a reader that follows. An open line is there again
    /// with each change.
    pub fn take_changed(&mut self) -> Vec<WindowItem> {
        let mut changed = Vec::new();
        let mut kept = Vec::new();
        let mut open = [None; 2];
        for (at, item) in std::mem::take(&mut self.items).into_iter().enumerate() {
            match (0..2).find(|slot| self.open[*slot] == Some(at)) {
                Some(slot) => {
                    open[slot] = Some(kept.len());
                    kept.push(item.clone());
                    if std::mem::take(&mut self.has_changed[slot]) {
                        changed.push(item);
                    }
                }
                None => changed.push(item),
            }
        }
        (self.items, self.open, self.previous) = (kept, open, [None; 2]);
        (self.text, self.lines) = (0, 0);
        changed
    }

    /// The lines before the first one that is open; each line once.
    pub fn take_settled(&mut self) -> Vec<WindowItem> {
        let settled = self.open.iter().flatten().copied().min().unwrap_or(self.items.len());
        if settled == 0 {
            return Vec::new();
        }
        let rest = self.items.split_off(settled);
        let taken = std::mem::replace(&mut self.items, rest);
        self.open = self.open.map(|at| at.map(|at| at - settled));
        self.previous = self.previous.map(|at| at?.checked_sub(settled));
        let is_line = |item: &&WindowItem| matches!(item, WindowItem::Line(_));
        self.lines = self.items.iter().filter(is_line).count();
        self.text = self.items.iter().map(WindowItem::size).sum();
        taken
    }

    /// Memory of all that it has, bytes; about. Empty lines cost something too.
    pub fn cost(&self) -> usize {
        self.text + self.items.len() * ITEM_COST
    }

    /// Position of the first line or gap that begins at or behind a position.
    pub fn first_from(&self, position: u64) -> Option<u64> {
        self.items.iter().map(WindowItem::position).find(|begin| *begin >= position)
    }

    /// Position of the first line that is open.
    pub fn first_open(&self) -> Option<u64> {
        let position = |at: &usize| match self.items.get(*at)? {
            WindowItem::Line(line) => Some(line.position),
            WindowItem::Gap { .. } => None,
        };
        self.open.iter().flatten().filter_map(position).min()
    }

    /// Adds the record that follows.
    pub fn add(&mut self, record: &LogRecord) {
        let head = &record.head;
        if let Some(reason) = head.dropped {
            self.gap(record, reason);
            return;
        }
        let mut position = head.position;
        let mut rest = &record.data[..];
        while !rest.is_empty() {
            let newline = memchr::memchr(b'\n', rest);
            let mut content = &rest[..newline.unwrap_or(rest.len())];
            while !content.is_empty() {
                let open = self.mark.of(head.stream).open;
                let room = usize::try_from(LINE_PART - open % LINE_PART).unwrap_or(usize::MAX);
                let (part, more) = content.split_at(content.len().min(room));
                self.bytes(head.stream, position, head.at_micros, part);
                position += part.len() as u64;
                content = more;
            }
            match newline {
                Some(at) => {
                    self.newline(head.stream, position, head.at_micros);
                    position += 1;
                    rest = &rest[at + 1..];
                }
                None => rest = &[],
            }
        }
    }

    fn bytes(&mut self, stream: Stream, position: u64, at_micros: i64, mut bytes: &[u8]) {
        let mark = self.mark.of(stream);
        let open = mark.open;
        mark.open += bytes.len() as u64;
        let is_new = open.is_multiple_of(LINE_PART);
        if is_new {
            mark.lines += 1;
            self.begin(stream, position, at_micros, open > 0);
        }
        if open >= LINE_PART && open % LINE_PART < MAX_CONTINUATION {
            bytes = self.complete_character(stream, (open % LINE_PART) as usize, bytes);
        }
        if let Some(WindowItem::Line(line)) = self.open[slot(stream)].and_then(|at| self.items.get_mut(at)) {
            line.text.extend_from_slice(bytes);
            self.text += json_size(bytes);
            self.has_changed[slot(stream)] = true;
        }
    }

    /// A character that crosses the end of a part belongs to the part in which it begins.
    fn complete_character<'a>(&mut self, stream: Stream, seen: usize, bytes: &'a [u8]) -> &'a [u8] {
        let is_begun = self.open[slot(stream)]
            .and_then(|at| self.items.get(at))
            .is_some_and(|item| matches!(item, WindowItem::Line(line) if !line.text.is_empty()));
        if is_begun {
            return bytes;
        }
        let limit = bytes.len().min(MAX_CONTINUATION as usize - seen);
        let len = bytes[..limit].iter().take_while(|byte| **byte & 0xC0 == 0x80).count();
        if let Some(WindowItem::Line(line)) =
            self.previous[slot(stream)].and_then(|at| self.items.get_mut(at))
        {
            line.text.extend_from_slice(&bytes[..len]);
        }
        &bytes[len..]
    }

    fn newline(&mut self, stream: Stream, position: u64, at_micros: i64) {
        let mark = self.mark.of(stream);
        if mark.open == 0 {
            mark.lines += 1;
            self.begin(stream, position, at_micros, false);
        }
        self.end(stream);
    }

    fn end(&mut self, stream: Stream) {
        self.mark.of(stream).open = 0;
        self.previous[slot(stream)] = None;
        self.close(stream, LineState::Ended);
    }

    fn close(&mut self, stream: Stream, state: LineState) {
        if let Some(WindowItem::Line(line)) =
            self.open[slot(stream)].take().and_then(|at| self.items.get_mut(at))
        {
            line.state = state;
        }
    }

    /// A line begins; it is the last that was counted.
    fn begin(&mut self, stream: Stream, position: u64, at_micros: i64, continues: bool) {
        if continues {
            self.previous[slot(stream)] = self.open[slot(stream)];
            self.close(stream, LineState::Continued);
        }
        let number = self.mark.lines(None);
        let is_wanted = self.is_reached(Some(stream)) && self.is_shown(stream);
        if !is_wanted || self.beyond.is_some() {
            return;
        }
        if self.lines >= self.range.count || self.text >= self.most_text {
            self.beyond = Some((number, position));
            return;
        }
        self.lines += 1;
        self.open[slot(stream)] = Some(self.items.len());
        self.has_changed[slot(stream)] = true;
        self.items.push(WindowItem::Line(Line {
            number,
            position,
            stream,
            at_micros,
            text: Vec::new(),
            continues,
            state: LineState::Open,
        }));
    }

    fn gap(&mut self, record: &LogRecord, reason: DropReason) {
        let head = &record.head;
        self.end(head.stream);
        // One before the first line belongs to the window before, unless there is none.
        let mut next = self.mark;
        next.of(head.stream).lines += 1;
        let is_inside = self.lines > 0 || self.reaches(next, Some(head.stream));
        if !self.is_shown(head.stream) || !is_inside || self.beyond.is_some() {
            return;
        }
        if let Some(WindowItem::Gap { position, len, stream, reason: last, .. }) = self.items.last_mut()
            && (*position + *len, *stream, *last) == (head.position, head.stream, reason)
        {
            *len += head.len;
            return;
        }
        self.items.push(WindowItem::Gap {
            position: head.position,
            len: head.len,
            stream: head.stream,
            at_micros: head.at_micros,
            reason,
        });
    }
}

impl LineWindow {
    fn is_shown(&self, stream: Stream) -> bool {
        self.range.stream.is_none_or(|only| only == stream)
    }

    /// Whether the last line that began, of this stream, is the first of the window or a later one.
    fn is_reached(&self, stream: Option<Stream>) -> bool {
        self.reaches(self.mark, stream)
    }

    fn reaches(&self, mark: LineMark, stream: Option<Stream>) -> bool {
        match self.range.first {
            FirstLine::Number(first) => mark.lines(None) >= first,
            FirstLine::OfStream(first) => mark.lines(stream) >= first,
        }
    }
}

fn slot(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}
