//! How far the Tasks of a namespace may reach: the ceilings that an administrator of the cluster has set, and whether a Run
//! that is due is within them.
//!
//! [`judge`] is asked each time before a target list is frozen, and never about a Run that has begun: a change of the ceilings
//! touches nothing that runs. What it cannot prove to be allowed, it does not allow: a node that is not known may be a
//! protected one, and ceilings that cannot be read allow nothing. [`approval`] has what lets a Run pass a threshold.

pub mod approval;
mod message;

use std::collections::BTreeMap;

use sentinel_protocol::ids::{NodeName, RunNumber, SpecHash};
use sentinel_protocol::request::{Environment, RunRequest, Sandbox};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use sha2::{Digest, Sha256};

use self::approval::Consent;
use self::message::{examples, nodes, percent_of};
use super::run::RunCeiling;
use super::targets::{NodeFacts, matches};
use crate::plan::{Amount, LabelSelector, TaskPlan};

/// Names of targets that people are shown.
const SHOWN: usize = 10;

/// The ceilings of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ceilings {
    /// There are none: every Task may reach as far as its author says.
    #[default]
    Off,
    /// There are some, and they cannot be read: why. Nothing begins until they can.
    Unreadable(String),
    /// These.
    Set(Rules),
}

/// Ceilings that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Classes of nodes that no Task may target, unless its ceiling names the class.
    pub protected_nodes: Vec<ProtectedNodes>,
    /// The first whose namespaces match decides about a Task. Where none matches, nothing is allowed.
    pub ceilings: Vec<Ceiling>,
}

/// A class of nodes that are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedNodes {
    /// Its name.
    pub name: String,
    /// Which nodes are in it.
    pub selector: LabelSelector,
}

/// How far the Tasks of some namespaces may reach. What is absent is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Its name, for people.
    pub name: String,
    /// The namespaces: names, in which `*` stands for any text.
    pub namespaces: Vec<String>,
    /// Every target must match.
    pub nodes: Option<LabelSelector>,
    /// The classes of protected nodes that may be targets.
    pub protected_nodes: Vec<String>,
    /// Targets of a Run at most.
    pub max_targets: Share,
    /// Targets that are active at once, at most. A Task that asks for more gets this.
    pub max_concurrency: Option<Amount>,
    /// Where commands may run.
    pub environments: Option<Vec<Environment>>,
    /// What they may be kept from at least: the profiles that are allowed.
    pub sandboxes: Option<Vec<Sandbox>>,
    /// As whom they may run, by name or number as a Task writes it.
    pub users: Option<Vec<String>>,
    /// When a Run needs an approval.
    pub approval: Option<ApprovalRule>,
}

/// A number of nodes: absolute, as a share of all known nodes, or both, and then both hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// A number.
    pub count: Option<u32>,
    /// Percent of all known nodes, not rounded: one of 30 nodes is more than 3 percent.
    pub percent: Option<u8>,
}

impl Share {
    /// The parts that so many targets of so many known nodes are more than: the name of each, and what it allows.
    fn exceeded(self, targets: usize, known: usize) -> Vec<(&'static str, String)> {
        let count = self.count.filter(|most| targets > *most as usize);
        let percent = self.percent.filter(|most| targets.saturating_mul(100) > known * usize::from(*most));
        let count = count.map(|most| ("count", most.to_string()));
        count.into_iter().chain(percent.map(|most| ("percent", percent_of(most, known)))).collect()
    }
}

/// When a Run needs an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRule {
    /// With more targets than this.
    pub above: Share,
    /// With a protected node among its targets.
    pub protected_nodes: bool,
    /// How long an approval is valid, milliseconds.
    pub valid_for_ms: u64,
}

/// What a Run would be that is due.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its Task.
    pub plan: &'a TaskPlan,
    /// Its number.
    pub run: RunNumber,
    /// Its targets, in name order.
    pub targets: &'a [NodeName],
    /// All known nodes.
    pub nodes: &'a BTreeMap<NodeName, NodeFacts>,
    /// Who is behind it, and what was approved.
    pub consent: &'a Consent,
    /// Whether the annotation that asks for a rerun begins it.
    pub by_annotation: bool,
    /// Now.
    pub at: UnixMillis,
}

/// Whether a Run may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It may.
    Within {
        /// What limits it while it runs; `None` without ceilings.
        ceiling: Option<RunCeiling>,
        /// Who approved it, if that was needed.
        approved_by: Option<Requester>,
    },
    /// It may not: which limits it exceeds, by name, and all of it in one sentence for people.
    Exceeded(Vec<&'static str>, String),
    /// It may once it is approved.
    NeedsApproval(Box<Awaiting>),
    /// Whether it may is not known: the ceilings cannot be read.
    Unknown(String),
}

