//! The node's policy and its kill switch, as an agent follows them.

use sentinel_audit::directory::files;
use sentinel_node_agent::PolicyFiles;
use sentinel_node_agent::journal::{Accepted, StateDir};
use sentinel_policy::signature::NAMESPACE;
use sentinel_protocol::request::{Program, Sandbox};
use sentinel_protocol::signed::Signed;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use super::*;

pub(super) const HEAD: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules:\n";

/// A rule that allows this, as any user.
pub(super) fn allow(id: &str, what: &str, more: &str) -> String {
    format!(
        "- {{id: {id}, effect: Allow, who: Anyone, what: [{what}], users: Any, environments: [Container], \
         sandboxes: [Restricted, Baseline, Privileged]{more}}}\n"
    )
}

impl Node {
    pub(super) fn write_policy(&self, rules: &str) {
        fs::write(self.path("policy.yaml"), format!("{HEAD}{rules}")).unwrap();
    }

    pub(super) fn start_with_policy(&mut self, gateway: &Gateway) {
        let policy = PolicyFiles { policy: Some(self.path("policy.yaml")), kill_switch: None };
        self.start_as(AgentConfig { policy, ..self.config(gateway) });
    }

    /// A copy of a program that only the owner of the test can replace.
    pub(super) fn program(&self, name: &str, of: &str) -> PathBuf {
        let path = self.path(name);
        fs::copy(of, &path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.canonicalize().unwrap()
    }
}

/// A request to run this program.
pub(super) fn command(run: u32, argv: &[&str]) -> Start {
    let mut start = start(run, "");
    start.request.program = Program::Command(argv.iter().map(|&arg| arg.to_owned()).collect());
    start.request.sandbox = Some(Sandbox::Privileged);
    start
}

pub(super) async fn outcome(control: &mut gateway::Control, start: &Start) -> Outcome {
    control.send_message(to_start(start)).await;
    control.ended(&start.attempt).await.outcome
}

async fn refusal(control: &mut gateway::Control, start: &Start) -> (String, String) {
    control.send_message(to_start(start)).await;
    let refused = control.refused().await;
    assert_eq!(refused.attempt, start.attempt);
    match refused.refusal {
        Refusal::Policy { rule, why } => {
            (rule.to_string(), why.map(|why| why.to_string()).unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_what_a_rule_allows_is_started_and_a_refusal_names_the_rule() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let echo = node.program("echo", "/bin/echo");
    let echo = echo.to_str().unwrap();
    let deny = format!(
        "- {{id: no-secrets, effect: Deny, what: [{{programs: [{echo}], args: [secret]}}], description: keep it}}\n"
    );
    let rule = format!("{{programs: [{echo}], args: [{{rest: {{glob: '*'}}}}]}}");
    node.write_policy(&format!("{deny}{}", allow("talk", &rule, "")));
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    assert_eq!(outcome(&mut control, &command(1, &[echo, "hi"])).await, Outcome::Succeeded { exit_code: 0 });
    let denied = refusal(&mut control, &command(2, &[echo, "secret"])).await;
    assert_eq!(denied, ("no-secrets".to_owned(), "keep it".to_owned()));
    let (rule, why) = refusal(&mut control, &command(3, &["/bin/sh", "-c", "echo hi"])).await;
    assert_eq!(rule, "no-rule");
    assert!(why.contains("the closest is talk: the program is /"), "{why}");
    let (_, why) = refusal(&mut control, &command(4, &["/no/such/program"])).await;
    assert!(why.contains("does not exist"), "{why}");
    // A link to it is another path.
    std::os::unix::fs::symlink(echo, node.path("link")).unwrap();
    let link = node.path("link");
    let (_, why) = refusal(&mut control, &command(5, &[link.to_str().unwrap(), "hi"])).await;
    assert!(why.contains("without symbolic links"), "{why}");
    node.stop().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_starts_nothing_until_it_is_repaired() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    let (rule, why) = refusal(&mut control, &command(1, &["/bin/true"])).await;
    assert_eq!(rule, "policy-unusable");
    assert!(why.contains("policy.yaml") && why.contains("No such file"), "{why}");
    let sleep = node.program("sleep", "/bin/sleep");
    let sleep = sleep.to_str().unwrap();
    node.write_policy(&allow("rest", &format!("{{programs: [{sleep}], args: Any}}"), ""));
    control.send_message(to_start(&command(6, &[sleep, "60"]))).await;
    control.running(&attempt(6)).await;
    for (run, text) in
        [(2, ""), (3, "rules: ["), (4, "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrule: []")]
    {
        fs::write(node.path("policy.yaml"), text).unwrap();
        let (rule, why) = refusal(&mut control, &command(run, &["/bin/true"])).await;
        assert_eq!(rule, "policy-unusable", "{why}");
    }
    // What runs is not touched by any of them: it ends when it is cancelled.
    control.send_message(cancel(6)).await;
    assert_eq!(control.ended(&attempt(6)).await.outcome, Outcome::Cancelled);
    let program = node.program("true", "/bin/true");
    let program = program.to_str().unwrap();
    node.write_policy(&allow("nothing", &format!("{{programs: [{program}]}}"), ""));
    assert_eq!(outcome(&mut control, &command(5, &[program])).await, Outcome::Succeeded { exit_code: 0 });
    node.stop().await;
}

#[tokio::test]
async fn the_kill_switch_refuses_every_start_at_once_with_its_reason() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::with_agent(&gateway);
    let mut control = gateway.control().await;
    control.send_message(to_start(&start(1, "exec sleep 60"))).await;
    control.running(&attempt(1)).await;
    let switch = node.state().join("kill-switch");
    fs::write(&switch, "the database is being restored\nby bob\n").unwrap();
    let (rule, why) = refusal(&mut control, &command(2, &["/bin/true"])).await;
    assert_eq!(rule, "kill-switch");
    assert!(why.contains("(the database is being restored)") && why.contains("remove the file"), "{why}");
    // What runs is not touched: it is cancelled like any other command.
    control.send_message(cancel(1)).await;
    assert_eq!(control.ended(&attempt(1)).await.outcome, Outcome::Cancelled);
    fs::remove_file(&switch).unwrap();
    assert_eq!(outcome(&mut control, &command(3, &["/bin/true"])).await, Outcome::Succeeded { exit_code: 0 });
    node.stop().await;
}

/// A request was accepted, the agent ended before the command was started, and the switch was turned on meanwhile.
#[tokio::test]
async fn what_was_accepted_before_the_kill_switch_is_not_started_after_it() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let start = start(1, &node.witnessed("true"));
    StateDir::open(&node.state()).unwrap().create(Accepted::now(start.clone()).unwrap()).unwrap();
    fs::write(node.state().join("kill-switch"), "").unwrap();
    node.start(&gateway);
    let mut control = gateway.control().await;
    let ended = control.ended(&start.attempt).await;
    assert!(
        matches!(&ended.outcome, Outcome::Refused { refusal: Refusal::Policy { rule, .. } } if *rule == "kill-switch"),
        "{ended:?}"
    );
    assert_eq!(node.witness(), 0);
    node.stop().await;
}

/// As above, with a policy that does not allow it any more.
#[tokio::test]
async fn what_was_accepted_under_another_policy_is_asked_again() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let start = start(1, &node.witnessed("true"));
    StateDir::open(&node.state()).unwrap().create(Accepted::now(start.clone()).unwrap()).unwrap();
    node.write_policy("- {id: nothing, effect: Deny}\n");
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    let ended = control.ended(&start.attempt).await;
    assert!(
        matches!(&ended.outcome, Outcome::Refused { refusal: Refusal::Policy { rule, .. } } if *rule == "nothing"),
        "{ended:?}"
    );
    assert_eq!(node.witness(), 0);
    node.stop().await;
}

#[tokio::test]
async fn a_rule_bounds_how_many_run_at_a_time() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let sleep = node.program("sleep", "/bin/sleep");
    let sleep = sleep.to_str().unwrap();
    node.write_policy(&allow("naps", &format!("{{programs: [{sleep}], args: ['60']}}"), ", concurrent: 1"));
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    control.send_message(to_start(&command(1, &[sleep, "60"]))).await;
    control.running(&attempt(1)).await;
    let second = Start { offer: 1, ..command(2, &[sleep, "60"]) };
    control.send_message(to_start(&second)).await;
    let refused = control.refused().await;
    assert_eq!(refused.refusal, Refusal::TooManyAttempts { limit: 1, rule: Some("naps".into()) });
    // Counted from the journal by the next agent as well.
    node.stop().await;
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    control.send_message(to_start(&second)).await;
    assert_eq!(
        control.refused().await.refusal,
        Refusal::TooManyAttempts { limit: 1, rule: Some("naps".into()) }
    );
    control.send_message(cancel(1)).await;
    control.ended(&attempt(1)).await;
    control.send_message(to_start(&Start { offer: 2, ..second })).await;
    control.running(&attempt(2)).await;
    control.send_message(cancel(2)).await;
    control.ended(&attempt(2)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_program_is_compared_by_its_content() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let script = node.path("tool");
    let write = |text: &str| {
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("#!/bin/sh\nexit 7\n");
    let tool = script.canonicalize().unwrap();
    let tool = tool.to_str().unwrap();
    let digest = fixtures::sha256(b"#!/bin/sh\nexit 7\n");
    node.write_policy(&allow("tool", &format!("{{programs: [{tool}], sha256: [{digest}]}}"), ""));
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    assert_eq!(outcome(&mut control, &command(1, &[tool])).await, Outcome::Failed { exit_code: 7 });
    write("#!/bin/sh\nexit 8\n");
    let (_, why) = refusal(&mut control, &command(2, &[tool])).await;
    assert!(why.contains("has another content"), "{why}");
    // In a place where others can replace it, it is not trusted, whatever it is now.
    write("#!/bin/sh\nexit 7\n");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o757)).unwrap();
    let (_, why) = refusal(&mut control, &command(3, &[tool])).await;
    assert!(why.contains("is writable by everyone"), "{why}");
    node.stop().await;
}

