//! Which nodes keep a Run waiting, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sentinel_core::reconcile::run::TargetState;

use crate::view::Node;

/// How long a node must wait for the same reason before that is reported; most nodes start sooner.
const REPORTED_AFTER: Duration = Duration::from_secs(2);

/// The waiting nodes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The reason of each, and since when.
    nodes: BTreeMap<String, (String, Instant)>,
    /// The last reported reason of each node.
    reported: BTreeMap<String, String>,
}

impl Waiting {
    /// Updates the nodes from a status; `only` these, or all if it is empty.
    pub(super) fn observe(&mut self, listed: &[Node], only: &BTreeSet<String>, now: Instant) {
        let previous = std::mem::take(&mut self.nodes);
        for node in listed {
            let wanted = only.is_empty() || only.contains(&node.name);
            let waits =
                TargetState::from_status(&node.state) == TargetState::Waiting && !node.message.is_empty();
            if wanted && waits {
                let since = previous.get(&node.name).filter(|(message, _)| *message == node.message);
                let since = since.map_or(now, |(_, since)| *since);
                self.nodes.insert(node.name.clone(), (node.message.clone(), since));
            }
        }
    }

    /// When the next report is due, if nothing changes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.unreported().map(|(_, _, since)| since + REPORTED_AFTER).min()
    }

    /// The reports that are due: nodes that wait for the same reason, and the reason.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(Vec<String>, String)> {
        let due: BTreeSet<&str> = self
            .unreported()
            .filter(|(.., since)| *since + REPORTED_AFTER <= now)
            .map(|(_, message, _)| message)
            .collect();
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // Includes nodes that have waited less for the same reason, so that they need no report of their own.
        for (node, message, _) in self.unreported().filter(|(_, message, _)| due.contains(message)) {
            groups.entry(message.to_owned()).or_default().push(node.to_owned());
        }
        for (message, nodes) in &groups {
            self.reported.extend(nodes.iter().map(|node| (node.clone(), message.clone())));
        }
        groups.into_iter().map(|(message, nodes)| (nodes, message)).collect()
    }

    fn unreported(&self) -> impl Iterator<Item = (&str, &str, Instant)> {
        let all = self.nodes.iter().map(|(node, (message, since))| (node.as_str(), message.as_str(), *since));
        all.filter(|(node, message, _)| self.reported.get(*node).is_none_or(|reported| reported != message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str, message: &str) -> Node {
        let (name, state, message) = (name.to_owned(), state.to_owned(), message.to_owned());
        Node { name, state, message, ..Node::default() }
    }

    fn busy(name: &str) -> Node {
        node(name, "WaitingForNode", "the node is busy")
    }

    #[test]
    fn groups_nodes_by_reason_and_reports_each_once() {
        let (start, all) = (Instant::now(), BTreeSet::new());
        let second = Duration::from_secs(1);
        let mut waiting = Waiting::default();
        assert_eq!(waiting.due(), None);
        waiting.observe(&[busy("a"), node("c", "Running", ""), node("d", "Pending", "")], &all, start);
        waiting.observe(&[busy("a"), busy("b")], &all, start + second);
        assert_eq!(waiting.due(), Some(start + second * 2));
        assert!(waiting.take(start + second).is_empty());
        let expected = (vec!["a".to_owned(), "b".to_owned()], "the node is busy".to_owned());
        assert_eq!(waiting.take(start + second * 2), [expected]);
        waiting.observe(&[busy("a"), busy("b")], &all, start + second * 9);
        assert_eq!(waiting.due(), None);
        // Another reason.
        let full = node("a", "WaitingForNode", "its disk is full");
        waiting.observe(&[full, busy("b")], &all, start + second * 10);
        assert_eq!(waiting.due(), Some(start + second * 12));
        assert_eq!(waiting.take(start + second * 12).len(), 1);
    }

    #[test]
    fn ignores_nodes_that_start_in_time_or_are_not_selected() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        waiting.observe(&[busy("a"), busy("b")], &BTreeSet::from(["a".to_owned()]), start);
        assert!(waiting.due().is_some());
        waiting.observe(&[node("a", "Running", ""), busy("b")], &BTreeSet::from(["a".to_owned()]), start);
        assert_eq!(waiting.due(), None);
    }
}
