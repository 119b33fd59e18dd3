//! The file of ceilings: from its text to [`Rules`], or everything that is wrong with it.
//!
//! Nothing in it is ignored: an unknown key, a class that does not exist or a selector that selects nothing is an error, since a
//! limit that its author believes in must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sentinel_core::plan::{Amount, LabelSelector};
use sentinel_core::reconcile::ceiling::{ApprovalRule, Ceiling, ProtectedNodes, Rules, Share, is_like};
use sentinel_protocol::present::present;
use sentinel_protocol::request::{Environment, Sandbox};
use serde::Deserialize;
use serde_saphyr::UserMessageFormatter;

use super::invalid::{Invalid, Problems, describe};
use super::task;
use super::validate::targets::selector;
use super::validate::values::duration;
use crate::files;

/// Largest file, bytes: what a `ConfigMap` holds.
const MAX_BYTES: u64 = 1 << 20;

/// Most ceilings, classes, and entries of a list.
const MAX_ENTRIES: usize = 1000;

/// Longest an approval is valid, milliseconds: a week.
const MAX_VALID: u64 = 7 * 24 * 3_600_000;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: ApiVersion,
    kind: Kind,
    #[serde(default)]
    protected_nodes: Vec<ClassDocument>,
    ceilings: Vec<CeilingDocument>,
}

#[derive(Deserialize)]
enum ApiVersion {
    #[serde(rename = "sentinelnode.dev/v1alpha1")]
    V1Alpha1,
}

