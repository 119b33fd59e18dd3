//! What the gateway does with each message of an agent, and with what only a faulty or hostile one sends.
//!
//! Messages about an Attempt carry the fields task, run, node and attempt in the log.

use std::sync::Arc;

use sentinel_core::lease::MAX_JUMP;
use sentinel_core::reconcile::ledger::Applied;
use sentinel_protocol::ids::{AttemptId, Epoch, NodeName, SessionId};
use sentinel_protocol::refusal::{Refusal, SessionRefusal};
use sentinel_protocol::to_operator::{Heartbeat, Inventory, Refused, Report};

use super::gate::Gateway;
use super::ledger_sink::Standing;
use super::registry::Sample;
use super::socket::SocketEnd;
use crate::presence::PresenceRecord;

impl Gateway {
    /// Takes in the metrics of a node, and renews its Presence.
    pub(super) fn on_heartbeat(&self, node: &NodeName, session: &SessionId, heartbeat: Heartbeat) {
        self.metrics().heartbeats.add(1);
        if let Some(head) = &heartbeat.audit {
            self.parts().audit.node_head(node, head);
        }
        let now = self.now();
        let at = now.wall;
        self.registry().note_clock(node, session, heartbeat.at, at);
        let metrics = Arc::new(heartbeat.metrics);
        let sample = Sample { at, metrics: metrics.clone() };
        let Some(hello) = self.registry().record_sample(node, session, now.monotonic, sample) else { return };
        (self.parts().presence)(PresenceRecord {
            node: node.clone(),
            session: session.clone(),
            last_seen: at,
            agent_version: hello.agent_version.to_string(),
            boot_id: hello.boot_id.to_string(),
            metrics: Arc::unwrap_or_clone(metrics),
        });
    }

    /// Takes in a Report, and has it archived.
    pub(super) fn on_report(
        &self,
        node: &NodeName,
        session: &SessionId,
        report: Report,
    ) -> Result<(), SessionRefusal> {
        if let Some(report) = self.record(node, session, report)? {
            self.parts().results.report(&report);
        }
        Ok(())
    }

    /// Takes in a part of an Inventory. With the last part the Session becomes active.
    pub(super) fn on_inventory(
        &self,
        node: &NodeName,
        session: &SessionId,
        part: &Inventory,
    ) -> Result<(), SessionRefusal> {
        if let Some(key) = part.sealing_key {
            self.registry().set_sealing_key(node, session, key);
        }
        for report in &part.attempts {
            self.record(node, session, report.clone())?;
        }
        if part.more {
            return Ok(());
        }
        let Some(reports) = self.registry().reports_in(node, session) else { return Ok(()) };
        self.parts().ledgers.inventory(node, session, &reports);
        self.registry().complete_inventory(node, session);
        self.parts().ledgers.agent_changed(node);
        for report in &reports {
            self.parts().results.report(report);
        }
        Ok(())
    }

    /// Takes in that an agent declined a `Start`.
    pub(super) fn on_refused(&self, node: &NodeName, refused: &Refused) -> Result<(), SessionRefusal> {
        let attempt = &refused.attempt;
        self.check_node(node, attempt)?;
        self.metrics().results.declined.add(1);
        if let Refusal::StaleEpoch { seen } = refused.refusal {
            self.observe_epoch(node, seen)?;
        }
        match self.parts().ledgers.refused(refused, self.now().wall) {
            Some(Applied::NeverDispatched) => self.note_unstarted(attempt),
            Some(Applied::Changed) => tracing::info!(
                task = %attempt.task, run = %attempt.run, node = %attempt.node, attempt = attempt.attempt,
                refusal = %refused.refusal, "an agent declined a Start"
            ),
            _ => {}
        }
        Ok(())
    }

    /// A Session ended.
    pub(super) fn on_session_end(&self, node: &NodeName, session: &SessionId) {
        if self.registry().end(node, session) {
            self.parts().ledgers.agent_changed(node);
        }
    }