/// What an approval is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaiting {
    /// The Run that would begin.
    pub run: RunNumber,
    /// Digest of what it runs and where.
    pub spec_hash: SpecHash,
    /// Digest of its target list.
    pub targets_digest: String,
    /// The users who are behind it, the author first; none where that is unknown.
    pub behind: Vec<String>,
    /// Number of its targets.
    pub targets: u32,
    /// The first of them.
    pub first_targets: Vec<NodeName>,
    /// The ceiling.
    pub ceiling: String,
    /// How long an approval is valid, milliseconds.
    pub valid_for_ms: u64,
    /// Why it is needed, and what became of the last one; one sentence for people.
    pub message: String,
}

/// Whether a Run may begin.
pub fn judge(ceilings: &Ceilings, wanted: &Wanted<'_>) -> Judgement {
    let rules = match ceilings {
        Ceilings::Off => return Judgement::Within { ceiling: None, approved_by: None },
        Ceilings::Unreadable(why) => return Judgement::Unknown(why.clone()),
        Ceilings::Set(rules) => rules,
    };
    let namespace = wanted.plan.task.namespace.as_str();
    let Some(ceiling) = rules.ceilings.iter().find(|ceiling| ceiling.covers(namespace)) else {
        let message = format!(
            "no ceiling covers the namespace {namespace}, so nothing may run in it; ask an administrator for one"
        );
        return Judgement::Exceeded(vec!["namespaces"], message);
    };
    let protected = Protected::among(rules, wanted);
    let mut excesses = within_targets(ceiling, wanted, &protected);
    excesses.extend(within_run(ceiling, &wanted.plan.request));
    if !excesses.is_empty() {
        let (limits, parts): (Vec<_>, Vec<_>) = excesses.into_iter().unzip();
        return Judgement::Exceeded(
            limits,
            format!("beyond the ceiling {}: {}", ceiling.name, parts.join("; ")),
        );
    }
    let within = |approved_by| Judgement::Within {
        ceiling: Some(RunCeiling {
            name: ceiling.name.clone(),
            max_concurrent: ceiling.max_concurrency.map(|most| limit(most, wanted.targets.len())),
        }),
        approved_by,
    };
    let Some((why, rule)) = needs_approval(ceiling, wanted, &protected) else { return within(None) };
    let mut awaiting = awaiting(ceiling, rule, wanted);
    match wanted.consent.approval_of(&awaiting, wanted.by_annotation, wanted.at) {
        Ok(approver) => within(Some(approver.clone())),
        Err(unapproved) => {
            awaiting.message = message::approval(&awaiting, wanted, &why, unapproved);
            Judgement::NeedsApproval(Box::new(awaiting))
        }
    }
}

impl Ceiling {
    /// Whether it is that of the Tasks of a namespace.
    fn covers(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|pattern| is_like(namespace, pattern))
    }
}

/// Whether a text is like a pattern, in which `*` stands for any text.
pub fn is_like(text: &str, pattern: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut left) = text.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(end)
}

fn limit(most: Amount, targets: usize) -> u32 {
    u32::try_from(most.of(targets)).unwrap_or(u32::MAX)
}

/// The targets that are protected, and those that may be.
struct Protected<'a> {
    /// By class, in its order.
    by_class: Vec<(&'a str, Vec<&'a NodeName>)>,
    /// Targets without a Node: their labels are not known.
    unknown: Vec<&'a NodeName>,
}

impl<'a> Protected<'a> {
    fn among(rules: &'a Rules, wanted: &Wanted<'a>) -> Self {
        let of_class = |class: &'a ProtectedNodes| {
            let is_in = |name: &&NodeName| {
                wanted.nodes.get(*name).is_some_and(|node| matches(&class.selector, &node.labels))
            };
            (class.name.as_str(), wanted.targets.iter().filter(is_in).collect())
        };
        let unknown = wanted.targets.iter().filter(|name| !wanted.nodes.contains_key(*name)).collect();
        Self { by_class: rules.protected_nodes.iter().map(of_class).collect(), unknown }
    }

    /// The classes that have targets.
    fn present(&self) -> impl Iterator<Item = &(&'a str, Vec<&'a NodeName>)> {
        self.by_class.iter().filter(|(_, targets)| !targets.is_empty())
    }
}

