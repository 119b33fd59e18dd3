//! [`judge`]: whether a Run that is due is within its ceiling.

use sentinel_protocol::ids::NodeName;
use sentinel_protocol::request::{RunRequest, Sandbox};
use sentinel_protocol::requester::Requester;
use sha2::{Digest, Sha256};

use super::super::run::RunCeiling;
use super::super::targets::matches;
use super::super::words::{examples, nodes};
use super::approval::{Awaiting, RefusedApproval};
use super::message;
use super::rules::{Above, ApprovalRule, Ceiling, Ceilings, ProtectedNodes, Rules};
use super::wanted::Wanted;
use crate::plan::Amount;

/// Names of targets that people are shown.
const SHOWN: usize = 10;

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
    /// It may not: every limit that it exceeds, in one sentence for people.
    Exceeded(String),
    /// It may once it is approved.
    NeedsApproval(Box<Awaiting>),
    /// Whether it may is not known: the ceilings cannot be read.
    Unknown(String),
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
        return Judgement::Exceeded(message);
    };
    let protected = Protected::among(rules, wanted);
    let mut excesses = within_targets(ceiling, wanted, &protected);
    excesses.extend(within_run(ceiling, &wanted.plan.request));
    if !excesses.is_empty() {
        return Judgement::Exceeded(format!("beyond the ceiling {}: {}", ceiling.name, excesses.join("; ")));
    }
    let within = |approved_by| Judgement::Within {
        ceiling: Some(RunCeiling {
            name: ceiling.name.clone(),
            max_concurrent: ceiling.max_concurrency.map(|most| nodes_of(most, wanted.targets.len())),
        }),
        approved_by,
    };
    let Some((why, rule)) = needs_approval(ceiling, wanted, &protected) else { return within(None) };
    let mut awaiting = awaiting(ceiling, rule, wanted);
    match wanted.consent.approval_of(&awaiting, wanted.asked_by, wanted.at) {
        Ok(approver) => within(Some(approver.clone())),
        Err(unapproved) => {
            awaiting.message = message::approval(wanted, &awaiting, &why, unapproved);
            awaiting.refused = wanted.consent.approval.clone().and_then(|approval| {
                let why = message::refused(unapproved, &approval.approver)?;
                Some(RefusedApproval { approval, why })
            });
            Judgement::NeedsApproval(Box::new(awaiting))
        }
    }
}

fn nodes_of(most: Amount, targets: usize) -> u32 {
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

/// The limits on targets that are exceeded.
fn within_targets(ceiling: &Ceiling, wanted: &Wanted<'_>, protected: &Protected<'_>) -> Vec<String> {
    let (targets, known) = (wanted.targets.len(), wanted.nodes.len());
    let mut excesses: Vec<String> = Vec::new();
    for above in ceiling.max_targets.exceeded(targets, known) {
        let message = format!(
            "it would run on {}, and maxTargets.{} allows {}: name fewer nodes, or ask for a higher ceiling",
            nodes(targets),
            above.part(),
            above.allows(known)
        );
        excesses.push(message);
    }
    if let Some(selector) = &ceiling.nodes {
        let is_outside =
            |name: &&NodeName| wanted.nodes.get(*name).is_some_and(|node| !matches(selector, &node.labels));
        let outside: Vec<&NodeName> = wanted.targets.iter().filter(is_outside).collect();
        if !outside.is_empty() {
            let message = format!("nodes does not allow {}: exclude them", examples(&outside));
            excesses.push(message);
        }
    }
    let is_named = |class: &str| ceiling.protected_nodes.iter().any(|named| named == class);
    for (class, targets) in protected.present().filter(|(class, _)| !is_named(class)) {
        let message = format!(
            "protectedNodes does not name the class {class}, in which are {}: exclude them",
            examples(targets)
        );
        excesses.push(message);
    }
    // A Node of that name may come, with any labels, while the Run waits for it.
    let decides = ceiling.nodes.is_some() || protected.by_class.iter().any(|(class, _)| !is_named(class));
    if decides && !protected.unknown.is_empty() {
        let message = format!(
            "{} cannot be compared with nodes and protectedNodes, since the cluster has no such Node: name Nodes that exist",
            examples(&protected.unknown)
        );
        excesses.push(message);
    }
    excesses
}

/// The limits on what is run that are exceeded.
fn within_run(ceiling: &Ceiling, request: &RunRequest) -> Vec<String> {
    let mut excesses: Vec<String> = Vec::new();
    let mut check = |list: &str, field: &str, asked: &str, allowed: Option<Vec<&str>>, fits: bool| {
        if let Some(allowed) = allowed.filter(|_| !fits) {
            let message = format!("{field} is {asked}, and {list} allows only {}", allowed.join(", "));
            excesses.push(message);
        }
    };
    // Its author finds such a value in no file.
    let by_default = |is_written: bool| if is_written { "" } else { ", the default" };
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
        &format!("{}{}", sandbox.as_str(), by_default(request.sandbox.is_some())),
        sandboxes.map(|all| all.iter().map(|one| one.as_str()).collect()),
        sandboxes.is_none_or(|all| all.contains(&sandbox)),
    );
    let names = user_names(request);
    let users = ceiling.users.as_ref();
    check(
        "users",
        "spec.run.user",
        &format!("{}{}", names.first().copied().unwrap_or_default(), by_default(request.user.is_some())),
        users.map(|all| all.iter().map(String::as_str).collect()),
        users.is_none_or(|all| all.iter().any(|user| names.contains(&user.as_str()))),
    );
    excesses
}

/// The names by which `users` may list the user of a command. A request without one runs as root, or as uid 65534 under `Restricted`.
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
    let known = wanted.nodes.len();
    let more = |above: Above| format!("more than {} (approval.above.{})", above.allows(known), above.part());
    let mut why: Vec<String> = rule.above.exceeded(wanted.targets.len(), known).map(more).collect();
    if rule.protected_nodes {
        let of_class = |(class, targets): &(&str, Vec<&NodeName>)| {
            format!("protected nodes of the class {class}: {} (approval.protectedNodes)", examples(targets))
        };
        why.extend(protected.present().map(of_class));
        // It may become one, and no person would have been asked.
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
        behind: wanted.consent.users_behind(wanted.asked_by),
        targets: u32::try_from(wanted.targets.len()).unwrap_or(u32::MAX),
        first_targets: wanted.targets.iter().take(SHOWN).cloned().collect(),
        ceiling: ceiling.name.clone(),
        valid_for_ms: rule.valid_for_ms,
        message: String::new(),
        refused: None,
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
