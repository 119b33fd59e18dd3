//! What the author of a Task has signed with an SSH key, and whether a request is that. With a rule that asks for it, an operator or an
//! API server in the wrong hands starts nothing new on a node, and repeats nothing more often than the author allowed.

use std::fmt;

use jiff::Timestamp;
use sentinel_protocol::request::RunRequest;
use sentinel_protocol::signed::Signed;
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use ssh_key::{PrivateKey, PublicKey, SshSig};

use crate::asked::Asked;
use crate::fit::{Fit, listed};
use crate::keyword::present;

/// The namespace of the signatures (`ssh-keygen -n`), so that one made for something else is not one for a Task.
pub const NAMESPACE: &str = "sentinelnode.dev/task";

/// A person or a program whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signer {
    /// The name by which rules mention it.
    pub name: String,
    /// Its public key, as in `~/.ssh/id_ed25519.pub`.
    pub key: Key,
}

/// A public key: Ed25519 or ECDSA on P-256, of a file or of a security key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Key(PublicKey);

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let key = PublicKey::from_openssh(text.trim()).map_err(|error| {
            format!("{text:?} is not a public SSH key, as in ~/.ssh/id_ed25519.pub: {error}")
        })?;
        check_kind(key.algorithm().as_str()).map(|()| Self(key))
    }
}

/// Kinds of keys whose signatures nodes can verify.
pub const KEY_KINDS: [&str; 3] = ["ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256"];

/// Whether nodes can verify signatures of keys of this kind.
///
/// # Errors
/// Which kinds they can.
pub fn check_kind(kind: &str) -> Result<(), String> {
    if KEY_KINDS.contains(&kind) {
        return Ok(());
    }
    Err(format!("{kind} keys are not supported; supported are {}", KEY_KINDS.join(", ")))
}

/// The kind of the key in a file, which is public or private, encrypted or not; `None` if that cannot be read from it.
pub fn key_kind(content: &str) -> Option<String> {
    let text = content.trim();
    let public = || PublicKey::from_openssh(text).ok().map(|key| key.algorithm().to_string());
    let private = || PrivateKey::from_openssh(text).ok().map(|key| key.algorithm().to_string());
    let older = || text.starts_with("-----BEGIN RSA PRIVATE KEY").then(|| "ssh-rsa".to_owned());
    public().or_else(private).or_else(older)
}

/// Whether a signature is one of this statement that nodes can verify, by any key.
///
/// # Errors
/// Why it is not.
pub fn check_signature(signed: &Signed) -> Result<(), String> {
    let signature = SshSig::from_pem(&signed.signature)
        .map_err(|error| format!("the signature cannot be read: {error}"))?;
    let key = PublicKey::from(signature.public_key().clone());
    check_kind(key.algorithm().as_str())?;
    key.verify(NAMESPACE, signed.statement.as_bytes(), &signature)
        .map_err(|error| format!("the signature cannot be verified: {error}"))
}

/// Which signatures a rule accepts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignatureRule {
    /// Names of signers.
    pub by: Vec<String>,
    /// The statement must be for this audience, such as the name of a cluster; without this field it must be for none.
    #[serde(default, deserialize_with = "present")]
    pub audience: Option<String>,
    /// Whether the request may refer to Secrets, whose values no signature covers.
    #[serde(default)]
    pub secrets: UnsignedSecrets,
}

/// What a rule with a signature allows of Secrets: its value is chosen by the operator, and by who can change it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum UnsignedSecrets {
    /// No reference to a Secret.
    #[default]
    None,
    /// Any, in `env` and `stdin` as far as the rule allows them.
    Any,
}

/// What is signed: what runs, where, until when, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// Version of this form.
    pub version: Version,
    /// Id of the statement: a node counts by it.
    pub id: StatementId,
    /// Namespace of the Task.
    pub namespace: String,
    /// Name of the Task.
    pub name: String,
    /// What runs and as whom: the whole request that a node gets.
    pub run: RunRequest,
    /// On which nodes.
    pub nodes: Nodes,
    /// For which audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Until when it may start.
    pub not_after: Timestamp,
    /// How many Attempts one node may start by it.
    pub runs: u32,
}

/// The version of the form: 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version;

impl TryFrom<u32> for Version {
    type Error = String;
    fn try_from(number: u32) -> Result<Self, String> {
        if number == 1 { Ok(Self) } else { Err(format!("a statement of version {number} is not known")) }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

/// Id of a statement: 16 to 64 letters, digits and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct StatementId(String);

impl TryFrom<String> for StatementId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let is_id = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if (16..=64).contains(&text.len()) && is_id {
            return Ok(Self(text));
        }
        Err(format!("{text:?} is not an id of 16 to 64 letters, digits and '-'"))
    }
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The nodes that a statement is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Nodes {
    /// Any whose policy accepts it.
    Any(AnyNode),
    /// These.
    Named(Vec<String>),
}

/// The word for any node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnyNode {
    /// Any.
    Any,
}