type Excess = (&'static str, String);

/// The limits on targets that are exceeded.
fn within_targets(ceiling: &Ceiling, wanted: &Wanted<'_>, protected: &Protected<'_>) -> Vec<Excess> {
    let (targets, known) = (wanted.targets.len(), wanted.nodes.len());
    let mut excesses: Vec<Excess> = Vec::new();
    for (part, most) in ceiling.max_targets.exceeded(targets, known) {
        let limit = if part == "count" { "maxTargets.count" } else { "maxTargets.percent" };
        let message = format!(
            "it would run on {}, and {limit} allows {most}: name fewer nodes, or ask for a higher ceiling",
            nodes(targets)
        );
        excesses.push((limit, message));
    }
    if let Some(selector) = &ceiling.nodes {
        let is_outside =
            |name: &&NodeName| wanted.nodes.get(*name).is_some_and(|node| !matches(selector, &node.labels));
        let outside: Vec<&NodeName> = wanted.targets.iter().filter(is_outside).collect();
        if !outside.is_empty() {
            let message = format!("nodes does not allow {}: exclude them", examples(&outside));
            excesses.push(("nodes", message));
        }
    }
    let is_named = |class: &str| ceiling.protected_nodes.iter().any(|named| named == class);
    for (class, targets) in protected.present().filter(|(class, _)| !is_named(class)) {
        let message = format!(
            "protectedNodes does not name the class {class}, in which are {}: exclude them",
            examples(targets)
        );
        excesses.push(("protectedNodes", message));
    }
    // A Node of that name may come, with any labels, while the Run waits for it.
    let decides = ceiling.nodes.is_some() || protected.by_class.iter().any(|(class, _)| !is_named(class));
    if decides && !protected.unknown.is_empty() {
        let message = format!(
            "{} cannot be compared with nodes and protectedNodes, since the cluster has no such Node: name Nodes that exist",
            examples(&protected.unknown)
        );
        excesses.push(("unknownNodes", message));
    }
    excesses
}

/// The limits on what is run that are exceeded.
fn within_run(ceiling: &Ceiling, request: &RunRequest) -> Vec<Excess> {
    let mut excesses: Vec<Excess> = Vec::new();
    let mut check = |limit, field: &str, asked: &str, allowed: Option<Vec<&str>>, fits: bool| {
        if let Some(allowed) = allowed.filter(|_| !fits) {
            let message = format!("{field} is {asked}, and {limit} allows only {}", allowed.join(", "));
            excesses.push((limit, message));
        }
    };
    let environments = ceiling.environments.as_ref();
    check(
        "environments",
        "spec.run.environment",
        request.environment.as_str(),
        environments.map(|all| all.iter().map(|one| one.as_str()).collect()),
        environments.is_none_or(|all| all.contains(&request.environment)),
    );
    let (sandbox, sandboxes) = (request.sandbox(), ceiling.sandboxes.as_ref());
    check(
        "sandboxes",
        "spec.run.sandbox",
        sandbox.as_str(),
        sandboxes.map(|all| all.iter().map(|one| one.as_str()).collect()),
        sandboxes.is_none_or(|all| all.contains(&sandbox)),
    );
    let names = user_names(request);
    let users = ceiling.users.as_ref();
    check(
        "users",
        "spec.run.user",
        names.first().copied().unwrap_or_default(),
        users.map(|all| all.iter().map(String::as_str).collect()),
        users.is_none_or(|all| all.iter().any(|user| names.contains(&user.as_str()))),
    );
    excesses
}

/// As whom a command runs: what a list may name. Without a user a command is root, and `nobody` under `Restricted`.
fn user_names(request: &RunRequest) -> Vec<&str> {
    const ROOT: [&str; 2] = ["root", "0"];
    match request.user.as_deref() {
        None if request.sandbox() == Sandbox::Restricted => vec!["nobody", "65534"],
        None => ROOT.into(),
        Some(user) if ROOT.contains(&user) => ROOT.into(),
        Some(user) => vec![user],
    }
}

/// Why a Run needs an approval, if it does, and by which rule.
fn needs_approval<'a>(
    ceiling: &'a Ceiling,
    wanted: &Wanted<'_>,
    protected: &Protected<'_>,
) -> Option<(Vec<String>, &'a ApprovalRule)> {
    let rule = ceiling.approval.as_ref()?;
    let above = rule.above.exceeded(wanted.targets.len(), wanted.nodes.len());
    let mut why: Vec<String> =
        above.into_iter().map(|(part, most)| format!("more than {most} (approval.above.{part})")).collect();
    if rule.protected_nodes {
        let of_class = |(class, targets): &(&str, Vec<&NodeName>)| {
            format!("protected nodes of the class {class}: {} (approval.protectedNodes)", examples(targets))
        };
        why.extend(protected.present().map(of_class));
        // It may become one, and nobody would have been asked.
        if !protected.unknown.is_empty() && !protected.by_class.is_empty() {
            why.push(format!(
                "nodes that may be protected, {}: the cluster has no such Node",
                examples(&protected.unknown)
            ));
        }
    }
    (!why.is_empty()).then_some((why, rule))
}

fn awaiting(ceiling: &Ceiling, rule: &ApprovalRule, wanted: &Wanted<'_>) -> Awaiting {
    Awaiting {
        run: wanted.run,
        spec_hash: wanted.plan.spec_hash.clone(),
        targets_digest: targets_digest(wanted.targets),
        behind: wanted.consent.users_behind(wanted.by_annotation),
        targets: u32::try_from(wanted.targets.len()).unwrap_or(u32::MAX),
        first_targets: wanted.targets.iter().take(SHOWN).cloned().collect(),
        ceiling: ceiling.name.clone(),
        valid_for_ms: rule.valid_for_ms,
        message: String::new(),
    }
}

/// SHA-256, in hexadecimal, of the names in order, each with a line feed behind it.
pub fn targets_digest(targets: &[NodeName]) -> String {
    let mut digest = Sha256::new();
    for target in targets {
        digest.update(target.as_str());
        digest.update("\n");
    }
    digest
        .finalize()
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}
