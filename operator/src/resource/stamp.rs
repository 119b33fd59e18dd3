//! Who asked for a Task, stamped on it where no user can choose it: who created it, who last changed its spec, and who set each
//! annotation that is a request.
//!
//! The stamp is two annotations, which the admission webhook (and, for requests to the HTTP API, the operator) writes whatever a
//! user wrote there: [`REQUESTED_BY`] for people, and a signature by a key that only operators have. Without that key an
//! annotation proves nothing: where the webhook was unavailable, any user could have written it. What cannot be verified is
//! *unknown*, and never a guess.
//!
//! What is signed names the Task: namespace and name, and its uid where it has one. The author counts for the spec of one
//! generation and one spec hash, and who set an annotation for its value. At a creation the API server has given no uid yet;
//! then the stamp counts only for a Task that was created at that time.
//!
//! Everything here is pure: times and keys are arguments.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use sentinel_core::reconcile::trigger::AskedBy;
use sentinel_protocol::requester::{RequestedBy, Requester};
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::marks::{ABANDON, CANCEL, REQUESTED_BY, REQUESTED_BY_SIGNATURE, RERUN};
use super::{Task, validate};

/// The annotations that ask for something: who set each of them is stamped.
pub const REQUESTS: [&str; 3] = [CANCEL, RERUN, ABANDON];

/// How far apart the clocks of operator and API server may be, milliseconds: a stamp of a creation counts for a Task that was
/// created this much before or after it.
const CREATED_WITHIN_MS: u64 = 5 * 60 * 1_000;

/// Longest value of a request that is stamped, characters; a longer one is ignored as a request too.
const MAX_VALUE: usize = 128;

/// Largest stamp that is read, bytes: that of four people with the most and longest groups.
const MAX_STAMP: usize = 256 << 10;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// What is signed, before namespace, name and stamp.
const CONTEXT: &str = "sentinelnode.dev/requested-by/v1";

/// A key by which operators sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

impl From<[u8; KEY_BYTES]> for Key {
    fn from(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }
}

impl Key {
    /// A name for it that tells nothing about it.
    pub fn id(&self) -> String {
        self.derived("id").chars().take(8).collect()
    }

    /// A text that only a holder of the key can know, for this purpose.
    pub fn derived(&self, purpose: &str) -> String {
        let tag = self.sign(&["derived", purpose]);
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..24])
    }

    /// The signature of these parts.
    pub(super) fn sign(&self, parts: &[&str]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), &message(parts))
    }

    /// Whether it is the signature of these parts; in constant time.
    pub(super) fn verifies(&self, parts: &[&str], signature: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), &message(parts), signature).is_ok()
    }
}

/// The parts, each behind its length: no two lists of parts have the same message.
fn message(parts: &[&str]) -> Vec<u8> {
    let mut message = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message
}

/// The keys that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// By which is signed.
    pub signing: Option<Key>,
    /// By which signatures are verified too: one that was, or will soon be, the signing key.
    pub others: Vec<Key>,
}

impl Keys {
    /// All of them, the signing one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        self.signing.iter().chain(&self.others)
    }
}

/// The keys that count now. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Stamps(Arc<RwLock<Keys>>);

impl From<Keys> for Stamps {
    fn from(keys: Keys) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }
}

/// Why it is unknown who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// Tasks are not stamped here: the operator has no key.
    Off,
    /// The Task has no stamp: the webhook was unavailable when it was written, or was not installed.
    NotStamped,
    /// The stamp is not signed by a key of this operator: a user has written it.
    Signature,
    /// It is that of another Task.
    OtherTask,
    /// The spec was changed since without the webhook.
    SpecChanged,
    /// It was stamped without an author: the change came from an API without authentication.
    Unnamed,
}

