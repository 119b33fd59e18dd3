//! No message of an agent makes the operator use unbounded memory, or store a number near the limit of its type.
//!
//! The test takes every message of an agent from the golden files and makes it hostile field by field: the longest
//! strings, the largest and smallest numbers, the longest lists. Each must be rejected or decode to something small.
//! A new field is covered as soon as it is in a golden file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use sentinel_protocol::codec::{decode_text, encode_text};
use sentinel_protocol::to_operator::ToOperator;
use serde_json::{Value, json};

/// Most bytes of a decoded message, encoded again; a larger one has an unbounded field.
const SMALL: usize = 64 << 10;

/// The largest integer that every JSON reader represents exactly.
const EXACT: u64 = 1 << 53;

fn messages() -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if decode_text::<ToOperator>(&text).is_ok() {
            found.push((
                path.file_name().unwrap().to_string_lossy().into_owned(),
                serde_json::from_str(&text).unwrap(),
            ));
        }
    }
    found
}

/// The JSON pointers of all leaves and lists of a value.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            found.push(at.to_owned());
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| places(value, &format!("{at}/{index}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

/// The values that a hostile agent would put in place of this one.
fn hostile(value: &Value) -> Vec<Value> {
    match value {
        Value::String(text) => {
            let mut long = text.clone();
            long.push_str(&"ä".repeat(200_000));
            vec![json!(long), json!("x".repeat(400_000)), json!("")]
        }
        Value::Number(_) => {
            vec![
                json!(u64::MAX),
                json!(i64::MAX),
                json!(i64::MIN),
                json!(u32::MAX),
                json!(1e300),
                json!(-1e300),
            ]
        }
        Value::Array(items) => {
            let one = items.first().cloned().unwrap_or_else(|| json!(1));
            vec![Value::Array(vec![one; 5_000])]
        }
        _ => vec![],
    }
}

fn largest_number(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.as_f64().map_or(0, |number| number.abs() as u64),
        Value::Array(items) => items.iter().map(largest_number).max().unwrap_or(0),
        Value::Object(fields) => fields.values().map(largest_number).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn hostile_field_values_are_rejected_or_bounded() {
    let messages = messages();
    assert!(messages.len() > 20, "golden files are missing: only {} messages", messages.len());
    let mut tried = 0;
    for (name, message) in messages {
        let mut found = Vec::new();
        places(&message, "", &mut found);
        for place in found {
            for value in hostile(message.pointer(&place).unwrap()) {
                let mut changed = message.clone();
                *changed.pointer_mut(&place).unwrap() = value;
                let Ok(decoded) = decode_text::<ToOperator>(&changed.to_string()) else { continue };
                tried += 1;
                let text = encode_text(&decoded).unwrap();
                assert!(text.len() < SMALL, "{name}: {place} decodes to a message of {} bytes", text.len());
                let largest = largest_number(&serde_json::from_str(&text).unwrap());
                assert!(largest <= EXACT, "{name}: {place} accepts the number {largest}");
            }
        }
    }
    assert!(tried > 200, "too few values decode, so the test shows little: {tried}");
}
