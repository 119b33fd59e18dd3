//! No circles between the files of a crate: by `use` lines and by `crate::…` and `super::…` paths, a file never depends
//! on itself through others. A `mod.rs` or `lib.rs` that only declares and re-exports is part of none: what it re-exports
//! counts as used from the file that defines it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use sentinel_tests::cluster::repository;

static USE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);").unwrap());
static PATH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(?:crate|super)(?:::\w+)+").unwrap());
static ITEM: LazyLock<Regex> = LazyLock::new(|| {
    let item = r"(?m)^(?:pub(?:\([^)]*\))? )?(?:async |const |unsafe )*(?:fn|struct|enum|trait|type|const|static|union) (\w+)";
    Regex::new(item).unwrap()
});

const CRATES: [&str; 11] = [
    "protocol",
    "policy",
    "secrets",
    "core",
    "api",
    "viewer",
    "telemetry",
    "operator",
    "node-agent",
    "cli",
    "tests",
];

/// A path of modules and an item, from the crate's root: `["gateway", "fleet", "Fleet"]`.
type Segments = Vec<String>;

/// A module's file and what it names.
struct Module {
    /// Relative to the crate's folder.
    file: String,
    /// The module's path; empty for the root.
    path: Segments,
    /// Paths that it depends on, and the line of each.
    uses: Vec<(Segments, usize)>,
    /// Names that it re-exports, and from where; `*` for globs.
    reexports: Vec<(String, Segments)>,
    /// Names of the items that the file defines at its top level.
    items: BTreeSet<String>,
}

/// All modules of a crate by their path.
struct Modules(BTreeMap<Segments, Module>);

impl Modules {
    /// Reads a `src` folder; `bin` is left out, since those are crates of their own.
    fn read(source: &Path) -> Self {
        let mut files = Vec::new();
        collect(source, &mut files);
        let root = if source.join("lib.rs").exists() { "lib.rs" } else { "main.rs" };
        let mut texts = BTreeMap::new();
        for file in files {
            let relative = file.strip_prefix(source).unwrap().to_string_lossy().into_owned();
            if relative.starts_with("bin/")
                || (["lib.rs", "main.rs"].contains(&relative.as_str()) && relative != root)
            {
                continue;
            }
            let path = relative.trim_end_matches(".rs").trim_end_matches("/mod");
            let path = if relative == root { vec![] } else { path.split('/').map(str::to_owned).collect() };
            texts.insert(path, (relative, code(&fs::read_to_string(&file).unwrap())));
        }
        let paths: BTreeSet<Segments> = texts.keys().cloned().collect();
        let modules = texts
            .into_iter()
            .map(|(path, (file, text))| (path.clone(), Module::parse(file, path, text, &paths)));
        Self(modules.collect())
    }

    /// The file that defines what a path names, through re-exports.
    fn defined_in(&self, segments: &[String], depth: usize) -> Option<&Module> {
        let length = (0..=segments.len()).rev().find(|length| self.0.contains_key(&segments[..*length]))?;
        let module = &self.0[&segments[..length]];
        let Some(item) = segments.get(length).filter(|_| depth < 8) else { return Some(module) };
        let named = module.reexports.iter().find(|(name, _)| name == item);
        if let Some((_, from)) = named {
            return self.defined_in(from, depth + 1);
        }
        if module.items.contains(item) {
            return Some(module);
        }
        let globs = module.reexports.iter().filter(|(name, _)| name == "*");
        let through_glob =
            globs.filter_map(|(_, from)| self.0.get(from)).find(|source| source.items.contains(item));
        Some(through_glob.unwrap_or(module))
    }

    /// For each file, the files that it depends on, and a line that shows it.
    fn edges(&self) -> BTreeMap<&str, BTreeMap<&str, usize>> {
        let edges_of = |module: &'_ Module| {
            let mut edges = BTreeMap::new();
            for (segments, line) in &module.uses {
                if let Some(target) = self.defined_in(segments, 0).filter(|target| target.file != module.file)
                {
                    edges.entry(self.0[&target.path].file.as_str()).or_insert(*line);
                }
            }
            edges
        };
        self.0.values().map(|module| (module.file.as_str(), edges_of(module))).collect()
    }

    /// The sets of files that depend on each other, with the edges between them as text.
    fn circles(&self) -> Vec<(BTreeSet<String>, String)> {
        let edges = self.edges();
        let reach: BTreeMap<&str, BTreeSet<&str>> =
            edges.keys().map(|file| (*file, reachable(&edges, file))).collect();
        let mut circles: BTreeMap<BTreeSet<String>, String> = BTreeMap::new();
        for (file, reached) in &reach {
            let circle: BTreeSet<&str> =
                reached.iter().filter(|other| reach[**other].contains(file)).copied().collect();
            if !circle.contains(file) {
                continue;
            }
            let mut text = String::new();
            for from in &circle {
                for (to, line) in edges[from].iter().filter(|(to, _)| circle.contains(**to)) {
                    writeln!(text, "    {from}:{line} uses {to}").unwrap();
                }
            }
            circles.insert(circle.into_iter().map(str::to_owned).collect(), text);
        }
        circles.into_iter().collect()
    }
}