impl Unverified {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Off, Self::NotStamped, Self::Signature, Self::OtherTask, Self::SpecChanged, Self::Unnamed];

    /// Its name, for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::NotStamped => "NotStamped",
            Self::Signature => "Signature",
            Self::OtherTask => "OtherTask",
            Self::SpecChanged => "SpecChanged",
            Self::Unnamed => "Unnamed",
        }
    }

    /// What it means, for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Off => "this operator stamps no Tasks (--admission-listen)",
            Self::NotStamped => {
                "it has no stamp: the operator's webhook did not see the change; write the Task again while it is up"
            }
            Self::Signature => {
                "its stamp is not signed by a key of this operator, so any user can have written it; write the Task again"
            }
            Self::OtherTask => "its stamp is that of another Task; write the Task again",
            Self::SpecChanged => {
                "its spec was changed since it was stamped, without the operator's webhook; write the Task again"
            }
            Self::Unnamed => "its spec was changed by a request without authentication",
        }
    }
}

/// Who asked for a Task, as far as it is proven.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Who created it.
    pub creator: Option<Requester>,
    /// Who last changed its spec.
    pub author: Option<Requester>,
    /// Who set each annotation of [`REQUESTS`] to its value of now.
    pub requests: BTreeMap<String, Requester>,
    /// Why the author is unknown.
    pub unverified: Option<Unverified>,
}

impl Asked {
    /// Who is behind a Run that begins now. Where the annotation [`RERUN`] begins it, who set it must be known too, since the author
    /// has not asked for this Run.
    pub fn requested_by(&self, asked_by: AskedBy) -> Option<RequestedBy> {
        let author = self.author.clone()?;
        let rerun = match asked_by {
            AskedBy::Author => None,
            AskedBy::Annotation => Some(self.requests.get(RERUN)?.clone()),
            AskedBy::Unclear => return None,
        };
        Some(RequestedBy { creator: self.creator.clone(), ..RequestedBy::new(author, rerun) })
    }
}

/// The stamp, as [`REQUESTED_BY`] holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stamp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    creator: Option<Requester>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<Requester>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    requests: BTreeMap<String, Request>,
    /// The spec that the author wrote: its generation and hash.
    generation: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spec_hash: Option<String>,
    /// Of the Task; absent in the stamp of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    /// What the API server was asked to make a name of, at the creation of a Task without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generate_name: Option<String>,
    at: UnixMillis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    value: String,
    by: Requester,
}

/// What of a Task a stamp is about.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    namespace: String,
    name: String,
    generate_name: Option<String>,
    uid: Option<String>,
    generation: i64,
    created_at: Option<i64>,
    is_deleting: bool,
    /// The spec, to compare; `None` where only one version of it is of interest.
    spec: Option<Value>,
    spec_hash: Option<String>,
    annotations: BTreeMap<String, String>,
}

impl Subject {
    /// Of a Task as a change of it has it.
    pub fn of(task: &Task) -> Self {
        Self { spec: serde_json::to_value(&task.spec).ok(), ..Self::stored(task) }
    }

    /// Of an object of the API server, of any version of the schema; `namespace` where it names none. The spec is compared as
    /// the API server has it: a field that this operator does not know is a change too.
    pub fn of_object(object: &Value, namespace: &str) -> Self {
        let spec = object.get("spec").cloned().unwrap_or_default();
        let subject = if let Ok(task) = serde_json::from_value::<Task>(object.clone()) {
            Self::stored(&task)
        } else {
            // Of a newer schema. It cannot be run here, so nothing is lost without a hash.
            let metadata = object.get("metadata").cloned().unwrap_or_default();
            let mut task = Task::new("", super::TaskSpec::stand_in());
            task.metadata = serde_json::from_value(metadata).unwrap_or_default();
            Self { spec_hash: None, ..Self::stored(&task) }
        };
        let namespace = if subject.namespace.is_empty() { namespace.to_owned() } else { subject.namespace };
        Self { namespace, spec: Some(spec), ..subject }
    }