#[derive(Deserialize)]
enum Kind {
    Ceilings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClassDocument {
    name: String,
    selector: SelectorDocument,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SelectorDocument {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<RequirementDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequirementDocument {
    key: String,
    operator: task::LabelOperator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CeilingDocument {
    name: String,
    namespaces: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    nodes: Option<SelectorDocument>,
    #[serde(default)]
    protected_nodes: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    max_targets: Option<ShareDocument>,
    #[serde(default, deserialize_with = "present")]
    max_concurrency: Option<IntOrString>,
    #[serde(default, deserialize_with = "present")]
    environments: Option<Vec<Environment>>,
    #[serde(default, deserialize_with = "present")]
    sandboxes: Option<Vec<Sandbox>>,
    #[serde(default, deserialize_with = "present")]
    users: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    approval: Option<ApprovalDocument>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShareDocument {
    #[serde(default, deserialize_with = "present")]
    count: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    percent: Option<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ApprovalDocument {
    #[serde(default)]
    above: ShareDocument,
    #[serde(default)]
    protected_nodes: bool,
    valid_for: String,
}

/// Why a file of ceilings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CeilingsError {
    /// It cannot be read.
    #[error("unable to read the ceilings {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is empty.
    #[error("the ceilings are empty; a file that allows nothing has `ceilings: []`")]
    Empty,
    /// It is not YAML, or has other fields.
    #[error("the ceilings cannot be read: {}", .0.render_with_formatter(&UserMessageFormatter))]
    Unreadable(Box<serde_saphyr::Error>),
    /// Fields of it have values that are not allowed.
    #[error("the ceilings are not valid: {}", describe(.0))]
    Invalid(Vec<Invalid>),
}

impl CeilingsError {
    /// The same without lines of the file, for those who may not read it.
    pub fn without_excerpt(&self) -> String {
        match self {
            Self::Unreadable(error) => {
                let error = error.without_snippet().render_with_formatter(&UserMessageFormatter);
                format!("the ceilings cannot be read: {error}")
            }
            other => other.to_string(),
        }
    }
}

/// Reads a file of ceilings.
///
/// # Errors
/// [`CeilingsError`], with everything that is wrong with it.
pub fn read(path: &Path) -> Result<Rules, CeilingsError> {
    let text = files::read_text(path, MAX_BYTES)
        .map_err(|source| CeilingsError::Read { path: path.display().to_string(), source })?;
    parse(&text)
}

/// The ceilings in a text.
///
/// # Errors
/// [`CeilingsError`], with everything that is wrong with it.
pub fn parse(text: &str) -> Result<Rules, CeilingsError> {
    let is_content = |line: &str| !matches!(line.trim(), "" | "---" | "...") && !line.trim().starts_with('#');
    if !text.lines().any(is_content) {
        return Err(CeilingsError::Empty);
    }
    let document: Document =
        serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
            .map_err(|error| CeilingsError::Unreadable(Box::new(error)))?;
    let Document { api_version: ApiVersion::V1Alpha1, kind: Kind::Ceilings, protected_nodes, ceilings } =
        document;
    let mut problems = Problems::default();
    let rules = rules(&protected_nodes, &ceilings, &mut problems);
    if problems.is_empty() { Ok(rules) } else { Err(CeilingsError::Invalid(problems.into_inner())) }
}

fn rules(classes: &[ClassDocument], ceilings: &[CeilingDocument], problems: &mut Problems) -> Rules {
    bounded("protectedNodes", classes.len(), problems);
    bounded("ceilings", ceilings.len(), problems);
    let mut names = BTreeSet::new();
    let mut protected_nodes = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        let field = format!("protectedNodes[{index}]");
        named(&field, &class.name, &mut names, problems);
        let selector = nodes(&format!("{field}.selector"), &class.selector, problems);
        protected_nodes
            .extend(selector.map(|selector| ProtectedNodes { name: class.name.clone(), selector }));
    }
    let classes: BTreeSet<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    let mut names = BTreeSet::new();
    let ceilings = ceilings.iter().enumerate().map(|(index, document)| {
        let field = format!("ceilings[{index}]");
        named(&field, &document.name, &mut names, problems);
        ceiling(&field, document, &classes, problems)
    });
    Rules { ceilings: ceilings.collect(), protected_nodes }
}

fn bounded(field: &str, entries: usize, problems: &mut Problems) {
    if entries > MAX_ENTRIES {
        problems.field(field, format!("must have at most {MAX_ENTRIES} entries; it has {entries}"));
    }
}

/// A name that is not used by another.
fn named<'a>(field: &str, name: &'a str, names: &mut BTreeSet<&'a str>, problems: &mut Problems) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 63 || !name.chars().all(is_name) {
        problems.value(format!("{field}.name"), name, "must be 1 to 63 letters, digits, '-', '_' and '.'");
    } else if !names.insert(name) {
        problems.value(
            format!("{field}.name"),
            name,
            "must be unique; a message would not tell which one it means",
        );
    }
}

fn nodes(field: &str, document: &SelectorDocument, problems: &mut Problems) -> Option<LabelSelector> {
    let requirement = |one: &RequirementDocument| task::LabelRequirement {
        key: one.key.clone(),
        operator: one.operator,
        values: one.values.clone(),
    };
    let spec = task::NodeSelector {
        match_labels: document.match_labels.clone(),
        match_expressions: document.match_expressions.iter().map(requirement).collect(),
    };
    if spec.match_labels.is_empty() && spec.match_expressions.is_empty() {
        problems.field(field, "must have a label or an expression; leave it out to allow every node");
        return None;
    }
    selector(field, &spec, problems)
}

fn ceiling(
    field: &str,
    document: &CeilingDocument,
    classes: &BTreeSet<&str>,
    problems: &mut Problems,
) -> Ceiling {
    let at = |name: &str| format!("{field}.{name}");
    listed(&at("namespaces"), &document.namespaces, problems);
    for (index, pattern) in document.namespaces.iter().enumerate() {
        let is_pattern = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-*".contains(c);
        if pattern.is_empty() || pattern.len() > 63 || !pattern.chars().all(is_pattern) {
            let allowed = "must be a namespace, in which '*' stands for any text, such as 'team-a-*'";
            problems.value(at(&format!("namespaces[{index}]")), pattern, allowed);
        }
    }
    for (index, class) in document.protected_nodes.iter().enumerate() {
        if !classes.contains(class.as_str()) {
            let allowed = "must be the name of a class in protectedNodes at the top of the file";
            problems.value(at(&format!("protectedNodes[{index}]")), class, allowed);
        }
    }
    let lists = [
        ("environments", document.environments.as_ref().map(Vec::len)),
        ("sandboxes", document.sandboxes.as_ref().map(Vec::len)),
        ("users", document.users.as_ref().map(Vec::len)),
    ];
    for (name, _) in lists.into_iter().filter(|(_, entries)| *entries == Some(0)) {
        problems.field(at(name), "must not be empty; leave it out to allow all");
    }
    for (index, user) in document.users.iter().flatten().enumerate() {
        if user.is_empty() || user.len() > 64 || user.chars().any(|c| c.is_whitespace() || c.is_control()) {
            problems.value(at(&format!("users[{index}]")), user, "must be the name or number of a user");
        }
    }
    Ceiling {
        name: document.name.clone(),
        namespaces: document.namespaces.clone(),
        nodes: document.nodes.as_ref().and_then(|selector| nodes(&at("nodes"), selector, problems)),
        protected_nodes: document.protected_nodes.clone(),
        max_targets: document.max_targets.as_ref().map_or_else(Share::default, |document| {
            let share = share(&at("maxTargets"), document, problems);
            if share == Share::default() {
                problems
                    .field(at("maxTargets"), "must have count or percent; leave it out to allow any number");
            }
            share
        }),
        max_concurrency: document
            .max_concurrency
            .as_ref()
            .and_then(|amount| self::amount(&at("maxConcurrency"), amount, problems)),
        environments: document.environments.clone(),
        sandboxes: document.sandboxes.clone(),
        users: document.users.clone(),
        approval: document.approval.as_ref().and_then(|rule| approval(&at("approval"), rule, problems)),
    }
}

fn listed(field: &str, entries: &[String], problems: &mut Problems) {
    bounded(field, entries.len(), problems);
    if entries.is_empty() {
        problems.field(field, "must not be empty; ['*'] means every namespace");
    }
}

fn share(field: &str, document: &ShareDocument, problems: &mut Problems) -> Share {
    if let Some(percent) = document.percent.filter(|percent| *percent > 100) {
        problems.value(format!("{field}.percent"), &percent.to_string(), "must be 0 to 100");
    }
    Share { count: document.count, percent: document.percent }
}

fn amount(field: &str, amount: &IntOrString, problems: &mut Problems) -> Option<Amount> {
    let valid = match amount {
        IntOrString::Int(count) => u32::try_from(*count).ok().filter(|count| *count > 0).map(Amount::Count),
        IntOrString::String(text) => text
            .strip_suffix('%')
            .and_then(|percent| percent.parse().ok())
            .filter(|percent| (1..=100).contains(percent))
            .map(Amount::Percent),
    };
    if valid.is_none() {
        let text = match amount {
            IntOrString::Int(count) => count.to_string(),
            IntOrString::String(text) => text.clone(),
        };
        problems.value(field, &text, "must be a number from 1, or a percentage from '1%' to '100%'");
    }
    valid
}

fn approval(field: &str, document: &ApprovalDocument, problems: &mut Problems) -> Option<ApprovalRule> {
    let above = share(&format!("{field}.above"), &document.above, problems);
    if above == Share::default() && !document.protected_nodes {
        problems.field(
            field,
            "must have above.count, above.percent or protectedNodes: true, or nothing needs one",
        );
    }
    let field = format!("{field}.validFor");
    let valid_for_ms = duration(&field, &document.valid_for, (1_000, MAX_VALID), "1s to 168h", problems)?;
    Some(ApprovalRule { above, protected_nodes: document.protected_nodes, valid_for_ms })
}

/// Something about valid ceilings that its author probably did not mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The ceiling.
    pub ceiling: String,
    /// What it is.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ceiling {}: {}", self.ceiling, self.message)
    }
}

