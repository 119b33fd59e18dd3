//! Attempts of other Tasks, which take places of the agent.

use sentinel_core::agent::recovery::{
    Boot, Evidence, ExitRecord, LastState, Lock, SupervisorContainer, Tree,
};
use sentinel_core::agent::{AttemptSnapshot, Effect, Event, Facts, PolicyVerdict};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{AttemptId, SpecHash};
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Ack, Forget, Start, ToAgent};
use sentinel_protocol::to_operator::{Running, ToOperator};

use super::Node;
use crate::attempt_dir::ended;
use crate::rng::Rng;
use crate::simulation::Violation;

impl Node {
    /// A command of another Task starts or ends.
    pub fn guest(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        if rng.chance(400) {
            return self.end_guests();
        }
        self.guests_made += 1;
        let attempt: AttemptId = format!("guest/{}/{}/1", self.guests_made, self.name).parse().unwrap();
        let text = serde_json::json!({
            "attempt": attempt, "specHash": "0".repeat(64), "epoch": self.agent.highest_epoch(),
            "task": {"namespace": "a", "name": "guest"},
            "request": {"program": {"command": ["true"]}, "workingDir": "/", "umask": 18,
                "environment": "Container", "successExitCodes": [0],
                "output": {"limit": 1, "spool": 1, "maxBlockMs": 1}},
            "deadlines": {"startMs": 1_000_000_000_u64, "graceMs": 1}, "credit": 0
        });
        let start: Box<Start> = serde_json::from_value(text).unwrap();
        let facts = Facts { free: u64::MAX, policy: PolicyVerdict::NoPolicy, ..Facts::default() };
        self.handle(Event::Received { message: ToAgent::Start(start), facts }, None)
    }

    /// All commands of other Tasks end, and are forgotten.
    pub fn end_guests(&mut self) -> Result<(), Violation> {
        let ids: Vec<AttemptId> = self.guests.keys().cloned().collect();
        for id in ids {
            self.guests.insert(id.clone(), true);
            let seen = self.guest_seen(&id).unwrap();
            self.handle(Event::Observed(seen), None)?;
            let epoch = self.agent.highest_epoch();
            let forget = ToAgent::Forget(Forget { attempt: id.clone(), epoch });
            let ack = ToAgent::Ack(Ack { attempt: id, stage: Stage::Ended });
            for message in [forget, ack] {
                self.handle(Event::Received { message, facts: Facts::default() }, None)?;
            }
        }
        Ok(())
    }

    pub(super) fn guest_seen(&self, id: &AttemptId) -> Option<AttemptSnapshot> {
        let over = *self.guests.get(id)?;
        let outcome = Outcome::Succeeded { exit_code: 0 };
        let evidence = Evidence {
            state: LastState::Running,
            exit: if over { ExitRecord::Present } else { ExitRecord::Missing },
            lock: if over { Lock::Free } else { Lock::Held },
            tree: if over { Tree::Empty } else { Tree::Populated },
            boot: Boot::Same,
            container: SupervisorContainer::Same,
        };
        Some(AttemptSnapshot {
            attempt: id.clone(),
            spec_hash: SpecHash::new("0".repeat(64)).unwrap(),
            start_by: Monotonic(u64::MAX),
            rule: None,
            needs_secrets: false,
            evidence,
            running: Some(Running { started_at: UnixMillis(1), pid: 8 }),
            ended: over.then(|| Box::new(ended(outcome, self.clock))),
            abandoned: None,
            acked: None,
        })
    }

    /// What an effect on a command of another Task leads to; `None` when it is one of ours.
    pub(super) fn perform_for_guest(&mut self, effect: &Effect) -> Option<Option<Event>> {
        let is_guest = |id: &AttemptId| id.task.as_str() == "guest";
        match effect {
            Effect::Record(admitted) if is_guest(&admitted.start.attempt) => {
                let attempt = admitted.start.attempt.clone();
                self.guests.insert(attempt.clone(), false);
                Some(Some(Event::Recorded { attempt }))
            }
            Effect::Inspect(id) if is_guest(id) => Some(self.guest_seen(id).map(Event::Observed)),
            Effect::Launch(id) | Effect::NoteAck { attempt: id, .. } if is_guest(id) => Some(None),
            Effect::Compact(tombstone) if is_guest(&tombstone.attempt) => {
                self.guests.remove(&tombstone.attempt);
                Some(Some(Event::Compacted { attempt: tombstone.attempt.clone() }))
            }
            Effect::Send(ToOperator::Report(report)) if is_guest(&report.attempt) => Some(None),
            Effect::Send(ToOperator::Refused(refused)) if is_guest(&refused.attempt) => Some(None),
            _ => None,
        }
    }
}
