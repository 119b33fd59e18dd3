//! What the operator says to an agent on the control socket.

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, Epoch, SessionId, SpecHash, TaskRef};
use crate::refusal::SessionRefusal;
use crate::request::{Deadlines, RunRequest};
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
}

impl Start {
    /// The lowest protocol version whose agents do all that this asks for. An older agent would overlook a limit or a
    /// clock, and run the command without; so it is not sent one.
    pub fn needs(&self) -> Version {
        let since_2 = !self.request.limits.is_none() || self.deadlines.idle_ms.is_some();
        if since_2 { Version(2) } else { Version(1) }
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
