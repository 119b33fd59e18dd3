//! Lines that change until they have ended, each written once.

use std::collections::BTreeMap;

use sentinel_api::view::{LineItemView, MergedItemView};
use sentinel_protocol::log::Stream;

/// A stream of an Attempt: its node, its number, and whether it is standard error.
type Key = (String, u32, bool);

/// The lines that have not ended, and where each stream is.
#[derive(Debug, Default)]
pub(super) struct Settling {
    open: BTreeMap<Key, MergedItemView>,
    /// Number of the last line of each stream that was returned.
    returned: BTreeMap<Key, u64>,
}

impl Settling {
    /// Adds lines of an event; returns those that have ended, and gaps, in order.
    pub(super) fn add(&mut self, items: Vec<MergedItemView>) -> Vec<MergedItemView> {
        let mut ended = Vec::new();
        for item in items {
            let (key, number, is_open) = match &item.item {
                LineItemView::Line(line) => (key(&item, line.stream), Some(line.line), line.open),
                LineItemView::Gap(gap) => (key(&item, gap.stream), None, false),
            };
            // Lines of a stream end in order, so one of before was sent again.
            if number.is_some() && number <= self.returned.get(&key).copied() {
                continue;
            }
            let earlier = self.open.remove(&key).filter(|earlier| number_of(earlier) != number);
            ended.extend(earlier.map(|earlier| self.returning(&key, earlier)));
            if is_open {
                self.open.insert(key, item);
            } else {
                ended.push(self.returning(&key, item));
            }
        }
        ended
    }

    /// The lines that never end, at the end of the log.
    pub(super) fn finish(&mut self) -> Vec<MergedItemView> {
        std::mem::take(&mut self.open).into_values().collect()
    }

    fn returning(&mut self, key: &Key, item: MergedItemView) -> MergedItemView {
        if let Some(number) = number_of(&item) {
            self.returned.insert(key.clone(), number);
        }
        item
    }
}

fn key(item: &MergedItemView, stream: Stream) -> Key {
    (item.node.clone(), item.attempt, stream == Stream::Stderr)
}

fn number_of(item: &MergedItemView) -> Option<u64> {
    match &item.item {
        LineItemView::Line(line) => Some(line.line),
        LineItemView::Gap(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(node: &str, stream: &str, line: u64, text: &str, open: bool) -> MergedItemView {
        let value = json!({
            "node": node, "attempt": 1, "line": line, "position": line * 10, "stream": stream, "atMicros": 0,
            "text": text, "open": open,
        });
        serde_json::from_value(value).unwrap()
    }

    fn texts(items: &[MergedItemView]) -> Vec<&str> {
        let text = |item: &MergedItemView| match &item.item {
            LineItemView::Line(line) => line.text.clone().leak() as &str,
            LineItemView::Gap(_) => "gap",
        };
        items.iter().map(text).collect()
    }

    #[test]
    fn a_line_is_returned_once_it_has_ended() {
        let mut settling = Settling::default();
        let first = [
            line("a", "stdout", 1, "50%", true),
            line("a", "stderr", 2, "oops", false),
            line("b", "stdout", 1, "x", true),
        ];
        assert_eq!(texts(&settling.add(first.to_vec())), ["oops"]);
        assert_eq!(texts(&settling.add(vec![line("a", "stdout", 1, "100%", false)])), ["100%"]);
        assert_eq!(texts(&settling.finish()), ["x"]);
    }

    #[test]
    fn a_line_that_is_sent_again_is_returned_once() {
        let mut settling = Settling::default();
        let sent = vec![line("a", "stdout", 1, "one", false), line("a", "stdout", 2, "tw", true)];
        assert_eq!(texts(&settling.add(sent.clone())), ["one"]);
        assert_eq!(texts(&settling.add(sent)), [""; 0]);
        assert_eq!(texts(&settling.add(vec![line("a", "stdout", 2, "two", false)])), ["two"]);
    }

    #[test]
    fn a_line_that_is_not_continued_is_returned_before_the_next_of_its_stream() {
        let mut settling = Settling::default();
        settling.add(vec![line("a", "stdout", 1, "cut", true)]);
        let gap = json!({"node": "a", "attempt": 1, "position": 13, "stream": "stdout", "dropped": 5, "reason": "?"});
        let gap: MergedItemView = serde_json::from_value(gap).unwrap();
        assert_eq!(texts(&settling.add(vec![gap])), ["cut", "gap"]);
        settling.add(vec![line("a", "stdout", 2, "b", true)]);
        assert_eq!(texts(&settling.add(vec![line("a", "stdout", 4, "c", false)])), ["b", "c"]);
    }
}
