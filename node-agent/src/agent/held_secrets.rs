//! The values of Secrets that the agent has in its memory: from a `Start` until its command has started.

use std::collections::HashMap;

use sentinel_core::agent::SecretsSent;
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::to_agent::Start;
use sentinel_secrets::values::SecretValues;

/// The values. They are erased when they are dropped.
#[derive(Debug, Default)]
pub(super) struct HeldSecrets {
    /// Those of the `Start` that is being handled.
    received: Option<(AttemptId, SecretValues)>,
    held: HashMap<AttemptId, SecretValues>,
}

impl HeldSecrets {
    /// Takes what came with a `Start`.
    pub(super) fn receive(
        &mut self,
        start: &Start,
        received: Option<Result<SecretValues, String>>,
    ) -> SecretsSent {
        match received {
            None => SecretsSent::None,
            Some(Err(why)) => SecretsSent::Unusable(why),
            Some(Ok(values)) => match values.check(&start.request) {
                Ok(()) => {
                    self.received = Some((start.attempt.clone(), values));
                    SecretsSent::Values
                }
                Err(why) => SecretsSent::Unusable(why),
            },
        }
    }

    /// Keeps what came with the `Start` of this Attempt.
    pub(super) fn keep(&mut self, attempt: &AttemptId) {
        if let Some((attempt, values)) = self.received.take_if(|(received, _)| received == attempt) {
            self.held.insert(attempt, values);
        }
    }

    pub(super) fn drop_received(&mut self) {
        self.received = None;
    }

    pub(super) fn of(&self, attempt: &AttemptId) -> Option<&SecretValues> {
        self.held.get(attempt)
    }

    /// The command has started, or never will.
    pub(super) fn forget(&mut self, attempt: &AttemptId) {
        self.held.remove(attempt);
    }
}
