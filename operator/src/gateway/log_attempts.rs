//! The registry as readers of logs see it.

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::to_operator::ReportedState;

use super::registry::Registry;
use crate::logs::ReportedAttempts;

impl ReportedAttempts for Registry {
    fn log_end(&self, attempt: &AttemptId) -> Option<u64> {
        match self.report(attempt)?.state {
            ReportedState::Ended(ended) => Some(ended.output.end),
            ReportedState::Accepted | ReportedState::Running(_) => None,
        }
    }

    fn is_released(&self, attempt: &AttemptId) -> bool {
        Self::is_released(self, attempt)
    }
}
