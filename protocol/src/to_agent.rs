//! What the operator says to an agent on the control socket.

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, Epoch, SessionId, SpecHash, TaskRef};
use crate::refusal::SessionRefusal;
use crate::request::{Deadlines, Leftovers, Program, RunRequest};
use crate::to_operator::Stage;
use crate::version::Version;

/// A message to an agent. Unknown kinds are counted and ignored by the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum ToAgent {
    /// The Session stands.
    Welcome(Welcome),
    /// The Session is declined or ended; the socket closes after it.
    Refuse(SessionRefusal),
    /// Run this.
    Start(Box<Start>),
    /// End this, whether it runs, waits or has never been heard of.
    Cancel(Cancel),
    /// History holds this durably.
    Ack(Ack),
    /// The Run is over and archived: the Attempt may be dropped, its tombstone stays.
    Forget(Forget),
}

/// The gateway's answer to a Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The version both sides speak from here on.
    pub version: Version,
    /// Name of this Session; the log socket names it too.
    pub session: SessionId,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// How often a Heartbeat is expected, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence from the gateway after which the agent takes the connection for dead, in milliseconds.
    pub dead_after_ms: u64,
}

/// Run this Attempt. Repeating it is harmless: the id is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Digest of the spec that the request came from.
    pub spec_hash: SpecHash,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// For people and for the command's environment.
    pub task: TaskRef,
    /// What to run.
    pub request: RunRequest,
    /// Its clocks.
    pub deadlines: Deadlines,
    /// Log position up to which the agent may send at once.
    pub credit: u64,
    /// Which offer of the Attempt this is in its Session, from 1. An offer that the agent declined for a reason that
    /// passes ([`crate::refusal::Refusal::passes`]) stays declined however often it arrives; the next one is thought
    /// about anew. 0 from an operator that offers an Attempt once only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offer: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Start {
    /// The lowest protocol version whose agents do all that this asks for. An older agent would overlook a limit or a
    /// clock, and run the command without; so it is not sent one.
    pub fn needs(&self) -> Version {
        self.fields().filter(|(used, ..)| *used).map(|(_, since, _)| since).max().unwrap_or(Version(1))
    }

    /// The fields of the Task that an agent which speaks no more than this version would overlook.
    pub fn unknown_to(&self, version: Version) -> Vec<&'static str> {
        self.fields().filter(|(used, since, _)| *used && *since > version).map(|(.., field)| field).collect()
    }

    /// Whether each field that not every version has is used, the version it came with, and its name in the Task.
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
        ]
        .into_iter()
    }
}

/// End this Attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Digest of the spec it was (or would have been) started for, so that an agent which never heard of it can
    /// answer with a whole Report and remember it.
    pub spec_hash: SpecHash,
    /// The leader's epoch.
    pub epoch: Epoch,
}

/// History holds the Report of this stage, and every earlier one, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// The stage that is durable.
    pub stage: Stage,
}

/// The Attempt may be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forget {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// The leader's epoch.
    pub epoch: Epoch,
}
