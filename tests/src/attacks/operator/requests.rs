//! Valid messages of an operator, from which the mutations are made.

use anyhow::Result;
use sentinel_protocol::ids::SessionId;
use sentinel_protocol::secret::{SealingKey, SecretKeyRef};
use sentinel_protocol::to_agent::{Start, ToAgent};
use sentinel_secrets::sealed::seal;
use sentinel_secrets::values::{SecretValue, SecretValues};
use serde_json::{Value, json};

use super::policy::{self, FEED, Policy, RUNS};

/// The valid forms of a `Start`.
pub const FORMS: &[&str] = &["report", "feed", "script", "signed", "secret"];

/// Those of them that need no cryptography.
pub const CHEAP_FORMS: &[&str] = &["report", "report", "feed", "script"];

/// What a message is made for.
pub struct Place<'a> {
    /// The node's policy.
    pub policy: &'a Policy,
    /// The node.
    pub node: &'a str,
    /// The Session.
    pub session: &'a SessionId,
    /// Its key.
    pub sealing_key: Option<SealingKey>,
    /// The epoch.
    pub epoch: u64,
}

/// A `Start` that the policy allows, of an Attempt of its own. With the id of a statement, if it is signed.
///
/// # Errors
/// When it cannot be signed or sealed.
pub fn start(place: &Place<'_>, form: &str, number: usize) -> Result<(Value, Option<String>)> {
    let attempt = format!("task-{number}/1/{}/1", place.node);
    let program = |name: &str| place.policy.program(name);
    let command = match form {
        "feed" => json!({"command": [program("feed")]}),
        "script" => json!({"script": {"interpreter": "/bin/sh", "text": place.policy.script()}}),
        "signed" => json!({"command": [program("signed"), statement_id(place, number)]}),
        _ => json!({"command": [program("report"), "daily", format!("host-{number}")]}),
    };
    let mut start = json!({
        "kind": "Start", "attempt": attempt, "specHash": format!("{number:064x}"), "epoch": place.epoch,
        "task": {"namespace": "ops", "name": "disk-report"},
        "request": {
            "program": command,
            "env": if form == "report" { json!([{"name": "LEVEL", "value": "low"}]) } else { json!([]) },
            "workingDir": "/", "user": place.policy.user, "umask": 0o022,
            "stdin": if form == "feed" { FEED } else { "" },
            "environment": "Container", "successExitCodes": [0],
            "output": {"limit": 1 << 20, "spool": 1 << 20, "maxBlockMs": 1000},
        },
        "deadlines": {"startMs": 60_000, "runMs": 60_000, "graceMs": 1000},
        "credit": 1 << 20, "offer": 1,
        "trace": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        "requestedBy": {"author": {"user": "alice", "uid": "7", "groups": ["dev", "admins"]}},
    });
    let mut statement = None;
    if form == "signed" {
        let id = statement_id(place, number);
        start["signed"] = policy::sign(&statement_of(&start, &id), "alice", 7)?;
        statement = Some(id);
    }
    if form == "secret" {
        let reference = json!({"name": "database", "key": "password"});
        start["request"]["env"] = json!([{"name": "TOKEN", "value": "", "valueFrom": reference}]);
        start["secrets"] = sealed(place, &start, &attempt)?;
    }
    Ok((start, statement))
}

fn statement_id(place: &Place<'_>, number: usize) -> String {
    format!("statement-{}-{number:08}", place.node)
}

/// What the author of this request signs, without what differs from its form.
pub fn statement_of(start: &Value, id: &str) -> Value {
    // As the product writes a request, not as it is written here.
    let run = serde_json::from_value::<Start>(start.clone()).map(|start| start.request);
    json!({
        "version": 1, "id": id, "namespace": "ops", "name": "disk-report", "run": run.unwrap_or_else(|_| unreachable!("it is valid")),
        "nodes": [start["attempt"].as_str().and_then(|id| id.split('/').nth(2))], "notAfter": "2999-01-01T00:00:00Z", "runs": RUNS,
    })
}

/// The values for an Attempt, sealed to the Session.
fn sealed(place: &Place<'_>, start: &Value, attempt: &str) -> Result<Value> {
    let Some(key) = place.sealing_key else { return Ok(Value::Null) };
    let reference = SecretKeyRef { name: "database".into(), key: "password".into(), optional: false };
    let mut values = SecretValues::default();
    values.insert(&reference, SecretValue::new(policy::secret(attempt).into_bytes()));
    let start: Start = serde_json::from_value(start.clone())?;
    Ok(serde_json::to_value(seal(&key, place.session, &start, &values)?)?)
}

/// A valid message other than a `Start`, about this Attempt.
pub fn other(rng: &mut fastrand::Rng, place: &Place<'_>, attempt: &str) -> Value {
    let (hash, epoch) = ("a".repeat(64), place.epoch);
    match rng.u8(..8) {
        0 | 1 => json!({"kind": "Cancel", "attempt": attempt, "specHash": hash, "epoch": epoch}),
        2 => {
            let stage = ["Accepted", "Running", "Ended"][rng.usize(..3)];
            json!({"kind": "Ack", "attempt": attempt, "stage": stage})
        }
        3 | 4 => json!({"kind": "Forget", "attempt": attempt, "epoch": epoch}),
        5 => json!({"kind": "AuditHead", "chain": "c", "seq": rng.u32(..), "hash": hash}),
        6 => {
            json!({"kind": "Welcome", "version": 4, "session": "s-1", "epoch": epoch, "heartbeatMs": 50, "deadAfterMs": 100})
        }
        _ => json!({"kind": "Refuse", "reason": "Stopping"}),
    }
}

/// A `Start` of something that does not exist: its Refusal shows that all before it was handled.
pub fn barrier(place: &Place<'_>, number: usize) -> Result<Value> {
    let (mut start, _) = start(place, "feed", number)?;
    start["attempt"] = format!("barrier-{number}/1/{}/1", place.node).into();
    start["request"]["program"] = json!({"command": [place.policy.program("missing")]});
    Ok(start)
}

/// Whether an agent of this release can read it. One that it cannot ends the Session.
pub fn is_message(text: &str) -> bool {
    sentinel_protocol::codec::decode_text::<ToAgent>(text)
        .is_ok_and(|message| !matches!(message, ToAgent::Refuse(_)))
}