/// What is probably a mistake in valid ceilings.
pub fn lint(rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, ceiling) in rules.ceilings.iter().enumerate() {
        let mut add = |message: String| findings.push(Finding { ceiling: ceiling.name.clone(), message });
        let earlier: Vec<&str> =
            rules.ceilings[..index].iter().flat_map(|one| &one.namespaces).map(String::as_str).collect();
        let is_taken = |pattern: &String| earlier.iter().any(|earlier| is_like(pattern, earlier));
        let taken: Vec<&str> =
            ceiling.namespaces.iter().filter(|one| is_taken(one)).map(String::as_str).collect();
        if !taken.is_empty() {
            add(format!("an earlier ceiling decides about {}; put the narrower one first", taken.join(", ")));
        }
        let free = Ceiling {
            name: ceiling.name.clone(),
            namespaces: ceiling.namespaces.clone(),
            protected_nodes: ceiling.protected_nodes.clone(),
            ..Ceiling::default()
        };
        if *ceiling == free {
            add("it limits nothing but protected nodes".to_owned());
        }
        let may_be_root =
            ceiling.users.as_ref().is_none_or(|users| users.iter().any(|user| user == "root" || user == "0"));
        let on_host = ceiling.environments.as_ref().is_none_or(|all| all.contains(&Environment::Host));
        if may_be_root && on_host && ceiling.approval.is_none() {
            add("commands may be root on the host, and nothing needs an approval".to_owned());
        }
        approval_findings(ceiling).into_iter().for_each(add);
    }
    findings
}

