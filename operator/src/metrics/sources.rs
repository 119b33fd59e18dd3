//! Reachable agents, asked for at each scrape, and answers of listeners by their class.

use std::time::Duration;

use super::registry::{Counter, Kind, Registry};
use crate::controller::Moments;
use crate::gateway;

/// How many agents can be reached: heard of within `dead_after`, over a Session that stands.
pub fn agents(metrics: &Registry, registry: &gateway::Registry, moments: &Moments, dead_after: Duration) {
    let (known, reachable) = (registry.clone(), registry.clone());
    let moments = moments.clone();
    let dead_after = dead_after.as_millis() as u64;
    metrics.computed(
        Kind::Gauge,
        "sentinel_nodes_known",
        "Nodes whose agent was heard of.",
        &[],
        move || known.count(|_, _| true) as f64,
    );
    metrics.computed(
        Kind::Gauge,
        "sentinel_nodes_reachable",
        "Nodes whose agent is reachable.",
        &[],
        move || {
            let now = moments.moment();
            let is_near =
                |stands, heard: Option<_>| stands && heard.is_some_and(|at| now.since(at) <= dead_after);
            reachable.count(is_near) as f64
        },
    );
}

/// Answers of an HTTP listener by their class.
#[derive(Debug, Clone)]
pub struct Answers([Counter; 5]);

impl Answers {
    /// Under the name of the listener.
    pub fn new(metrics: &Registry, listener: &'static str) -> Self {
        const HELP: &str = "Answers to HTTP requests, by class of status.";
        let class = |code| {
            metrics.counter_with(
                "sentinel_http_answers_total",
                HELP,
                &[("listener", listener), ("code", code)],
            )
        };
        Self(["1xx", "2xx", "3xx", "4xx", "5xx"].map(class))
    }

    /// An answer went out.
    pub fn count(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.0[class].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class() {
        let metrics = Registry::new();
        let answers = Answers::new(&metrics, "api");
        for code in [200, 201, 404, 503] {
            answers.count(http::StatusCode::from_u16(code).unwrap());
        }
        let text = metrics.render();
        for line in ["code=\"2xx\"} 2", "code=\"4xx\"} 1", "code=\"5xx\"} 1", "code=\"3xx\"} 0"] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
