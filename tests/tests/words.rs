//! The glossary, held: none of the words in `tests/words.yaml` stands in code, comments, documents, manifests or scripts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use regex::Regex;
use sentinel_tests::cluster::repository;
use serde::Deserialize;

#[derive(Deserialize)]
struct List {
    words: Vec<Entry>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Entry {
    word: String,
    pattern: String,
    #[serde(default)]
    unless: Vec<String>,
    r#use: String,
    why: String,
}

#[derive(Deserialize)]
struct Exception {
    path: String,
    line: String,
    why: String,
}

struct Word {
    entry: Entry,
    pattern: Regex,
    unless: Vec<Regex>,
}

struct Rules {
    words: Vec<Word>,
    exceptions: Vec<(Exception, Regex)>,
}

/// One use of a banned word.
struct Hit<'a> {
    path: &'a str,
    line: usize,
    found: String,
    word: &'a Entry,
}

impl Rules {
    fn read() -> Self {
        Self::parse(&fs::read_to_string(repository().join("tests/words.yaml")).unwrap())
    }

    fn parse(yaml: &str) -> Self {
        let list: List = serde_saphyr::from_str(yaml).expect("tests/words.yaml");
        let whole = |pattern: &str| Regex::new(&format!(r"\b(?:{pattern})\b")).expect("a pattern");
        let word = |entry: Entry| {
            assert!(
                !entry.why.is_empty() && !entry.r#use.is_empty(),
                "{}: no reason or no other word",
                entry.word
            );
            let (pattern, unless) = (
                whole(&entry.pattern),
                entry.unless.iter().map(|text| Regex::new(text).expect("a pattern")).collect(),
            );
            Word { entry, pattern, unless }
        };
        let exception = |exception: Exception| {
            assert!(!exception.why.is_empty(), "{}: no reason", exception.path);
            let line = Regex::new(&exception.line).expect("a pattern");
            (exception, line)
        };
        Self {
            words: list.words.into_iter().map(word).collect(),
            exceptions: list.exceptions.into_iter().map(exception).collect(),
        }
    }

    fn hits<'a>(&'a self, path: &'a str, text: &str) -> Vec<Hit<'a>> {
        let is_at = |exception: &Exception| {
            path == exception.path || (exception.path.ends_with('/') && path.starts_with(&exception.path))
        };
        let exceptions: Vec<&Regex> =
            self.exceptions.iter().filter(|(exception, _)| is_at(exception)).map(|(_, line)| line).collect();
        let mut hits = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if exceptions.iter().any(|exception| exception.is_match(line)) {
                continue;
            }
            let normal = normalized(line);
            for word in &self.words {
                let allowed: Vec<_> =
                    word.unless.iter().flat_map(|unless| unless.find_iter(&normal)).collect();
                for found in word.pattern.find_iter(&normal) {
                    let is_allowed =
                        allowed.iter().any(|span| span.start() <= found.start() && found.end() <= span.end());
                    if !is_allowed {
                        let found = found.as_str().to_owned();
                        hits.push(Hit { path, line: number + 1, found, word: &word.entry });
                    }
                }
            }
        }
        hits
    }
}

/// A line in lower case with the words of identifiers parted.
fn normalized(line: &str) -> String {
    let mut normal = String::with_capacity(line.len() + 16);
    let mut previous = ' ';
    for character in line.chars() {
        if character.is_uppercase() && (previous.is_lowercase() || previous.is_ascii_digit()) {
            normal.push(' ');
        }
        match character {
            '_' | '\'' | '’' => normal.push(' '),
            _ => normal.extend(character.to_lowercase()),
        }
        previous = character;
    }
    normal
}

