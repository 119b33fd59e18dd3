//! Ceilings in words.

use sentinel_protocol::ids::NodeName;

use super::approval::{Awaiting, Consent, Unapproved};
use super::wanted::Wanted;
use crate::reconcile::words::{examples, nodes};

/// Characters of a digest that people compare.
const SHORT: usize = 12;

/// The begin of a digest.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..SHORT).unwrap_or(digest)
}

/// What a Run that waits for an approval shows: why it needs one, and why it has none.
pub(super) fn approval(
    wanted: &Wanted<'_>,
    awaiting: &Awaiting,
    why: &[String],
    unapproved: Unapproved,
) -> String {
    let targets: Vec<&NodeName> = wanted.targets.iter().collect();
    let task = &wanted.plan.task;
    format!(
        "run {} would run on {} ({}), which the ceiling {} allows only with an approval: {}; spec {}, targets {}; {}: \
         sentinel approve -n {} {}",
        awaiting.run,
        nodes(targets.len()),
        examples(&targets),
        awaiting.ceiling,
        why.join(", "),
        short(awaiting.spec_hash.as_str()),
        short(&awaiting.targets_digest),
        what_to_do(wanted.consent, &awaiting.behind, unapproved),
        task.namespace,
        task.name,
    )
}

fn what_to_do(consent: &Consent, behind: &[String], unapproved: Unapproved) -> String {
    let before = match (unapproved, consent.approval.as_ref().map(|last| last.approver.user.as_str())) {
        (Unapproved::Unknown, _) => {
            return "it is unknown who asked for it, so an approval by another person cannot be distinguished from their own; apply the \
                    Task again while the operator's webhook is up, and then approve"
                .to_owned();
        }
        (Unapproved::NotYet, _) | (_, None) => String::new(),
        (Unapproved::OtherRun, Some(who)) => format!("the approval by {who} is for another run; "),
        (Unapproved::OtherSpec, Some(who)) => format!("the spec has changed since {who} approved it; "),
        (Unapproved::OtherTargets, Some(who)) => format!("the nodes have changed since {who} approved it; "),
        (Unapproved::Expired, Some(who)) => format!("the approval by {who} has expired; "),
        (Unapproved::Own, Some(who)) => format!("{who} is behind it and cannot approve it; "),
    };
    format!("{before}to approve, as another user than {}", behind.join(", "))
}
