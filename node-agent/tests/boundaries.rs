//! Which module of the agent may use which, and that no files use each other in a circle. Read from the `use` lines and
//! paths of the sources, so that a new edge is a decision and not an accident.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test, which reads sources")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules of `src`, each with those that it may use. `main.rs` uses the crate from outside.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error_category", &[]),
    ("host", &[]),
    ("kill_point", &[]),
    ("private_dir", &["error_category"]),
    ("process", &["host"]),
    ("baseline", &["error_category"]),
    ("journal", &["error_category", "host", "private_dir", "process"]),
    ("shortage", &["baseline", "journal"]),
    ("spool", &["error_category", "journal"]),
    (
        "supervisor",
        &["baseline", "error_category", "host", "journal", "kill_point", "process", "shortage", "spool"],
    ),
    ("policy", &["host", "journal", "supervisor"]),
    ("agent_metrics", &[]),
    ("spans", &[]),
    ("channel", &["journal"]),
    (
        "agent",
        &[
            "agent_metrics",
            "channel",
            "host",
            "journal",
            "kill_point",
            "policy",
            "process",
            "shortage",
            "spans",
            "spool",
            "supervisor",
        ],
    ),
    ("health", &["error_category", "host"]),
    ("heartbeat", &[]),
    (
        "link",
        &[
            "agent_metrics",
            "channel",
            "error_category",
            "health",
            "heartbeat",
            "host",
            "journal",
            "shortage",
            "spans",
            "spool",
        ],
    ),
    ("config", &["heartbeat", "link", "policy", "supervisor"]),
    (
        "run",
        &[
            "agent",
            "agent_metrics",
            "channel",
            "config",
            "error_category",
            "health",
            "heartbeat",
            "journal",
            "link",
            "policy",
            "process",
            "supervisor",
        ],
    ),
];

/// A module path, such as `["journal", "error"]`; the crate root is empty.
type Module = Vec<String>;

#[test]
fn modules_use_only_what_they_may() {
    let sources = Sources::read();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in sources.edges() {
        if from[0] != to[0] {
            found.entry(from[0].clone()).or_default().insert(to[0].clone());
        }
    }
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(module, _)| *module).collect();
    let existing: BTreeSet<&str> = sources.files.keys().map(|module| module[0].as_str()).collect();
    assert_eq!(existing, known, "every module has a rule");
    for (module, allowed) in ALLOWED {
        let used = found.remove(*module).unwrap_or_default();
        let extra: Vec<&String> = used.iter().filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(extra.is_empty(), "{module} must not use {extra:?}");
        let unused: Vec<&&str> = allowed.iter().filter(|allowed| !used.contains(**allowed)).collect();
        assert!(unused.is_empty(), "{module} does not use {unused:?}: remove them from its rule");
    }
}

#[test]
fn files_do_not_use_each_other_in_a_circle() {
    let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, to) in Sources::read().edges() {
        uses.entry(from).or_default().insert(to);
    }
    assert!(uses.len() > 30, "the sources were read");
    // Files that use none of the remaining ones are removed until only circles are left.
    loop {
        let remaining: BTreeSet<Module> = uses.keys().cloned().collect();
        let before = uses.len();
        uses.retain(|_, used| used.iter().any(|module| remaining.contains(module)));
        if uses.len() == before {
            break;
        }
    }
    assert!(uses.is_empty(), "these files use each other in a circle, or a file of one: {uses:#?}");
}

#[test]
fn the_parser_follows_use_trees_reexports_and_paths() {
    let parse = |text: &str| paths(&without_comments_and_tests(text));
    let expected = |paths: &[&str]| -> Vec<Vec<String>> {
        paths.iter().map(|path| path.split("::").map(str::to_owned).collect()).collect()
    };
    assert_eq!(
        parse("use crate::a::{self, b::{C, D as E}, f};\nfn x() { super::g::h(); } // crate::no\n"),
        expected(&["crate::a", "crate::a::b::C", "crate::a::b::D", "crate::a::f", "super::g::h"])
    );
    assert_eq!(parse("\"crate::no\";\n#[cfg(test)]\nmod tests { use crate::no; }"), expected(&[]));
    let sources = Sources::read();
    let path = ["crate", "journal", "JournalError"].map(str::to_owned);
    let from = vec!["run".to_owned()];
    assert_eq!(sources.resolve(&from, &path), Some(vec!["journal".to_owned(), "error".to_owned()]));
}

/// The sources of the crate by module.
struct Sources {
    files: BTreeMap<Module, String>,
    /// Modules with a folder: their file declares and re-exports, and counts as the files that it re-exports.
    folders: BTreeMap<Module, String>,
}

