//! Names of Tasks as arguments, in every form in which they are printed.

use std::convert::Infallible;
use std::str::FromStr;

/// A Task as `NAME`, `NAMESPACE/NAME`, or either after `task/`, as `get tasks -o name` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskName {
    namespace: Option<String>,
    name: String,
}

impl TaskName {
    /// Namespace and name; the namespace of the command line, if the argument has none.
    pub(crate) fn within<'a>(&'a self, namespace: &'a str) -> (&'a str, &'a str) {
        (self.namespace.as_deref().unwrap_or(namespace), &self.name)
    }
}

impl FromStr for TaskName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let text = text.strip_prefix("task/").unwrap_or(text);
        Ok(match text.split_once('/') {
            Some((namespace, name)) => Self { namespace: Some(namespace.to_owned()), name: name.to_owned() },
            None => Self { namespace: None, name: text.to_owned() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printed_form_is_accepted() {
        for (text, expected) in [
            ("hello", ("ops", "hello")),
            ("task/hello", ("ops", "hello")),
            ("default/hello", ("default", "hello")),
            ("task/default/hello", ("default", "hello")),
        ] {
            assert_eq!(text.parse::<TaskName>().unwrap().within("ops"), expected, "{text}");
        }
    }
}
