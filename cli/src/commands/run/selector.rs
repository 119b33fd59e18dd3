//! Label selectors on the command line.

use serde_json::{Map, Value, json};

use crate::exit::Failure;

/// Parses a label selector in the syntax of kubectl into the `nodeSelector` of a Task.
///
/// # Errors
/// A part is invalid.
pub(super) fn parse(text: &str) -> Result<Value, Failure> {
    let invalid = |part: &str| {
        Failure::usage(format!("invalid label selector {part:?}")).hint(
            "Expected, separated by commas: key=value, key!=value, key in (a,b), key notin (a,b), key, !key",
        )
    };
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for part in parts(text) {
        let part = part.trim();
        let expression = |key: &str, operator: &str, values: Vec<&str>| {
            let key = key.trim();
            if key.is_empty()
                || key.contains(char::is_whitespace)
                || values.iter().any(|v| v.contains(char::is_whitespace))
            {
                return Err(invalid(part));
            }
            let mut expression = json!({"key": key, "operator": operator});
            if !values.is_empty() {
                expression["values"] = json!(values);
            }
            Ok(expression)
        };
        if let Some((key, list)) = part.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
            let values: Vec<&str> = list.split(',').map(str::trim).collect();
            let key = key.trim_end();
            if let Some(key) = key.strip_suffix(" notin") {
                expressions.push(expression(key, "NotIn", values)?);
            } else if let Some(key) = key.strip_suffix(" in") {
                expressions.push(expression(key, "In", values)?);
            } else {
                return Err(invalid(part));
            }
        } else if let Some((key, value)) = part.split_once("!=") {
            expressions.push(expression(key, "NotIn", vec![value.trim()])?);
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            expression(key, "In", vec![value.trim()])?;
            if labels.insert(key.trim().to_owned(), json!(value.trim())).is_some() {
                return Err(invalid(part));
            }
        } else if let Some(key) = part.strip_prefix('!') {
            expressions.push(expression(key, "DoesNotExist", Vec::new())?);
        } else {
            expressions.push(expression(part, "Exists", Vec::new())?);
        }
    }
    let mut selector = json!({});
    if !labels.is_empty() {
        selector["matchLabels"] = Value::Object(labels);
    }
    if !expressions.is_empty() {
        selector["matchExpressions"] = Value::Array(expressions);
    }
    Ok(selector)
}

/// The parts of a selector, separated by commas outside of parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_syntax_of_kubectl() {
        let selector = parse("pool=web, zone!=a,gpu,!old,tier in (x, y),os notin (w)").unwrap();
        let expected = json!({
            "matchLabels": {"pool": "web"},
            "matchExpressions": [
                {"key": "zone", "operator": "NotIn", "values": ["a"]},
                {"key": "gpu", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "os", "operator": "NotIn", "values": ["w"]},
            ],
        });
        assert_eq!(selector, expected);
    }

    #[test]
    fn rejects_invalid_selectors() {
        for text in ["", "a b", "=x", "a in", "(a)", "a=b,a=c", "a=b,,c", "a like (b)"] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
