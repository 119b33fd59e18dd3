//! After the faults: what is left to do is done, and what is done stays.

use sentinel_core::plan::Starts;
use sentinel_core::reconcile::Lifecycle;
use sentinel_core::reconcile::conditions::Archive;
use sentinel_core::reconcile::run::RunSummary;

use super::{Ends, Simulation, Violation};

impl Simulation {
    pub(super) fn peace(&mut self) -> Result<(), Violation> {
        self.trace(|| "no more faults".to_owned());
        self.faults = false;
        self.history.up = true;
        self.cluster.up = true;
        self.cluster.plan.starts = Starts::Allowed;
        self.cluster.version += 1;
        for node in &mut self.nodes {
            node.end_guests()?;
        }
        if let Some(zombie) = self.zombie.take() {
            self.drop_links(|operator| operator == zombie.id)?;
        }
        for _ in 0..400 {
            self.quiet_second()?;
            if self.is_quiet() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn quiet_second(&mut self) -> Result<(), Violation> {
        let ends = if self.cluster.gone { Ends::IfCancelled } else { Ends::Anyhow };
        for n in 0..self.nodes.len() {
            self.connect(n)?;
            for _ in 0..6 {
                self.deliver(n, false)?;
                self.nodes[n].supervise(&mut self.rng, false, ends, &mut self.witness)?;
            }
            self.nodes[n].tick()?;
            self.nodes[n].inspect(&mut self.rng)?;
            self.post(n);
        }
        self.reconcile(false)?;
        for _ in 0..8 {
            self.archive()?;
        }
        self.check_claim()?;
        self.now += 1_000;
        self.nodes.iter_mut().for_each(|node| node.pass(1_000));
        Ok(())
    }

    /// O12: a Task that is finished stays so when its operator finds History empty.
    pub(super) fn lose_history(&mut self) -> Result<(), Violation> {
        let recorded = &self.cluster.recorded;
        let was_archived = recorded.archived == Some(Archive::Current);
        let Some(before) = recorded.run.clone().filter(|_| was_archived && self.is_quiet()) else {
            return Ok(());
        };
        if self.cluster.gone || self.rng.chance(900) {
            return Ok(());
        }
        let attempts = self.history.attempts.len();
        self.history.attempts.clear();
        self.history.runs.clear();
        self.trace(|| format!("History loses {attempts} Attempts"));
        self.takeover_from_dead()?;
        // Longer than any wait of a new leader.
        for _ in 0..150 {
            self.quiet_second()?;
        }
        let recorded = &self.cluster.recorded;
        // The next one may have been due.
        let all = recorded.run.iter().map(RunSummary::from).chain(recorded.recent.iter().cloned());
        let after = all.into_iter().find(|run| run.number == before.number);
        if after == Some(RunSummary::from(&before)) {
            return Ok(());
        }
        Err(Violation::new("O12", format!("without History, {before:?} became {after:?}")))
    }

    fn is_quiet(&self) -> bool {
        let finished = self.cluster.recorded.run.as_ref().is_some_and(|run| run.finished_at.is_some());
        let over = finished && self.cluster.lifecycle == Lifecycle::Live;
        (over || self.cluster.gone)
            && self.leader.is_quiet()
            && self.nodes.iter().all(|node| node.is_quiet() && node.owned().next().is_none())
            && self.links.values().all(|link| link.to_agent.is_empty() && link.to_operator.is_empty())
    }
}
