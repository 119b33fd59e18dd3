//! What the Journal records about an Attempt.

use sentinel_core::agent::Permit;
use sentinel_protocol::ids::{AttemptId, Epoch, SpecHash};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::requester::Requester;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::Ended;
use serde::{Deserialize, Serialize};

use super::wal_slot::SlotId;
use crate::host;
use crate::process::ProcessIdentity;

/// A request that was accepted, and the clocks of that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// What is to be run.
    pub start: Start,
    /// When it was accepted, by the wall clock.
    pub accepted_at: UnixMillis,
    /// The boot in which it was accepted.
    pub boot_id: String,
    /// When it was accepted, in milliseconds of that boot's clock; deadlines count from here.
    pub boot_ms: u64,
    /// Its slot in the write-ahead log; `None` when its directory was synced instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// What the node's policy has allowed; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<Permit>,
}

impl Accepted {
    /// Reads it. An earlier release may have accepted a request with an epoch that is out of range today: the epoch is not needed any
    /// more, and the Attempt must not be lost for it.
    pub(crate) fn from_json(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json).or_else(|error| {
            let mut accepted: serde_json::Value = serde_json::from_slice(json)?;
            match accepted.pointer_mut("/start/epoch") {
                Some(epoch) if epoch.as_u64().is_some_and(|number| number > Epoch::MAX.get()) => {
                    *epoch = Epoch::MAX.get().into();
                    serde_json::from_value(accepted)
                }
                _ => Err(error),
            }
        })
    }

    /// This request, accepted at this moment.
    ///
    /// # Errors
    /// When the boot id cannot be read.
    pub fn now(start: Start) -> std::io::Result<Self> {
        Ok(Self {
            start,
            accepted_at: host::wall_clock(),
            boot_id: host::boot_id()?,
            boot_ms: host::boot_clock_ms(),
            slot: None,
            permit: None,
        })
    }
}

/// How far an Attempt has come on its node.
///
/// ```text
/// Accepted ──► Starting ──► Running ──► (the exit record)
///    └───────► Abandoned        └────► (the exit record, straight from Starting when nothing could be started)
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub enum AttemptState {
    /// In the Journal; no supervisor has taken it.
    Accepted,
    /// Abandoned before anything was started; nothing will be.
    Abandoned {
        /// Why.
        why: Abandonment,
    },
    /// A supervisor is about to start the command, or has just done so.
    Starting {
        /// The supervisor.
        supervisor: ProcessIdentity,
        /// The process that is to become the command; also its session and process group. `None` in the write-ahead log, as none
        /// survives a reboot, and in records of earlier releases.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<ProcessIdentity>,
        /// The command's control group, as a path; `None` where none could be created.
        cgroup: Option<String>,
    },
    /// The command was started.
    Running {
        /// The supervisor.
        supervisor: ProcessIdentity,
        /// The command; also its session and process group.
        command: ProcessIdentity,
        /// When it was started, by the node's wall clock.
        started_at: UnixMillis,
        /// The command's control group, as a path; `None` where none could be created.
        cgroup: Option<String>,
    },
}

/// Why an Attempt was abandoned before it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Abandonment {
    /// The operator cancelled it.
    Cancelled,
    /// It could not be started within `timeouts.start`.
    StartTimedOut,
    /// The agent handed it back.
    HandedBack,
}

/// What the operator has acknowledged, as the agent recorded it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The latest stage whose Report was acknowledged.
    pub acked: Option<Stage>,
    /// Log position before which everything is archived.
    pub archived: u64,
}

/// What the agent asked of a supervisor: to end its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CancelRequest {
    /// When, by the node's wall clock.
    pub(super) at: UnixMillis,
    /// Who asked to cancel the Run, as the operator states it; missing when no person did, or when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requested_by: Option<Requester>,
}

/// All that the Journal records about one Attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The request.
    pub accepted: Accepted,
    /// How far it has come.
    pub state: AttemptState,
    /// Whether the supervisor has been asked to end it.
    pub cancel_requested: bool,
    /// How it ended, when it has.
    pub exit: Option<Ended>,
    /// What the operator has acknowledged.
    pub delivery: Delivery,
}

/// The content of an Attempt's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Readable.
    Readable(Box<AttemptRecord>),
    /// Not readable; its files are left as they are.
    Corrupt {
        /// Which file, and what was wrong with it.
        why: String,
    },
}

/// What is kept of an Attempt after Forget, so that a repeated `Start` is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// Which Attempt.
    pub attempt: AttemptId,
    /// Digest of its spec; `None` when it was cancelled before its `Start` was ever seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<SpecHash>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, by the node's wall clock. Earlier releases wrote this name.
    #[serde(rename = "buriedAt")]
    pub ended_at: UnixMillis,
}