    fn stored(task: &Task) -> Self {
        let metadata = &task.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            generate_name: metadata.generate_name.clone().filter(|prefix| !prefix.is_empty()),
            uid: metadata.uid.clone().filter(|uid| !uid.is_empty()),
            generation: metadata.generation.unwrap_or_default(),
            created_at: metadata.creation_timestamp.as_ref().map(|at| at.0.as_millisecond()),
            is_deleting: metadata.deletion_timestamp.is_some(),
            spec: None,
            spec_hash: validate::spec_hash(task).map(|hash| hash.to_string()),
            annotations: metadata.annotations.clone().unwrap_or_default(),
        }
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// What is asked for by this annotation.
    fn request(&self, key: &str) -> Option<&str> {
        self.annotation(key).filter(|value| value.chars().count() <= MAX_VALUE)
    }

    /// The stamp and its signature, as they are written.
    fn written(&self) -> Option<Written> {
        let (stamp, signature) = (self.annotation(REQUESTED_BY)?, self.annotation(REQUESTED_BY_SIGNATURE)?);
        Some(Written { stamp: stamp.to_owned(), signature: signature.to_owned() })
    }
}

/// The values of the two annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Of [`REQUESTED_BY`].
    pub stamp: String,
    /// Of [`REQUESTED_BY_SIGNATURE`].
    pub signature: String,
}

impl Stamps {
    /// Those of operators with these keys.
    pub fn of(signing: Key) -> Self {
        Self::from(Keys { signing: Some(signing), others: Vec::new() })
    }

    /// Replaces the keys.
    pub fn set(&self, keys: Keys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The keys of now.
    pub fn keys(&self) -> Keys {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether Tasks are stamped here.
    pub fn is_on(&self) -> bool {
        self.keys().signing.is_some()
    }

    /// The stamp that a change has, from `old` (`None` at a creation) to `new` by this person (`None` without
    /// authentication). What `new` has for a stamp does not count. `None` when none is known and none was written before.
    pub fn stamped(
        &self,
        old: Option<&Subject>,
        new: &Subject,
        who: Option<&Requester>,
        at: UnixMillis,
    ) -> Option<Written> {
        let keys = self.keys();
        let signing = keys.signing.as_ref()?;
        let before = old.map(|old| (old, verified(&keys, old)));
        let known = before.as_ref().and_then(|(_, known)| known.as_ref().ok());
        let spec_changed = old.is_none_or(|old| old.spec != new.spec);
        let changed = |key: &str| old.is_none_or(|old| old.annotation(key) != new.annotation(key));
        // Nothing changes that it is about: what a person wrote over it is undone. A generated name's prefix may change, on which the
        // stamp of a creation rests; then it is signed anew, for the name.
        if let Some((old, Ok(known))) = &before
            && !spec_changed
            && !REQUESTS.into_iter().any(changed)
            && known.key == *signing
            && (old.generate_name == new.generate_name || known.stamp.generate_name.is_none())
        {
            return old.written();
        }
        let author = if spec_changed { who } else { known.and_then(|known| known.author()) };
        let request = |key: &'static str| {
            let value = new.request(key)?;
            let by = if changed(key) { who } else { known.and_then(|known| known.request(key)) };
            Some((key.to_owned(), Request { value: value.to_owned(), by: by?.clone() }))
        };
        let stamp = Stamp {
            creator: if old.is_none() { who } else { known.and_then(|known| known.stamp.creator.as_ref()) }
                .cloned(),
            author: author.cloned(),
            requests: REQUESTS.into_iter().filter_map(request).collect(),
            generation: old.map_or(1, |old| old.generation + i64::from(spec_changed)),
            spec_hash: new.spec_hash.clone(),
            uid: old.map_or(&new.uid, |old| &old.uid).clone(),
            generate_name: new.generate_name.clone().filter(|_| new.name.is_empty()),
            at,
        };
        let had_one = old.is_some_and(|old| old.annotation(REQUESTED_BY).is_some());
        if !had_one && stamp.creator.is_none() && stamp.author.is_none() && stamp.requests.is_empty() {
            return None;
        }
        signed(signing, new, &stamp)
    }

    /// Stamps a change on its way into a store: the annotations of `new` are those of [`Self::stamped`]. Without a key, none
    /// is touched.
    pub fn stamp(&self, old: Option<&Task>, new: &mut Task, who: Option<&Requester>, at: UnixMillis) {
        if !self.is_on() {
            return;
        }
        let written = self.stamped(old.map(Subject::of).as_ref(), &Subject::of(new), who, at);
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.remove(REQUESTED_BY);
        annotations.remove(REQUESTED_BY_SIGNATURE);
        if let Some(Written { stamp, signature }) = written {
            annotations.insert(REQUESTED_BY.to_owned(), stamp);
            annotations.insert(REQUESTED_BY_SIGNATURE.to_owned(), signature);
        }
        if annotations.is_empty() {
            new.metadata.annotations = None;
        }
    }

    /// Who asked for a stored Task, as far as its stamp proves.
    pub fn read(&self, task: &Task) -> Asked {
        let keys = self.keys();
        let unknown = |why| Asked { unverified: Some(why), ..Asked::default() };
        if keys.signing.is_none() {
            return unknown(Unverified::Off);
        }
        let verified = match verified(&keys, &Subject::stored(task)) {
            Ok(verified) => verified,
            Err(why) => return unknown(why),
        };
        let author = verified.author().cloned();
        let named = |key: &&str| Some(((*key).to_owned(), verified.request(key)?.clone()));
        let requests = REQUESTS.iter().filter_map(named).collect();
        let unverified = match (verified.is_of_spec, &author) {
            (false, _) => Some(Unverified::SpecChanged),
            (true, None) => Some(Unverified::Unnamed),
            (true, Some(_)) => None,
        };
        Asked { creator: verified.stamp.creator, author, requests, unverified }
    }
}

/// A stamp whose signature and Task are right.
struct Verified {
    stamp: Stamp,
    /// The key by which it is signed.
    key: Key,
    /// Whether the spec is the one that was stamped.
    is_of_spec: bool,
    /// The requests whose values are those that were stamped.
    current: Vec<String>,
}

impl Verified {
    fn author(&self) -> Option<&Requester> {
        self.stamp.author.as_ref().filter(|_| self.is_of_spec)
    }

