//! Gauges of the whole: this build, leadership, Tasks, Nodes and what agents reported last.

use std::sync::Arc;

use kube::runtime::reflector::Store;
use sentinel_core::reconcile::conditions::kind;
use sentinel_protocol::metrics::NodeMetrics;

use super::caches::CacheReaders;
use crate::clock::Clock;
use crate::controller::Leadership;
use crate::gateway::Registry as Agents;
use crate::metrics::{Kind, Registry};
use crate::resource::Task;

/// What the gauges are about.
pub(super) struct Overview<'a> {
    pub(super) metrics: &'a Registry,
    pub(super) agents: &'a Agents,
    pub(super) clock: &'a Clock,
    pub(super) readers: &'a CacheReaders,
    pub(super) leadership: &'a Leadership,
    /// The Lease of the election; `None` without one.
    pub(super) lease: Option<&'a str>,
}

/// States of a Task, each with the condition that shows it, in the order in which they are asked: the first counts.
const STATES: [(&str, Option<(&str, &str)>); 6] = [
    ("Rejected", Some((kind::ACCEPTED, "False"))),
    ("Suspended", Some((kind::SUSPENDED, "True"))),
    ("Active", Some((kind::RECONCILING, "True"))),
    ("Complete", Some((kind::COMPLETE, "True"))),
    ("Failed", Some((kind::FAILED, "True"))),
    ("Pending", None),
];

impl Overview<'_> {
    /// Publishes all of them.
    pub(super) fn publish(&self) {
        self.build();
        self.leadership();
        self.tasks();
        self.nodes();
    }

    fn gauge(&self, name: &'static str, help: &'static str, value: impl Fn() -> f64 + Send + Sync + 'static) {
        self.metrics.computed(Kind::Gauge, name, help, &[], value);
    }

    fn build(&self) {
        let help = "1, with the version of this operator.";
        self.metrics
            .gauge_with("sentinel_build_info", help, &[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        crate::metrics::publish_process(self.metrics);
    }

    fn leadership(&self) {
        let leadership = self.leadership.clone();
        // One text for the life of the process: labels of metrics are static.
        let name: &'static str =
            self.lease.map_or("none", |lease| Box::leak(lease.to_owned().into_boxed_str()));
        let help = "1 while this operator leads, 0 while it follows; `name` is that of the Lease.";
        let gauge = "leader_election_master_status";
        self.metrics.computed(Kind::Gauge, gauge, help, &[("name", name)], move || {
            f64::from(u8::from(leadership.term().is_some()))
        });
        let leadership = self.leadership.clone();
        self.gauge("sentinel_leader_epoch", "The epoch of this leader; 0 while it follows.", move || {
            leadership.term().map_or(0.0, |term| term.epoch.get() as f64)
        });
    }

    fn tasks(&self) {
        for (state, _) in STATES {
            let tasks = self.readers.tasks.clone();
            let help = "Tasks by state, as their conditions show it.";
            self.metrics.computed(Kind::Gauge, "sentinel_tasks", help, &[("state", state)], move || {
                count(&tasks, state) as f64
            });
        }
    }

    fn nodes(&self) {
        let nodes = self.readers.nodes.clone();
        self.gauge("sentinel_nodes", "Nodes of the cluster.", move || nodes.nodes().len() as f64);
        let (agents, clock) = (self.agents.clone(), self.clock.clone());
        let help = "Seconds since the most silent of the connected agents was last received from.";
        self.gauge("sentinel_heartbeat_age_seconds", help, move || {
            agents.longest_silence(clock.monotonic()) as f64 / 1000.0
        });
        self.of_samples(
            "sentinel_nodes_commands_running",
            "Commands that run or are about to, on all connected nodes, as their agents reported last.",
            |sample| u64::from(sample.running),
        );
        self.of_samples(
            "sentinel_nodes_busy",
            "Connected nodes that run as many commands as they may.",
            |sample| u64::from(sample.running_limit > 0 && sample.running >= sample.running_limit),
        );
        self.of_samples(
            "sentinel_nodes_unacknowledged_reports",
            "Reports on all connected nodes that History does not hold yet.",
            |sample| u64::from(sample.unacknowledged),
        );
        self.of_samples(
            "sentinel_nodes_spooled_bytes",
            "Output on the disks of all connected nodes that is not archived yet, in bytes.",
            |sample| sample.spooled,
        );
    }

    /// The sum of a number over the latest samples of connected nodes.
    fn of_samples(&self, name: &'static str, help: &'static str, number: fn(&NodeMetrics) -> u64) {
        let agents = self.agents.clone();
        self.gauge(name, help, move || agents.sum_of_samples(number) as f64);
    }
}

fn count(tasks: &Store<Task>, state: &str) -> usize {
    tasks.state().iter().filter(|task| state_of(task) == state).count()
}

/// The state of a Task, by its conditions.
fn state_of(task: &Arc<Task>) -> &'static str {
    let conditions = task.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let holds = |(kind, status): (&str, &str)| {
        conditions.iter().any(|condition| condition.type_ == kind && condition.status == status)
    };
    STATES.iter().find(|(_, shown)| shown.is_none_or(holds)).map_or("Pending", |(state, _)| *state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_counts_once_by_its_conditions() {
        let task = |conditions: &[(&str, &str)]| -> Arc<Task> {
            let conditions: Vec<_> = conditions
                .iter()
                .map(|(kind, status)| {
                    serde_json::json!({"type": kind, "status": status, "reason": "R", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"})
                })
                .collect();
            let spec = serde_json::json!({"targets": {"all": true}, "run": {"command": ["true"]}});
            Arc::new(
                serde_json::from_value(serde_json::json!({
                    "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
                    "metadata": {"name": "t", "namespace": "ns"}, "spec": spec,
                    "status": {"observedGeneration": 1, "conditions": conditions},
                }))
                .unwrap(),
            )
        };
        assert_eq!(state_of(&task(&[])), "Pending");
        assert_eq!(
            state_of(&task(&[("Accepted", "False"), ("Stalled", "True"), ("Failed", "True")])),
            "Rejected"
        );
        assert_eq!(
            state_of(&task(&[("Accepted", "True"), ("Reconciling", "True"), ("Suspended", "True")])),
            "Suspended"
        );
        assert_eq!(state_of(&task(&[("Accepted", "True"), ("Reconciling", "True")])), "Active");
        assert_eq!(
            state_of(&task(&[("Accepted", "True"), ("Ready", "True"), ("Complete", "True")])),
            "Complete"
        );
        assert_eq!(
            state_of(&task(&[("Accepted", "True"), ("Ready", "False"), ("Failed", "True")])),
            "Failed"
        );
    }
}
