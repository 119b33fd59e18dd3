//! Whether the process works, for whoever restarts it or sends it traffic.
//!
//! *Alive* is said by the main loops, which beat as they turn: a loop that hangs is what a restart cures. *Ready* is said
//! by named conditions, such as filled caches. Neither ever depends on Redis or MongoDB: restarting an operator because a
//! store is away would make a small trouble a large one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The health of a process. Cloning it gives the same one.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    loops: BTreeMap<&'static str, Loop>,
    conditions: BTreeMap<&'static str, Option<String>>,
}

#[derive(Debug)]
struct Loop {
    beat: Instant,
    silent_for_at_most: Duration,
}

/// The beat of one loop.
#[derive(Debug)]
pub struct Beat {
    health: Health,
    name: &'static str,
}

/// One thing that must hold before the process is ready.
#[derive(Debug)]
pub struct Condition {
    health: Health,
    name: &'static str,
}

/// The answer to a probe, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether all is well.
    pub ok: bool,
    /// What is not, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<&'static str, String>,
}

impl Verdict {
    fn new(reasons: BTreeMap<&'static str, String>) -> Self {
        Self { ok: reasons.is_empty(), reasons }
    }
}

impl Health {
    /// Nothing is watched yet: alive and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// A loop that must beat again within `silent_for_at_most`, from now on until the beat is dropped.
    pub fn watch(&self, name: &'static str, silent_for_at_most: Duration) -> Beat {
        self.lock().loops.insert(name, Loop { beat: Instant::now(), silent_for_at_most });
        Beat { health: self.clone(), name }
    }

    /// A condition for being ready, not met because of `why` until [`Condition::met`].
    pub fn require(&self, name: &'static str, why: impl Into<String>) -> Condition {
        self.lock().conditions.insert(name, Some(why.into()));
        Condition { health: self.clone(), name }
    }

    /// Whether every loop turns.
    pub fn alive(&self) -> Verdict {
        let state = self.lock();
        let stuck = state.loops.iter().filter_map(|(name, watched)| {
            let silent = watched.beat.elapsed();
            let limit = watched.silent_for_at_most;
            (silent > limit).then(|| {
                (*name, format!("silent for {} s, allowed are {} s", silent.as_secs(), limit.as_secs()))
            })
        });
        Verdict::new(stuck.collect())
    }

    /// Whether every condition is met and every loop turns.
    pub fn ready(&self) -> Verdict {
        let mut reasons = self.alive().reasons;
        let state = self.lock();
        reasons.extend(state.conditions.iter().filter_map(|(name, why)| Some((*name, why.clone()?))));
        Verdict::new(reasons)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beat {
    /// The loop turned.
    pub fn beat(&self) {
        if let Some(watched) = self.health.lock().loops.get_mut(self.name) {
            watched.beat = Instant::now();
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.health.lock().loops.remove(self.name);
    }
}

impl Condition {
    /// It holds.
    pub fn met(&self) {
        self.health.lock().conditions.insert(self.name, None);
    }

    /// It does not hold, because of `why`.
    pub fn unmet(&self, why: impl Into<String>) {
        self.health.lock().conditions.insert(self.name, Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_not_alive_until_it_turns_again() {
        let health = Health::new();
        let beat = health.watch("controller", Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(health.alive().ok);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(health.alive().reasons["controller"], "silent for 31 s, allowed are 30 s");
        assert!(!health.ready().ok);
        beat.beat();
        assert!(health.alive().ok);
    }

    #[test]
    fn a_process_is_ready_when_every_condition_is_met_and_says_what_is_missing() {
        let health = Health::new();
        let tasks = health.require("tasks", "the list of Tasks has not arrived");
        let nodes = health.require("nodes", "the list of Nodes has not arrived");
        tasks.met();
        let answer = serde_json::to_string(&health.ready()).unwrap();
        assert_eq!(answer, r#"{"ok":false,"reasons":{"nodes":"the list of Nodes has not arrived"}}"#);
        assert!(health.alive().ok);
        nodes.met();
        assert!(health.ready().ok);
        nodes.unmet("the watch of Nodes broke");
        assert!(!health.ready().ok);
    }
}
