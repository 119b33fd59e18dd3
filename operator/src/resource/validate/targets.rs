//! `spec.targets`.

use std::collections::BTreeSet;

use sentinel_core::plan::{self, LabelSelector, Requirement, Select, TargetRule};
use sentinel_protocol::ids::NodeName;

use super::super::invalid::Problems;
use super::super::task;

const FIELD: &str = "spec.targets.nodeSelector";

/// Largest number of names in a list of nodes.
const MAX_NAMES: usize = 1000;

pub(super) fn targets(spec: &task::Targets, problems: &mut Problems) -> Option<TargetRule> {
    let exclude = names("spec.targets.exclude.nodeNames", &spec.exclude.node_names, problems);
    let given = usize::from(spec.node_selector.is_some())
        + usize::from(spec.node_names.is_some())
        + usize::from(spec.all);
    if given != 1 {
        let seen = if given == 0 { "it has none" } else { "it has more than one" };
        let allowed = format!("must have exactly one of nodeSelector, nodeNames and all: true; {seen}");
        problems.field("spec.targets", allowed);
        return None;
    }
    let select = match (&spec.node_selector, &spec.node_names) {
        (Some(selector), _) => Select::Labels(self::selector(FIELD, selector, problems)?),
        (_, Some(list)) if list.is_empty() => {
            problems.value("spec.targets.nodeNames", "", "must name at least one node");
            return None;
        }
        (_, Some(list)) => Select::Names(names("spec.targets.nodeNames", list, problems)?),
        (None, None) => Select::All,
    };
    let exclude = exclude?;
    if let Select::Names(listed) = &select {
        for both in listed.iter().filter(|name| exclude.contains(name)) {
            let allowed = "must not be both listed and excluded";
            problems.value("spec.targets.nodeNames", both.as_str(), allowed);
        }
    }
    let control_plane = match spec.control_plane {
        task::ControlPlane::Include => plan::ControlPlane::Include,
        task::ControlPlane::Exclude => plan::ControlPlane::Exclude,
    };
    Some(TargetRule { select, exclude, control_plane })
}

fn names(field: &str, names: &[String], problems: &mut Problems) -> Option<Vec<NodeName>> {
    if names.len() > MAX_NAMES {
        problems.value(
            field,
            &format!("{} names", names.len()),
            "must be at most 1000 names; use nodeSelector",
        );
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut valid = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match NodeName::new(name.as_str()) {
            Ok(node) if seen.insert(node.clone()) => valid.push(node),
            Ok(_) => problems.value(format!("{field}[{index}]"), name, "must be unique"),
            Err(error) => problems.value(
                format!("{field}[{index}]"),
                name,
                format!("must be the name of a node: {}", error.allowed),
            ),
        }
    }
    (valid.len() == names.len()).then_some(valid)
}

/// The selector at this field.
pub(in crate::resource) fn selector(
    field: &str,
    spec: &task::NodeSelector,
    problems: &mut Problems,
) -> Option<LabelSelector> {
    if spec.match_labels.is_empty() && spec.match_expressions.is_empty() {
        let allowed = "must not be empty, it would mean every node; write all: true if that is meant";
        problems.field(field, allowed);
        return None;
    }
    if spec.match_labels.len() > 64 || spec.match_expressions.len() > 64 {
        problems.field(field, "must have at most 64 matchLabels and 64 matchExpressions");
        return None;
    }
    for (key, value) in &spec.match_labels {
        let field = format!("{field}.matchLabels");
        if !is_label_key(key) {
            problems.value(&field, key, LABEL_KEY);
        }
        if !is_label_value(value) {
            problems.value(format!("{field}[{key}]"), value, LABEL_VALUE);
        }
    }
    let expressions = spec.match_expressions.iter().enumerate();
    let match_expressions: Vec<Requirement> = expressions
        .filter_map(|(index, expression)| {
            requirement(&format!("{field}.matchExpressions[{index}]"), expression, problems)
        })
        .collect();
    (match_expressions.len() == spec.match_expressions.len())
        .then(|| LabelSelector { match_labels: spec.match_labels.clone(), match_expressions })
}

fn requirement(field: &str, spec: &task::LabelRequirement, problems: &mut Problems) -> Option<Requirement> {
    if !is_label_key(&spec.key) {
        problems.value(format!("{field}.key"), &spec.key, LABEL_KEY);
        return None;
    }
    for (index, value) in spec.values.iter().enumerate().filter(|(_, value)| !is_label_value(value)) {
        problems.value(format!("{field}.values[{index}]"), value, LABEL_VALUE);
    }
    let values = spec.values.clone();
    let needs_values = matches!(spec.operator, task::LabelOperator::In | task::LabelOperator::NotIn);
    if needs_values == values.is_empty() || values.len() > 64 {
        let allowed =
            "must have 1 to 64 values with operators In and NotIn, none with Exists and DoesNotExist";
        problems.field(format!("{field}.values"), allowed);
        return None;
    }
    let operator = match spec.operator {
        task::LabelOperator::In => plan::LabelOperator::In(values),
        task::LabelOperator::NotIn => plan::LabelOperator::NotIn(values),
        task::LabelOperator::Exists => plan::LabelOperator::Exists,
        task::LabelOperator::DoesNotExist => plan::LabelOperator::DoesNotExist,
    };
    Some(Requirement { key: spec.key.clone(), operator })
}

const LABEL_KEY: &str = "must be a label key, such as pool or topology.kubernetes.io/zone";
pub(in crate::resource) const LABEL_VALUE: &str =
    "must be a label value: at most 63 letters, digits, '-', '_' and '.'";

pub(in crate::resource) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified(value)
}

pub(in crate::resource) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => NodeName::new(prefix).is_ok() && is_qualified(name),
        None => is_qualified(key),
    }
}

/// Letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, at most 63.
fn is_qualified(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && text.bytes().all(inner)
}
