//! No file has more than 500 lines of logic, unless its head has the reason: `//! Over 500 lines: …`. Tests are not logic, as
//! each is read alone; neither are unit tests at the end of a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use sentinel_tests::cluster::repository;

const MOST: usize = 500;

const REASON: &str = "//! Over 500 lines: ";

const CRATES: [&str; 8] = ["protocol", "policy", "core", "api", "operator", "node-agent", "cli", "tests"];

/// Lines of a file that are neither in a test nor in a module of unit tests.
fn lines_of_logic(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (code, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if line == "#[cfg(test)]" {
            break;
        }
        if code.starts_with("#[test]") || code.starts_with("#[tokio::test") {
            let end = format!("{}}}", " ".repeat(indent));
            lines.by_ref().find(|line| *line == end);
        } else {
            count += 1;
        }
    }
    count
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn no_file_is_long_without_a_reason() {
    let mut files = Vec::new();
    for name in CRATES {
        collect(&repository().join(name).join("src"), &mut files);
        collect(&repository().join(name).join("tests"), &mut files);
    }
    assert!(files.len() > 400, "only {} files were found", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (count, has_reason) = (lines_of_logic(&text), text.lines().any(|line| line.starts_with(REASON)));
        if (count > MOST) != has_reason {
            let what = if has_reason { "and its reason is not needed" } else { "and no reason" };
            wrong.push(format!("{}: {count} lines of logic {what}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "part them by noun, or give the reason at their top:\n{}", wrong.join("\n"));
}

#[test]
fn tests_are_not_counted() {
    let text =
        "use a;\n\nfn b() {\n    c();\n}\n\n#[test]\nfn d() {\n    e();\n}\n\n#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(lines_of_logic(text), 7);
    let nested = "mod x {\n    #[tokio::test(start_paused = true)]\n    async fn d() {\n    }\n}\n";
    assert_eq!(lines_of_logic(nested), 2);
}
