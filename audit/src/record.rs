//! What is recorded: a closed enum of kinds. Secrets never: of environment variables only the names, of standard input only its
//! length and digest.

use sentinel_protocol::audit::AuditHead;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, RunNumber, Sha256Hex, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::text::{Message, Name};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::Ended;
use serde::{Deserialize, Serialize};

use crate::line::sha256;
use crate::request::{Bytes, Request};

/// A record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum Record {
    /// A process began to append to the chain. The first record of every chain.
    Began {
        /// The program: `operator` or `node-agent`.
        program: Name,
        /// Its release.
        version: Name,
        /// The node, or the host of the operator.
        on: Name,
        /// What was cut from the end of the file, if the process before ended in the middle of a record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        torn: Option<Bytes>,
    },
    /// On a node: a `Start` was accepted. It is recorded before it is in the Journal.
    Accepted(Box<Requested>),
    /// On a node: a `Start` was refused.
    Refused {
        /// Which Attempt.
        attempt: AttemptId,
        /// Why, with the rule where it is one of the node's policy.
        refusal: Refusal,
        /// The request; missing where its record `Accepted` has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requested: Option<Box<Requested>>,
    },
    /// On a node: a command was started.
    Started {
        /// Which Attempt.
        attempt: AttemptId,
        /// Its process id.
        pid: i32,
        /// When, by the node's clock.
        started_at: UnixMillis,
    },
    /// On a node: a command is to be cancelled, and its operator asked for it.
    CancelRequested {
        /// Which Attempt.
        attempt: AttemptId,
        /// Epoch of the operator that asked.
        epoch: Epoch,
        /// Who asked the operator for it, as that states it; missing when no person did, or when that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requested_by: Option<Requester>,
    },
    /// On a node: an Attempt has ended.
    Ended {
        /// Which Attempt.
        attempt: AttemptId,
        /// How, with the digests of its output.
        end: Box<Ended>,
    },
    /// By the operator: a spec was rejected, and nothing of it is run.
    SpecRejected {
        /// The Task.
        task: TaskRef,
        /// Its uid.
        uid: TaskUid,
        /// The generation of its spec.
        generation: i64,
        /// What is wrong with it.
        message: Message,
    },
    /// By the operator: a Run began, or was taken over from another operator.
    RunBegan(Box<RunBegan>),
    /// By the operator: a person approved a Run, which has not begun yet.
    Approved(Box<Approved>),
    /// By the operator: a person's approval does not count, and lets nothing begin.
    ApprovalRefused {
        /// The Task.
        task: TaskRef,
        /// Its uid.
        uid: TaskUid,
        /// The Run that it was for; missing where no operator has signed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunNumber>,
        /// Whose it is; missing where they are not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Requester>,
        /// Why it does not count.
        message: Message,
    },
    /// By the operator: a Run is due, and its ceiling does not let it begin.
    RunHeld {
        /// The Task.
        task: TaskRef,
        /// Its uid.
        uid: TaskUid,
        /// The number that the Run will have.
        run: RunNumber,
        /// `CeilingExceeded`, `AwaitingApproval` or `CeilingsUnreadable`.
        reason: Name,
        /// What it would do, and what holds it.
        message: Message,
    },
    /// By the operator: a Run is to be cancelled, as the annotation of its Task asks. One that has ended is not cancelled any more.
    CancelAsked {
        /// The Task.
        task: TaskRef,
        /// Its uid.
        uid: TaskUid,
        /// Which Run.
        run: RunNumber,
        /// Who asked for it; missing where that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requested_by: Option<Requester>,
    },
    /// By the operator: a Task that has had a Run is being deleted, or is gone. Who deleted it, only the API server knows.
    TaskDeleted {
        /// The Task.
        task: TaskRef,
        /// Its uid.
        uid: TaskUid,
        /// Its last Run.
        run: RunNumber,
    },
    /// By the operator: a `Start` was handed to the Session of its node.
    Dispatched {
        /// Which Attempt.
        attempt: AttemptId,
        /// Hash of its spec.
        spec_hash: SpecHash,
        /// The operator's epoch.
        epoch: Epoch,
    },
    /// By the operator: a `Cancel` was handed to the Session of its node.
    CancelSent {
        /// Which Attempt.
        attempt: AttemptId,
        /// The operator's epoch.
        epoch: Epoch,
        /// Who asked to cancel the Run; missing when no person did, or when that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requested_by: Option<Requester>,
    },
    /// By the operator: a node refused a `Start`, or the operator did for it.
    NodeRefused {
        /// Which Attempt.
        attempt: AttemptId,
        /// Why.
        refusal: Refusal,
    },
    /// By the operator: an Attempt has ended.
    AttemptEnded {
        /// Which Attempt.
        attempt: AttemptId,
        /// Who stated it.
        by: EndedBy,
        /// How, with the digests of its output.
        end: Box<Ended>,
    },
    /// By the operator: a Run has ended.
    RunEnded {
        /// The Task.
        task: TaskRef,
        /// Its uid.
        uid: TaskUid,
        /// Which Run.
        run: RunNumber,
        /// How.
        verdict: Name,
    },
    /// By the operator: a person may read output, and asked for it. One for a minute of the same caller reading the same log.
    OutputRead(Box<Access>),
    /// By the operator: a request of a person was denied.
    AccessDenied {
        /// Status of the answer: 401 or 403.
        status: u16,
        /// Why.
        message: Message,
        /// The request.
        #[serde(flatten)]
        access: Box<Access>,
    },
    /// The head of another chain: that one has at least this record.
    HeadSeen {
        /// Who keeps the chain, by the identity that this process has authenticated: a node, or `operator`.
        of: Name,
        /// The head.
        head: AuditHead,
    },
    /// Minor records were left out since the previous record of this kind: their parties had caused too many. See
    /// [`allowance`](crate::allowance).
    Omitted {
        /// How many, of all parties.
        omitted: u64,
        /// The parties of whom most were left out, at most 8.
        by: Vec<Omission>,
    },
    /// Records were lost, about here: they could not be written, or came faster than they could be.
    Gap {
        /// How many.
        lost: u64,
        /// Why.
        why: Message,
    },
}