impl Module {
    fn parse(file: String, path: Segments, text: String, paths: &BTreeSet<Segments>) -> Self {
        let is_front_page = file.ends_with("mod.rs") || file == "lib.rs" || file == "main.rs";
        let mut module = Self { file, path, uses: vec![], reexports: vec![], items: items(&text) };
        for found in USE.captures_iter(&text) {
            let line = text[..found.get(2).unwrap().start()].lines().count();
            for (written, name) in expand(&found[2]) {
                let Some(segments) = absolute(&module.path, &written, paths) else { continue };
                if found.get(1).is_some() {
                    let is_glob = name == "*";
                    let from =
                        if is_glob { segments[..segments.len() - 1].to_vec() } else { segments.clone() };
                    module.reexports.push((name, from));
                    if is_front_page {
                        continue;
                    }
                }
                module.uses.push((segments, line.max(1)));
            }
        }
        let rest =
            USE.replace_all(&text, |found: &regex::Captures<'_>| "\n".repeat(found[0].matches('\n').count()));
        for found in PATH.find_iter(&rest) {
            let written: Segments = found.as_str().split("::").map(str::to_owned).collect();
            if let Some(segments) = absolute(&module.path, &written, paths) {
                module.uses.push((segments, rest[..found.start()].lines().count().max(1)));
            }
        }
        module
    }
}

/// Files with Rust code below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A file's text without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let without_comment = |line: &str| {
        let comment = line.trim_start().starts_with("//");
        if comment { String::new() } else { line.split(" // ").next().unwrap_or_default().to_owned() }
    };
    text.lines().map(|line| without_comment(line) + "\n").collect()
}

/// The paths of a `use` tree, each with the name it gets.
fn expand(tree: &str) -> Vec<(Segments, String)> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, alias) =
            tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
        let segments: Segments = path.split("::").map(|part| part.trim().to_owned()).collect();
        let name = alias.map_or_else(|| segments.last().cloned().unwrap_or_default(), str::to_owned);
        return vec![(segments, name)];
    };
    let prefix: Segments =
        tree[..open].trim().trim_end_matches("::").split("::").map(|part| part.trim().to_owned()).collect();
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for character in inner.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(character);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    let joined = |(mut segments, name): (Segments, String)| {
        // `a::{self}` is `a`.
        if segments == ["self"] {
            let name = if name == "self" { prefix.last().cloned().unwrap_or_default() } else { name };
            return (prefix.clone(), name);
        }
        let mut path = prefix.clone();
        path.append(&mut segments);
        (path, name)
    };
    parts.flat_map(|part| expand(part)).map(joined).collect()
}

/// A written path from the crate's root; none for other crates.
fn absolute(module: &[String], written: &[String], paths: &BTreeSet<Segments>) -> Option<Segments> {
    let mut base = module.to_vec();
    let mut rest = written;
    match rest.first().map(String::as_str)? {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        first => {
            base.push(first.to_owned());
            if !paths.contains(&base) {
                return None;
            }
            rest = &rest[1..];
        }
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// Names of the items that a file defines at its top level.
fn items(text: &str) -> BTreeSet<String> {
    ITEM.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// Files that a file depends on, through others too.
fn reachable<'a>(edges: &BTreeMap<&'a str, BTreeMap<&'a str, usize>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = edges[from].keys().copied().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(edges[file].keys());
        }
    }
    reached
}

#[test]
fn files_of_a_crate_form_no_circles() {
    let mut report = String::new();
    for name in CRATES {
        let modules = Modules::read(&repository().join(name).join("src"));
        assert!(modules.0.len() > 1, "{name} has no modules");
        for (circle, edges) in modules.circles() {
            writeln!(report, "{name}: a circle between {} files:\n{edges}", circle.len()).unwrap();
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// The circles of a crate made of these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let circles = Modules::read(folder.path()).circles();
    circles.into_iter().map(|(circle, _)| circle.into_iter().collect()).collect()
}

#[test]
fn finds_circles_through_re_exports_nested_trees_and_inline_paths() {
    let lib = ("lib.rs", "mod a;\nmod b;\nmod c;\n");
    let found = circles_of(&[
        lib,
        ("a/mod.rs", "mod x;\npub(crate) use x::{self, X};\n"),
        ("a/x.rs", "use crate::{b::{B, Other as Renamed}, c};\npub struct X;\n"),
        ("b.rs", "pub struct B;\nfn f() { super::a::X; }\n"),
        ("c.rs", "use std::fmt;\npub fn c() {}\n"),
    ]);
    assert_eq!(found, [["a/x.rs", "b.rs"]]);
}

#[test]
fn accepts_front_pages_tests_and_comments() {
    let found = circles_of(&[
        ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::*;\n"),
        ("a.rs", "use crate::B;\npub struct A;\n"),
        ("b.rs", "// use crate::A;\npub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::A;\n}\n"),
    ]);
    assert_eq!(found, Vec::<Vec<String>>::new());
}

#[test]
fn a_front_page_with_code_of_its_own_can_be_in_a_circle() {
    let found = circles_of(&[
        ("lib.rs", "mod a;\nuse a::f;\npub struct Shared;\npub fn g() { f() }\n"),
        ("a.rs", "use crate::Shared;\npub fn f() {}\n"),
    ]);
    assert_eq!(found, [["a.rs", "lib.rs"]]);
}
