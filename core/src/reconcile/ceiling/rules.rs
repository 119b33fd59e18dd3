//! The rules that an administrator of the cluster has written, as values.

use sentinel_protocol::request::{Environment, Sandbox};

use crate::plan::{Amount, LabelSelector};
use crate::reconcile::words::nodes;

/// The ceilings of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ceilings {
    /// There are none: every Task may reach as far as its author has written.
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
    /// Sandbox profiles that are allowed, exactly these.
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

/// A part of a [`Share`] that a number of targets is more than.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Above {
    Count(u32),
    Percent(u8),
}

impl Above {
    /// The name of the part in the file.
    pub(super) fn part(self) -> &'static str {
        match self {
            Self::Count(_) => "count",
            Self::Percent(_) => "percent",
        }
    }

    /// What the part allows, in words.
    pub(super) fn allows(self, known: usize) -> String {
        match self {
            Self::Count(most) => most.to_string(),
            Self::Percent(most) => format!("{most} % of the {}", nodes(known)),
        }
    }
}

impl Share {
    /// The parts that so many targets of so many known nodes are more than.
    pub(super) fn exceeded(self, targets: usize, known: usize) -> impl Iterator<Item = Above> {
        let count = self.count.filter(|most| targets > *most as usize);
        let percent = self.percent.filter(|most| targets.saturating_mul(100) > known * usize::from(*most));
        count.map(Above::Count).into_iter().chain(percent.map(Above::Percent))
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

impl Ceiling {
    /// Whether it is that of the Tasks of a namespace.
    pub(super) fn covers(&self, namespace: &str) -> bool {
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
