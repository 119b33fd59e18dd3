//! Paths and queries of the API. What people typed is escaped, so that it can change neither.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986, §2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as it may stand in a segment of a path or in a query.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The text of an escaped segment; `None` when an escape is cut or the result is not UTF-8.
pub fn unescape(raw: &str) -> Option<String> {
    // The crate keeps an escape that is cut as it stands, which would let one text have two forms.
    let is_whole = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !raw.split('%').skip(1).all(is_whole) {
        return None;
    }
    percent_decode_str(raw).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// The path of a Task.
pub fn task(namespace: &str, name: &str) -> String {
    format!("/api/v1/tasks/{}/{}", escape(namespace), escape(name))
}

/// The path of a node.
pub fn node(name: &str) -> String {
    format!("/api/v1/nodes/{}", escape(name))
}

/// The path of an Execution.
pub fn execution(task_uid: &str, run: u32, node: &str) -> String {
    format!("/api/v1/executions/{}/{run}/{}", escape(task_uid), escape(node))
}

/// The path of the log of an Execution.
pub fn log(task_uid: &str, run: u32, node: &str) -> String {
    format!("{}/log", execution(task_uid, run, node))
}

/// The query of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    /// Adds a parameter.
    pub fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&escape(&value.to_string()));
    }

    /// Adds a parameter that has a value.
    pub fn maybe(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// The path with this query.
    pub fn of(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_text_cannot_change_path_or_query() {
        assert_eq!(task("a", "b/../c?x"), "/api/v1/tasks/a/b%2F..%2Fc%3Fx");
        let mut query = Query::default();
        query.add("node", "a&b=c d");
        query.maybe("run", Some(3));
        query.maybe("task", None::<&str>);
        assert_eq!(query.of("/x"), "/x?node=a%26b%3Dc%20d&run=3");
    }

    #[test]
    fn escaped_text_reads_as_itself() {
        for text in ["", "a-b_c.d~e", "%", "ä→日", "a b&c=d/e?f#g"] {
            assert_eq!(unescape(&escape(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn cut_escapes_and_invalid_utf8_are_refused() {
        for raw in ["%", "%a", "x%f", "%zz", "%ff", "%+1"] {
            assert_eq!(unescape(raw), None, "{raw}");
        }
        assert_eq!(unescape("n%31").as_deref(), Some("n1"));
    }
}