impl Record {
    /// Its name in the line and in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Began { .. } => "Began",
            Self::Accepted(_) => "Accepted",
            Self::Refused { .. } => "Refused",
            Self::Started { .. } => "Started",
            Self::CancelRequested { .. } => "CancelRequested",
            Self::Ended { .. } => "Ended",
            Self::SpecRejected { .. } => "SpecRejected",
            Self::RunBegan(_) => "RunBegan",
            Self::Dispatched { .. } => "Dispatched",
            Self::Approved(_) => "Approved",
            Self::ApprovalRefused { .. } => "ApprovalRefused",
            Self::RunHeld { .. } => "RunHeld",
            Self::CancelAsked { .. } => "CancelAsked",
            Self::TaskDeleted { .. } => "TaskDeleted",
            Self::CancelSent { .. } => "CancelSent",
            Self::NodeRefused { .. } => "NodeRefused",
            Self::AttemptEnded { .. } => "AttemptEnded",
            Self::RunEnded { .. } => "RunEnded",
            Self::OutputRead(_) => "OutputRead",
            Self::AccessDenied { .. } => "AccessDenied",
            Self::HeadSeen { .. } => "HeadSeen",
            Self::Omitted { .. } => "Omitted",
            Self::Gap { .. } => "Gap",
        }
    }
}

/// A `Start` as its node received it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requested {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// The Task.
    pub task: TaskRef,
    /// Hash of its spec.
    pub spec_hash: SpecHash,
    /// Epoch of the operator that sent it.
    pub epoch: Epoch,
    /// Who asked for it, as the operator states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<RequestedBy>,
    /// The rule of the node's policy that allowed it; missing where the node has no policy, and in a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<Name>,
    /// Who had signed it, as the node verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<Name>,
    /// What is to be run.
    pub request: Request,
    /// Whether the record was made later, from the Journal: the agent had ended in between.
    #[serde(default, skip_serializing_if = "is_false")]
    pub from_journal: bool,
}

/// A Run as it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunBegan {
    /// The Task.
    pub task: TaskRef,
    /// Its uid.
    pub uid: TaskUid,
    /// Which Run.
    pub run: RunNumber,
    /// Why it began: its trigger.
    pub trigger: Name,
    /// Hash of its spec.
    pub spec_hash: SpecHash,
    /// Who asked for it; missing where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<RequestedBy>,
    /// Who approved it; missing where no approval was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Requester>,
    /// What is to be run; missing for a Run that was taken over after its spec had changed: nothing more of it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Whether another operator began it, and this one continues it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub taken_over: bool,
    /// How many nodes it is run on.
    pub targets: u64,
    /// SHA-256 of their names in the order of the target list, each followed by a newline.
    pub targets_sha256: Sha256Hex,
}

/// An approval of a Run that is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approved {
    /// The Task.
    pub task: TaskRef,
    /// Its uid.
    pub uid: TaskUid,
    /// Which Run.
    pub run: RunNumber,
    /// Who approved it.
    pub by: Requester,
    /// Hash of its spec.
    pub spec_hash: SpecHash,
    /// SHA-256 of its target list, as [`RunBegan::targets_sha256`].
    pub targets_sha256: Name,
    /// From when on it does not count, by the operator's clock.
    pub expires_at: UnixMillis,
}

/// Minor records of one party that were left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Omission {
    /// Who caused them: `namespace NAME` for those who may write its Tasks, `user NAME`, `approver NAME`, `reader NAME`,
    /// `address ADDRESS`, or `others of kind user` and so on; on a node `operator`.
    pub cause: Name,
    /// How many.
    pub omitted: u64,
}

/// The digest of a target list, as [`RunBegan::targets_sha256`] has it.
pub fn targets_sha256<'a>(targets: impl IntoIterator<Item = &'a NodeName>) -> Sha256Hex {
    let mut text = String::new();
    for target in targets {
        text.push_str(target);
        text.push('\n');
    }
    sha256(text.as_bytes())
}

/// Who stated how an Attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndedBy {
    /// Its agent.
    Agent,
    /// The operator, by its own conclusion: the node did not answer, or the Attempt never began.
    Operator,
}

/// A request of a person to the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The user, as the API server authenticated them; missing where that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
    /// The uid that the authenticator has for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Name>,
    /// Their groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Name>,
    /// The address of their connection; of the proxy, where one is in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Name>,
    /// Method of the request.
    pub method: Name,
    /// Path of the request, without its query.
    pub path: Message,
}

impl Requested {
    /// Of this message.
    pub fn of(start: &Start) -> Self {
        Self {
            attempt: start.attempt.clone(),
            task: start.task.clone(),
            spec_hash: start.spec_hash.clone(),
            epoch: start.epoch,
            requested_by: start.requested_by.clone(),
            allowed_by: None,
            signed_by: None,
            request: Request::from(&start.request),
            from_journal: false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