    pub(super) fn count_session_end(&self, node: &NodeName, end: &SocketEnd) {
        self.note_slow_message(node, end);
        self.metrics().sessions.count_end(end);
    }

    pub(super) fn count_log_socket_end(&self, node: &NodeName, end: &SocketEnd) {
        self.note_slow_message(node, end);
        match end {
            SocketEnd::NoRoom => self.metrics().output.no_room.add(1),
            SocketEnd::Refused(SessionRefusal::Malformed { .. } | SessionRefusal::HelloExpected) => {
                self.metrics().sessions.count_end(end);
            }
            _ => {}
        }
    }

    /// Takes in an epoch that an agent reports. One that no leader can have had is not believed, and ends the Session:
    /// a single agent must not exhaust the epochs of the whole fleet.
    pub(super) fn observe_epoch(&self, node: &NodeName, named: Epoch) -> Result<(), SessionRefusal> {
        if self.registry().observe_epoch(named) {
            return Ok(());
        }
        let ours = self.registry().epoch();
        self.metrics().security.epoch_jump.note(|count| {
            tracing::error!(
                %node, %named, %ours, count,
                "security: an agent names an epoch that no leader can have had; its session is refused"
            );
        });
        let message = format!(
            "it names epoch {named}, and this operator leads with {ours}: at most {MAX_JUMP} more is believed; \
             see \"A poisoned epoch\" in docs/security.md"
        );
        Err(SessionRefusal::WrongState { message: message.into() })
    }

    /// Whether output of this Attempt may be accepted: its agent reported it, or it may have been started.
    pub(super) fn is_known(&self, attempt: &AttemptId) -> bool {
        self.registry().report(attempt).is_some()
            || self.parts().ledgers.standing(attempt, None) == Standing::Started
    }

    /// Refuses an agent that names an Attempt of another node.
    pub(super) fn check_node(&self, node: &NodeName, attempt: &AttemptId) -> Result<(), SessionRefusal> {
        if attempt.node == *node {
            return Ok(());
        }
        self.metrics().security.foreign_report.note(|count| {
            tracing::warn!(
                agent = %node,
                task = %attempt.task, run = %attempt.run, node = %attempt.node, attempt = attempt.attempt,
                count, "security: an agent reports an attempt of another node"
            );
        });
        let message = format!("attempt {attempt} is of another node than this agent's, {node}");
        Err(SessionRefusal::WrongState { message: message.into() })
    }

    /// Takes a Report into the registry; returns it as far as it is credible, `None` when it is not kept.
    fn record(
        &self,
        node: &NodeName,
        session: &SessionId,
        mut report: Report,
    ) -> Result<Option<Report>, SessionRefusal> {
        self.check_node(node, &report.attempt)?;
        self.metrics().results.reports.add(1);
        let standing = self.parts().ledgers.standing(&report.attempt, Some(&report.spec_hash));
        if standing == Standing::Unstarted {
            self.note_unstarted(&report.attempt);
            return Ok(None);
        }
        self.parts().results.bound(&mut report);
        let recorded = self.registry().apply_report(node, session, report.clone());
        recorded
            .map(|()| Some(report))
            .map_err(|error| SessionRefusal::Malformed { message: error.to_string().into() })
    }

    fn note_unstarted(&self, attempt: &AttemptId) {
        self.metrics().security.unstarted_attempt.note(|count| {
            tracing::warn!(
                task = %attempt.task, run = %attempt.run, node = %attempt.node, attempt = attempt.attempt,
                count, "security: an agent reports an attempt that was never started; the report is dropped"
            );
        });
    }

    fn note_slow_message(&self, node: &NodeName, end: &SocketEnd) {
        if matches!(end, SocketEnd::SlowMessage) {
            self.metrics().security.slow_message.note(|count| {
                tracing::warn!(%node, count, "security: an agent began a message and did not complete it in time");
            });
        }
    }
}
