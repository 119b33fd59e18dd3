//! Under which names logs are saved: of the log, and of what was asked for of it, so that two downloads that differ have names
//! that differ. Pure.

use super::request::Query;
use crate::digest;

/// Longest name, bytes: most file systems have 255, and browsers add to it.
const MAX_NAME: usize = 200;

/// Parameters that change what is in the file.
const CHOICES: &[&str] = &["attempt", "nodes", "stream", "from", "tail", "since", "until", "timestamps"];

/// The name of a log, such as `backup-3-web-1-stderr.log`. A name that would be too long ends with a digest of it.
pub(super) fn file_name(log: &str, query: &Query, extension: &str) -> String {
    let mut stem = log.to_owned();
    for name in CHOICES {
        match (*name, query.text(name)) {
            (_, None) | ("timestamps", Some("false")) => {}
            ("timestamps", Some(_)) => stem += "-timestamps",
            ("stream" | "nodes", Some(value)) => stem = format!("{stem}-{}", plain(value)),
            (name, Some(value)) => stem = format!("{stem}-{name}-{}", plain(value)),
        }
    }
    if query.text("format") == Some("json") {
        stem += "-records";
    }
    if stem.len() + extension.len() >= MAX_NAME {
        let digest = digest::short_of(&stem);
        // The characters are one byte each.
        stem = format!("{}-{digest}", &stem[..MAX_NAME - extension.len() - digest.len() - 2]);
    }
    format!("{stem}.{extension}")
}

/// A value with nothing that a file system or a shell could take for something else: times are written like `20261128T030000Z`.
fn plain(value: &str) -> String {
    let kept = value.chars().map(|character| if character == ',' { '-' } else { character });
    kept.filter(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(query: &str) -> String {
        let known = [CHOICES, &["format"]].concat();
        file_name("t-1-a", &Query::parse(query, &known).unwrap(), "log")
    }

    #[test]
    fn downloads_that_differ_have_names_that_differ() {
        assert_eq!(name(""), "t-1-a.log");
        assert_eq!(name("timestamps=false"), "t-1-a.log");
        let queries = [
            "",
            "stream=stderr",
            "stream=stdout",
            "attempt=2",
            "from=5",
            "tail=5",
            "since=5m",
            "since=2026-11-28T03:00:00Z",
            "since=2026-11-28T03:00:01Z",
            "until=2026-11-28T03:00:01Z",
            "timestamps=true",
            "nodes=web-1,web-2",
            "format=json",
        ];
        let names: std::collections::BTreeSet<String> = queries.iter().map(|query| name(query)).collect();
        assert_eq!(names.len(), queries.len(), "{names:?}");
        assert!(names.contains("t-1-a-since-2026-11-28T030000Z.log"), "{names:?}");
        assert!(names.contains("t-1-a-web-1-web-2.log"), "{names:?}");
    }

    #[test]
    fn long_names_are_cut_and_still_differ() {
        let long = |end: &str| name(&format!("nodes={}{end}", "n,".repeat(200)));
        assert!(long("a").len() <= MAX_NAME, "{}", long("a"));
        assert_ne!(long("a"), long("b"));
    }
}
