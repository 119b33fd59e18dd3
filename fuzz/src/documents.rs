//! Documents that people and other programs write.

use sentinel_audit::line::{NO_HASH, decode, encode, sha256};
use sentinel_audit::verify::verify;
use sentinel_operator::resource::{manifest, validate};
use sentinel_policy::asked::{Asked, IdentityFacts, NodeFacts, ProgramFacts};
use sentinel_policy::document::Policy;
use sentinel_policy::signature;
use sentinel_policy::verdict::Decision;
use sentinel_protocol::codec::decode_text;
use sentinel_protocol::request::{Environment, Leftovers, Program, Sandbox};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_secrets::values::SecretValues;

use crate::selected;

/// A line of audit records, with its hash. What is read is written the same.
pub fn audit_line(data: &[u8]) {
    let Some((first, rest)) = selected(data) else { return };
    let line = if first & 1 == 0 { hashed(rest) } else { rest.to_vec() };
    let Ok(line) = decode(&line) else { return };
    let Some(record) = &line.record else { return };
    let Ok((again, hash)) = encode(&line.chain, line.seq, UnixMillis(0), &line.prev, record) else { return };
    let again = decode(again.strip_suffix(b"\n").expect("a line")).expect("what was written");
    assert_eq!((&again.record, &again.hash, &again.prev), (&line.record, &hash, &line.prev));
}

/// A chain of audit records: each line of the input is one, with the hash of the one before and its own.
pub fn audit_chain(data: &[u8]) {
    let Some((first, rest)) = selected(data) else { return };
    let mut prev = NO_HASH.to_owned();
    let mut export = Vec::new();
    for line in rest.split(|byte| *byte == b'\n') {
        let line = if first & 1 == 0 {
            let linked = String::from_utf8_lossy(line).replace("PREV", &prev).into_bytes();
            prev = sha256(&linked).to_string();
            hashed(&linked)
        } else {
            line.to_vec()
        };
        export.extend(line);
        export.push(b'\n');
    }
    let mut lines = 0;
    if let Ok(chains) = verify(&export[..], |_, _| lines += 1) {
        assert_eq!(chains.iter().map(|chain| chain.records()).sum::<u64>(), lines);
    }
}

fn hashed(content: &[u8]) -> Vec<u8> {
    let mut line = content.to_vec();
    line.extend(format!(",\"hash\":\"{}\"}}", sha256(content)).into_bytes());
    line
}

/// A policy: it is refused as a whole, or it decides about every request.
pub fn policy(data: &[u8]) {
    let Ok(policy) = Policy::read(data) else { return };
    assert!(policy.lint().iter().all(|finding| !format!("{finding:?}").is_empty()));
    let ids: Vec<&str> = policy.rules().iter().map(|rule| rule.id.as_str()).collect();
    for start in starts() {
        for facts in [facts("/usr/bin/df"), facts("/bin/sh"), unknown()] {
            policy.asks_for_digests("/usr/bin/df");
            let verdict = policy.verdict(&Asked::of(&start, &facts, UnixMillis(1_800_000_000_000)));
            assert!(verdict.trace.len() <= ids.len());
            match &verdict.decision {
                Decision::Allowed { rule, .. } => assert!(ids.contains(&rule.as_str())),
                Decision::Refused { rule, why } => {
                    assert!(rule == "no-rule" || ids.contains(&rule.as_str()), "{rule}");
                    assert!(!why.is_empty());
                }
            }
            assert!(verdict.to_string().ends_with('\n'));
        }
    }
}

/// The policy of [`verdict`].
const NARROW: &str = "
apiVersion: sentinelnode.dev/v1alpha1
kind: NodePolicy
rules:
- {id: never, effect: Deny, what: [{programs: [/usr/bin/df], args: [--help, {rest: {glob: '**'}}]}]}
- {id: disks, effect: Allow, who: {namespaces: [ops]}, what: [{programs: [/usr/bin/df], args: [-h, {glob: '/data/*'}]}],
   users: [nobody], environments: [Container], env: [{name: LEVEL, value: {oneOf: [low, high]}}], maxRun: 1m}
";

/// Any request under a narrow policy, judged a second time as plainly as possible.
pub fn verdict(data: &[u8]) {
    is_allowed(data);
}

