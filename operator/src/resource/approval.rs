//! An approval, as the annotation [`APPROVAL`] of the Task holds it: signed by the operator that took it, so that what a user writes
//! there approves nothing.
//!
//! What is signed names the Task, with its uid, and everything that the approval is for. Whether it counts for a Run is decided by
//! [`sentinel_core::reconcile::ceiling::approval`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::ResourceExt as _;
use sentinel_core::reconcile::ceiling::approval::{Approval, Consent};
use sentinel_protocol::ids::{RunNumber, SpecHash};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::Task;
use super::marks::{APPROVAL, RERUN};
use super::stamp::{Key, Stamps};

/// What is signed, before namespace, name and approval.
const CONTEXT: &str = "sentinelnode.dev/approval/v1";

/// Largest annotation that is read, bytes: that of a person with the most and longest groups.
const MAX_BYTES: usize = 64 << 10;

/// The value of the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    approver: Requester,
    run: RunNumber,
    spec_hash: SpecHash,
    targets_digest: String,
    /// The uid of the Task.
    task: String,
    at: UnixMillis,
    expires_at: UnixMillis,
    /// The id of the key, and the signature of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// The annotation of a Task is not an approval that an operator with these keys has written for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotGenuine;

/// The value of the annotation for this approval of a Task; `None` without a key, or for a Task without a uid.
pub fn write(stamps: &Stamps, task: &Task, approval: &Approval) -> Option<String> {
    let key = stamps.keys().signing?;
    let written = Written {
        approver: approval.approver.clone(),
        run: approval.run,
        spec_hash: approval.spec_hash.clone(),
        targets_digest: approval.targets_digest.clone(),
        task: task.uid()?,
        at: approval.at,
        expires_at: approval.expires_at,
        signature: None,
    };
    let text = serde_json::to_string(&written).ok()?;
    let tag = key.sign(&parts(task, &text).each_ref().map(String::as_str));
    let signature = Some(format!("{}.{}", key.id(), URL_SAFE_NO_PAD.encode(tag)));
    serde_json::to_string(&Written { signature, ..written }).ok()
}

/// The approval of a Task, if it has one.
///
/// # Errors
/// [`NotGenuine`]: then it counts as none.
pub fn read(stamps: &Stamps, task: &Task) -> Result<Option<Approval>, NotGenuine> {
    let Some(text) = task.annotations().get(APPROVAL) else { return Ok(None) };
    if text.len() > MAX_BYTES {
        return Err(NotGenuine);
    }
    let mut written: Written = serde_json::from_str(text).map_err(|_| NotGenuine)?;
    let signature = written.signature.take().ok_or(NotGenuine)?;
    let unsigned = serde_json::to_string(&written).map_err(|_| NotGenuine)?;
    if task.uid().as_ref() != Some(&written.task) || !is_signed(stamps, task, &unsigned, &signature) {
        return Err(NotGenuine);
    }
    // What people see in the annotation is what was signed, and nothing beside it.
    written.signature = Some(signature);
    if serde_json::to_string(&written).ok().as_ref() != Some(text) {
        return Err(NotGenuine);
    }
    let Written { approver, run, spec_hash, targets_digest, at, expires_at, .. } = written;
    Ok(Some(Approval { approver, run, spec_hash, targets_digest, at, expires_at }))
}

fn is_signed(stamps: &Stamps, task: &Task, text: &str, signature: &str) -> bool {
    let Some((id, signature)) = signature.split_once('.') else { return false };
    let keys = stamps.keys();
    let key: Option<&Key> = keys.all().find(|key| key.id() == id);
    let signature = URL_SAFE_NO_PAD.decode(signature).ok();
    key.zip(signature).is_some_and(|(key, signature)| {
        key.verifies(&parts(task, text).each_ref().map(String::as_str), &signature)
    })
}

fn parts(task: &Task, text: &str) -> [String; 4] {
    [CONTEXT.to_owned(), task.namespace().unwrap_or_default(), task.name_any(), text.to_owned()]
}

