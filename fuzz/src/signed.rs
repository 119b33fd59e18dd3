//! What is signed or sealed, so that a change shows: stamps, approvals, statements, boxes; and what asks for a stamp.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sentinel_operator::admission::review;
use sentinel_operator::resource::marks::{APPROVAL, REQUESTED_BY, REQUESTED_BY_SIGNATURE, RERUN};
use sentinel_operator::resource::stamp::{KEY_BYTES, Key, Stamps};
use sentinel_operator::resource::task::Task;
use sentinel_operator::resource::{approval, ceilings};
use sentinel_policy::signature;
use sentinel_protocol::ids::SessionId;
use sentinel_protocol::secret::Sealed;
use sentinel_protocol::signed::Signed;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;
use sentinel_secrets::sealed::{SessionKeys, seal};
use sentinel_secrets::values::SecretValues;
use serde_json::{Value, json};

use crate::selected;

/// The operator whose signatures count.
fn stamps() -> Stamps {
    Stamps::of(Key::from([7; KEY_BYTES]))
}

/// A Task with these annotations.
fn task(annotations: &[(&str, &str)]) -> Task {
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task",
        "metadata": {"name": "job", "namespace": "ops", "uid": "u", "generation": 1,
            "creationTimestamp": "2027-01-15T08:00:00Z", "annotations": annotations},
        "spec": {"targets": {"all": true}, "run": {"command": ["df"]}},
    });
    serde_json::from_value(task).expect("a Task")
}

/// An approval as an annotation.
pub fn approval(data: &[u8]) {
    is_approved(data);
}

/// Whether it counts. The key has signed those of the corpus alone.
pub fn is_approved(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(Some(read)) = approval::read(&stamps(), &task(&[(APPROVAL, text)])) else { return false };
    assert_eq!((&*read.approver.user, read.run.0), ("bob", 3), "a forged approval counts");
    assert_eq!((read.at, read.expires_at), (UnixMillis(1_000), UnixMillis(2_000)));
    assert_eq!((read.spec_hash.as_str(), &read.targets_digest), (&*"0".repeat(64), &"1".repeat(64)));
    assert_eq!(
        approval::read(&Stamps::of(Key::from([9; KEY_BYTES])), &task(&[(APPROVAL, text)])),
        Err(approval::NotGenuine)
    );
    true
}

/// A stamp as two annotations, and that of a rerun: a line each.
pub fn stamp(data: &[u8]) {
    is_stamped(data);
}

/// Whether it counts. The key has signed those of the corpus alone.
pub fn is_stamped(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut lines = text.splitn(3, '\n');
    let keys = [REQUESTED_BY, REQUESTED_BY_SIGNATURE, RERUN];
    let annotations: Vec<(&str, &str)> =
        keys.into_iter().filter_map(|key| Some((key, lines.next()?))).collect();
    let asked = stamps().read(&task(&annotations));
    let people = [&asked.creator, &asked.author].into_iter().flatten().chain(asked.requests.values());
    let names: Vec<&str> = people.map(|person| &*person.user).collect();
    assert!(names.iter().all(|name| *name == "alice"), "a forged stamp counts: {names:?}");
    // One that is wrong in itself names no requester; one of another spec still names the creator.
    assert!(asked.unverified.is_some() || asked.author.is_some());
    !names.is_empty()
}

/// A question of an API server to the webhook: what is answered changes the two annotations of the stamp, and nothing else.
pub fn admission(data: &[u8]) {
    let (answer, done) = match review::answer(data, &stamps(), UnixMillis(1_800_000_000_000)) {
        Ok(answered) => answered,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let response = &answer["response"];
    assert_eq!((&response["allowed"], response["uid"].is_string()), (&json!(true), true));
    let Some(patch) = response["patch"].as_str() else { return assert_eq!(done, review::Done::Unchanged) };
    let patch: Value = serde_json::from_slice(&STANDARD.decode(patch).expect("base64")).expect("JSON");
    for operation in patch.as_array().expect("operations") {
        let path = operation["path"].as_str().expect("a path");
        let is_annotations = path == "/metadata/annotations" && operation["value"] == json!({});
        assert!(
            is_annotations || path.starts_with("/metadata/annotations/sentinelnode.dev~1requested-by"),
            "{path}"
        );
    }
}

/// A file of ceilings: it is refused as a whole, with what is wrong, or each of its ceilings has a name and namespaces.
pub fn ceilings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ceilings::parse(text) {
        Ok(rules) => {
            assert!(
                rules
                    .ceilings
                    .iter()
                    .all(|ceiling| !ceiling.name.is_empty() && !ceiling.namespaces.is_empty())
            );
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.without_excerpt().is_empty()),
    }
}

/// A signature of OpenSSH behind the line that it is of, or a key alone.
pub fn ssh_signature(data: &[u8]) {
    is_verified(data);
}

/// Whether the signature is one of the line. Then it is of no other.
pub fn is_verified(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    if let Ok(key) = signature::Key::try_from(text.to_owned()) {
        assert!(
            signature::key_kind(text).is_some_and(|kind| signature::check_kind(&kind).is_ok()),
            "{key:?}"
        );
    }
    let Some((statement, signature)) = text.split_once('\n') else { return false };
    let of = |statement: String| Signed { statement, signature: signature.to_owned() };
    if signature::check_signature(&of(statement.to_owned())).is_err() {
        return false;
    }
    assert!(signature::check_signature(&of(format!("{statement} "))).is_err(), "it is of another line too");
    true
}

/// The keys of a Session, and the request that boxes are for.
static SESSION: LazyLock<(SessionKeys, SessionId, Start)> = LazyLock::new(|| {
    let journaled: Value = serde_json::from_str(include_str!("request.json")).expect("JSON");
    let start = serde_json::from_value(journaled["start"].clone()).expect("a request");
    (SessionKeys::generate(), SessionId::new("s").expect("an id"), start)
});

/// A box that was not sealed for this Session, or one with these values that is changed in one byte: neither is opened.
pub fn sealed(data: &[u8]) {
    let Some((first, rest)) = selected(data) else { return };
    let (keys, session, start) = &*SESSION;
    let opened = |text: String| keys.open(session, start, &Sealed(text));
    if first & 1 == 0 {
        assert!(opened(String::from_utf8_lossy(rest).into_owned()).is_err(), "a foreign box is opened");
        assert!(opened(STANDARD.encode(rest)).is_err(), "a foreign box is opened");
        return;
    }
    let Ok(values) = SecretValues::decode(rest) else { return };
    let sealed = seal(&keys.public(), session, start, &values).expect("the key is one");
    let again = opened(sealed.0.clone()).unwrap_or_else(|error| panic!("what was sealed: {error}"));
    assert_eq!(*again.encode(), *values.encode());
    let mut bytes = STANDARD.decode(&sealed.0).expect("base64");
    let at = usize::from(first) * 31 % bytes.len();
    bytes[at] ^= 1;
    assert!(opened(STANDARD.encode(bytes)).is_err(), "a changed box is opened");
}