    fn request(&self, key: &str) -> Option<&Requester> {
        let is_current = self.current.iter().any(|current| current == key);
        self.stamp.requests.get(key).filter(|_| is_current).map(|request| &request.by)
    }
}

fn verified(keys: &Keys, of: &Subject) -> Result<Verified, Unverified> {
    let Some(Written { stamp: text, signature }) = of.written() else { return Err(Unverified::NotStamped) };
    let (id, signature) = signature.split_once('.').ok_or(Unverified::Signature)?;
    let key = keys.all().find(|key| key.id() == id).ok_or(Unverified::Signature)?;
    if text.len() > MAX_STAMP {
        return Err(Unverified::Signature);
    }
    let stamp: Stamp = serde_json::from_str(&text).map_err(|_| Unverified::Signature)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Unverified::Signature)?;
    let name = if stamp.generate_name.is_some() { "" } else { of.name.as_str() };
    if !key.verifies(&[CONTEXT, &of.namespace, name, &text], &signature) {
        return Err(Unverified::Signature);
    }
    if !is_of_task(&stamp, of) {
        return Err(Unverified::OtherTask);
    }
    // The request to delete a Task counts its generation up too, and leaves the spec as it is.
    let later = i64::from(of.is_deleting);
    let is_same = stamp.generation == of.generation || stamp.generation + later == of.generation;
    let is_of_spec = is_same && stamp.spec_hash == of.spec_hash;
    let is_current = |(key, request): (&String, &Request)| {
        (of.annotation(key) == Some(request.value.as_str())).then(|| key.clone())
    };
    let current = stamp.requests.iter().filter_map(is_current).collect();
    Ok(Verified { key: key.clone(), is_of_spec, current, stamp })
}

