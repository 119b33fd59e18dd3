//! Messages from the operator to an agent, on the control socket.

use serde::{Deserialize, Serialize};

use crate::audit::AuditHead;
use crate::ids::{AttemptId, Epoch, SessionId, SpecHash, TaskRef};
use crate::refusal::SessionRefusal;
use crate::request::{Deadlines, Leftovers, Program, RunRequest};
use crate::requester::{RequestedBy, Requester};
use crate::secret::Sealed;
use crate::signed::Signed;
use crate::stage::Stage;
use crate::tagged::tagged;
use crate::trace::TraceContext;
use crate::version::Version;

/// A message to an agent. The receiver ignores unknown kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind")]
pub enum ToAgent {
    /// The Session is established.
    Welcome(Welcome),
    /// The Session is refused or ended; the socket closes after this.
    Refuse(SessionRefusal),
    /// Run an Attempt.
    Start(Box<Start>),
    /// Terminate an Attempt, whether it runs, waits or is unknown to the agent.
    Cancel(Cancel),
    /// History holds a Report durably.
    Ack(Ack),
    /// The Run has ended and is archived: the agent deletes the Attempt and keeps its Tombstone.
    Forget(Forget),
    /// The head of the operator's audit chain, at most once a minute. It informs: an agent of an earlier release ignores it.
    AuditHead(AuditHead),
}

tagged!(
    ToAgent by "kind":
    Welcome(Welcome), Refuse(SessionRefusal), Start(Box<Start>), Cancel(Cancel), Ack(Ack), Forget(Forget),
    AuditHead(AuditHead),
);

/// The gateway's answer to a Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The version that both sides speak from here on.
    pub version: Version,
    /// Id of this Session; the log socket refers to it.
    pub session: SessionId,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// Interval of Heartbeats, milliseconds.
    pub heartbeat_ms: u64,
    /// Time without a frame after which the agent considers the connection dead, milliseconds.
    pub dead_after_ms: u64,
}

/// Run an Attempt. Repeating it is harmless: the agent recognises the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Hash of the spec that the request was made from.
    pub spec_hash: SpecHash,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// Namespace and name of the Task, for people and for the command's environment.
    pub task: TaskRef,
    /// What to run.
    pub request: RunRequest,
    /// Its timeouts.
    pub deadlines: Deadlines,
    /// Log position up to which the agent may send output at once.
    pub credit: u64,
    /// Number of this offer of the Attempt within the Session, from 1. An offer that the agent refused for a temporary
    /// reason ([`crate::refusal::Refusal::is_temporary`]) stays refused however often it arrives; the agent reconsiders only
    /// an offer with a higher number. 0 from an operator that offers an Attempt only once.
    #[serde(default, skip_serializing_if = "crate::text::is_zero")]
    pub offer: u32,
    /// The trace that the command joins: `TRACEPARENT` and `TRACESTATE` in its environment, unless the request sets them. An
    /// agent of an earlier release ignores it. Not part of the spec hash: a repeated `Start` may have another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// Who asked for the Run; `None` when that is not known. An agent of an earlier release ignores it. Not part of the spec hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<RequestedBy>,
    /// What the author of the Task has signed, if they have. An agent of an earlier release ignores it. Not part of the spec hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
    /// The values of the Secrets that the request refers to, sealed to the key of the Session ([`crate::to_operator::Inventory`]).
    /// Missing in the Journal, and from a `Start` for which the operator has no values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Sealed>,
}

impl Start {
    /// The first offer of an Attempt, with no credit and nothing that may be left out.
    pub fn new(
        attempt: AttemptId,
        spec_hash: SpecHash,
        epoch: Epoch,
        task: TaskRef,
        request: RunRequest,
        deadlines: Deadlines,
    ) -> Self {
        Self {
            attempt,
            spec_hash,
            epoch,
            task,
            request,
            deadlines,
            credit: 0,
            offer: 0,
            trace: None,
            requested_by: None,
            signed: None,
            secrets: None,
        }
    }

    /// The lowest protocol version that supports all fields in use. An older agent would ignore a limit or a timeout
    /// and run the command without it, so the operator does not send it this message.
    pub fn needs(&self) -> Version {
        self.fields().filter(|(used, ..)| *used).map(|(_, since, _)| since).max().unwrap_or(Version(1))
    }

    /// The fields of the Task in use that an agent of this version would ignore.
    pub fn unknown_to(&self, version: Version) -> Vec<&'static str> {
        self.fields().filter(|(used, since, _)| *used && *since > version).map(|(.., field)| field).collect()
    }

    /// The fields that not every version has: whether each is used, its first version, and its name in the Task.
    fn fields(&self) -> impl Iterator<Item = (bool, Version, &'static str)> {
        let request = &self.request;
        let limits = &request.limits;
        let argument = matches!(&request.program, Program::Script { argument: Some(_), .. });
        [
            (limits.cpu_millis.is_some(), Version(2), "run.limits.cpu"),
            (limits.memory.is_some(), Version(2), "run.limits.memory"),
            (limits.pids.is_some(), Version(2), "run.limits.pids"),
            (self.deadlines.idle_ms.is_some(), Version(2), "timeouts.idle"),
            (limits.nofile.is_some(), Version(3), "run.limits.nofile"),
            (limits.core.is_some(), Version(3), "run.limits.core"),
            (request.output.merge, Version(3), "run.output.merge"),
            (request.leftovers == Leftovers::Keep, Version(3), "run.leftovers"),
            (argument, Version(3), "the argument in the first line of run.script.text"),
            (request.sandbox.is_some(), Version(4), "run.sandbox"),
            (!request.root_filesystem.is_writable(), Version(4), "run.readOnlyRootFilesystem"),
            (
                request.env.iter().any(|variable| variable.value_from.is_some()),
                Version(4),
                "run.env.valueFrom",
            ),
            (request.stdin_from.is_some(), Version(4), "run.stdinFrom"),
        ]
        .into_iter()
    }
}

/// Terminate an Attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Hash of the spec that it was, or would have been, started for: an agent that does not know the Attempt writes a
    /// Tombstone with it and answers with a complete Report.
    pub spec_hash: SpecHash,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// Who asked to cancel the Run; `None` when no person did, or when that is not known. An agent of an earlier release ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Box<Requester>>,
}

/// History holds the Report of this stage and of all earlier stages durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// The stage that is durable.
    pub stage: Stage,
}

/// The Attempt may be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forget {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// The leader's epoch.
    pub epoch: Epoch,
}
