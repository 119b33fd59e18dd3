//! Approvals: a person lets a Run begin that is above the threshold of its ceiling.
//!
//! They name the digests of what they were shown, so that they approve nothing else; the operator signs that it was them. Whether
//! the approval counts is decided again, by the same rules, when the Run begins.

use http::StatusCode;
use sentinel_audit::Record;
use sentinel_audit::record::Approved;
use sentinel_core::reconcile::ceiling::approval::{Approval, Unapproved, is_same};
use sentinel_core::reconcile::recreation;
use sentinel_core::reconcile::trigger::{self, AskedBy};
use sentinel_protocol::ids::{RunNumber, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::requester::Requester;
use sentinel_protocol::time::UnixMillis;
use serde_json::json;

use super::answer::Answer;
use super::api::Api;
use super::error::{ApiError, Reason};
use super::executions::RunText;
use super::log_text::rfc3339;
use super::request::{Query, Request};
use super::tasks::{as_operator, asking, find, named, named_error};
use crate::resource::marks::APPROVAL;
use crate::resource::status::AwaitingApproval;
use crate::resource::{Task, approval, recorded, validate};

pub(super) async fn approve(
    api: &Api,
    parts: &[String],
    query: &Query,
    request: &Request,
) -> Result<Answer, ApiError> {
    let name = named(parts)?;
    let run: RunText = required(query, "run", "the number that status.awaitingApproval.run has")?;
    let run = run.0;
    let spec_hash: SpecHash =
        required(query, "specHash", "the digest that status.awaitingApproval.specHash has")?;
    let allowed = "the digest that status.awaitingApproval.targetsDigest has";
    let targets_digest: String = required(query, "targetsDigest", allowed)?;
    let task = find(api, &name).await?;
    let asked = Asked { run, spec_hash, targets_digest, approver: asking(api, request) };
    let (given, text) = judge(api, &name, &task, &asked)
        .inspect_err(|why| record_refused(api, &name, &task, (&asked, why)))?;
    let store = as_operator(api, request);
    let annotated = store.annotate(name.clone(), APPROVAL, Some(text)).await;
    annotated.map_err(|error| named_error(&name, &error))?;
    record(api, &name, &task, &given);
    let accepted = json!({
        "namespace": name.namespace,
        "task": name.name,
        "run": given.run,
        "approvedBy": given.approver.user,
        "expiresAt": rfc3339(given.expires_at),
    });
    Answer::json_as(StatusCode::ACCEPTED, &accepted)
}

/// What a caller approves, and who they are, as far as that is known.
struct Asked {
    run: RunNumber,
    spec_hash: SpecHash,
    targets_digest: String,
    approver: Option<Requester>,
}

/// The approval, and the annotation that holds it.
///
/// # Errors
/// Why the caller does not approve what the Task waits for.
fn judge(api: &Api, name: &TaskRef, task: &Task, asked: &Asked) -> Result<(Approval, String), ApiError> {
    let Asked { run, spec_hash, targets_digest, approver } = asked;
    let awaiting = awaited(name, task)?;
    is_what_was_shown(name, awaiting, (*run, spec_hash, targets_digest))?;
    let approver = approver.clone().ok_or_else(|| {
        forbidden(
            "it is not known who you are: an approval needs a server that authenticates people".to_owned(),
        )
    })?;
    is_another(api, name, task, &approver)?;

    let at = api.clock.now();
    let lasts = u64::try_from(awaiting.valid_for_seconds).unwrap_or_default().saturating_mul(1_000);
    let given = Approval {
        approver,
        run: *run,
        spec_hash: spec_hash.clone(),
        targets_digest: targets_digest.clone(),
        at,
        expires_at: at.plus(lasts),
    };
    let text = approval::write(&api.stamps, task, &given).ok_or_else(|| {
        conflict("this operator has no key by which approvals are signed (--admission-listen)".to_owned())
    })?;
    Ok((given, text))
}

fn required<T: std::str::FromStr>(query: &Query, name: &str, allowed: &str) -> Result<T, ApiError> {
    query.read(name, allowed)?.ok_or_else(|| {
        let message = format!("query parameter {name} is missing: an approval names what it is for");
        ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidQuery, message).at(name, "", allowed)
    })
}

fn conflict(message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, Reason::Conflict, message)
}

fn forbidden(message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, Reason::Forbidden, message)
}