/// A statement that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who signed it.
    pub signer: String,
    /// Its id.
    pub id: StatementId,
    /// How many Attempts one node may start by it.
    pub runs: u32,
    /// Until when.
    pub not_after: UnixMillis,
}

/// Whether the request is what one of the rule's signers has signed.
pub(crate) fn fit(rule: Option<&SignatureRule>, signers: &[Signer], asked: &Asked<'_>) -> Fit {
    match rule.map(|rule| verify(rule, signers, asked)) {
        None | Some(Ok(_)) => Fit::Fits,
        Some(Err(why)) => Fit::Differs(why),
    }
}

/// Verifies the signature of a request.
///
/// # Errors
/// Why it does not count.
pub(crate) fn verify(
    rule: &SignatureRule,
    signers: &[Signer],
    asked: &Asked<'_>,
) -> Result<Verified, String> {
    let signed = asked.signed.ok_or_else(|| {
        format!("the Task is not signed; one of {} must sign it (sentinel sign)", listed(&rule.by))
    })?;
    let signer = signer(rule, signers, signed)?;
    // Read only now: an unknown author's statement is nothing to decide by.
    let statement = read(&signed.statement)?;
    matches(&statement, rule, asked)?;
    let secret = asked.env.iter().find_map(|variable| variable.value_from.as_ref()).or(asked.stdin_from);
    if let (UnsignedSecrets::None, Some(reference)) = (rule.secrets, secret) {
        return Err(format!("the value of {reference} is not signed, and the rule has no `secrets: Any`"));
    }
    let Statement { id, runs, not_after, .. } = statement;
    Ok(Verified { signer, id, runs, not_after: UnixMillis(not_after.as_millisecond()) })
}

fn signer(rule: &SignatureRule, signers: &[Signer], signed: &Signed) -> Result<String, String> {
    let signature = SshSig::from_pem(&signed.signature)
        .map_err(|error| format!("the signature of the Task cannot be read: {error}"))?;
    let accepted = signers.iter().filter(|signer| rule.by.contains(&signer.name));
    for signer in accepted {
        if signer.key.0.verify(NAMESPACE, signed.statement.as_bytes(), &signature).is_ok() {
            return Ok(signer.name.clone());
        }
    }
    Err(format!("the signature of the Task is of none of {}, or not of this statement", listed(&rule.by)))
}

/// Reads a statement. One with a field that this release does not know is refused: it may have been meant to restrict something.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<Statement, String> {
    let wrong = |error: serde_json::Error| format!("the signed statement cannot be read: {error}");
    let statement: Statement = serde_json::from_str(text).map_err(wrong)?;
    let (given, known) =
        (serde_json::from_str::<serde_json::Value>(text).map_err(wrong)?, serde_json::to_value(&statement));
    if known.is_ok_and(|known| known["run"] == given["run"]) {
        return Ok(statement);
    }
    Err("the signed statement has fields of `run` that this agent does not know".to_owned())
}

fn matches(statement: &Statement, rule: &SignatureRule, asked: &Asked<'_>) -> Result<(), String> {
    let Statement { version: _, id: _, namespace, name, run, nodes, audience, not_after, runs: _ } =
        statement;
    let task = asked.task;
    if (namespace.as_str(), name.as_str()) != (task.namespace.as_str(), task.name.as_str()) {
        return Err(format!("the statement is for Task {namespace}/{name}"));
    }
    if run != asked.request {
        return Err(
            "the Task was changed after it was signed: what it runs is not what the statement has".to_owned()
        );
    }
    if let Nodes::Named(nodes) = nodes {
        let node =
            asked.node.name.as_deref().ok_or("the agent does not know the name of its node (--node-name)")?;
        if !nodes.iter().any(|one| one == node) {
            return Err(format!("the statement is not for node {node}, but for {}", listed(nodes)));
        }
    }
    if *audience != rule.audience {
        let name = |audience: &Option<String>| audience.clone().unwrap_or_else(|| "none".to_owned());
        return Err(format!(
            "the statement is for the audience {}, not {}",
            name(audience),
            name(&rule.audience)
        ));
    }
    if asked.now.0 > not_after.as_millisecond() {
        return Err(format!("the statement was valid until {not_after}"));
    }
    Ok(())
}
