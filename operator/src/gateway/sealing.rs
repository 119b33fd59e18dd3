//! The values of Secrets of a `Start`: sealed for the Session that it is sent in.

use sentinel_protocol::ids::{NodeName, SessionId};
use sentinel_protocol::secret::SealingKey;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_secrets::sealed::{is_usable, seal};
use sentinel_secrets::values::SecretValues;

use super::registry::Registry;
use super::session_table::LiveSession;

impl Registry {
    /// Seals the values of Secrets of a `Start` for the Session of its node, and queues it for that Session; as
    /// [`Registry::send`] without. That all of them are optional and missing is sealed too: the agent must know it.
    pub(super) fn send_start(&self, mut start: Start, secrets: Option<&SecretValues>) -> Option<SessionId> {
        let node = start.attempt.node.clone();
        let Some(secrets) = secrets else { return self.send(&node, &ToAgent::Start(Box::new(start))) };
        let entry = self.entry(&node)?;
        let (session, key) = {
            let state = entry.lock();
            let live = state.live.as_ref()?;
            (live.session.clone(), live.sealing_key?)
        };
        match seal(&key, &session, &start, secrets) {
            Ok(sealed) => start.secrets = Some(sealed),
            Err(error) => {
                tracing::warn!(%node, %error, "unable to send a Start");
                return None;
            }
        }
        // Another Session, which may have begun meanwhile, could not open it.
        let in_session = |live: &LiveSession| live.session == session;
        self.queue_if(&node, &ToAgent::Start(Box::new(start)), in_session, |outbox, text| outbox.push(text))
    }

    /// Whether the agent of a node takes the values of Secrets; `None` until its Inventory is complete.
    pub(super) fn takes_secrets(&self, node: &NodeName) -> Option<bool> {
        let entry = self.entry(node)?;
        let state = entry.lock();
        state.active().map(|live| live.sealing_key.is_some())
    }

    /// Takes in the key of a Session. Without one that can be used, its agent takes no values of Secrets, and none is read for it.
    pub(super) fn set_sealing_key(&self, node: &NodeName, session: &SessionId, key: SealingKey) {
        if !is_usable(&key) {
            tracing::warn!(%node, "security: an agent has sent a key to which nothing can be sealed");
            return;
        }
        let Some(entry) = self.entry(node) else { return };
        if let Some(live) = entry.lock().current(session) {
            live.sealing_key = Some(key);
        }
    }
}
