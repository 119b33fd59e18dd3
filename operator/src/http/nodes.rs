//! Nodes: those of the cluster, and those whose agents have connected.

use std::collections::BTreeMap;

use sentinel_api::view::{FleetSamplesView, List, NodeSamplesView, NodeView};
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_core::samples::{self, Point, SLOT_MS};
use sentinel_core::time::Now;
use sentinel_protocol::ids::NodeName;
use sentinel_protocol::time::UnixMillis;

use super::answer::Answer;
use super::api::Api;
use super::error::ApiError;
use super::log_text::rfc3339;
use super::request::Query;
use crate::gateway::AgentView;

pub(super) fn list(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let wanted = query.one_of("reachable", &[("true", true), ("false", false)])?;
    let mut views: BTreeMap<NodeName, NodeView> =
        api.feed.nodes().into_iter().map(|(name, facts)| (name.clone(), of_cluster(&name, facts))).collect();
    for agent in api.registry.agents() {
        let view = views.entry(agent.node.clone()).or_insert_with(|| bare(&agent.node));
        add_agent(api, view, &agent);
    }
    let items =
        views.into_values().filter(|view| wanted.is_none_or(|wanted| view.reachable == wanted)).collect();
    Answer::json(&List::whole(items))
}

pub(super) fn get(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let (name, facts, agent) = known(api, parts)?;
    let mut view = facts.map_or_else(|| bare(&name), |facts| of_cluster(&name, facts));
    if let Some(agent) = agent {
        add_agent(api, &mut view, &agent);
    }
    Answer::json(&view)
}

/// A node of the cluster, or one whose agent has connected.
fn known(api: &Api, parts: &[String]) -> Result<(NodeName, Option<NodeFacts>, Option<AgentView>), ApiError> {
    let text = parts.first().map_or("", String::as_str);
    let missing = || ApiError::not_found(format!("no node {}", super::error::shown(text)));
    let name = NodeName::new(text).map_err(|_| missing())?;
    let facts = api.feed.nodes().remove(&name);
    let agent = api.registry.agent(&name);
    if facts.is_none() && agent.is_none() {
        return Err(missing());
    }
    Ok((name, facts, agent))
}

/// The metrics of one node over the last 15 minutes.
pub(super) fn samples_of(api: &Api, parts: &[String]) -> Result<Answer, ApiError> {
    let (name, _, _) = known(api, parts)?;
    let now = api.clock.reading();
    let points = api.registry.samples(&name, now.monotonic).unwrap_or([None; samples::SLOTS]);
    let all = |value: fn(Point) -> f64| points.iter().map(|point| point.map(value)).collect();
    let some = |value: fn(Point) -> Option<u64>| points.iter().map(|point| point.and_then(value)).collect();
    Answer::json(&NodeSamplesView {
        name: name.to_string(),
        start: start(now),
        slot_ms: SLOT_MS,
        cpu: all(|point| point.cpu),
        memory: all(|point| point.memory),
        disk: points.iter().map(|point| point.and_then(|point| point.disk)).collect(),
        load: all(|point| point.load),
        received: some(|point| point.received),
        sent: some(|point| point.sent),
    })
}

/// Most nodes in one answer of [`fleet_samples`]: more than a screen has.
pub(super) const MAX_SAMPLED: usize = 100;

/// The CPU usage of several nodes over the last 15 minutes.
pub(super) fn fleet_samples(api: &Api, query: &Query) -> Result<Answer, ApiError> {
    let allowed = || format!("1 to {MAX_SAMPLED} names of nodes, separated by commas");
    let text = query.text("nodes").unwrap_or_default();
    let wrong = || ApiError::query("nodes", text, allowed());
    if text.is_empty() || text.split(',').count() > MAX_SAMPLED {
        return Err(wrong());
    }
    let now = api.clock.reading();
    let mut cpu = BTreeMap::new();
    for name in text.split(',') {
        let name = NodeName::new(name).map_err(|_| wrong())?;
        if let Some(points) = api.registry.samples(&name, now.monotonic) {
            // From 0 to 100, so that the cast is exact.
            let percent = |point: Point| point.cpu.round() as u8;
            cpu.insert(name.to_string(), points.iter().map(|point| point.map(percent)).collect());
        }
    }
    Answer::json(&FleetSamplesView { start: start(now), slot_ms: SLOT_MS, cpu })
}

/// When the oldest slot began.
fn start(now: Now) -> Option<String> {
    rfc3339(UnixMillis(now.wall.0.saturating_sub(samples::age_of_oldest(now.monotonic) as i64)))
}

fn bare(name: &NodeName) -> NodeView {
    NodeView {
        name: name.to_string(),
        reachable: false,
        last_heard_at: None,
        agent_version: None,
        platform: None,
        environments: Vec::new(),
        clock_offset_millis: None,
        boot_id: None,
        labels: BTreeMap::new(),
        metrics: None,
    }
}

fn of_cluster(name: &NodeName, facts: NodeFacts) -> NodeView {
    NodeView { labels: facts.labels, ..bare(name) }
}

fn add_agent(api: &Api, view: &mut NodeView, agent: &AgentView) {
    let now = api.clock.reading();
    let silence = agent.last_seen.map(|seen| now.monotonic.since(seen));
    view.reachable = agent.session.is_some() && silence.is_some_and(|silence| silence <= api.dead_after_ms);
    view.last_heard_at =
        silence.and_then(|silence| rfc3339(UnixMillis(now.wall.0.saturating_sub(silence as i64))));
    if let Some(hello) = &agent.hello {
        view.agent_version = Some(hello.agent_version.to_string());
        view.platform = Some(format!("{}/{} {}", hello.os, hello.arch, hello.kernel));
        view.environments =
            hello.environments.iter().map(|environment| environment.as_str().to_owned()).collect();
        view.boot_id = Some(hello.boot_id.to_string());
    }
    view.clock_offset_millis = agent.clock_offset_millis;
    view.metrics = agent.sample.as_ref().map(|sample| sample.metrics.as_ref().clone());
}
