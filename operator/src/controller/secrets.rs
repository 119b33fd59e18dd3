//! The values of Secrets that a request refers to. They are read when a `Start` is dispatched, and kept no longer than the messages of
//! one reconcile.

use std::collections::{BTreeSet, HashMap};

use sentinel_core::reconcile::{Level, Notice};
use sentinel_protocol::ids::TaskRef;
use sentinel_protocol::request::RunRequest;
use sentinel_protocol::secret::{MIN_MASKED, SecretKeyRef};
use sentinel_secrets::values::{SecretValue, SecretValues};

use crate::cluster::{Cluster, ClusterError, SecretKeys};

/// Why a request has no values.
#[derive(Debug, Clone)]
pub(super) enum Unresolved {
    /// The cluster cannot answer now.
    Later(String),
    /// Only a person can change that: what is wrong, and what to do.
    Never(String),
}

/// The Secrets that one reconcile has read.
#[derive(Default)]
pub(super) struct SecretReader {
    read: HashMap<String, Result<Option<SecretKeys>, Unresolved>>,
    /// What is too short to be masked.
    short: BTreeSet<String>,
}

impl SecretReader {
    /// The values that a request refers to; none where it refers to none.
    pub(super) async fn resolve(
        &mut self,
        cluster: &dyn Cluster,
        task: &TaskRef,
        request: &RunRequest,
    ) -> Result<SecretValues, Unresolved> {
        let mut values = SecretValues::default();
        for (field, reference) in request.secrets() {
            let secret = self.secret(cluster, task, reference).await?;
            if let Some(value) = value(task, &field, reference, secret)?.cloned() {
                if request.output.mask && (1..MIN_MASKED).contains(&value.without_end_of_line().len()) {
                    self.short.insert(reference.to_string());
                }
                values.insert(reference, value);
            }
        }
        values.check(request).map_err(|why| Unresolved::Never(format!("Task {task}: {why}")))?;
        Ok(values)
    }

    /// A warning about values that are not masked, if there were any.
    pub(super) fn notice(&self) -> Option<Notice> {
        if self.short.is_empty() {
            return None;
        }
        let all: Vec<&str> = self.short.iter().map(String::as_str).collect();
        let note = format!(
            "not masked in the output, as its value has fewer than {MIN_MASKED} bytes: {}",
            all.join(", ")
        );
        Some(Notice { reason: "SecretNotMasked", note, level: Level::Warning })
    }

    async fn secret(
        &mut self,
        cluster: &dyn Cluster,
        task: &TaskRef,
        reference: &SecretKeyRef,
    ) -> Result<Option<&SecretKeys>, Unresolved> {
        if cluster.is_own_secret(&task.namespace, &reference.name) {
            let (namespace, name) = (&task.namespace, &reference.name);
            let why = format!(
                "Secret {namespace}/{name} has keys of the operator, which no command gets: use another one"
            );
            return Err(Unresolved::Never(why));
        }
        if !self.read.contains_key(&reference.name) {
            let answer = cluster.secret(&task.namespace, &reference.name).await;
            let read = answer.map_err(|error| unreadable(task, &reference.name, &error));
            self.read.insert(reference.name.clone(), read);
        }
        match self.read.get(&reference.name) {
            Some(Ok(secret)) => Ok(secret.as_ref()),
            Some(Err(why)) => Err(why.clone()),
            None => Ok(None),
        }
    }
}

fn unreadable(task: &TaskRef, name: &str, error: &ClusterError) -> Unresolved {
    let namespace = &task.namespace;
    match error {
        // The same for a Secret that does not exist, where a Role has the names of others.
        ClusterError::Refused { code: 403, message, .. } => Unresolved::Never(format!(
            "the operator may not read Secret {namespace}/{name}: check its name, and let the operator get it by a Role in \
             namespace {namespace}, or all Secrets there by secrets.namespaces of the Helm chart; then run it again ({message})"
        )),
        ClusterError::Refused { code: 501, message, .. } => {
            Unresolved::Never(format!("Secret {namespace}/{name} cannot be read: {message}"))
        }
        error => Unresolved::Later(error.to_string()),
    }
}

/// The value of a key; `None` where it is missing and may be missing.
fn value<'a>(
    task: &TaskRef,
    field: &str,
    reference: &SecretKeyRef,
    secret: Option<&'a SecretKeys>,
) -> Result<Option<&'a SecretValue>, Unresolved> {
    let SecretKeyRef { name, key, optional } = reference;
    let namespace = &task.namespace;
    let missing = match secret {
        None => format!("Secret {namespace}/{name} does not exist; {field} needs its key {key:?}. Create it"),
        Some(keys) => match keys.get(key) {
            Some(value) => return Ok(Some(value)),
            None => format!(
                "Secret {namespace}/{name} has no key {key:?}, which {field} needs; it has {} others. Add it",
                keys.len()
            ),
        },
    };
    if *optional {
        return Ok(None);
    }
    Err(Unresolved::Never(format!("{missing}, or set optional: true; then run the Task again")))
}