pub(super) fn key() -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32])), "alice").unwrap()
}

/// The request, signed by alice for two starts.
pub(super) fn signed(start: Start) -> Start {
    let statement = serde_json::json!({
        "version": 1, "id": "0123456789abcdef", "namespace": start.task.namespace, "name": start.task.name,
        "run": start.request, "nodes": "Any", "notAfter": "2999-01-01T00:00:00Z", "runs": 2,
    })
    .to_string();
    let signature = key().sign(NAMESPACE, HashAlg::Sha512, statement.as_bytes()).unwrap();
    let signature = signature.to_pem(LineEnding::LF).unwrap();
    Start { signed: Some(Signed { statement, signature }), ..start }
}

/// A hostile operator tells a signed script that it is on another node.
#[tokio::test]
async fn a_request_for_another_node_is_not_allowed() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let program = node.program("true", "/bin/true");
    let program = program.to_str().unwrap();
    node.write_policy(&allow("nothing", &format!("{{programs: [{program}]}}"), ""));
    let policy = PolicyFiles { policy: Some(node.path("policy.yaml")), kill_switch: None };
    node.start_as(AgentConfig { policy, node_name: Some("node-2".into()), ..node.config(&gateway) });
    let mut control = gateway.control().await;
    let (_, why) = refusal(&mut control, &command(1, &[program])).await;
    assert_eq!(why, "the request is for node node-1, and this is node-2");
    node.stop().await;
}

