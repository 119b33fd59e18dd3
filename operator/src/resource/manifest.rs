//! Manifests: YAML into Tasks, as `kubectl apply -f` reads it, with several documents, lists, and empty documents.

use serde_json::Value;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use super::invalid::Invalid;
use super::places::{Place, Places};
use super::{Task, schema};

/// Largest manifest, bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It has comments and white space only.
    #[error("holds no Task: it is empty")]
    Empty,
    /// It is longer than [`MAX_BYTES`].
    #[error("has {bytes} bytes; at most {MAX_BYTES} are allowed")]
    TooLong {
        /// Its length, bytes.
        bytes: usize,
    },
    /// It is not UTF-8.
    #[error("is not valid UTF-8 at byte offset {at}")]
    NotText {
        /// Offset of the first invalid byte.
        at: usize,
    },
    /// It is not YAML, or expands to far more than its size.
    #[error("{place}: {message}")]
    NotYaml {
        /// Line and column.
        place: Place,
        /// What the parser reported.
        message: String,
    },
    /// A document is not a valid Task.
    #[error("{}", all(.problems))]
    Invalid {
        /// Its problems with their places.
        problems: Vec<(Place, Invalid)>,
    },
}

impl ManifestError {
    /// The kind of error, as a label of metrics and logs: `encoding`, `syntax` or `validation`.
    pub fn category(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::NotText { .. } => "encoding",
            Self::NotYaml { .. } => "syntax",
            Self::Empty | Self::Invalid { .. } => "validation",
        }
    }

    /// Whether the same manifest may be accepted later: never, without a change of it.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// One problem follows its place; several are a line each.
fn all(problems: &[(Place, Invalid)]) -> String {
    let line = |(place, problem): &(Place, Invalid)| format!("{place}: {problem}");
    let lines: Vec<String> = problems.iter().map(line).collect();
    if lines.len() == 1 {
        lines.concat()
    } else {
        format!("{} problems:\n    {}", lines.len(), lines.join("\n    "))
    }
}

/// The Tasks in the bytes of a file.
///
/// # Errors
/// About the first invalid document; then no document is used.
pub fn read_bytes(bytes: &[u8]) -> Result<Vec<Task>, ManifestError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| ManifestError::NotText { at: error.valid_up_to() })?;
    read(text)
}

/// The Tasks in a manifest.
///
/// # Errors
/// As [`read_bytes`].
pub fn read(text: &str) -> Result<Vec<Task>, ManifestError> {
    if text.len() > MAX_BYTES {
        return Err(ManifestError::TooLong { bytes: text.len() });
    }
    let mut tasks = Vec::new();
    for document in documents(text) {
        let value = parse(&document)?;
        for (item, path) in unfold(value) {
            tasks.push(schema::admit(item).map_err(|problems| located(&document, &path, problems))?);
        }
    }
    if tasks.is_empty() { Err(ManifestError::Empty) } else { Ok(tasks) }
}

/// The problems of an item of a document, each with its place in the file.
fn located(document: &Document, item: &str, problems: Vec<Invalid>) -> ManifestError {
    let places = Places::of(&document.text);
    let problems = problems
        .into_iter()
        .map(|problem| {
            let place = places.find(item, &problem.field);
            (Place { line: document.line + place.line - 1, ..place }, problem)
        })
        .collect();
    ManifestError::Invalid { problems }
}

/// A document and the line it begins on.
struct Document {
    line: usize,
    text: String,
}

/// A line that begins with `---` always begins a document, even in a block scalar.
/// Source: YAML 1.2.2, §9.1.4 and `c-forbidden`.
fn documents(text: &str) -> Vec<Document> {
    let mut documents = vec![Document { line: 1, text: String::new() }];
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let marker = |marker: &str| {
            line.strip_prefix(marker).filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
        };
        if let Some(rest) = marker("---") {
            documents.push(Document { line: index + 1, text: format!("{rest}\n") });
        } else if marker("...").is_some() {
            documents.push(Document { line: index + 2, text: String::new() });
        } else if let Some(last) = documents.last_mut() {
            last.text.push_str(line);
            last.text.push('\n');
        }
    }
    documents.retain(|document| !is_blank(&document.text));
    documents
}

fn is_blank(text: &str) -> bool {
    let is_blank = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    text.lines().all(|line| is_blank(line) || line.starts_with('%'))
}

fn parse(document: &Document) -> Result<Value, ManifestError> {
    serde_saphyr::from_str::<Value>(&document.text).map_err(|error| {
        let place = error.location().map_or(Place { line: 1, column: 1 }, |at| Place::of(&at));
        let message = UserMessageFormatter.format_message(&error).into_owned();
        ManifestError::NotYaml { place: Place { line: document.line + place.line - 1, ..place }, message }
    })
}

