//! As much of CSS as is needed to find `url(./x)` and `@import "./x"`, and to leave out comments.

use std::ops::Range;

use crate::script::{Reference, Usage};

/// The references of a style sheet.
///
/// # Errors
/// A reference that is not a path: nothing is loaded from elsewhere.
pub(crate) fn references(text: &str) -> Result<Vec<Reference>, String> {
    let mut found = Vec::new();
    for at in code(text) {
        for (before, start) in ["url(", "@import"].iter().flat_map(|word| {
            text[at.clone()].match_indices(word).map(|(offset, word)| (word, at.start + offset + word.len()))
        }) {
            let rest = text[start..].trim_start();
            let start = text.len() - rest.len();
            if before == "@import" && rest.starts_with("url(") {
                continue;
            }
            let (start, end) = match rest.chars().next() {
                Some(quote @ ('"' | '\'')) => (start + 1, rest[1..].find(quote).map(|end| start + 1 + end)),
                _ => (start, rest.find(')').map(|end| start + end)),
            };
            let at = start..end.ok_or_else(|| format!("{before} does not end"))?;
            let path = &text[at.clone()];
            if !path.starts_with("./") && !path.starts_with("../") {
                return Err(format!("it refers to {path:?}, which does not begin with ./ or ../"));
            }
            found.push(Reference { at, usage: Usage::OnDemand });
        }
    }
    found.sort_by_key(|reference| reference.at.start);
    Ok(found)
}

/// The text without comments and indentation.
pub(crate) fn without_comments(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for part in parts(text).filter(|part| part.kind != Kind::Comment) {
        let part_text = &text[part.at];
        if part.kind == Kind::String {
            result.push_str(part_text);
            continue;
        }
        for (index, line) in part_text.split('\n').enumerate() {
            if index > 0 && !result.is_empty() && !result.ends_with('\n') {
                result.push('\n');
            }
            let is_begun = !(result.is_empty() || result.ends_with('\n'));
            result.push_str(if is_begun { line } else { line.trim_start() });
        }
    }
    result
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    String,
    Comment,
}

struct Part {
    kind: Kind,
    at: Range<usize>,
}

fn code(text: &str) -> impl Iterator<Item = Range<usize>> {
    parts(text).filter(|part| part.kind == Kind::Code).map(|part| part.at)
}

fn parts(text: &str) -> impl Iterator<Item = Part> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let first = rest.chars().next()?;
        let (kind, length) = if rest.starts_with("/*") {
            (Kind::Comment, rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if matches!(first, '"' | '\'') {
            (Kind::String, rest[1..].find(first).map_or(rest.len(), |end| end + 2))
        } else {
            let next = ["/*", "\"", "'"].iter().filter_map(|mark| rest.find(mark)).min();
            (Kind::Code, next.unwrap_or(rest.len()))
        };
        let part = Part { kind, at: at..at + length };
        at += length;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_imports_are_found() {
        let text = "@import './a.css'; .x { background: url(./b.svg), url( \"./c.svg\" ) } /* url(./d.svg) */ .y::after { content: \"url(./e.svg)\" }";
        let paths: Vec<&str> =
            references(text).unwrap().into_iter().map(|reference| &text[reference.at]).collect();
        assert_eq!(paths, ["./a.css", "./b.svg", "./c.svg"]);
    }

    #[test]
    fn addresses_elsewhere_are_refused() {
        for text in ["a { b: url(data:x) }", "@import url(\"//evil.test/x.css\");", "a { b: url('/x.svg') }"]
        {
            assert!(references(text).is_err(), "{text}");
        }
    }

    #[test]
    fn comments_and_indentation_are_left_out() {
        let text = "/* a */\n.x {\n  color: red; /* b */\n  content: \"  /* c */ \";\n}\n";
        assert_eq!(without_comments(text), ".x {\ncolor: red; \ncontent: \"  /* c */ \";\n}\n");
    }
}
