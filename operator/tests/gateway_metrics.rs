//! The metrics of the gateway, its listener and the hub: names, types, help and labels are an interface for dashboards and
//! alerts, so a change of one is a change of `gateway/exposition.txt`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

mod gateway;

use std::time::Duration;

use gateway::*;
use sentinel_operator::clock::Clock;
use sentinel_operator::gateway::{TokenReviews, TokenRules, publish_node_gauges};
use sentinel_operator::metrics::HttpResponses;

const EXPECTED: &str = include_str!("gateway/exposition.txt");

/// The lines of an exposition in order, with values as numbers: `1` and `1.0` are the same.
fn normalized(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| match line.rsplit_once(' ') {
            Some((series, value)) if !line.starts_with('#') => {
                format!("{series} {:?}", value.parse::<f64>().expect("a sample has a value"))
            }
            _ => line.to_owned(),
        })
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn exposes_every_family_under_its_name_type_and_labels() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let world = world(Setup::default()).await;
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let _reviews = TokenReviews::new(client, TokenRules::new("sentinel", "agent"), &world.metrics);
    let clock = Clock::system();
    publish_node_gauges(&world.metrics, &world.registry, &clock, Duration::from_secs(15));
    let _responses = HttpResponses::new(&world.metrics, "api");
    let text = world.metrics.render();
    let (actual, expected) = (normalized(&text), normalized(EXPECTED));
    let missing: Vec<_> = expected.iter().filter(|line| !actual.contains(line)).collect();
    let added: Vec<_> = actual.iter().filter(|line| !expected.contains(line)).collect();
    assert!(missing.is_empty() && added.is_empty(), "missing {missing:#?}\nadded {added:#?}\nin\n{text}");
    assert_eq!(world.metrics.conflicts(), 0);
}
