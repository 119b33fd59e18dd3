//! Signatures of authors: what counts as one, and what it allows.

use sentinel_policy::document::Policy;
use sentinel_policy::signature::{NAMESPACE, Statement, read};
use sentinel_policy::verdict::Decision;
use sentinel_protocol::request::{EnvVar, Program, RunRequest};
use sentinel_protocol::secret::SecretKeyRef;
use sentinel_protocol::signed::Signed;
use sentinel_protocol::to_agent::Start;
use serde_json::{Value, json};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::kit::{RULE, node, policy, refusal, start, verdict};

fn key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "test").unwrap()
}

fn public(seed: u8) -> String {
    key(seed).public_key().to_openssh().unwrap()
}

fn statement(request: &RunRequest) -> Value {
    json!({
        "version": 1, "id": "0123456789abcdef", "namespace": "ops", "name": "disk", "run": request,
        "nodes": ["node-1"], "notAfter": "2026-11-30T12:00:00Z", "runs": 2,
    })
}

fn signed_by(seed: u8, namespace: &str, statement: &Value) -> Signed {
    let statement = statement.to_string();
    let signature = key(seed).sign(namespace, HashAlg::Sha512, statement.as_bytes()).unwrap();
    Signed { statement, signature: signature.to_pem(LineEnding::LF).unwrap() }
}

/// The policy that lets alice (key 1) sign; bob (key 2) is known and not accepted.
fn signing(signature: &str) -> Policy {
    let signers =
        format!("signers:\n- {{name: alice, key: '{}'}}\n- {{name: bob, key: '{}'}}\n", public(1), public(2));
    policy(&format!("{}  signature: {signature}\n", RULE.replace("rules:\n", &format!("{signers}rules:\n"))))
}

fn with(signed: Signed) -> Start {
    Start { signed: Some(signed), ..start() }
}

fn refused(start: &Start) -> String {
    refusal(&signing("{by: [alice]}"), start, &node()).unwrap_or_else(|| "allowed".to_owned())
}

#[test]
fn what_the_author_has_signed_is_allowed_and_names_the_signer() {
    let start = with(signed_by(1, NAMESPACE, &statement(&start().request)));
    let verdict = verdict(&signing("{by: [alice]}"), &start, &node());
    let Decision::Allowed { signed: Some(signed), .. } = &verdict.decision else { panic!("{verdict}") };
    assert_eq!((signed.signer.as_str(), signed.runs), ("alice", 2));
    assert!(verdict.to_string().contains("signed by alice for 2 starts on each node"));
}

#[test]
fn another_signature_does_not_count() {
    assert!(refused(&start()).contains("the Task is not signed"));
    let good = statement(&start().request);
    assert!(
        refused(&with(signed_by(2, NAMESPACE, &good))).contains("is of none of alice"),
        "a signer of other rules"
    );
    assert!(refused(&with(signed_by(3, NAMESPACE, &good))).contains("is of none of alice"));
    assert!(
        refused(&with(signed_by(1, "git", &good))).contains("is of none of alice"),
        "made for something else"
    );
    let mut altered = signed_by(1, NAMESPACE, &good);
    altered.statement = altered.statement.replace("\"runs\":2", "\"runs\":9");
    assert!(refused(&with(altered)).contains("not of this statement"));
    let unreadable = Signed { statement: good.to_string(), signature: "no signature".into() };
    assert!(refused(&with(unreadable)).contains("cannot be read"));
}

/// A change of the request, or of what was signed about it, with a valid signature.
#[test]
fn a_signature_is_for_one_request_on_some_nodes_until_some_time() {
    let request = start().request;
    let changed = |field: &str, value: Value| {
        let mut statement = statement(&request);
        statement[field] = value;
        refused(&with(signed_by(1, NAMESPACE, &statement)))
    };
    assert!(changed("nodes", json!(["node-2"])).contains("is not for node node-1, but for node-2"));
    assert_eq!(changed("nodes", json!("Any")), "allowed");
    assert!(changed("nodes", json!([])).contains("is not for node node-1"));
    assert!(
        changed("notAfter", json!("2026-11-30T08:59:59Z")).contains("was valid until 2026-11-30T08:59:59Z")
    );
    assert!(changed("name", json!("other")).contains("is for Task ops/other"));
    assert!(changed("namespace", json!("prod")).contains("is for Task prod/disk"));
    assert!(changed("audience", json!("staging")).contains("is for the audience staging, not none"));
    assert!(changed("version", json!(2)).contains("a statement of version 2 is not known"));
    assert!(changed("id", json!("short")).contains("is not an id"));
    assert!(changed("id", json!("../../etc/passwd")).contains("is not an id"));
    assert!(changed("extra", json!(1)).contains("unknown field"));
    let mut start = with(signed_by(1, NAMESPACE, &statement(&request)));
    start.request.user = Some("root".into());
    assert!(refused(&start).contains("was changed after it was signed"));
    start.request = RunRequest { program: Program::Command(vec!["df".into(), "-a".into()]), ..request };
    assert!(refused(&start).contains("was changed after it was signed"));
}

