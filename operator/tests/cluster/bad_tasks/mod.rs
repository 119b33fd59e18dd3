//! Tasks that must be refused: what is wrong, our message, and the API server's.

mod fields;
mod run;
mod secrets;

/// One of them.
pub(crate) struct Bad {
    /// What is wrong, in short; also the Task's name.
    pub(crate) name: &'static str,
    /// Its spec, as YAML.
    pub(crate) spec: String,
    /// Our message: field, value and what is allowed.
    pub(crate) ours: &'static str,
    /// Whether an API server refuses it.
    pub(crate) at_apply: AtApply,
}

/// Whether an API server refuses a bad Task. Dev mode always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtApply {
    /// An API server too, with this in its message.
    Refused(&'static str),
    /// An API server accepts it, for this reason; the status of the Task then refuses it.
    Taken {
        /// Why the definition cannot describe it.
        because: &'static str,
    },
}

impl Bad {
    /// A part of the API server's message; `None` where it accepts the Task.
    pub(crate) fn theirs(&self) -> Option<&'static str> {
        match self.at_apply {
            AtApply::Refused(theirs) => Some(theirs),
            AtApply::Taken { .. } => None,
        }
    }
}

fn bad(name: &'static str, spec: impl Into<String>, ours: &'static str, theirs: &'static str) -> Bad {
    Bad { name, spec: spec.into(), ours, at_apply: AtApply::Refused(theirs) }
}

fn only_in_status(
    name: &'static str,
    spec: impl Into<String>,
    ours: &'static str,
    because: &'static str,
) -> Bad {
    Bad { name, spec: spec.into(), ours, at_apply: AtApply::Taken { because } }
}

/// All of them.
pub(crate) fn all() -> Vec<Bad> {
    [
        fields::of_targets(),
        fields::of_selectors(),
        run::of_run(),
        run::of_bytes(),
        secrets::of_secrets(),
        fields::of_the_rest(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The Task as YAML.
pub(crate) fn manifest(name: &str, spec: &str) -> String {
    format!("apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}
