//! Liveness and readiness of this process, for the kubelet and for load balancers.
//!
//! *Live*: every watched loop has beaten recently. A loop that hangs is what a restart cures. *Ready*: the loops beat,
//! every named condition is met and every check passes, such as filled caches and watches that receive something.
//! Neither depends on Redis or MongoDB: restarting an operator because a store is unavailable would turn a delay into
//! an outage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often a loop beats.
pub const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How long a loop may be silent before the process counts as hung.
pub const SILENT_FOR: Duration = Duration::from_mins(1);

/// The health of a process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Watched>>);

/// A readiness check, run at each probe: the reason why it fails, `None` when it passes.
type Check = Box<dyn Fn() -> Option<String> + Send>;

#[derive(Default)]
struct Watched {
    loops: BTreeMap<&'static str, Loop>,
    conditions: BTreeMap<&'static str, Option<String>>,
    checks: BTreeMap<&'static str, Check>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let checks: Vec<_> = self.checks.keys().collect();
        f.debug_struct("Watched")
            .field("loops", &self.loops)
            .field("conditions", &self.conditions)
            .field("checks", &checks)
            .finish()
    }
}

#[derive(Debug)]
struct Loop {
    beat: Instant,
    silent_for: Duration,
    /// How many [`Beat`]s of this name exist: two listeners of one part share a name.
    beats: usize,
}

/// The heartbeat of one loop. Dropping it ends the watch: a loop that has returned is not a loop that hangs.
#[derive(Debug)]
pub struct Beat {
    health: Health,
    name: &'static str,
}

/// One condition of readiness.
#[derive(Debug)]
pub struct Condition {
    health: Health,
    name: &'static str,
}

/// The answer to a probe, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the probe passes.
    pub ok: bool,
    /// What fails, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<&'static str, String>,
}

impl Verdict {
    fn new(reasons: BTreeMap<&'static str, String>) -> Self {
        Self { ok: reasons.is_empty(), reasons }
    }
}

impl Health {
    /// Nothing is watched yet: live and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a loop, which must beat at least once in every `silent_for` until the [`Beat`] is dropped.
    pub fn watch(&self, name: &'static str, silent_for: Duration) -> Beat {
        let mut watched = self.lock();
        let beats = watched.loops.get(name).map_or(0, |known| known.beats) + 1;
        watched.loops.insert(name, Loop { beat: Instant::now(), silent_for, beats });
        Beat { health: self.clone(), name }
    }

    /// Runs a part of the process and beats for it while its task is polled. A part that blocks its thread, spins
    /// without an await or waits for a lock that is never released is polled no more, and falls silent.
    pub async fn watched<T>(&self, name: &'static str, part: impl Future<Output = T>) -> T {
        let beat = self.watch(name, SILENT_FOR);
        let mut ticks = interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(part);
        loop {
            // Cancellation safe: `part` is polled in place, and a tick holds nothing.
            tokio::select! {
                done = &mut part => return done,
                _ = ticks.tick() => beat.beat(),
            }
        }
    }

    /// A condition of readiness, not met for the reason `why` until [`Condition::met`].
    pub fn require(&self, name: &'static str, why: impl Into<String>) -> Condition {
        self.lock().conditions.insert(name, Some(why.into()));
        Condition { health: self.clone(), name }
    }

    /// A readiness check that is run at each probe. It returns the reason when it fails, and must not block.
    pub fn check(&self, name: &'static str, check: impl Fn() -> Option<String> + Send + 'static) {
        self.lock().checks.insert(name, Box::new(check));
    }

    /// Whether every watched loop has beaten recently.
    pub fn alive(&self) -> Verdict {
        let watched = self.lock();
        let stuck = watched.loops.iter().filter_map(|(name, known)| {
            let silent = known.beat.elapsed();
            let limit = known.silent_for;
            (silent > limit)
                .then(|| (*name, format!("silent for {} s (limit {} s)", silent.as_secs(), limit.as_secs())))
        });
        Verdict::new(stuck.collect())
    }

    /// Whether the process is live, every condition is met and every check passes.
    pub fn ready(&self) -> Verdict {
        let mut reasons = self.alive().reasons;
        let watched = self.lock();
        reasons.extend(watched.conditions.iter().filter_map(|(name, why)| Some((*name, why.clone()?))));
        reasons.extend(watched.checks.iter().filter_map(|(name, check)| Some((*name, check()?))));
        Verdict::new(reasons)
    }

    /// The names of the loops that are watched now.
    #[cfg(test)]
    pub(crate) fn loops(&self) -> Vec<&'static str> {
        self.lock().loops.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beat {
    /// The loop has completed a turn.
    pub fn beat(&self) {
        if let Some(known) = self.health.lock().loops.get_mut(self.name) {
            known.beat = Instant::now();
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let mut watched = self.health.lock();
        if let Some(known) = watched.loops.get_mut(self.name) {
            known.beats -= 1;
            if known.beats == 0 {
                watched.loops.remove(self.name);
            }
        }
    }
}

impl Condition {
    /// The condition holds.
    pub fn met(&self) {
        self.health.lock().conditions.insert(self.name, None);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_loop_fails_liveness_until_it_beats_again() {
        let health = Health::new();
        let beat = health.watch("controller", Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(health.alive().ok);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(health.alive().reasons["controller"], "silent for 31 s (limit 30 s)");
        assert!(!health.ready().ok);
        beat.beat();
        assert!(health.alive().ok);
        tokio::time::advance(Duration::from_secs(31)).await;
        drop(beat);
        assert!(health.alive().ok, "a loop that has returned is not watched");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_polled_no_more_fails_liveness() {
        let health = Health::new();
        let mut part = Box::pin(health.watched("archiver", std::future::pending::<()>()));
        for _ in 0..100 {
            assert!(part.as_mut().now_or_never().is_none());
            tokio::time::advance(BEAT_EVERY).await;
            assert!(health.alive().ok, "it beats while it is polled");
        }
        tokio::time::advance(SILENT_FOR).await;
        assert!(health.alive().reasons.contains_key("archiver"), "nothing polls it");
        assert!(part.as_mut().now_or_never().is_none());
        assert!(health.alive().ok, "it is polled again");
    }

    #[test]
    fn readiness_needs_every_condition_and_check_and_names_what_fails() {
        let health = Health::new();
        let tasks = health.require("tasks", "the list of Tasks has not arrived");
        let nodes = health.require("nodes", "the list of Nodes has not arrived");
        tasks.met();
        let answer = serde_json::to_string(&health.ready()).unwrap();
        assert_eq!(answer, r#"{"ok":false,"reasons":{"nodes":"the list of Nodes has not arrived"}}"#);
        assert!(health.alive().ok);
        nodes.met();
        assert!(health.ready().ok);
        health.check("watch", || Some("silent".to_owned()));
        assert_eq!(health.ready().reasons["watch"], "silent");
        assert!(health.alive().ok, "a check decides readiness alone");
    }
}
