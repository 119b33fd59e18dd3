//! Ceilings in words.

use sentinel_protocol::ids::NodeName;
use sentinel_protocol::requester::Requester;

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
    if unapproved == Unapproved::Unknown {
        return "it is unknown who asked for it, so an approval by another person cannot be distinguished from their own; apply the \
                Task again while the operator's webhook is up, and then approve"
            .to_owned();
    }
    let last = consent.approval.as_ref();
    let before = last.and_then(|last| refused(unapproved, &last.approver));
    let before = before.map(|why| format!("{why}; ")).unwrap_or_default();
    format!("{before}to approve, as another user than {}", behind.join(", "))
}

/// Why the approval of this person does not count; `None` where there is none for this Run, or it is unknown who asked for it.
pub(super) fn refused(unapproved: Unapproved, approver: &Requester) -> Option<String> {
    let who = approver.user.as_str();
    Some(match unapproved {
        Unapproved::Unknown | Unapproved::NotYet => return None,
        Unapproved::OtherRun => format!("the approval by {who} is for another run"),
        Unapproved::OtherSpec => format!("the spec has changed since {who} approved it"),
        Unapproved::OtherTargets => format!("the nodes have changed since {who} approved it"),
        Unapproved::Expired => format!("the approval by {who} has expired"),
        Unapproved::Own => format!("{who} is behind it and cannot approve it"),
    })
}