/// What a Task waits for.
fn awaited<'a>(name: &TaskRef, task: &'a Task) -> Result<&'a AwaitingApproval, ApiError> {
    let status = task.status.as_ref();
    let current = status.filter(|status| Some(status.observed_generation) == task.metadata.generation);
    if current.is_none() {
        return Err(conflict(format!(
            "the operator has not observed the latest edit of Task {name} yet; try again"
        )));
    }
    let awaiting = current.and_then(|status| status.awaiting_approval.as_ref());
    awaiting.ok_or_else(|| conflict(format!("Task {name} waits for no approval")))
}

fn changed(name: &TaskRef, what: &str, field: &str, given: &str, now: &str) -> ApiError {
    let message =
        format!("{what} has changed since you were shown Task {name}; read it again before you approve it");
    conflict(message).at(field, given, now)
}

/// The caller names what the Task waits for.
fn is_what_was_shown(
    name: &TaskRef,
    awaiting: &AwaitingApproval,
    (run, spec_hash, targets_digest): (RunNumber, &SpecHash, &str),
) -> Result<(), ApiError> {
    if awaiting.run != i64::from(run.0) {
        return Err(changed(name, "the Run that is due", "run", &run.to_string(), &awaiting.run.to_string()));
    }
    if awaiting.spec_hash != spec_hash.as_str() {
        return Err(changed(name, "what it runs", "specHash", spec_hash.as_str(), &awaiting.spec_hash));
    }
    if awaiting.targets_digest != targets_digest {
        return Err(changed(
            name,
            "the list of nodes",
            "targetsDigest",
            targets_digest,
            &awaiting.targets_digest,
        ));
    }
    Ok(())
}

/// The approver is not behind the Run.
fn is_another(api: &Api, name: &TaskRef, task: &Task, approver: &Requester) -> Result<(), ApiError> {
    let (consent, _) = approval::consent(&api.stamps, task);
    let asked_by = match (validate::validate(task), recorded::read(task)) {
        (Ok(plan), Ok(recorded)) => {
            let (requests, _) = recorded::requests(task);
            let due = trigger::due(&plan, &recorded, &requests);
            // Whether the annotation is why it runs again, History knows.
            let is_recreated = requests.rerun.is_some() && recreation::asks(&plan, &recorded);
            match due.map_or(AskedBy::Unclear, |why| trigger::asked_by(&plan, why, &recorded, &requests)) {
                AskedBy::Author if is_recreated => AskedBy::Annotation,
                asked_by => asked_by,
            }
        }
        _ => return Err(conflict(format!("Task {name} cannot be run as it is"))),
    };
    let behind = consent.behind(asked_by).map_err(|_: Unapproved| {
        let why = api
            .stamps
            .read(task)
            .unverified
            .map_or("who asked for the rerun is not stamped", |why| why.describe());
        conflict(format!("it is unknown who asked for Task {name}, so it may be you: {why}"))
    })?;
    if behind.into_iter().any(|one| is_same(one, approver)) {
        let message =
            format!("{} made, changed or reran Task {name}: another person has to approve it", approver.user);
        return Err(forbidden(message));
    }
    Ok(())
}

fn record(api: &Api, name: &TaskRef, task: &Task, given: &Approval) {
    let Ok(uid) = TaskUid::new(task.metadata.uid.clone().unwrap_or_default()) else { return };
    api.audit.approved(&given.approver, || {
        Record::Approved(Box::new(Approved {
            task: name.clone(),
            uid,
            run: given.run,
            by: given.approver.clone(),
            spec_hash: given.spec_hash.clone(),
            targets_sha256: given.targets_digest.as_str().into(),
            expires_at: UnixMillis(given.expires_at.0),
        }))
    });
}

/// An approval was refused. Once a minute for the same person, Run and reason: who repeats it fills no disk.
fn record_refused(api: &Api, name: &TaskRef, task: &Task, (asked, why): (&Asked, &ApiError)) {
    let Ok(uid) = TaskUid::new(task.metadata.uid.clone().unwrap_or_default()) else { return };
    let about = format!("{uid}/{}: {why}", asked.run);
    api.audit.approval_refused(asked.approver.as_ref(), &about, || Record::ApprovalRefused {
        task: name.clone(),
        uid: uid.clone(),
        run: Some(asked.run),
        by: asked.approver.clone(),
        message: why.to_string().into(),
    });
}