/// An operator in the wrong hands sends what the author has signed once more than the author allowed.
#[tokio::test]
async fn a_signed_request_runs_as_often_as_its_author_allowed_also_after_a_restart() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let echo = node.program("echo", "/bin/echo");
    let echo = echo.to_str().unwrap();
    let public = key().public_key().to_openssh().unwrap();
    let rule = allow("signed", &format!("{{programs: [{echo}], args: [hi]}}"), ", signature: {by: [alice]}");
    let policy = format!("{HEAD}{rule}")
        .replace("rules:\n", &format!("signers: [{{name: alice, key: '{public}'}}]\nrules:\n"));
    fs::write(node.path("policy.yaml"), policy).unwrap();
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    let (rule, why) = refusal(&mut control, &command(1, &[echo, "hi"])).await;
    assert_eq!(rule, "no-rule");
    assert!(why.contains("the Task is not signed; one of alice must sign it"), "{why}");
    for run in [2, 3] {
        let first = signed(command(run, &[echo, "hi"]));
        control.send_message(to_start(&first)).await;
        let ended = control.ended(&first.attempt).await;
        assert_eq!(ended.outcome, Outcome::Succeeded { exit_code: 0 });
        assert_eq!(ended.exit.signed_by.as_deref(), Some("alice"), "the signer is in the result");
    }
    // The same Attempt again is recognised, and no use.
    control.send_message(to_start(&signed(command(3, &[echo, "hi"])))).await;
    control.ended(&attempt(3)).await;
    node.stop().await;
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    let (rule, why) = refusal(&mut control, &signed(command(4, &[echo, "hi"]))).await;
    assert_eq!(rule, "signed");
    assert!(why.contains("was used 2 times on this node"), "{why}");
    node.stop().await;
    // Each repetition was accepted first, with its whole request, so that they could replace older records.
    let records = audited(&node);
    let of_fourth = format!("\"attempt\":\"{}\"", attempt(4));
    let kinds: Vec<&str> = records.lines().filter(|line| line.contains(&of_fourth)).collect();
    assert!(matches!(&kinds[..], [refused] if refused.contains("\"kind\":\"Refused\"")), "{kinds:#?}");
}

