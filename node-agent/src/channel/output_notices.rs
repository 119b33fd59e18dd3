//! What the agent's thread publishes about the output of Attempts, for the log link.
//!
//! Notices about one Attempt are merged, so there are never more than Attempts, and publishing never waits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sentinel_protocol::ids::AttemptId;
use tokio::sync::Notify;

use crate::journal::AttemptDir;

/// Where the output of an Attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputOrigin {
    /// The Attempt is new; this many bytes may be sent at once.
    New { credit: u64 },
    /// The Attempt was in the Journal when the agent started; its output is on disk from this position on.
    Resumed { oldest: u64 },
}

/// What has changed about the output of one Attempt.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct OutputNotice {
    /// The Attempt is to be followed from here on.
    pub(crate) opened: Option<(AttemptDir, OutputOrigin)>,
    /// There may be new output.
    pub(crate) written: bool,
    /// The Attempt has ended, and its output ends at this position.
    pub(crate) end: Option<u64>,
    /// The Attempt is forgotten.
    pub(crate) forgotten: bool,
}

/// The notices that were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct OutputNotices {
    notices: Mutex<BTreeMap<AttemptId, OutputNotice>>,
    published: Notify,
}

impl OutputNotices {
    /// A new Attempt, whose output may be sent up to `credit` at once.
    pub(crate) fn begin(&self, attempt: &AttemptId, dir: &AttemptDir, credit: u64) {
        self.publish(attempt, |notice| notice.opened = Some((dir.clone(), OutputOrigin::New { credit })));
    }

    /// An Attempt that was in the Journal when the agent started.
    pub(crate) fn resume(&self, attempt: &AttemptId, dir: &AttemptDir, oldest: u64) {
        self.publish(attempt, |notice| notice.opened = Some((dir.clone(), OutputOrigin::Resumed { oldest })));
    }

    /// An Attempt may have written something.
    pub(crate) fn written(&self, attempt: &AttemptId) {
        self.publish(attempt, |notice| notice.written = true);
    }

    /// An Attempt has ended, and its output ends at this position.
    pub(crate) fn ended(&self, attempt: &AttemptId, end: u64) {
        self.publish(attempt, |notice| notice.end = Some(end));
    }

    /// An Attempt is forgotten.
    pub(crate) fn forget(&self, attempt: &AttemptId) {
        self.publish(attempt, |notice| *notice = OutputNotice { forgotten: true, ..OutputNotice::default() });
    }

    /// Takes everything published since the last call.
    pub(crate) fn take(&self) -> BTreeMap<AttemptId, OutputNotice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is published. Cancel safe.
    pub(crate) async fn published(&self) {
        self.published.notified().await;
    }

    fn publish(&self, attempt: &AttemptId, change: impl FnOnce(&mut OutputNotice)) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        change(notices.entry(attempt.clone()).or_default());
        drop(notices);
        self.published.notify_one();
    }
}