/// Who is behind a Run of a Task that is due, and who has approved it; and whether its annotation holds something else.
pub fn consent(stamps: &Stamps, task: &Task) -> (Consent, Option<NotGenuine>) {
    let asked = stamps.read(task);
    let (approval, forged) = match read(stamps, task) {
        Ok(approval) => (approval, None),
        Err(forged) => (None, Some(forged)),
    };
    let rerun = asked.requests.get(RERUN).cloned();
    (Consent { creator: asked.creator, author: asked.author, rerun, approval }, forged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::TaskSpec;
    use crate::resource::stamp::{KEY_BYTES, Keys};

    fn stamps(byte: u8) -> Stamps {
        Stamps::of(Key::from([byte; KEY_BYTES]))
    }

    fn task(uid: &str) -> Task {
        let mut task = Task::new("t", TaskSpec::stand_in());
        task.metadata.namespace = Some("ops".to_owned());
        task.metadata.uid = Some(uid.to_owned());
        task
    }

    fn approval() -> Approval {
        Approval {
            approver: Requester { user: "bob".into(), uid: None, groups: vec!["ops".into()] },
            run: RunNumber(3),
            spec_hash: SpecHash::new("0".repeat(64)).unwrap(),
            targets_digest: "1".repeat(64),
            at: UnixMillis(1_000),
            expires_at: UnixMillis(2_000),
        }
    }

    fn with(mut task: Task, text: String) -> Task {
        task.annotations_mut().insert(APPROVAL.to_owned(), text);
        task
    }

    #[test]
    fn only_what_an_operator_has_written_for_this_task_is_an_approval() {
        let text = write(&stamps(7), &task("u"), &approval()).unwrap();
        assert_eq!(read(&stamps(7), &with(task("u"), text.clone())), Ok(Some(approval())));
        assert_eq!(read(&stamps(7), &task("u")), Ok(None));
        let refused = |stamps: &Stamps, task: Task| assert_eq!(read(stamps, &task), Err(NotGenuine));
        // Beside what is signed.
        refused(&stamps(7), with(task("u"), text.replacen('{', "{\"approvedBy\":\"ceo\",", 1)));
        refused(&stamps(7), with(task("u"), format!("{text} ")));
        refused(&stamps(9), with(task("u"), text.clone()));
        refused(&Stamps::default(), with(task("u"), text.clone()));
        // Of an earlier Task of this name, or of another name.
        refused(&stamps(7), with(task("v"), text.clone()));
        let mut renamed = with(task("u"), text.clone());
        renamed.metadata.name = Some("other".to_owned());
        refused(&stamps(7), renamed);
        for (from, to) in
            [("bob", "eve"), ("\"run\":3", "\"run\":4"), ("2000", "9000"), ("11", "12"), ("00", "01")]
        {
            assert!(text.contains(from), "{text}");
            refused(&stamps(7), with(task("u"), text.replacen(from, to, 1)));
        }
        refused(&stamps(7), with(task("u"), "yes".to_owned()));
        let unsigned: Written = serde_json::from_str(&text).unwrap();
        let unsigned = Written { signature: None, ..unsigned };
        refused(&stamps(7), with(task("u"), serde_json::to_string(&unsigned).unwrap()));
        assert_eq!(write(&Stamps::default(), &task("u"), &approval()), None);
    }

    #[test]
    fn an_approval_outlives_a_change_of_the_key() {
        let text = write(&stamps(7), &task("u"), &approval()).unwrap();
        let keys = Keys { signing: Some(Key::from([9; KEY_BYTES])), others: vec![Key::from([7; KEY_BYTES])] };
        assert_eq!(read(&Stamps::from(keys), &with(task("u"), text)), Ok(Some(approval())));
    }

    #[test]
    fn a_stamp_does_not_count_as_an_approval() {
        let mut task = task("u");
        let who = approval().approver;
        stamps(7).stamp(None, &mut task, Some(&who), UnixMillis(1));
        let stamp = task.annotations()[super::super::marks::REQUESTED_BY].clone();
        assert_eq!(read(&stamps(7), &with(task, stamp)), Err(NotGenuine));
    }
}
