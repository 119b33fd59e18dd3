//! What the agent has accepted and not started, when it was rebooted or the policy has changed: it is asked for again.

use sentinel_core::agent::PolicyVerdict;
use sentinel_node_agent::PolicyFiles;
use sentinel_node_agent::journal::{Accepted, StateDir};
use sentinel_node_agent::policy::PolicyGate;
use sentinel_node_agent::supervisor::HostNamespaces;
use sentinel_protocol::request::Deadlines;
use sentinel_protocol::time::UnixMillis;

use super::policy::{HEAD, allow, audited, command, key, outcome, signed};
use super::*;

/// A node with a policy by which `echo hi` runs where alice has signed it, twice, and `true` always.
fn node_of_signer() -> (Node, String, String) {
    let node = Node::new();
    let [echo, other] = [("echo", "/bin/echo"), ("true", "/bin/true")]
        .map(|(name, of)| node.program(name, of).to_str().unwrap().to_owned());
    let public = key().public_key().to_openssh().unwrap();
    let signed =
        allow("signed", &format!("{{programs: [{echo}], args: [hi]}}"), ", signature: {by: [alice]}");
    let open = allow("open", &format!("{{programs: [{other}]}}"), "");
    let policy = format!("{HEAD}{signed}{open}")
        .replace("rules:\n", &format!("signers: [{{name: alice, key: '{public}'}}]\nrules:\n"));
    fs::write(node.path("policy.yaml"), policy).unwrap();
    (node, echo, other)
}

/// Accepted, and not started when the node was rebooted.
fn before_a_reboot(node: &Node, start: &Start) -> Accepted {
    let policy = PolicyFiles { policy: Some(node.path("policy.yaml")), kill_switch: None };
    let mut gate = PolicyGate::new(&policy, &node.state(), HostNamespaces::Own, None);
    let PolicyVerdict::Allowed(permit) = gate.verdict(start, UnixMillis(0)) else { panic!("not allowed") };
    // Counted from the boot of this machine.
    let deadlines = Deadlines { start_ms: u64::MAX >> 1, ..start.deadlines };
    let accepted = Accepted::now(Start { deadlines, ..start.clone() }).unwrap();
    Accepted { boot_id: "of an earlier boot".to_owned(), permit: Some(*permit), ..accepted }
}

/// These are in the Journal as such.
fn accept_before_a_reboot(node: &Node, starts: &[Start]) {
    let state = StateDir::open(&node.state()).unwrap();
    for start in starts {
        state.create(before_a_reboot(node, start)).unwrap();
    }
}

/// A hostile operator confirms what was accepted before a reboot with another request: it has neither been accepted, nor has it a use of
/// what was signed.
#[tokio::test]
async fn what_was_accepted_before_a_reboot_is_what_starts_and_nothing_else() {
    let mut gateway = Gateway::start(TOKEN).await;
    let (mut node, echo, other) = node_of_signer();
    let accepted = [5, 6, 7].map(|run| command(run, &[&other]));
    accept_before_a_reboot(&node, &accepted);
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    for run in [1, 2] {
        assert_eq!(
            outcome(&mut control, &signed(command(run, &[&echo, "hi"]))).await,
            Outcome::Succeeded { exit_code: 0 }
        );
    }
    let repeated = signed(command(5, &[&echo, "hi"]));
    let mismatch = Outcome::Refused { refusal: Refusal::SpecHashMismatch };
    assert_eq!(outcome(&mut control, &repeated).await, mismatch, "a third use of what was signed for two");
    let endless = Deadlines { grace_ms: u64::MAX, ..accepted[1].deadlines };
    let refused = outcome(&mut control, &Start { deadlines: endless, ..accepted[1].clone() }).await;
    assert!(
        matches!(&refused, Outcome::Refused { refusal: Refusal::InvalidRequest { message } }
            if message.contains("timeouts.grace")),
        "{refused:?}"
    );
    assert_eq!(outcome(&mut control, &accepted[2]).await, Outcome::Succeeded { exit_code: 0 });
    node.stop().await;
}

