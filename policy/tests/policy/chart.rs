//! The examples of the chart: what an installation allows by default.

use sentinel_policy::document::Policy;
use sentinel_protocol::request::{Environment, Program};
use serde_json::{Value, json};

use crate::kit::{node, refusal, start};

fn chart_policy() -> Policy {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sentinel-node/values.yaml");
    let values: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rules = &values["agent"]["policy"]["rules"];
    let document = json!({"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "NodePolicy", "rules": rules});
    Policy::read(document.to_string().as_bytes()).unwrap()
}

/// Why this command is refused where a name of the image's programs is a link to busybox.
fn refused(argv: &[&str]) -> Option<String> {
    let (mut start, mut node) = (start(), node());
    start.requested_by = None;
    start.request.program = Program::Command(argv.iter().map(|&item| item.to_owned()).collect());
    let program = node.program.as_mut().unwrap();
    let resolved = if argv[0] == "/bin/node-agent" { argv[0] } else { "/bin/busybox" };
    (program.requested, program.resolved) = (argv[0].to_owned(), resolved.to_owned());
    refusal(&chart_policy(), &start, &node)
}

#[test]
fn the_examples_allow_programs_that_read_and_nothing_that_runs_others() {
    for allowed in [
        &["/bin/echo", "hello"][..],
        &["/bin/df", "-h"],
        &["/bin/busybox", "uname", "-a"],
        &["/bin/node-agent", "--version"],
    ] {
        assert_eq!(refused(allowed), None, "{allowed:?}");
    }
    for denied in [
        &["/bin/sh", "-c", "id"][..],
        &["/bin/busybox", "sh"],
        &["/bin/busybox"],
        &["/usr/bin/xargs", "id"],
        &["/usr/bin/find", "/", "-exec", "id"],
        &["/bin/node-agent"],
        &["/bin/rm", "-rf", "/"],
    ] {
        assert!(refused(denied).is_some(), "{denied:?}");
    }
    assert_eq!(chart_policy().lint(), []);
}

#[test]
fn the_examples_allow_neither_root_nor_the_host() {
    let (mut start, mut node) = (start(), node());
    start.request.program = Program::Command(vec!["/bin/true".into()]);
    let program = node.program.as_mut().unwrap();
    (program.requested, program.resolved) = ("/bin/true".into(), "/bin/busybox".into());
    assert_eq!(refusal(&chart_policy(), &start, &node), None);
    start.request.environment = Environment::Host;
    assert!(refusal(&chart_policy(), &start, &node).is_some());
    start.request.environment = Environment::Container;
    node.identity.as_mut().unwrap().uid = 0;
    assert!(refusal(&chart_policy(), &start, &node).is_some());
}
