//! An agent in its world: events go in, effects are carried out, with a crash between any two of them.

use std::collections::BTreeSet;

use sentinel_core::agent::{Agent, Event, Facts, Journaled, SecretsSent};
use sentinel_protocol::ids::{AttemptId, Epoch};
use sentinel_protocol::to_agent::{Ack, Cancel, Forget, ToAgent};

use crate::attempt_dir::AttemptDir;
use crate::operation::Op;
use crate::world::{IDS, World, hash, id, rules, start};

pub(crate) struct Machine {
    pub(crate) world: World,
    agent: Agent,
    pub(crate) connected: bool,
    crash_after: Option<usize>,
}

impl Machine {
    pub(crate) fn connected() -> Self {
        let agent = Agent::new(rules(), Epoch::ZERO);
        let mut machine = Self { world: World::default(), agent, connected: false, crash_after: None };
        machine.restart();
        machine.connect();
        machine
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.agent.step(event, self.world.now()) {
                if let Some(left) = &mut self.crash_after {
                    if *left == 0 {
                        return self.restart();
                    }
                    *left -= 1;
                }
                events.extend(self.world.perform(effect));
            }
        }
    }

    pub(crate) fn restart(&mut self) {
        self.crash_after = None;
        self.connected = false;
        self.world.refused_now.clear();
        self.agent = Agent::new(rules(), Epoch::new(self.world.epoch).unwrap());
        // What is launched now must rest on what is seen now.
        self.world.proofs.clear();
        self.world.memory.clear();
        let ids: Vec<AttemptId> = self.world.dirs.keys().cloned().collect();
        let seen = ids.iter().filter_map(|id| self.world.seen(id)).collect();
        self.handle(Event::Replayed { seen, unreadable: vec![] });
    }

    pub(crate) fn receive(&mut self, message: ToAgent, about: usize) {
        self.receive_with(message, about, SecretsSent::None);
    }

    fn receive_with(&mut self, message: ToAgent, about: usize, secrets: SecretsSent) {
        if self.connected {
            let tombstone = self.world.tombs.get(&id(about)).cloned();
            self.world.received = (secrets == SecretsSent::Values).then(|| id(about));
            self.handle(Event::Received {
                message,
                facts: Facts {
                    tombstone,
                    free: u64::MAX,
                    policy: self.world.policy(),
                    secrets,
                    journaled: Journaled::Same,
                },
            });
            self.world.received = None;
        }
    }

    pub(crate) fn connect(&mut self) {
        self.connected = true;
        self.handle(Event::Connected { epoch: Epoch::new(self.world.epoch).unwrap() });
    }

    pub(crate) fn disconnect(&mut self) {
        self.connected = false;
        self.world.refused_now.clear();
        self.handle(Event::Disconnected);
    }

    pub(crate) fn start(&mut self, n: usize) {
        let message = ToAgent::Start(Box::new(start(n, 0, self.world.epoch)));
        self.receive_with(message, n, SecretsSent::Values);
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        let epoch = |stale: bool| self.world.epoch.saturating_sub(u64::from(stale));
        match *op {
            Op::Start { n, spec, stale, lead, bare } => {
                let start = start(n, spec, epoch(stale) + u64::from(lead));
                let secrets = if bare { SecretsSent::None } else { SecretsSent::Values };
                self.receive_with(ToAgent::Start(Box::new(start)), n, secrets);
            }
            Op::Cancel { n, stale } => {
                let cancel = Cancel {
                    attempt: id(n),
                    spec_hash: hash(0),
                    epoch: Epoch::new(epoch(stale)).unwrap(),
                    requested_by: None,
                };
                self.receive(ToAgent::Cancel(cancel), n);
            }
            Op::Ack { n, stage } => self.receive(ToAgent::Ack(Ack { attempt: id(n), stage }), n),
            Op::Forget { n } => {
                if self.connected {
                    self.world.forgotten.insert(id(n));
                }
                self.receive(
                    ToAgent::Forget(Forget { attempt: id(n), epoch: Epoch::new(self.world.epoch).unwrap() }),
                    n,
                );
            }
            Op::Pass { millis } => {
                self.world.now += millis;
                self.handle(Event::Tick);
            }
            Op::Connect => self.connect(),
            Op::Disconnect => self.disconnect(),
            Op::Crash { after } => self.crash_after = Some(after),
            Op::Restart => self.restart(),
            Op::Reboot => {
                self.world.boot += 1;
                self.world.now = 0;
                self.world.dirs.values_mut().for_each(AttemptDir::lose_power);
                self.restart();
            }
            Op::Supervise { n, which, kill } => self.world.supervise(n, which, kill),
            Op::Policy { closed } => self.world.closed = closed,
            Op::Observe { n } => {
                if let Some(seen) = self.world.seen(&id(n)) {
                    self.handle(Event::Observed(seen));
                }
            }
        }
    }

    /// Faults are over: the operator asks again until it has an answer, and supervisors work to their end.
    pub(crate) fn settle(&mut self, asked: &BTreeSet<usize>) {
        self.crash_after = None;
        self.world.closed = false;
        self.disconnect();
        self.connect();
        for _ in 0..40 {
            for &n in asked {
                if !self.world.reported.contains_key(&id(n)) && !self.world.refused_now.contains(&id(n)) {
                    self.start(n);
                }
            }
            (0..IDS).for_each(|n| self.world.supervise(n, 0, false));
            self.world.now += 6_000;
            self.handle(Event::Tick);
        }
    }
}