/// Also one that is confirmed as it was: the policy may rest on what was signed only since.
#[tokio::test]
async fn what_was_accepted_before_a_reboot_and_must_be_signed_now_uses_up_what_was_signed() {
    let mut gateway = Gateway::start(TOKEN).await;
    let (mut node, echo, _) = node_of_signer();
    let policy = fs::read_to_string(node.path("policy.yaml")).unwrap();
    node.write_policy(&allow("open", &format!("{{programs: [{echo}], args: [hi]}}"), ""));
    let accepted = [5, 6, 7].map(|run| signed(command(run, &[&echo, "hi"])));
    accept_before_a_reboot(&node, &accepted);
    fs::write(node.path("policy.yaml"), policy).unwrap();
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    for start in &accepted[..2] {
        assert_eq!(outcome(&mut control, start).await, Outcome::Succeeded { exit_code: 0 });
    }
    let third = outcome(&mut control, &accepted[2]).await;
    assert!(
        matches!(&third, Outcome::Refused { refusal: Refusal::Policy { rule, why: Some(why) } }
            if *rule == "signed" && why.contains("was used 2 times")),
        "{third:?}"
    );
    node.stop().await;
    let records = audited(&node);
    let of_first = format!("\"attempt\":\"{}\"", attempt(5));
    let accepted: Vec<&str> =
        records.lines().filter(|line| line.contains(&of_first) && line.contains("\"Accepted\"")).collect();
    assert!(accepted.last().unwrap().contains("\"allowedBy\":\"signed\""), "{accepted:#?}");
}

/// It waits for its turn like a new one.
#[tokio::test]
async fn what_was_accepted_before_a_reboot_counts_among_those_that_a_rule_bounds() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let sleep = node.program("sleep", "/bin/sleep");
    let sleep = sleep.to_str().unwrap();
    let naps = allow("naps", &format!("{{programs: [{sleep}], args: ['60']}}"), ", concurrent: 1");
    node.write_policy(&naps.replace(", concurrent: 1", ""));
    let accepted = [5, 6].map(|run| command(run, &[sleep, "60"]));
    accept_before_a_reboot(&node, &accepted);
    node.write_policy(&naps);
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    for start in &accepted {
        control.send_message(to_start(start)).await;
    }
    control.running(&attempt(5)).await;
    control.send_message(to_start(&Start { offer: 1, ..command(7, &[sleep, "60"]) })).await;
    assert_eq!(control.refused().await.attempt, attempt(7), "and the one before it has not ended");
    control.send_message(cancel(5)).await;
    control.ended(&attempt(5)).await;
    control.send_message(to_start(&accepted[1])).await;
    control.running(&attempt(6)).await;
    control.send_message(cancel(6)).await;
    assert_eq!(control.ended(&attempt(6)).await.outcome, Outcome::Cancelled);
    node.stop().await;
}

/// Accepted in this boot by a rule that asked for less: there is neither a use nor a place for it.
#[tokio::test]
async fn what_another_rule_accepted_does_not_start_by_one_that_counts() {
    let mut gateway = Gateway::start(TOKEN).await;
    let (mut node, echo, other) = node_of_signer();
    let rules = fs::read_to_string(node.path("policy.yaml")).unwrap();
    node.write_policy(&allow("early", &format!("{{programs: [{echo}, {other}], args: [hi]}}"), ""));
    let accepted = [signed(command(5, &[&echo, "hi"])), command(6, &[&other, "hi"])];
    for start in &accepted {
        let accepted = Accepted {
            boot_id: Accepted::now(start.clone()).unwrap().boot_id,
            ..before_a_reboot(&node, start)
        };
        StateDir::open(&node.state()).unwrap().create(accepted).unwrap();
    }
    let bounded = allow("bounded", &format!("{{programs: [{other}], args: [hi]}}"), ", concurrent: 1");
    fs::write(node.path("policy.yaml"), rules + &bounded).unwrap();
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    for (start, of) in accepted.iter().zip(["signed", "bounded"]) {
        let ended = control.ended(&start.attempt).await;
        assert!(
            matches!(&ended.outcome, Outcome::Refused { refusal: Refusal::Policy { rule, why: Some(why) } }
                if *rule == of && why.contains("accepted by rule early, when")),
            "{ended:?}"
        );
    }
    node.stop().await;
}