/// The audit records of a node.
pub(super) fn audited(node: &Node) -> String {
    let files = files(&node.path("state/audit")).unwrap();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// `/bin/df` and `/usr/bin/df` are one file where `/bin` is a link: a rule that refuses one of them refuses both.
#[tokio::test]
async fn a_program_is_denied_under_each_of_its_names() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let echo = node.program("echo", "/bin/echo");
    std::os::unix::fs::symlink(echo.parent().unwrap(), node.path("bin")).unwrap();
    let other = node.path("bin").join("echo");
    fs::hard_link(&echo, node.path("hard")).unwrap();
    let deny = |path: &std::path::Path| {
        format!("- {{id: no-echo, effect: Deny, what: [{{programs: [{}]}}]}}\n", path.display())
    };
    let any = "- {id: any, effect: Allow, who: Anyone, what: AnyCommand, users: Any, environments: [Container], \
               sandboxes: [Privileged]}\n";
    for (run, denied) in (1_u32..).zip([other.as_path(), echo.as_path(), &node.path("hard")]) {
        node.write_policy(&format!("{}{any}", deny(denied)));
        if run == 1 {
            node.start_with_policy(&gateway);
        }
        let mut control = gateway.control().await;
        let (rule, _) = refusal(&mut control, &command(run, &[echo.to_str().unwrap(), "hi"])).await;
        assert_eq!(rule, "no-echo", "{}", denied.display());
    }
    node.stop().await;
}

/// Who runs a Task need not be one who may read the policy.
#[tokio::test]
async fn a_refusal_by_a_policy_that_cannot_be_read_has_no_lines_of_it() {
    let mut gateway = Gateway::start(TOKEN).await;
    let mut node = Node::new();
    let text = format!("{HEAD}# db password hunter2\n- {{id: a, effect: Deny}}\npasswordz: supersecret\n");
    fs::write(node.path("policy.yaml"), text).unwrap();
    node.start_with_policy(&gateway);
    let mut control = gateway.control().await;
    let (rule, why) = refusal(&mut control, &command(1, &["/bin/true"])).await;
    assert_eq!(rule, "policy-unusable");
    assert!(why.contains("passwordz") && why.contains("line "), "{why}");
    assert!(!why.contains("hunter2") && !why.contains("supersecret") && !why.contains('\n'), "{why}");
    node.stop().await;
}