/// The texts that people write: path and content.
fn texts() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(repository())
        .output()
        .expect("git starts");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout).unwrap();
    let paths = paths.split('\0').filter(|path| !path.is_empty());
    let text = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let by_name =
            matches!(name.rsplit_once('.'), Some((_, "rs" | "md" | "yaml" | "yml" | "sh" | "toml")));
        if !by_name && name != "justfile" && name.contains('.') {
            return None;
        }
        let text = fs::read_to_string(repository().join(path)).ok()?;
        (by_name || name == "justfile" || text.starts_with("#!")).then(|| (path.to_owned(), text))
    };
    paths.filter_map(text).collect()
}

#[test]
fn no_banned_words() {
    let (rules, texts) = (Rules::read(), texts());
    let hits: Vec<Hit<'_>> = texts.iter().flat_map(|(path, text)| rules.hits(path, text)).collect();
    let lines: Vec<String> = hits.iter().map(ToString::to_string).collect();
    assert!(
        hits.is_empty(),
        "{} uses of words that tests/words.yaml bans:\n{}",
        hits.len(),
        lines.join("\n")
    );
    for (exception, line) in &rules.exceptions {
        let is_needed = texts.iter().any(|(path, text)| {
            (*path == exception.path || path.starts_with(&exception.path))
                && text.lines().any(|text| line.is_match(text))
        });
        assert!(is_needed, "tests/words.yaml: the exception for {} matches nothing", exception.path);
    }
}

impl std::fmt::Display for Hit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}: {:?}: use {} ({})",
            self.path, self.line, self.found, self.word.r#use, self.word.why
        )
    }
}

/// What `scripts/words` prints: each use below the paths of `SENTINEL_WORDS_IN`, or counts by file and by word.
#[test]
#[ignore = "prints and checks nothing; run by scripts/words"]
fn print_banned_words() {
    let (rules, texts) = (Rules::read(), texts());
    let hits: Vec<Hit<'_>> = texts.iter().flat_map(|(path, text)| rules.hits(path, text)).collect();
    let wanted = std::env::var("SENTINEL_WORDS_IN").unwrap_or_default();
    if !wanted.is_empty() {
        for hit in hits.iter().filter(|hit| wanted.split_whitespace().any(|path| hit.path.starts_with(path)))
        {
            println!("{hit}");
        }
        return;
    }
    for key in [|hit: &Hit<'_>| hit.path.to_owned(), |hit: &Hit<'_>| format!("\"{}\"", hit.word.word)] {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        hits.iter().for_each(|hit| *counts.entry(key(hit)).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.iter().for_each(|(what, count)| println!("{count:>6} {what}"));
    }
    println!("{:>6} in all", hits.len());
}

fn found(text: &str) -> Vec<String> {
    let rules = Rules::read();
    rules.hits("x.rs", text).into_iter().map(|hit| hit.found).collect()
}

#[test]
fn finds_banned_words_in_prose_and_identifiers() {
    assert_eq!(
        found("/// The agent is told to wait.\nfn is_told() {}\nstruct ToldAgain;"),
        ["told", "told", "told"]
    );
    assert_eq!(found("a URL that is no URL"), ["is no"]);
    assert_eq!(found("while MongoDB is away"), ["is away"]);
    assert_eq!(found("keeps 100 lines at most"), ["100 lines at most"]);
    let rules = Rules::read();
    let hit = &rules.hits("a/b.rs", "\n// nobody")[0];
    assert!(hit.to_string().starts_with("a/b.rs:2: \"nobody\": use "), "{hit}");
}

#[test]
fn accepts_idioms_and_exceptions() {
    let lines = "there is no node\nit is no longer so\nuser: nobody\nright away\nHistoryLookup looks up a record\nas well\n";
    assert_eq!(found(lines), Vec::<String>::new());
    let rules = Rules::parse(
        "words: [{word: told, pattern: told, use: reports, why: x}]\nexceptions: [{path: docs/, line: 'told$', why: x}]",
    );
    assert_eq!(rules.hits("docs/a.md", "he told\nshe told me").len(), 1);
    assert_eq!(rules.hits("src/a.md", "he told").len(), 1);
}
