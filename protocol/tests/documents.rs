//! The documents name files, tests and pages that exist.
//!
//! After a rename, change the document that the failure names.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a decision record.
const DECISION_LINES: usize = 40;

/// Folders that paths in ARCHITECTURE.md may be relative to.
const ROOTS: [&str; 4] = ["", "operator/src", "node-agent/src", "cli/src"];

/// What paths from the root of the repository begin with.
const FOLDERS: [&str; 14] = [
    "protocol/",
    "policy/",
    "core/",
    "api/",
    "viewer/",
    "telemetry/",
    "charts/",
    "operator/",
    "node-agent/",
    "cli/",
    "tests/",
    "docs/",
    "crds/",
    "examples/",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Markdown files of the repository's root, of `docs` and of `examples`.
fn pages() -> Vec<PathBuf> {
    let mut folders = vec![
        root(),
        root().join("docs/decisions"),
        root().join("docs/runbooks"),
        root().join("docs"),
        root().join("examples"),
    ];
    let mut found = Vec::new();
    for folder in folders.drain(..) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 10, "pages are missing: only {}", found.len());
    found
}

/// The parts of a text between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn links_between_pages_resolve() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            if !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn pages_name_existing_files() {
    let mut missing = Vec::new();
    for page in pages() {
        // What a release removed or renamed stays in the changelog.
        if page.ends_with("CHANGELOG.md") {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        for path in code(&text).filter(|text| FOLDERS.iter().any(|folder| text.starts_with(folder))) {
            let is_pattern = path.contains(['*', '<', '…', ' ']);
            if !is_pattern && !root().join(path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "pages name files that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn architecture_names_existing_files() {
    let is_path = |text: &&str| {
        let has_end = text.ends_with('/') || Path::new(text).extension().is_some();
        text.contains('/') && has_end && !text.contains(char::is_whitespace) && !text.starts_with('/')
    };
    let text = read("ARCHITECTURE.md");
    let paths: Vec<&str> = code(&text).filter(is_path).collect();
    assert!(paths.len() > 50, "paths are missing: only {}", paths.len());
    let exists = |path: &&str| ROOTS.iter().any(|folder| root().join(folder).join(path).exists());
    let missing: Vec<&str> = paths.into_iter().filter(|path| !exists(path)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names files that do not exist:\n{}", missing.join("\n"));
}

/// Rows of a table whose first cell is this letter and a number; their last cell names tests that exist.
fn rows_name_existing_tests(page: &str, letter: char, least: usize) {
    let text = read(page);
    let mut missing = Vec::new();
    let mut rows = 0;
    let is_row = |line: &&str| {
        let number = line.strip_prefix("| ").and_then(|rest| rest.strip_prefix(letter));
        number.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    for row in text.lines().filter(is_row) {
        rows += 1;
        let held_by = row.split(" | ").last().unwrap();
        let mut source = String::new();
        for item in code(held_by) {
            if Path::new(item).extension().is_some_and(|extension| extension == "rs") {
                source = read(item);
            } else if item.matches('_').count() > 2 && !source.contains(&format!("fn {item}(")) {
                missing.push(format!("{}: {item}", row.split(" | ").next().unwrap_or_default()));
            }
        }
        assert!(held_by.contains('`'), "nothing holds {row}");
    }
    assert!(rows >= least, "rows of {page} are missing: only {rows}");
    assert!(missing.is_empty(), "{page} names tests that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn every_invariant_names_an_existing_test() {
    rows_name_existing_tests("ARCHITECTURE.md", 'I', 21);
}

#[test]
fn every_accident_of_others_names_an_existing_test() {
    rows_name_existing_tests("docs/security.md", 'A', 23);
}

#[test]
fn decision_records_are_short_and_indexed() {
    let index = read("docs/decisions/README.md");
    let mut names: Vec<String> = fs::read_dir(root().join("docs/decisions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    for (position, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}-", position + 1)), "{name} is not number {}", position + 1);
        assert!(index.contains(&format!("]({name})")), "{name} is not in docs/decisions/README.md");
        let text = read(&format!("docs/decisions/{name}"));
        let lines = text.lines().count();
        assert!(lines < DECISION_LINES, "{name} has {lines} lines, allowed are under {DECISION_LINES}");
        for heading in ["## Context", "## Decision", "## Consequences"] {
            assert!(text.lines().any(|line| line == heading), "{name} has no {heading:?}");
        }
    }
    assert!(names.len() > 10, "decisions are missing: only {}", names.len());
}
