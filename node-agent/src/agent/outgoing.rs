//! What goes to the operator: nothing about an Attempt that is not durable.

use std::sync::Arc;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::to_operator::{ReportedState, ToOperator};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::agent_metrics::AgentMetrics;
use crate::journal::{JournalError, StateDir};

/// The messages of the current Session.
pub(super) struct Outgoing {
    /// Where the Session takes them.
    outbox: Option<mpsc::Sender<ToOperator>>,
    /// Reports that Attempts were accepted; one at most for each.
    held: Vec<ToOperator>,
    metrics: Arc<AgentMetrics>,
}

impl Outgoing {
    pub(super) fn new(metrics: Arc<AgentMetrics>) -> Self {
        Self { outbox: None, held: Vec::new(), metrics }
    }

    pub(super) fn set_outbox(&mut self, outbox: Option<mpsc::Sender<ToOperator>>) {
        self.outbox = outbox;
        self.held.clear();
    }

    /// Sends a message once its Attempts are durable. That an Attempt was accepted waits a moment, as *running* is likely to come
    /// first and replaces it; see [`Self::send_held`].
    ///
    /// # Errors
    /// When they cannot be made durable.
    pub(super) fn send(&mut self, journal: &StateDir, message: ToOperator) -> Result<(), JournalError> {
        match &message {
            ToOperator::Report(report) if matches!(report.state, ReportedState::Accepted) => {
                self.drop_held(&report.attempt);
                self.held.push(message);
                return Ok(());
            }
            ToOperator::Report(report) if !journal.is_durable(&journal.attempt(&report.attempt)) => {
                journal.sync()?;
            }
            ToOperator::Inventory(_) => journal.sync()?,
            _ => {}
        }
        self.send_now(message);
        Ok(())
    }

    /// Whether Reports wait for the disk.
    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Makes durable what is not yet, and sends the Reports that waited for it.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub(super) fn send_held(&mut self, journal: &StateDir) -> Result<(), JournalError> {
        journal.sync()?;
        for message in std::mem::take(&mut self.held) {
            self.send_now(message);
        }
        Ok(())
    }

    /// Drops the Report that an Attempt was accepted: another one follows.
    pub(super) fn drop_held(&mut self, attempt: &AttemptId) {
        self.held.retain(|held| !matches!(held, ToOperator::Report(report) if report.attempt == *attempt));
    }

    fn send_now(&mut self, message: ToOperator) {
        if let Some(outbox) = &self.outbox {
            match outbox.try_send(message) {
                Ok(()) => {}
                // Reports are resent until they are acknowledged, so a dropped one is only late.
                Err(TrySendError::Full(_)) => self.metrics.count_dropped(),
                Err(TrySendError::Closed(_)) => self.outbox = None,
            }
        }
    }
}