/// Whether that policy allows the request.
pub fn is_allowed(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(ToAgent::Start(start)) = decode_text(text) else { return false };
    let policy = Policy::read(NARROW.as_bytes()).expect("it is valid");
    let named = match &start.request.program {
        Program::Command(argv) => argv.first().cloned().unwrap_or_default(),
        Program::Script { interpreter, .. } => interpreter.clone(),
    };
    let decision = policy.verdict(&Asked::of(&start, &facts(&named), UnixMillis(1_800_000_000_000))).decision;
    let is_allowed = matches!(decision, Decision::Allowed { .. });
    if is_allowed {
        let request = &start.request;
        let Program::Command(argv) = &request.program else { panic!("a script") };
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        assert!(matches!(argv[..], ["/usr/bin/df", "-h", path] if is_data(path)), "{argv:?}");
        assert_eq!(start.task.namespace.as_str(), "ops");
        assert!(
            request.env.iter().all(|one| one.name == "LEVEL" && matches!(&*one.value, "low" | "high")),
            "{:?}",
            request.env
        );
        assert!(request.env.iter().all(|one| one.value_from.is_none()) && request.stdin_from.is_none());
        assert_eq!((&*request.stdin, &*request.working_dir, request.umask & 0o022), ("", "/", 0o022));
        assert_eq!((request.environment, request.sandbox()), (Environment::Container, Sandbox::Restricted));
        assert_eq!(request.leftovers, Leftovers::End);
        assert!(request.limits.core.unwrap_or(0) == 0 && request.limits.nofile.unwrap_or(0) <= 1024);
        assert!(
            [start.deadlines.run_ms, start.deadlines.total_ms]
                .into_iter()
                .flatten()
                .any(|millis| millis <= 60_000)
        );
    }
    is_allowed
}

fn is_data(path: &str) -> bool {
    let name = path.strip_prefix("/data/");
    name.is_some_and(|name| name != ".." && !name.contains('/') && !name.contains(char::is_control))
}

/// The requests that policies are asked about.
fn starts() -> Vec<Start> {
    let texts = include_str!("starts.jsonl").lines();
    texts.map(|text| serde_json::from_str(text).expect("a request")).collect()
}

fn facts(program: &str) -> NodeFacts {
    let identity = IdentityFacts {
        uid: 65534,
        user: Some("nobody".to_owned()),
        user_names: vec!["nobody".to_owned()],
        gid: 65534,
        group: Some("nogroup".to_owned()),
        primary_gid: Some(65534),
        groups: vec![65534],
        group_names: vec!["nogroup".to_owned()],
    };
    NodeFacts {
        name: Some("n".to_owned()),
        program: Ok(ProgramFacts {
            requested: program.into(),
            resolved: program.into(),
            sha256: None,
            replaceable: None,
            also_named: vec![],
        }),
        working_dir: Ok("/".to_owned()),
        identity: Ok(identity),
    }
}

fn unknown() -> NodeFacts {
    let why = || Err("it cannot be found".to_owned());
    NodeFacts {
        name: None,
        program: why(),
        working_dir: Err("none".to_owned()),
        identity: Err("none".to_owned()),
    }
}

/// A statement that was signed.
pub fn statement(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(statement) = signature::read(text) else { return };
    let again = serde_json::to_string(&statement).expect("it was read");
    assert_eq!(signature::read(&again), Ok(statement));
}

/// The values of Secrets, as they are in an opened box.
pub fn secrets(data: &[u8]) {
    let Ok(values) = SecretValues::decode(data) else { return };
    let again = values.encode();
    let read = SecretValues::decode(&again).unwrap_or_else(|error| panic!("what was written: {error}"));
    assert_eq!(*again, *read.encode());
    let (one, two): (Vec<_>, Vec<_>) = (values.values().collect(), read.values().collect());
    assert_eq!(one.len(), two.len());
    assert!(one.iter().zip(&two).all(|(one, two)| one.expose() == two.expose()));
}

/// A manifest: what is accepted has a plan, or a list of what is wrong with it.
pub fn manifest(data: &[u8]) {
    let tasks = match manifest::read_bytes(data) {
        Ok(tasks) => tasks,
        Err(error) => return assert!(!error.to_string().is_empty() && error.to_string().len() < 1 << 20),
    };
    for mut task in tasks {
        task.metadata.uid = Some("u".to_owned());
        match validate::validate(&task) {
            Ok(_) => assert!(validate::spec_hash(&task).is_some()),
            Err(problems) => assert!(!problems.is_empty()),
        }
        let json = serde_json::to_value(&task).expect("a Task is JSON");
        let again = serde_json::from_value(json);
        assert!(again.is_ok_and(|again: sentinel_operator::resource::task::Task| again.spec == task.spec));
    }
}