impl Sources {
    fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = Self { files: BTreeMap::new(), folders: BTreeMap::new() };
        let mut folders = vec![src.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = without_comments_and_tests(&fs::read_to_string(&path).unwrap());
                let module = module_of(path.strip_prefix(&src).unwrap());
                match path.file_name().unwrap().to_str().unwrap() {
                    "mod.rs" | "lib.rs" => drop(sources.folders.insert(module, text)),
                    "main.rs" if folder == src => {}
                    _ => drop(sources.files.insert(module, text)),
                }
            }
        }
        sources
    }

    /// Which file uses which.
    fn edges(&self) -> Vec<(Module, Module)> {
        let mut edges = Vec::new();
        for (from, text) in &self.files {
            for path in paths(text) {
                let Some(to) = self.resolve(from, &path) else { continue };
                if self.folders.contains_key(&to) {
                    // The folder is named, as in `use crate::spool;`: what counts is `spool::…` in the code.
                    for name in names_after(text, &format!("{}::", path.last().unwrap())) {
                        let inner: Vec<String> = ["crate".to_owned()]
                            .into_iter()
                            .chain(to.iter().cloned())
                            .chain([name])
                            .collect();
                        edges.extend(self.resolve(from, &inner).map(|to| (from.clone(), to)));
                    }
                }
                edges.push((from.clone(), to));
            }
        }
        edges.retain(|(from, to)| from != to);
        edges
    }

    /// The file or folder in which a path ends; `None` for the crate root.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<Module> {
        let mut module = from.clone();
        let mut rest = path.iter();
        match rest.next()?.as_str() {
            "crate" => module.clear(),
            "super" => drop(module.pop()),
            _ => return None,
        }
        loop {
            if self.files.contains_key(&module) {
                return Some(module);
            }
            let Some(name) = rest.next() else { return (!module.is_empty()).then_some(module) };
            if name == "super" {
                module.pop();
                continue;
            }
            let child: Module = module.iter().cloned().chain([name.clone()]).collect();
            if self.files.contains_key(&child) || self.folders.contains_key(&child) {
                module = child;
                continue;
            }
            // A name that the folder's file re-exports from a child.
            let reexports = paths_after(self.folders.get(&module)?, "pub");
            let reexport = reexports.into_iter().find(|path| path.last() == Some(name) && path.len() > 1)?;
            let child: Module = module.iter().cloned().chain([reexport[0].clone()]).collect();
            return self.files.contains_key(&child).then_some(child);
        }
    }
}

fn module_of(path: &Path) -> Module {
    let mut module: Vec<String> = path
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_str().unwrap().to_owned())
        .collect();
    let is_folder = |name: &String| name == "mod" || name == "lib";
    if module.last().is_some_and(is_folder) {
        module.pop();
    }
    module
}

/// Source text up to its tests, without comments and string literals.
fn without_comments_and_tests(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut code = String::new();
    for line in text.lines() {
        let mut quoted = false;
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' if quoted => drop(characters.next()),
                '"' => quoted = !quoted,
                '/' if !quoted && characters.peek() == Some(&'/') => break,
                _ if quoted => {}
                _ => code.push(character),
            }
        }
        code.push('\n');
    }
    code
}

/// Every path that begins with `crate` or `super`, with use trees expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    for root in ["crate", "super"] {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            let before = &code[..at];
            // Not the middle of a longer path or name, nor the inside of a visibility.
            if before.ends_with("::") || before.chars().next_back().is_some_and(is_name) {
                continue;
            }
            expand(&code[at..], &mut Vec::new(), &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The names that follow a prefix in the code.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let name =
        |at: usize| code[at + prefix.len()..].split(|c: char| !(c.is_alphanumeric() || c == '_')).next();
    code.match_indices(prefix).filter_map(|(at, _)| name(at)).map(str::to_owned).collect()
}

/// Every path of the re-exports (`pub use`, `pub(crate) use`) in a folder's file.
fn paths_after(code: &str, visibility: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default();
        if line.trim_start().starts_with(visibility) {
            expand(&code[at + 4..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Adds the paths of a use tree to `found`; returns the number of bytes read.
fn expand(tree: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        at += tree[at..].len() - tree[at..].trim_start().len();
        let rest = &tree[at..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut inside = 0;
            loop {
                inside += expand(&group[inside..], prefix, found);
                match group[inside..].trim_start().chars().next() {
                    Some(',') => inside += group[inside..].find(',').unwrap() + 1,
                    _ => break,
                }
            }
            at += 1 + inside + group[inside..].find('}').map_or(0, |end| end + 1);
            break;
        }
        let name_len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if name_len == 0 {
            break;
        }
        if &rest[..name_len] != "self" {
            prefix.push(rest[..name_len].to_owned());
        }
        at += name_len;
        if tree[at..].starts_with("::") {
            at += 2;
            continue;
        }
        if let Some(alias) = tree[at..].strip_prefix(" as ") {
            let len = alias.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(alias.len());
            at += 4 + len;
        }
        found.push(prefix.clone());
        break;
    }
    prefix.truncate(depth);
    at
}