/// Approvals that are never asked for, though they are written.
fn approval_findings(ceiling: &Ceiling) -> Vec<String> {
    let Some(rule) = &ceiling.approval else { return Vec::new() };
    let mut findings = Vec::new();
    let (above, most) = (rule.above, ceiling.max_targets);
    let mut never = |part: &str, above: Option<u32>, most: Option<u32>| {
        if let (Some(above), Some(most)) = (above, most)
            && above >= most
        {
            findings.push(format!(
                "approval.above.{part} has no effect: a Run has {most} at most (maxTargets.{part})"
            ));
        }
    };
    never("count", above.count, most.count);
    never("percent", above.percent.map(u32::from), Some(most.percent.map_or(100, u32::from)));
    if rule.protected_nodes && ceiling.protected_nodes.is_empty() {
        findings.push(
            "approval.protectedNodes has no effect: protectedNodes names no class, so no protected node may be a target"
                .to_owned(),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Ceilings\n";

    fn of(text: &str) -> Result<Rules, CeilingsError> {
        parse(&format!("{HEAD}{text}"))
    }

    const WHOLE: &str = "
protectedNodes:
- {name: control-plane, selector: {matchExpressions: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]}}
ceilings:
- name: team-a
  namespaces: [team-a, 'team-a-*']
  nodes: {matchLabels: {pool: a}}
  protectedNodes: [control-plane]
  maxTargets: {count: 200, percent: 10}
  maxConcurrency: 25%
  environments: [Container]
  sandboxes: [Restricted, Baseline]
  users: [nobody, '1000']
  approval: {above: {count: 20, percent: 5}, protectedNodes: true, validFor: 1h}
";

    /// What was meant to limit, and lost its value, would otherwise limit nothing.
    #[test]
    fn a_field_without_a_value_is_an_error() {
        let fields = [
            "nodes",
            "maxConcurrency",
            "environments",
            "sandboxes",
            "users",
            "approval",
            "maxTargets",
            "protectedNodes",
        ];
        let within = [
            "maxTargets: {count: }",
            "maxTargets: {percent: }",
            "approval: {above: {count: }, validFor: 1h}",
        ];
        let lines = fields.map(|field| format!("{field}:")).into_iter().chain(within.map(str::to_owned));
        for line in lines {
            let text = format!("ceilings:\n- name: a\n  namespaces: ['*']\n  {line}\n");
            assert!(matches!(of(&text), Err(CeilingsError::Unreadable(_))), "{line}");
        }
    }

    #[test]
    fn every_field_is_read() {
        let rules = of(WHOLE).unwrap();
        assert_eq!(rules.protected_nodes[0].name, "control-plane");
        let [ceiling] = &rules.ceilings[..] else { panic!("{rules:?}") };
        let above = Share { count: Some(20), percent: Some(5) };
        let expected = Ceiling {
            name: "team-a".into(),
            namespaces: vec!["team-a".into(), "team-a-*".into()],
            nodes: Some(LabelSelector {
                match_labels: [("pool".to_owned(), "a".to_owned())].into(),
                ..LabelSelector::default()
            }),
            protected_nodes: vec!["control-plane".into()],
            max_targets: Share { count: Some(200), percent: Some(10) },
            max_concurrency: Some(Amount::Percent(25)),
            environments: Some(vec![Environment::Container]),
            sandboxes: Some(vec![Sandbox::Restricted, Sandbox::Baseline]),
            users: Some(vec!["nobody".into(), "1000".into()]),
            approval: Some(ApprovalRule { above, protected_nodes: true, valid_for_ms: 3_600_000 }),
        };
        assert_eq!(*ceiling, expected);
        assert_eq!(lint(&rules), []);
        assert_eq!(of("ceilings: []").unwrap(), Rules::default());
    }

    fn rejects(text: &str, part: &str) {
        let error = of(text).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }

    #[test]
    fn a_file_that_is_not_one_of_ceilings_is_rejected() {
        for empty in [" \n", "# later\n", "---\n# later\n"] {
            assert!(matches!(parse(empty), Err(CeilingsError::Empty)), "{empty:?}");
        }
        assert!(parse("ceilings: []").unwrap_err().to_string().contains("apiVersion"));
        assert!(parse("{").unwrap_err().to_string().contains("cannot be read"));
        // A Task's condition is read by people who may not read the file.
        let error = of("ceilings: []\nlimits: secret").unwrap_err();
        assert!(error.to_string().contains("secret"), "{error}");
        let without = error.without_excerpt();
        assert!(without.contains("limits") && without.contains("line 4"), "{without}");
        assert!(!without.contains("secret"), "{without}");
        rejects("ceilings: []\nlimits: 1", "limits");
        rejects("ceilings: [{name: a, namespaces: ['*'], maxTarget: {count: 1}}]", "maxTarget");
        rejects("ceilings: [{name: a, namespaces: ['*'], nodes: {matchLabel: {a: b}}}]", "matchLabel");
        rejects("ceilings: [{name: a, namespaces: ['*'], environments: [host]}]", "Host");
        rejects("ceilings: [{name: a, namespaces: ['*'], maxTargets: {count: -1}}]", "count");
        rejects("ceilings: []\nceilings: []", "duplicate");
        let missing = read(Path::new("/nonexistent/ceilings.yaml")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/ceilings.yaml"), "{missing}");
    }

    #[test]
    fn each_bad_value_is_named_with_what_is_allowed() {
        let one = |fields: &str| format!("ceilings: [{{name: a, namespaces: ['*'], {fields}}}]");
        rejects("ceilings: [{name: '', namespaces: ['*']}]", "ceilings[0].name");
        let twice = "ceilings: [{name: a, namespaces: [x]}, {name: a, namespaces: [y]}]";
        rejects(twice, "ceilings[1].name is \"a\"; it must be unique");
        rejects("ceilings: [{name: a, namespaces: []}]", "ceilings[0].namespaces must not be empty");
        rejects("ceilings: [{name: a, namespaces: [A_b]}]", "ceilings[0].namespaces[0] is \"A_b\"");
        rejects(&one("nodes: {}"), "ceilings[0].nodes must have a label");
        rejects(&one("nodes: {matchLabels: {'!': x}}"), "ceilings[0].nodes.matchLabels");
        let in_nothing = "nodes: {matchExpressions: [{key: a, operator: In}]}";
        rejects(&one(in_nothing), "ceilings[0].nodes.matchExpressions[0].values");
        rejects(&one("protectedNodes: [db]"), "ceilings[0].protectedNodes[0] is \"db\"");
        rejects(&one("maxTargets: {percent: 101}"), "ceilings[0].maxTargets.percent is \"101\"");
        rejects(&one("maxTargets: {}"), "ceilings[0].maxTargets must have count or percent");
        rejects(&one("maxConcurrency: 0"), "ceilings[0].maxConcurrency");
        rejects(&one("maxConcurrency: '0%'"), "ceilings[0].maxConcurrency");
        rejects(&one("maxConcurrency: some"), "ceilings[0].maxConcurrency");
        rejects(&one("sandboxes: []"), "ceilings[0].sandboxes must not be empty");
        rejects(&one("users: ['a b']"), "ceilings[0].users[0]");
        rejects(&one("approval: {validFor: 1h}"), "ceilings[0].approval must have");
        rejects(&one("approval: {above: {count: 1}, validFor: soon}"), "ceilings[0].approval.validFor");
        rejects(&one("approval: {above: {count: 1}, validFor: 169h}"), "1s to 168h");
        rejects("protectedNodes: [{name: db, selector: {}}]\nceilings: []", "protectedNodes[0].selector");
    }

    #[test]
    fn lint_finds_what_is_probably_a_mistake() {
        let found = |text: &str| -> Vec<String> {
            lint(&of(text).unwrap()).iter().map(ToString::to_string).collect()
        };
        let limited = "maxTargets: {count: 1}, environments: [Container]";
        let shadowed = format!(
            "ceilings: [{{name: a, namespaces: ['team-*'], {limited}}}, {{name: b, namespaces: ['team-b*'], {limited}}}]"
        );
        let [finding] = &found(&shadowed)[..] else { panic!("{:?}", found(&shadowed)) };
        assert_eq!(
            finding,
            "ceiling b: an earlier ceiling decides about team-b*; put the narrower one first"
        );
        let free = found("ceilings: [{name: a, namespaces: ['*']}]");
        let in_vain = found(
            "ceilings: [{name: a, namespaces: ['*'], maxTargets: {count: 5, percent: 10}, \
             approval: {above: {count: 5, percent: 9}, protectedNodes: true, validFor: 1h}}]",
        );
        assert!(in_vain[0].contains("approval.above.count has no effect"), "{in_vain:?}");
        assert!(in_vain[1].contains("approval.protectedNodes has no effect"), "{in_vain:?}");
        assert_eq!(in_vain.len(), 2, "{in_vain:?}");
        assert!(free[0].contains("limits nothing") && free[1].contains("root on the host"), "{free:?}");
    }
}
