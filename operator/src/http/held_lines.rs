//! Lines of merged logs that had not ended when later ones of other logs had: at most one of each stream of each log.

use std::collections::BTreeMap;

use sentinel_protocol::ids::NodeName;

use crate::logs::merged::MergedItem;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HeldLines {
    /// By log, each with its number in the order in which they were held.
    lines: BTreeMap<(NodeName, u32), Vec<(u64, MergedItem)>>,
    held: u64,
    /// How many logs had ended when all lines were last asked about.
    logs_ended: usize,
}

impl HeldLines {
    /// Takes the next line, and writes in order those that have ended or never will.
    ///
    /// A held line changes when its log has another, or ends. So only the lines of that log are asked about, unless more
    /// logs have ended: with many nodes, asking about all at each line would take longer than all else.
    pub(super) fn add(
        &mut self,
        item: MergedItem,
        logs_ended: usize,
        is_final: impl Fn(&MergedItem) -> bool,
        mut write: impl FnMut(MergedItem),
    ) {
        let log = || (item.log.attempt.node.clone(), item.log.attempt.attempt);
        if !self.lines.is_empty() {
            if let Some(held) = self.lines.get_mut(&log()) {
                held.retain(|(_, held)| held.line() != item.line());
            }
            for ended in self.take_final((logs_ended == self.logs_ended).then(log), is_final_of(&is_final)) {
                write(ended);
            }
        }
        self.logs_ended = logs_ended;
        if is_final(&item) {
            write(item);
        } else {
            self.held += 1;
            self.lines.entry(log()).or_default().push((self.held, item));
        }
    }

    /// All of them, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = MergedItem> {
        in_order(std::mem::take(&mut self.lines).into_values().flatten().collect())
    }

    /// Those that have ended, of one log or of all.
    fn take_final(
        &mut self,
        log: Option<(NodeName, u32)>,
        is_final: impl Fn(&(u64, MergedItem)) -> bool,
    ) -> impl Iterator<Item = MergedItem> {
        let mut ended = Vec::new();
        match log {
            Some(log) => {
                if let Some(held) = self.lines.get_mut(&log) {
                    ended.extend(held.extract_if(.., |held| is_final(held)));
                    if held.is_empty() {
                        self.lines.remove(&log);
                    }
                }
            }
            None => self.lines.retain(|_, held| {
                ended.extend(held.extract_if(.., |held| is_final(held)));
                !held.is_empty()
            }),
        }
        in_order(ended)
    }
}

fn is_final_of(is_final: &impl Fn(&MergedItem) -> bool) -> impl Fn(&(u64, MergedItem)) -> bool {
    move |(_, held)| is_final(held)
}

fn in_order(mut lines: Vec<(u64, MergedItem)>) -> impl Iterator<Item = MergedItem> {
    lines.sort_unstable_by_key(|(number, _)| *number);
    lines.into_iter().map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use sentinel_core::stream::window::{Line, LineState, WindowItem};
    use sentinel_protocol::log::Stream;

    use super::*;
    use crate::logs::merged::MergedLog;

    fn line(node: &str, number: u64, state: LineState) -> MergedItem {
        let attempt = format!("u/1/{node}/1").parse().unwrap();
        let line = Line {
            number,
            position: number,
            stream: Stream::Stdout,
            at_micros: 0,
            text: Vec::new(),
            continues: false,
            state,
        };
        MergedItem {
            log: Arc::new(MergedLog { attempt, offset_micros: None }),
            item: WindowItem::Line(line),
            at_micros: 0,
            is_late: false,
        }
    }

    fn is_open(item: &MergedItem) -> bool {
        matches!(&item.item, WindowItem::Line(line) if line.state == LineState::Open)
    }

    /// For each line, each of the held ones was looked up among all logs.
    #[test]
    fn a_line_costs_no_more_beside_the_open_lines_of_many_nodes() {
        let (mut held, asked, mut written) = (HeldLines::default(), Cell::new(0), 0);
        let is_final = |item: &MergedItem| {
            asked.set(asked.get() + 1);
            !is_open(item)
        };
        let (nodes, lines) = (256, 1000);
        for node in 0..nodes {
            held.add(line(&format!("n-{node:03}"), 1, LineState::Open), 0, is_final, |_| written += 1);
        }
        for number in 0..lines {
            held.add(line("other", number as u64, LineState::Ended), 0, is_final, |_| written += 1);
        }
        assert_eq!((written, held.take().count()), (lines, nodes));
        assert!(asked.get() <= 2 * (nodes + lines), "asked {} times", asked.get());
    }

    #[test]
    fn lines_that_will_not_end_are_written_in_the_order_in_which_they_were_held() {
        let (mut held, over) = (HeldLines::default(), RefCell::new(BTreeSet::new()));
        let is_final = |item: &MergedItem| !is_open(item) || over.borrow().contains(&item.log.attempt.node);
        let mut written = Vec::new();
        let mut add = |item: MergedItem, over: usize| {
            held.add(item, over, is_final, |item| written.push(item.log.attempt.node.to_string()));
        };
        for node in ["b", "c", "a"] {
            add(line(node, 1, LineState::Open), 0);
        }
        over.borrow_mut().extend(["a", "b"].map(|node| NodeName::new(node).unwrap()));
        add(line("d", 1, LineState::Ended), 2);
        assert_eq!(written, ["b", "a", "d"]);
        assert_eq!(held.take().map(|item| item.log.attempt.node.to_string()).collect::<Vec<_>>(), ["c"]);
    }
}
