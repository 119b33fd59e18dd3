//! Which nodes a Run targets. Decided once, when the Run starts; the target list is persisted then.

use std::collections::{BTreeMap, BTreeSet};

use sentinel_protocol::ids::NodeName;

use crate::plan::{ControlPlane, LabelOperator, LabelSelector, Select, TargetRule};

/// Label keys that mark a control plane node.
///
/// Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane>;
/// `master` is its name before Kubernetes 1.20.
pub const CONTROL_PLANE_LABELS: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// The part of a Node that targets are chosen by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeFacts {
    /// Whether the node belongs to the control plane.
    pub fn is_control_plane(&self) -> bool {
        CONTROL_PLANE_LABELS.iter().any(|label| self.labels.contains_key(*label))
    }
}

/// The targets of a Run, in name order.
///
/// A node listed by name is a target even if no such Node exists (the Run then reports it as unreachable), and even if it
/// is a control plane node.
pub fn choose(rule: &TargetRule, nodes: &BTreeMap<NodeName, NodeFacts>) -> Vec<NodeName> {
    let excluded: BTreeSet<&NodeName> = rule.exclude.iter().collect();
    let protected =
        |facts: &NodeFacts| rule.control_plane == ControlPlane::Exclude && facts.is_control_plane();
    let among = |matches: &dyn Fn(&NodeFacts) -> bool| -> BTreeSet<NodeName> {
        nodes
            .iter()
            .filter(|(_, facts)| matches(facts) && !protected(facts))
            .map(|(name, _)| name.clone())
            .collect()
    };
    let chosen = match &rule.select {
        Select::All => among(&|_| true),
        Select::Labels(selector) => among(&|facts| matches(selector, &facts.labels)),
        Select::Names(names) => names.iter().cloned().collect(),
    };
    chosen.into_iter().filter(|name| !excluded.contains(name)).collect()
}

/// Whether the labels satisfy all requirements of the selector.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                LabelOperator::In(values) => value.is_some_and(|v| values.contains(v)),
                LabelOperator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Requirement;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn cluster() -> BTreeMap<NodeName, NodeFacts> {
        let node = |labels: &[(&str, &str)]| NodeFacts {
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        BTreeMap::from([
            (name("web-1"), node(&[("pool", "web"), ("zone", "a")])),
            (name("web-2"), node(&[("pool", "web")])),
            (name("db-1"), node(&[("pool", "db"), ("zone", "b")])),
            (name("cp-1"), node(&[("pool", "web"), ("node-role.kubernetes.io/control-plane", "")])),
        ])
    }

    fn check(select: Select, exclude: &[&str], control_plane: ControlPlane, expected: &[&str]) {
        let rule = TargetRule { select, exclude: exclude.iter().map(|n| name(n)).collect(), control_plane };
        let chosen = choose(&rule, &cluster());
        assert_eq!(chosen.iter().map(NodeName::as_str).collect::<Vec<_>>(), expected);
    }

    fn labels(match_labels: &[(&str, &str)], match_expressions: Vec<Requirement>) -> Select {
        Select::Labels(LabelSelector {
            match_labels: match_labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            match_expressions,
        })
    }

    fn requirement(key: &str, operator: LabelOperator) -> Vec<Requirement> {
        vec![Requirement { key: key.to_owned(), operator }]
    }

    #[test]
    fn all_means_every_node_but_the_control_plane() {
        check(Select::All, &[], ControlPlane::Exclude, &["db-1", "web-1", "web-2"]);
        check(Select::All, &["web-2"], ControlPlane::Include, &["cp-1", "db-1", "web-1"]);
    }

    #[test]
    fn labels_match_as_in_kubernetes() {
        check(labels(&[("pool", "web")], vec![]), &[], ControlPlane::Exclude, &["web-1", "web-2"]);
        let zone = |operator| labels(&[], requirement("zone", operator));
        check(zone(LabelOperator::Exists), &[], ControlPlane::Exclude, &["db-1", "web-1"]);
        check(zone(LabelOperator::DoesNotExist), &[], ControlPlane::Exclude, &["web-2"]);
        check(zone(LabelOperator::In(vec!["a".into()])), &[], ControlPlane::Exclude, &["web-1"]);
        check(zone(LabelOperator::NotIn(vec!["a".into()])), &[], ControlPlane::Exclude, &["db-1", "web-2"]);
    }

    #[test]
    fn named_nodes_are_targets_even_if_unknown_or_control_plane() {
        let names = Select::Names(vec![name("nowhere"), name("cp-1"), name("cp-1")]);
        check(names, &[], ControlPlane::Exclude, &["cp-1", "nowhere"]);
    }

    #[test]
    fn selector_without_matches_gives_no_targets() {
        check(labels(&[("pool", "gpu")], vec![]), &[], ControlPlane::Exclude, &[]);
    }
}
