//! Nodes: those of the cluster, and those whose agents have connected.

use std::collections::BTreeMap;

use sentinel_api::view::{List, NodeView};
use sentinel_core::reconcile::targets::NodeFacts;
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
    let text = parts.first().map_or("", String::as_str);
    let missing = || ApiError::not_found(format!("no node {}", super::error::shown(text)));
    let name = NodeName::new(text).map_err(|_| missing())?;
    let facts = api.feed.nodes().remove(&name);
    let agent = api.registry.agent(&name);
    if facts.is_none() && agent.is_none() {
        return Err(missing());
    }
    let mut view = facts.map_or_else(|| bare(&name), |facts| of_cluster(&name, facts));
    if let Some(agent) = agent {
        add_agent(api, &mut view, &agent);
    }
    Answer::json(&view)
}

fn bare(name: &NodeName) -> NodeView {
    NodeView {
        name: name.to_string(),
        reachable: false,
        last_heard_at: None,
        agent_version: None,
        platform: None,
        environments: Vec::new(),
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
    view.metrics = agent.sample.as_ref().map(|sample| sample.metrics.as_ref().clone());
}
