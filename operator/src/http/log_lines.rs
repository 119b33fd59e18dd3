//! The lines of one log as JSON, one object a line, while its records are read.

use bytes::Bytes;
use sentinel_core::stream::window::{FirstLine, LineState, LineWindow, WindowItem};
use sentinel_protocol::log::{LogRecord, Stream};

use super::line_view::view;
use crate::logs::KnownLines;

/// Bytes of lines that wait for the end of an earlier line of the other stream.
const WAITING: usize = 1 << 20;

/// Makes lines of records.
#[derive(Debug)]
pub(super) struct LineWriter {
    window: LineWindow,
    /// Lines that begin before it are only counted.
    from: u64,
    /// Whether lines do not wait for an earlier one that is open.
    is_live: bool,
}

impl LineWriter {
    /// The lines from a position on, of records that begin behind those that are known.
    pub(super) fn new(known: KnownLines, from: u64, stream: Option<Stream>, is_live: bool) -> Self {
        let first = FirstLine::Number(known.mark.lines(None) + 1);
        Self { window: LineWindow::unbounded(first, stream, known.mark), from, is_live }
    }

    /// The lines that have ended with this record.
    pub(super) fn write(&mut self, record: &LogRecord) -> Bytes {
        self.window.add(record);
        let items = if self.is_live || self.window.cost() > WAITING {
            self.window.take_changed()
        } else {
            self.window.take_settled()
        };
        let is_open =
            |item: &WindowItem| matches!(item, WindowItem::Line(line) if line.state == LineState::Open);
        json(items.into_iter().filter(|item| item.position() >= self.from && !is_open(item)))
    }

    /// The lines that have not ended.
    pub(super) fn finish(self) -> Bytes {
        json(self.window.into_items().into_iter().filter(|item| item.position() >= self.from))
    }
}

fn json(items: impl Iterator<Item = WindowItem>) -> Bytes {
    let mut text = Vec::new();
    for item in items {
        text.extend(serde_json::to_vec(&view(item)).unwrap_or_default());
        text.push(b'\n');
    }
    text.into()
}