/// Whether a stamp, whose namespace and name are signed, is that of this Task and not of an earlier one of the name.
fn is_of_task(stamp: &Stamp, of: &Subject) -> bool {
    if stamp.generate_name.is_some() && stamp.generate_name != of.generate_name {
        return false;
    }
    match (&stamp.uid, of.created_at) {
        (Some(uid), _) => of.uid.as_ref() == Some(uid),
        (None, Some(created_at)) => created_at.abs_diff(stamp.at.0) <= CREATED_WITHIN_MS,
        // One that is being created: nothing was stamped before.
        (None, None) => false,
    }
}

fn signed(key: &Key, of: &Subject, stamp: &Stamp) -> Option<Written> {
    // Strings and numbers alone: it cannot fail.
    let text = serde_json::to_string(stamp).ok()?;
    let name = if stamp.generate_name.is_some() { "" } else { of.name.as_str() };
    let tag = key.sign(&[CONTEXT, &of.namespace, name, &text]);
    Some(Written { stamp: text, signature: format!("{}.{}", key.id(), URL_SAFE_NO_PAD.encode(tag)) })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn stamps() -> Stamps {
        Stamps::of(Key([7; KEY_BYTES]))
    }

    fn person(name: &str) -> Requester {
        Requester { user: name.into(), uid: Some(format!("uid-{name}").into()), groups: vec!["staff".into()] }
    }

    fn task(command: &str) -> Task {
        let spec = json!({"targets": {"all": true}, "run": {"command": [command]}});
        let mut task = Task::new("job", serde_json::from_value(spec).unwrap());
        task.metadata.namespace = Some("ops".to_owned());
        task
    }

    fn spec_of(command: &str) -> super::super::TaskSpec {
        task(command).spec
    }

    /// An API server with the webhook: what a user sends becomes what is stored.
    struct Server {
        stamps: Stamps,
        uids: u32,
    }

    impl Server {
        fn new() -> Self {
            Self { stamps: stamps(), uids: 0 }
        }

        /// As an API server: the webhook sees no uid, generation or time of a new object.
        fn create(&mut self, mut sent: Task, who: Option<&Requester>) -> Task {
            self.stamps.stamp(None, &mut sent, who, NOW);
            self.uids += 1;
            sent.metadata.uid = Some(format!("uid-{}", self.uids));
            sent.metadata.generation = Some(1);
            sent.metadata.creation_timestamp = Some(Time(Timestamp::from_millisecond(NOW.0).unwrap()));
            sent
        }

        fn update(&self, old: &Task, mut sent: Task, who: Option<&Requester>) -> Task {
            self.stamps.stamp(Some(old), &mut sent, who, NOW.plus(1_000_000_000));
            Self::store(old, sent)
        }

        /// Without the webhook.
        fn store(old: &Task, mut sent: Task) -> Task {
            let changed = i64::from(old.spec != sent.spec);
            sent.metadata.generation = Some(old.metadata.generation.unwrap() + changed);
            sent
        }
    }

    fn annotate(task: &mut Task, key: &str, value: &str) {
        task.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    }

    fn with(task: &Task, key: &str, value: &str) -> Task {
        let mut task = task.clone();
        annotate(&mut task, key, value);
        task
    }

    fn author(task: &Task) -> Option<String> {
        stamps().read(task).author.map(|author| author.user.to_string())
    }

    fn unverified(task: &Task) -> Option<Unverified> {
        stamps().read(task).unverified
    }

    #[test]
    fn the_author_is_who_last_changed_the_spec_and_the_creator_stays() {
        let (mut server, alice, bob) = (Server::new(), person("alice"), person("bob"));
        let made = server.create(task("df"), Some(&alice));
        let labelled = server.update(&made, with(&made, "note", "x"), Some(&bob));
        assert_eq!(
            labelled.metadata.annotations.as_ref().unwrap()[REQUESTED_BY],
            made.metadata.annotations.as_ref().unwrap()[REQUESTED_BY]
        );
        assert_eq!(author(&labelled).unwrap(), "alice");
        let changed = server.update(&labelled, Task { spec: spec_of("id"), ..labelled.clone() }, Some(&bob));
        let asked = stamps().read(&changed);
        assert_eq!((asked.creator, asked.author, asked.unverified), (Some(alice), Some(bob), None));
    }

    #[test]
    fn a_request_is_of_who_set_its_value() {
        let (mut server, alice, bob) = (Server::new(), person("alice"), person("bob"));
        let made = server.create(with(&task("df"), RERUN, "1"), Some(&alice));
        let again = server.update(&made, with(&made, RERUN, "2"), Some(&bob));
        let cancelled = server.update(&again, with(&again, CANCEL, "1"), Some(&alice));
        let by =
            |task: &Task, key: &str| stamps().read(task).requests.get(key).map(|who| who.user.to_string());
        assert_eq!(by(&made, RERUN).unwrap(), "alice");
        assert_eq!(by(&cancelled, RERUN).unwrap(), "bob");
        assert_eq!(by(&cancelled, CANCEL).unwrap(), "alice");
        let requested = stamps().read(&cancelled).requested_by(AskedBy::Annotation).unwrap();
        assert_eq!((requested.author, requested.rerun), (alice.clone(), Some(bob)));
        assert_eq!(stamps().read(&cancelled).requested_by(AskedBy::Author).unwrap().rerun, None);
        // Set while the webhook was unavailable: the author did not ask for that Run.
        let alone = Server::store(&cancelled, with(&cancelled, RERUN, "3"));
        assert_eq!(author(&alone).unwrap(), "alice");
        assert_eq!(
            (by(&alone, RERUN), stamps().read(&alone).requested_by(AskedBy::Annotation)),
            (None, None)
        );
    }

    #[test]
    fn what_a_user_wrote_proves_nothing() {
        let (mut server, alice) = (Server::new(), person("alice"));
        let made = server.create(task("df"), Some(&alice));
        let annotations = made.metadata.annotations.clone().unwrap();
        let other_key = Stamps::of(Key([8; KEY_BYTES]));
        assert_eq!(other_key.read(&made).unverified, Some(Unverified::Signature));
        assert_eq!(Stamps::default().read(&made).unverified, Some(Unverified::Off));
        let forged = annotations[REQUESTED_BY].replace("alice", "admin");
        assert_eq!(unverified(&with(&made, REQUESTED_BY, &forged)), Some(Unverified::Signature));
        for broken in ["", ".", "x", "AAAAAAAA.AAAA", "ä.ö"] {
            assert_eq!(unverified(&with(&made, REQUESTED_BY_SIGNATURE, broken)), Some(Unverified::Signature));
        }
        // Written on another Task.
        let mut other = made.clone();
        other.metadata.name = Some("other".to_owned());
        assert_eq!(unverified(&other), Some(Unverified::Signature));
        // On one of the same name that was created later.
        let mut later = made.clone();
        let at = Timestamp::from_millisecond(NOW.0 + 3_600_000).unwrap();
        later.metadata.creation_timestamp = Some(Time(at));
        assert_eq!(unverified(&later), Some(Unverified::OtherTask));
        // On one of the same name and time that runs something else.
        assert_eq!(unverified(&Task { spec: spec_of("id"), ..made.clone() }), Some(Unverified::SpecChanged));
        let changed = server.update(&made, Task { spec: spec_of("id"), ..made.clone() }, Some(&alice));
        let mut recreated = changed.clone();
        recreated.metadata.uid = Some("uid-other".to_owned());
        assert_eq!(unverified(&recreated), Some(Unverified::OtherTask));
        assert_eq!(unverified(&task("df")), Some(Unverified::NotStamped));
    }

    #[test]
    fn a_change_without_the_webhook_makes_the_author_unknown_until_the_next() {
        let (mut server, alice, bob) = (Server::new(), person("alice"), person("bob"));
        let made = server.create(task("df"), Some(&alice));
        let mut spec = spec_of("df");
        spec.rerun_token = "again".to_owned();
        let alone = Server::store(&made, Task { spec, ..made.clone() });
        assert_eq!((author(&alone), unverified(&alone)), (None, Some(Unverified::SpecChanged)));
        assert_eq!(stamps().read(&alone).creator, Some(alice));
        let labelled = server.update(&alone, with(&alone, "note", "x"), Some(&bob));
        assert_eq!(author(&labelled), None, "a label does not change the spec");
        let changed = server.update(&alone, Task { spec: spec_of("id"), ..alone.clone() }, Some(&bob));
        assert_eq!(author(&changed).unwrap(), "bob");
        let unknown = server.update(&changed, Task { spec: spec_of("df"), ..changed.clone() }, None);
        assert_eq!((author(&unknown), unverified(&unknown)), (None, Some(Unverified::Unnamed)));
    }

    #[test]
    fn the_stamp_outlives_the_request_to_delete_and_a_new_key() {
        let (mut server, alice) = (Server::new(), person("alice"));
        let made = server.create(task("df"), Some(&alice));
        let mut deleting = made.clone();
        deleting.metadata.deletion_timestamp = deleting.metadata.creation_timestamp.clone();
        deleting.metadata.generation = Some(2);
        assert_eq!(author(&deleting).unwrap(), "alice");
        deleting.metadata.generation = Some(3);
        assert_eq!(author(&deleting), None);
        let (old, new) = (Key([7; KEY_BYTES]), Key([9; KEY_BYTES]));
        let rotated = Stamps::from(Keys { signing: Some(new.clone()), others: vec![old] });
        assert_eq!(rotated.read(&made).author, Some(alice.clone()));
        // The next change of any kind signs it anew.
        let mut touched = with(&made, "note", "x");
        rotated.stamp(Some(&made), &mut touched, None, NOW);
        assert_eq!(Stamps::of(new).read(&touched).author, Some(alice));
    }

    #[test]
    fn a_generated_name_is_bound_to_its_prefix() {
        let (mut server, alice) = (Server::new(), person("alice"));
        let mut sent = task("df");
        (sent.metadata.name, sent.metadata.generate_name) = (None, Some("job-".to_owned()));
        let mut made = server.create(sent, Some(&alice));
        made.metadata.name = Some("job-x1".to_owned());
        assert_eq!(author(&made).unwrap(), "alice");
        let mut renamed = made.clone();
        renamed.metadata.generate_name = Some("other-".to_owned());
        assert_eq!(unverified(&renamed), Some(Unverified::OtherTask));
        // Who created a Task could so become unknown, and then approve it: the webhook binds the stamp to the name instead.
        let renamed = server.update(&made, renamed, Some(&alice));
        let mut changed = renamed.clone();
        changed.spec = spec_of("id");
        let changed = server.update(&renamed, changed, Some(&person("bob")));
        let asked = stamps().read(&changed);
        assert_eq!((asked.creator, author(&changed).unwrap().as_str()), (Some(alice), "bob"));
    }

    #[test]
    fn an_object_of_a_newer_schema_is_stamped_and_a_field_that_is_not_known_is_a_change() {
        let (alice, stamps) = (person("alice"), stamps());
        let object = |extra: u32| {
            json!({"apiVersion": "sentinelnode.dev/v9", "kind": "Task", "spec": {"new": extra},
                "metadata": {"name": "job", "uid": "u", "generation": 4}})
        };
        let [old, new] = [object(1), object(2)].map(|object| Subject::of_object(&object, "ops"));
        let written = stamps.stamped(Some(&old), &new, Some(&alice), NOW).unwrap();
        let stamp: Stamp = serde_json::from_str(&written.stamp).unwrap();
        assert_eq!((stamp.author, stamp.generation, stamp.spec_hash), (Some(alice), 5, None));
    }

    #[test]
    fn what_is_signed_of_one_task_is_not_what_is_signed_of_another() {
        let key = Key([7; KEY_BYTES]);
        let tag = key.sign(&[CONTEXT, "a", "bc", "{}"]);
        assert!(key.verifies(&[CONTEXT, "a", "bc", "{}"], tag.as_ref()));
        assert!(!key.verifies(&[CONTEXT, "ab", "c", "{}"], tag.as_ref()));
        assert!(!format!("{key:?}").contains('7') || key.id().contains('7'));
        assert_ne!(key.derived("path"), key.derived("id"));
    }

    /// A write of a Task by a user, who has read whatever was there and may write any annotation.
    #[derive(Debug, Clone)]
    struct Write {
        who: usize,
        command: Option<&'static str>,
        rerun: Option<&'static str>,
        /// What they make of the stamp: nothing, removed, one of theirs, or an earlier one of this Task.
        forgery: u8,
        webhook: bool,
    }

    fn writes() -> impl Strategy<Value = Vec<Write>> {
        let command = prop::option::of(prop::sample::select(vec!["df", "id", "ls"]));
        let rerun = prop::option::of(prop::sample::select(vec!["1", "2", "3"]));
        let write = (0..3_usize, command, rerun, 0..4_u8, prop::bool::weighted(0.8));
        let write = write.prop_map(|(who, command, rerun, forgery, webhook)| Write {
            who,
            command,
            rerun,
            forgery,
            webhook,
        });
        prop::collection::vec(write, 1..20)
    }

    proptest! {
        /// T69: the stamp equals the authenticated user of the last change, or it is unknown.
        #[test]
        fn no_user_chooses_who_asked(writes in writes()) {
            let people = ["alice", "bob", "mallory"].map(person);
            let mut server = Server::new();
            let mut stored = server.create(task("df"), Some(&people[0]));
            let mut earlier = vec![stored.clone()];
            let (mut truth, mut once) = ((0, None), std::collections::HashSet::new());
            for write in &writes {
                let mut sent = stored.clone();
                if let Some(command) = write.command {
                    sent.spec = spec_of(command);
                }
                if let Some(rerun) = write.rerun {
                    annotate(&mut sent, RERUN, rerun);
                }
                let before = &earlier[write.who % earlier.len()];
                let marks = sent.metadata.annotations.get_or_insert_default();
                match write.forgery {
                    0 => {}
                    1 => {
                        marks.remove(REQUESTED_BY);
                        marks.remove(REQUESTED_BY_SIGNATURE);
                    }
                    2 => {
                        let text = marks.get(REQUESTED_BY).cloned().unwrap_or_default().replace("mallory", "alice");
                        marks.insert(REQUESTED_BY.to_owned(), text);
                    }
                    _ => for key in [REQUESTED_BY, REQUESTED_BY_SIGNATURE] {
                        let of_before = before.metadata.annotations.as_ref().and_then(|marks| marks.get(key));
                        marks.extend(of_before.map(|text| (key.to_owned(), text.clone())));
                    },
                }
                if sent.spec != stored.spec {
                    truth.0 = write.who;
                }
                let rerun = |task: &Task| task.metadata.annotations.as_ref().and_then(|marks| marks.get(RERUN).cloned());
                if rerun(&sent) != rerun(&stored) {
                    truth.1 = Some(write.who);
                    if let (Some(value), true) = (rerun(&sent), write.webhook) {
                        once.insert((value, people[write.who].user.to_string()));
                    }
                }
                stored = if write.webhook {
                    server.update(&stored, sent, Some(&people[write.who]))
                } else {
                    Server::store(&stored, sent)
                };
                earlier.push(stored.clone());
                let asked = stamps().read(&stored);
                if let Some(author) = &asked.author {
                    prop_assert_eq!(author, &people[truth.0]);
                }
                prop_assert!(asked.creator.is_none_or(|creator| creator == people[0]));
                // A value that is set again without the webhook is what a replay can still show: of who once set it.
                if let Some(by) = asked.requests.get(RERUN) {
                    prop_assert!(once.contains(&(rerun(&stored).unwrap(), by.user.to_string())));
                }
            }
            if writes.iter().all(|write| write.webhook) {
                let asked = stamps().read(&stored);
                prop_assert_eq!(asked.author.as_ref(), Some(&people[truth.0]));
                prop_assert_eq!(asked.requests.get(RERUN), truth.1.map(|who| &people[who]));
            }
        }
    }
}