/// Who can change the Secret, or an operator in the wrong hands, would choose what a signed `sh` reads.
#[test]
fn a_signature_does_not_cover_values_of_secrets() {
    let reference = SecretKeyRef { name: "script".into(), key: "sh".into(), optional: false };
    let from_secret = |start: &mut Start, in_env: bool| {
        let from = Some(reference.clone());
        if in_env {
            start.request.env.push(EnvVar { name: "A".into(), value: String::new(), value_from: from });
        } else {
            start.request.stdin_from = from;
        }
    };
    let both = "  env: [{name: A}]\n  stdin: Any\n";
    for in_env in [true, false] {
        let mut asked = start();
        from_secret(&mut asked, in_env);
        asked.signed = Some(signed_by(1, NAMESPACE, &statement(&asked.request)));
        let decided = |signature: &str| {
            let policy = signing(&format!("{signature}\n{}", both.trim_end()));
            refusal(&policy, &asked, &node())
        };
        let why = decided("{by: [alice]}").expect("it is refused");
        assert!(why.contains("key \"sh\" of Secret script is not signed"), "{why}");
        assert_eq!(decided("{by: [alice], secrets: Any}"), None);
    }
}

#[test]
fn a_field_of_the_request_that_is_not_known_is_not_ignored() {
    let mut newer = statement(&start().request);
    newer["run"]["onlyOnSundays"] = json!(true);
    assert!(
        refused(&with(signed_by(1, NAMESPACE, &newer)))
            .contains("fields of `run` that this agent does not know")
    );
}

#[test]
fn an_audience_must_be_the_one_of_the_rule() {
    let policy = signing("{by: [alice], audience: prod}");
    let of = |audience: Option<&str>| {
        let mut statement = statement(&start().request);
        if let Some(audience) = audience {
            statement["audience"] = audience.into();
        }
        refusal(&policy, &with(signed_by(1, NAMESPACE, &statement)), &node())
    };
    assert_eq!(of(Some("prod")), None);
    assert!(of(Some("staging")).is_some() && of(None).is_some());
}

#[test]
fn an_agent_that_does_not_know_its_node_accepts_no_statement_for_named_ones() {
    let start = with(signed_by(1, NAMESPACE, &statement(&start().request)));
    let mut node = node();
    node.name = None;
    assert!(
        refusal(&signing("{by: [alice]}"), &start, &node)
            .unwrap()
            .contains("does not know the name of its node")
    );
}

#[test]
fn signers_are_checked_with_the_policy() {
    let read = |signers: &str, rule: &str| {
        let text = format!(
            "{}  signature: {rule}\n",
            RULE.replace("rules:\n", &format!("signers: {signers}\nrules:\n"))
        );
        Policy::read(text.as_bytes()).unwrap_err().to_string()
    };
    let alice = format!("{{name: alice, key: '{}'}}", public(1));
    assert!(read("[]", "{by: [alice]}").contains("names \"alice\", who is not in `signers`"));
    assert!(
        read(&format!("[{alice}, {alice}]"), "{by: [alice]}")
            .contains("two signers of the policy have the name")
    );
    assert!(read(&format!("[{alice}]"), "{by: []}").contains("`signature.by` is empty"));
    assert!(read("[{name: a, key: ssh-ed25519 AAAA}]", "{by: [a]}").contains("is not a public SSH key"));
    assert!(read("[{name: a}]", "{by: [a]}").contains("missing field `key`"));
    // By ssh-keygen -t rsa: a kind of key that is not supported.
    let rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7vbqajDhA5GkVO5dXx0Jj0hpBIXp7MxSjv0lVuxnJzmkwcm0kO0N1vVXE0sQ4T2eOEvH3kxIVm8eu0RfKxQ8f0G5b0b5v1lKcVWk8WlX1R3rDgtWl6QnI1sVv7K2YwkQh7hXgXqP0fJmYkYpL0c8wqvP0x3d8r5o1k9hHjX7gZw==";
    assert!(read(&format!("[{{name: a, key: '{rsa}'}}]"), "{by: [a]}").contains("are not supported"));
}

/// Made once by `sentinel sign` with `ssh-keygen` of OpenSSH: the form in which people sign.
#[test]
fn a_signature_of_openssh_counts() {
    let file = |name: &str| {
        std::fs::read_to_string(format!("{}/tests/policy/openssh/{name}", env!("CARGO_MANIFEST_DIR")))
            .unwrap()
    };
    for signer in ["ed25519", "ecdsa"] {
        let signed: Signed = serde_json::from_str(&file(&format!("{signer}.json"))).unwrap();
        let Statement { run, .. } = read(&signed.statement).unwrap();
        let policy = policy(&format!(
            "{}  signature: {{by: [a]}}\n",
            RULE.replace(
                "rules:\n",
                &format!(
                    "signers: [{{name: a, key: '{}'}}]\nrules:\n",
                    file(&format!("{signer}.pub")).trim()
                )
            )
        ));
        let start = Start { request: run, ..with(signed) };
        assert_eq!(refusal(&policy, &start, &node()), None, "{signer}");
    }
}
