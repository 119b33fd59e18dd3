//! What the node's policy and its kill switch allow now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sentinel_core::agent::{Permit, PolicyVerdict, SignedPermit};
use sentinel_policy::asked::Asked;
use sentinel_policy::rule::{KILL_SWITCH, NO_RULE, POLICY_UNUSABLE};
use sentinel_policy::verdict::Decision;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;

use super::examiner::Examiner;
use super::file::{PolicyFile, read_regular};
use crate::journal::SignedUses;
use crate::supervisor::{Examined, HostNamespaces};

/// Bytes of the kill switch that a refusal quotes.
const MAX_REASON: u64 = 200;

/// The name of a node that has none.
const UNNAMED: &str = "-";

/// Where the policy and the kill switch are.
#[derive(Debug, Clone, Default)]
pub struct PolicyFiles {
    /// The policy; `None` on a node without one, where all is allowed.
    pub policy: Option<PathBuf>,
    /// The kill switch: while this file exists, nothing is started. `None` is `kill-switch` in the state directory.
    pub kill_switch: Option<PathBuf>,
}

/// Decides about each `Start`.
#[derive(Debug)]
pub struct PolicyGate {
    policy: Option<PolicyFile>,
    kill_switch: PathBuf,
    examiner: Examiner,
    uses: SignedUses,
    /// The node's name, which a signed statement may be limited to.
    node: Option<String>,
    /// The version of the policy that decided last.
    decided_by: u64,
}

impl PolicyGate {
    /// The gate of an agent with this state directory.
    pub fn new(files: &PolicyFiles, state_dir: &Path, host: HostNamespaces, node: Option<String>) -> Self {
        let kill_switch = files.kill_switch.clone().unwrap_or_else(|| state_dir.join("kill-switch"));
        let mut policy = files.policy.clone().map(PolicyFile::new);
        match &mut policy {
            // Read now, so that the log of the start has what is wrong with it.
            Some(file) => drop(file.current()),
            None => {
                tracing::warn!("this node has no policy (--policy-file): the operator may run any command");
            }
        }
        let uses = SignedUses::of(state_dir);
        Self { policy, kill_switch, examiner: Examiner::new(host), uses, node, decided_by: 0 }
    }

    /// What is decided about a `Start` now.
    pub fn verdict(&mut self, start: &Start, now: UnixMillis) -> PolicyVerdict {
        let verdict = self.decide(start, now);
        if let PolicyVerdict::Refused { rule, why } = &verdict {
            let task = start.task.to_string();
            let author = start.requested_by.as_ref().map_or("unknown", |by| by.author.user.as_str());
            tracing::warn!(%rule, %why, task, author, "a command was refused by the node's policy");
        }
        verdict
    }

    /// Counts the contents that the policy has had, so that a decision can be made again after a change.
    pub fn version(&mut self) -> u64 {
        let Some(policy) = &mut self.policy else { return 0 };
        let _ = policy.current();
        policy.version()
    }

    /// The [version](Self::version) of the policy that decided last. It may have changed while what was asked for was examined.
    pub fn decided_by(&self) -> u64 {
        self.decided_by
    }

    /// The Refusal while the kill switch is on.
    pub fn kill_switch(&self) -> Option<Refusal> {
        let why = killed(&self.kill_switch)?;
        Some(Refusal::Policy { rule: KILL_SWITCH.into(), why: Some(why.into()) })
    }

    /// Uses up what its author has signed, for an Attempt that is about to be recorded. Durable on return.
    ///
    /// # Errors
    /// Why it may not be used.
    pub fn use_up(&self, permit: &Permit, attempt: &AttemptId, now: UnixMillis) -> Result<(), Refusal> {
        let Some(SignedPermit { statement, runs, not_after, .. }) = &permit.signed else { return Ok(()) };
        self.uses
            .claim(statement, attempt, *runs, *not_after, now)
            .map_err(|why| Refusal::Policy { rule: permit.rule.clone(), why: Some(why.into()) })
    }

    /// What [`use_up`](Self::use_up) would answer for this verdict: one that may not be used is refused before it is accepted.
    pub fn with_uses(&self, verdict: PolicyVerdict, attempt: &AttemptId, now: UnixMillis) -> PolicyVerdict {
        let PolicyVerdict::Allowed(permit) = &verdict else { return verdict };
        let Some(SignedPermit { statement, runs, .. }) = &permit.signed else { return verdict };
        match self.uses.check(statement, attempt, *runs, now) {
            Ok(()) => verdict,
            Err(why) => PolicyVerdict::Refused { rule: permit.rule.clone(), why: why.into() },
        }
    }

    fn decide(&mut self, start: &Start, now: UnixMillis) -> PolicyVerdict {
        if let Some(why) = killed(&self.kill_switch) {
            return PolicyVerdict::Refused { rule: KILL_SWITCH.into(), why: why.into() };
        }
        // Counted before the policy is read: one that changes in between decides again when the command is launched.
        self.decided_by = self.version();
        let Some(file) = &mut self.policy else { return PolicyVerdict::NoPolicy };
        let policy = match file.current() {
            Ok(policy) => policy,
            Err(why) => return PolicyVerdict::Refused { rule: POLICY_UNUSABLE.into(), why: why.into() },
        };
        let asked_for = start.attempt.node.as_str();
        if let Some(node) = self.node.as_deref().filter(|node| *node != asked_for && *node != UNNAMED) {
            let why = format!("the request is for node {asked_for}, and this is {node}");
            return PolicyVerdict::Refused { rule: NO_RULE.into(), why: why.into() };
        }
        let Examined { mut facts, program, directory } = match self.examiner.examine(start, policy) {
            Ok(examined) => examined,
            // No rule may allow what is not known, and one that refuses may be meant for it.
            Err(why) => return PolicyVerdict::Refused { rule: NO_RULE.into(), why: why.into() },
        };
        facts.name.clone_from(&self.node);
        match (policy.verdict(&Asked::of(start, &facts, now)).decision, program, facts.identity) {
            (Decision::Refused { rule, why }, ..) => {
                PolicyVerdict::Refused { rule: rule.into(), why: why.into() }
            }
            (Decision::Allowed { rule, concurrent, signed }, Some(program), Ok(identity)) => {
                PolicyVerdict::Allowed(Box::new(Permit {
                    rule: rule.as_str().into(),
                    concurrent,
                    signed: signed.map(|signed| SignedPermit {
                        signer: signed.signer.into(),
                        statement: signed.id.to_string(),
                        runs: signed.runs,
                        not_after: signed.not_after,
                    }),
                    program,
                    directory,
                    uid: identity.uid,
                    gid: identity.gid,
                    groups: identity.groups,
                }))
            }
            // A rule that allows any command as anyone: there is nothing that could be executed, and nothing to compare with later.
            (Decision::Allowed { .. }, program, identity) => {
                let why = facts.program.err().or(identity.err()).filter(|_| program.is_none());
                let why = why.unwrap_or_else(|| "the program cannot be examined".to_owned());
                PolicyVerdict::Refused { rule: NO_RULE.into(), why: why.into() }
            }
        }
    }
}

/// Why the kill switch is on; `None` if it is off. What it is cannot be known while it cannot be examined, so it is on then.
fn killed(path: &Path) -> Option<String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("the kill switch {} cannot be examined: {error}", path.display())),
        Ok(_) => {
            let text = read_regular(path, MAX_REASON).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let reason = text.lines().next().unwrap_or_default().trim();
            let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            Some(format!(
                "the kill switch {} is on{reason}; remove the file to start commands again",
                path.display()
            ))
        }
    }
}
