//! `docs/protocol.md` describes every message and every field of the golden files.
//!
//! Each kind of message has a heading ``### `Kind` `` in the page. A field must be in backticks in the section of its
//! message, or in the chapter *Shared values*.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// Fields whose values come from a closed set: each value must be in the page too.
const CLOSED: &[&str] =
    &["reason", "outcome", "stage", "fate", "stream", "dropped", "environment", "leftovers", "sandbox"];

/// Kinds of messages that have no golden file: `hello_welcome_and_refuse_are_frozen` has them as literals.
const FROZEN: &[(&str, &str)] = &[
    (
        "Hello",
        r#"{"versions":[1],"agentVersion":"","bootId":"","stateId":"","highestEpoch":4,"environments":[],"os":"","arch":"","kernel":""}"#,
    ),
    ("Welcome", r#"{"version":1,"session":"","epoch":5,"heartbeatMs":5000,"deadAfterMs":15000}"#),
    ("Refuse", r#"{"reason":"Version","spoken":[2,3]}"#),
];

/// What a kind of message contains: its fields, and the values of those with a closed set.
#[derive(Default)]
struct Contents {
    fields: BTreeSet<String>,
    values: BTreeSet<String>,
}

fn collect(value: &Value, contents: &mut Contents) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "kind") {
                contents.fields.insert(name.clone());
                if let (true, Some(text)) = (CLOSED.contains(&name.as_str()), value.as_str()) {
                    contents.values.insert(text.to_owned());
                }
                collect(value, contents);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, contents)),
        _ => {}
    }
}

/// The heading of a message: the log socket has kinds of its own, so its headings begin with `Log`.
fn heading(file: &str, message: &Value) -> String {
    let kind = message["kind"].as_str().unwrap();
    if file.starts_with("log-") { format!("Log {kind}") } else { kind.to_owned() }
}

fn messages() -> BTreeMap<String, Contents> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let mut found: BTreeMap<String, Contents> = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let head = 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
            let head: Value = serde_json::from_slice(&bytes[2..head]).unwrap();
            collect(&head, found.entry("Log record".to_owned()).or_default());
        } else {
            let mut message: Value = serde_json::from_slice(&bytes).unwrap();
            // The items of an Inventory are Reports, and described there.
            if let Some(attempts) = message.get_mut("attempts") {
                collect(attempts, found.entry("Report".to_owned()).or_default());
                *attempts = Value::Null;
            }
            collect(&message, found.entry(heading(&name, &message)).or_default());
        }
    }
    for (kind, fields) in FROZEN {
        let fields = serde_json::from_str(fields).unwrap();
        collect(&fields, found.entry((*kind).to_owned()).or_default());
    }
    found
}

/// The text from a heading to the next heading of the same or a higher level.
fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let start = page.find(&format!("\n{heading}\n"))? + 1;
    let body = &page[start + heading.len()..];
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let end = (1..=level).filter_map(|hashes| body.find(&format!("\n{} ", "#".repeat(hashes)))).min();
    Some(&body[..end.unwrap_or(body.len())])
}

#[test]
fn the_page_describes_every_message_and_field() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let page = fs::read_to_string(page).unwrap();
    let shared =
        section(&page, "## Shared values").expect("docs/protocol.md has a chapter \"Shared values\"");
    let messages = messages();
    assert!(messages.len() > 13, "golden files are missing: only {:?}", messages.keys());
    let mut missing = Vec::new();
    for (kind, contents) in messages {
        let Some(own) = section(&page, &format!("### `{kind}`")) else {
            missing.push(format!("a section \"### `{kind}`\""));
            continue;
        };
        for name in contents.fields.iter().chain(&contents.values) {
            // `request.output.limit` names the field `limit` too.
            let is_named = |text: &str| {
                text.split('`')
                    .skip(1)
                    .step_by(2)
                    .any(|code| code.split(['.', '[', ']']).any(|part| part == name))
            };
            if !is_named(own) && !is_named(shared) {
                missing.push(format!("`{name}` of {kind}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/protocol.md does not describe:\n{}", missing.join("\n"));
}
