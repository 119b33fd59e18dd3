//! A Task as the API presents it: a status from before the latest request is shown as in progress.
//!
//! Between an edit, or a `rerun` annotation, and the first status write that includes it, the stored status has the verdict
//! of the previous Run. `observedGeneration` reveals an edit; an annotation changes no generation, so a client would take
//! the old verdict for the new one.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use sentinel_core::reconcile::conditions::kind;
use sentinel_core::reconcile::trigger::rerun_asked;

use super::{Task, TaskStatus, recorded};

/// The Task with a status that is correct for its latest request.
pub fn present(task: &Task) -> Cow<'_, Task> {
    let Some(status) = task.status.as_ref().filter(|status| has_verdict(status)) else {
        return Cow::Borrowed(task);
    };
    let message = if task.metadata.deletion_timestamp.is_some() {
        "the Task is being deleted"
    } else if status.observed_generation != task.metadata.generation.unwrap_or_default() {
        "the operator has not observed the latest edit yet"
    } else if !holds(status, kind::ACCEPTED, "False") && requests_rerun(task) {
        "the operator has not handled the rerun request yet"
    } else {
        return Cow::Borrowed(task);
    };
    let deleting = task.metadata.deletion_timestamp.is_some();
    let (phase, reason) = if deleting { ("Terminating", "Terminating") } else { ("Pending", "Requested") };
    let mut presented = task.clone();
    presented.status = Some(TaskStatus {
        phase: Some(phase.to_owned()),
        conditions: in_progress(&status.conditions, reason, message),
        ..status.clone()
    });
    Cow::Owned(presented)
}

fn has_verdict(status: &TaskStatus) -> bool {
    [kind::READY, kind::COMPLETE, kind::FAILED, kind::STALLED].iter().any(|kind| holds(status, kind, "True"))
}

fn holds(status: &TaskStatus, kind: &str, value: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == value)
}

fn requests_rerun(task: &Task) -> bool {
    let (requests, _) = recorded::requests(task);
    // With an unreadable status, requests are not handled.
    recorded::read(task).is_ok_and(|recorded| rerun_asked(&requests, &recorded.handled))
}

fn in_progress(before: &[Condition], reason: &str, message: &str) -> Vec<Condition> {
    let since = before.iter().find(|condition| condition.type_ == kind::READY);
    let Some(since) = since else { return before.to_vec() };
    let condition = |kind: &str, status: &str| Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..since.clone()
    };
    let kept =
        before.iter().filter(|condition| [kind::ARCHIVED, kind::SUSPENDED].contains(&&*condition.type_));
    [condition(kind::RECONCILING, "True"), condition(kind::READY, "Unknown")]
        .into_iter()
        .chain(kept.cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::resource::TaskSpec;
    use crate::resource::marks::RERUN;
    use crate::resource::status::{Handled, RunStatus};

    fn task(conditions: &[(&str, &str)]) -> Task {
        let mut task = Task::new("a", TaskSpec::stand_in());
        task.metadata.generation = Some(2);
        let condition = |(kind, status): &(&str, &str)| Condition {
            type_: (*kind).to_owned(),
            status: (*status).to_owned(),
            reason: "Because".to_owned(),
            message: String::new(),
            observed_generation: Some(2),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        };
        let run = RunStatus {
            number: 1,
            spec_hash: "0".repeat(64),
            started_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
                k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            )),
            ..RunStatus::default()
        };
        task.status = Some(TaskStatus {
            observed_generation: 2,
            conditions: conditions.iter().map(condition).collect(),
            run: Some(run),
            ..TaskStatus::default()
        });
        task
    }

    const COMPLETE: &[(&str, &str)] =
        &[("Accepted", "True"), ("Ready", "True"), ("Complete", "True"), ("Archived", "True")];
    const FAILED: &[(&str, &str)] =
        &[("Accepted", "True"), ("Stalled", "True"), ("Ready", "False"), ("Failed", "True")];
    const REJECTED: &[(&str, &str)] = &[("Accepted", "False"), ("Stalled", "True"), ("Ready", "False")];

    fn shown(task: &Task) -> Vec<(String, String)> {
        let presented = present(task);
        let conditions = &presented.status.as_ref().unwrap().conditions;
        conditions.iter().map(|c| (c.type_.clone(), c.status.clone())).collect()
    }

    fn is_in_progress(task: &Task) -> bool {
        let shown = shown(task);
        let has = |kind: &str, status: &str| shown.contains(&(kind.to_owned(), status.to_owned()));
        let claims = ["Complete", "Failed", "Stalled"].iter().any(|kind| has(kind, "True"));
        has("Reconciling", "True") && has("Ready", "Unknown") && !claims
    }

    #[test]
    fn current_status_is_presented_unchanged() {
        for conditions in [COMPLETE, FAILED, REJECTED] {
            let task = task(conditions);
            assert!(matches!(present(&task), Cow::Borrowed(_)), "{conditions:?}");
        }
    }

    #[test]
    fn unobserved_edit_is_in_progress() {
        for conditions in [COMPLETE, FAILED, REJECTED] {
            let mut task = task(conditions);
            task.metadata.generation = Some(3);
            assert!(is_in_progress(&task), "{:?}", shown(&task));
        }
    }

    #[test]
    fn pending_rerun_is_in_progress_unless_the_spec_is_rejected() {
        let asked = |conditions, handled: Option<&str>| {
            let mut task = task(conditions);
            task.metadata.annotations = Some([(RERUN.to_owned(), "again".to_owned())].into());
            task.status.as_mut().unwrap().handled =
                Handled { rerun: handled.map(str::to_owned), ..Handled::default() };
            task
        };
        assert!(is_in_progress(&asked(COMPLETE, None)));
        assert!(is_in_progress(&asked(FAILED, Some("before"))));
        assert!(!is_in_progress(&asked(COMPLETE, Some("again"))), "it was handled");
        assert!(!is_in_progress(&asked(REJECTED, None)), "it cannot be run");
    }

    #[test]
    fn task_being_deleted_is_in_progress() {
        let mut task = task(COMPLETE);
        task.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert!(is_in_progress(&task));
        assert_eq!(present(&task).status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
    }
}