/// The items of a list, each with its path in the document, or the document itself; nothing for `null`.
fn unfold(value: Value) -> Vec<(Value, String)> {
    match value {
        Value::Null => Vec::new(),
        Value::Object(mut object)
            if object
                .get("kind")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind == "List" || kind == "TaskList") =>
        {
            match object.remove("items") {
                Some(Value::Array(items)) => {
                    let path = |index: usize| format!("items[{index}]");
                    items.into_iter().enumerate().map(|(index, item)| (item, path(index))).collect()
                }
                _ => Vec::new(),
            }
        }
        other => vec![(other, String::new())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: NAME}\nspec: {targets: {all: true}, run: {command: [\"true\"]}}\n";

    fn hello(name: &str) -> String {
        HELLO.replace("NAME", name)
    }

    fn names(text: &str) -> Vec<String> {
        read(text).unwrap().into_iter().map(|task| task.metadata.name.unwrap()).collect()
    }

    fn refused(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn each_document_is_a_task_and_empty_ones_are_skipped() {
        let text = format!("# first\n---\n{}---\n\n---\n{}...\n# the end\n", hello("a"), hello("b"));
        assert_eq!(names(&text), ["a", "b"]);
        assert_eq!(names(&format!("\u{feff}{}", hello("a"))), ["a"]);
    }

    #[test]
    fn items_of_a_list_are_tasks() {
        let item = "{apiVersion: sentinelnode.dev/v1alpha1, kind: Task, metadata: {name: NAME}, spec: {targets: {all: true}, run: {command: [x]}}}";
        let text = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n",
            item.replace("NAME", "a"),
            item.replace("NAME", "b")
        );
        assert_eq!(names(&text), ["a", "b"]);
    }

    #[test]
    fn indented_dashes_in_a_script_are_text() {
        let text = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: a}\nspec:\n  targets: {all: true}\n  run:\n    script:\n      text: |\n        echo one\n        ---\n        echo two\n";
        let task = read(text).unwrap().remove(0);
        assert_eq!(task.spec.run.script.unwrap().text, "echo one\n---\necho two\n");
    }

    #[test]
    fn empty_manifest_is_refused() {
        for text in ["", "\n\n", "# only a comment\n", "---\n---\n", "kind: List\nitems: []\n"] {
            assert_eq!(refused(text), "holds no Task: it is empty", "{text:?}");
        }
    }

    #[test]
    fn other_kinds_are_refused_with_their_line() {
        let pod = format!("{}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n", hello("a"));
        assert_eq!(
            refused(&pod),
            "2 problems:\n    line 7, column 1: kind is \"Pod\"; it must be Task\n    line 6, column 1: apiVersion is \"v1\"; it must be sentinelnode.dev/v1alpha1"
        );
        let newer = hello("a").replace("v1alpha1", "v2");
        assert_eq!(
            refused(&newer),
            "line 1, column 1: apiVersion is \"sentinelnode.dev/v2\"; it must be sentinelnode.dev/v1alpha1"
        );
        assert!(refused("just text\n").contains("must be a Task"), "{}", refused("just text\n"));
        assert!(refused("[1, 2]").contains("must be a Task"));
    }

    #[test]
    fn invalid_field_is_named_with_line_and_column() {
        let task = "# A comment\n---\napiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata:\n  name: a\nspec:\n  targets: {all: true}\n  timeouts:\n    run: 5\n  run:\n    command:\n      - echo\n      - 7\n    env:\n      - name: A\n        vale: x\n      - {name: B, value: 1}\n";
        let error = refused(task);
        for expected in [
            "line 10, column 5: spec.timeouts.run is",
            "line 14, column 9: spec.run.command[1] is 7; it must be a string",
            "line 17, column 9: spec.run.env[0].vale is an unknown field; did you mean value?",
            "line 18, column 19: spec.run.env[1].value is 1; it must be a string",
        ] {
            assert!(error.contains(expected), "{expected:?} is not in {error}");
        }
        let bad_value = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: a}\nspec:\n  targets: {all: true}\n  run: {command: [x]}\n  timeouts:\n    run: 5 minutes\n";
        let error = refused(bad_value);
        assert!(error.starts_with("line 8, column 5: spec.timeouts.run is \"5 minutes\""), "{error}");
        // A missing field has the place of its parent.
        let error = refused(&hello("a").replace("run: {command: [\"true\"]}", "suspend: false"));
        assert_eq!(error, "line 4, column 1: spec.run is required");
        let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: sentinelnode.dev/v1alpha1\n  kind: Task\n  metadata: {name: a}\n  spec:\n    targets: {al: true}\n    run: {command: [x]}\n";
        assert!(
            refused(list).starts_with("line 8, column 15: spec.targets.al is an unknown field"),
            "{}",
            refused(list)
        );
    }

    #[test]
    fn invalid_yaml_is_refused_with_its_line() {
        let text = format!("{}---\na: [1,\nb: }}\n", hello("a"));
        let error = refused(&text);
        assert!(error.starts_with("line "), "{error}");
        let line: usize = error["line ".len()..].split(',').next().unwrap().parse().unwrap();
        assert!((6..=8).contains(&line), "{error}");
    }

    #[test]
    fn alias_bomb_is_refused_quickly() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let below = level - 1;
            let line = format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 10].join(","));
            text.push_str(&line);
        }
        let started = std::time::Instant::now();
        assert!(matches!(read(&text), Err(ManifestError::NotYaml { .. })));
        assert!(started.elapsed().as_secs() < 5);
    }

    #[test]
    fn duplicate_key_is_refused() {
        let text = hello("a").replace("kind: Task\n", "kind: Task\nkind: Task\n");
        assert!(matches!(read(&text), Err(ManifestError::NotYaml { .. })), "{}", refused(&text));
    }

    #[test]
    fn invalid_utf8_is_refused() {
        assert_eq!(read_bytes(b"kind: \xff").unwrap_err().to_string(), "is not valid UTF-8 at byte offset 6");
    }
}
