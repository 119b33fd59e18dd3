//! An approval: another person has seen what a Run would run, and on which nodes, and lets it begin.
//!
//! It is for one Run of one Task, with one spec hash and one target list, and expires. Who is behind the Run cannot give
//! it. Whether it is genuine, the adapter has checked: an approval that gets here was given through the operator.

use sentinel_protocol::ids::{NodeName, RunNumber, SpecHash};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;

use super::super::trigger::AskedBy;

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
    /// The last one, if it was given for this Run and does not count.
    pub refused: Option<RefusedApproval>,
}

/// An approval that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedApproval {
    /// It.
    pub approval: Approval,
    /// Why it does not count, for people.
    pub why: String,
}

/// Who is behind a Run that is due, and who has approved it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consent {
    /// Who created the Task, if that is known.
    pub creator: Option<Requester>,
    /// Who last changed its spec, if that is known.
    pub author: Option<Requester>,
    /// Who set the annotation that asks for a rerun, if that is known.
    pub rerun: Option<Requester>,
    /// The last approval.
    pub approval: Option<Approval>,
}

/// A genuine approval of a Run of this Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who gave it.
    pub approver: Requester,
    /// The Run.
    pub run: RunNumber,
    /// Digest of what it runs and where.
    pub spec_hash: SpecHash,
    /// Digest of its target list.
    pub targets_digest: String,
    /// When it was given.
    pub at: UnixMillis,
    /// From when on it does not count.
    pub expires_at: UnixMillis,
}

/// Why a Run is not approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unapproved {
    /// It has not been approved.
    NotYet,
    /// The approval is for another Run.
    OtherRun,
    /// What is run, or where, has changed since.
    OtherSpec,
    /// The nodes have changed since.
    OtherTargets,
    /// It has expired.
    Expired,
    /// It is that of a person who is behind the Run.
    Own,
    /// It is unknown who is behind the Run, so any person may be.
    Unknown,
}

/// By how much the clocks of two replicas may differ, as for stamps, milliseconds.
const CLOCKS_DIFFER_MS: u64 = 300_000;

impl Consent {
    /// Who has approved a Run, if their approval counts now.
    ///
    /// # Errors
    /// Why it does not.
    pub fn approval_of(
        &self,
        wanted: &Awaiting,
        asked_by: AskedBy,
        now: UnixMillis,
    ) -> Result<&Requester, Unapproved> {
        let behind = self.behind(asked_by)?;
        let approval = self.approval.as_ref().ok_or(Unapproved::NotYet)?;
        if approval.run != wanted.run {
            // It has done its work, for the Run before.
            return Err(if approval.run < wanted.run { Unapproved::NotYet } else { Unapproved::OtherRun });
        }
        if approval.spec_hash != wanted.spec_hash {
            return Err(Unapproved::OtherSpec);
        }
        if approval.targets_digest != wanted.targets_digest {
            return Err(Unapproved::OtherTargets);
        }
        // One from the future is of a clock that cannot be trusted, or lasts longer than it may.
        let lasts = approval.expires_at.since(approval.at);
        if now.plus(CLOCKS_DIFFER_MS) < approval.at
            || now >= approval.expires_at
            || lasts > wanted.valid_for_ms
        {
            return Err(Unapproved::Expired);
        }
        if behind.iter().any(|one| is_same(one, &approval.approver)) {
            return Err(Unapproved::Own);
        }
        Ok(&approval.approver)
    }

    /// Who is behind the Run and cannot approve it: who changed the spec last, who asked to run it again, who made the Task.
    ///
    /// # Errors
    /// When one of the first two is not known.
    pub fn behind(&self, asked_by: AskedBy) -> Result<Vec<&Requester>, Unapproved> {
        let author = self.author.as_ref().ok_or(Unapproved::Unknown)?;
        let rerun = match asked_by {
            AskedBy::Author => None,
            AskedBy::Annotation => Some(self.rerun.as_ref().ok_or(Unapproved::Unknown)?),
            AskedBy::Unclear => return Err(Unapproved::Unknown),
        };
        Ok([author].into_iter().chain(rerun).chain(&self.creator).collect())
    }

    /// Their names, each once; none where one of them is not known.
    pub fn users_behind(&self, asked_by: AskedBy) -> Vec<String> {
        let mut users: Vec<String> = Vec::new();
        for who in self.behind(asked_by).unwrap_or_default() {
            if !users.iter().any(|user| who.user == *user) {
                users.push(who.user.to_string());
            }
        }
        users
    }
}

/// Whether two are the same person: by name, or by uid where the authenticator has one.
pub fn is_same(one: &Requester, other: &Requester) -> bool {
    let uid = |who: &Requester| who.uid.as_ref().map(ToString::to_string).filter(|uid| !uid.is_empty());
    one.user == other.user || uid(one).is_some_and(|of_one| uid(other) == Some(of_one))
}
