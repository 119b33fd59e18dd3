//! From the files of a page to those that are served: modules joined, each file with the hash of its content in its name,
//! references replaced by these names, without comments, compressed.
//!
//! A file is made after those that it refers to, because their names are a part of its content. So references cannot be
//! circular, not even on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use zopfli::{Format, Options};

use crate::chunks;
use crate::module::{Module, Value};
use crate::script::{self, Reference, Usage};
use crate::source::Kind;
use crate::style;

/// Letters of a hash in a name: 64 bits.
const HASH_LENGTH: usize = 16;

/// Where the base path stands in the index.
const BASE: &str = "<base href=\"/\">";

/// All that is served.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The files under `assets/`, sorted by name.
    pub(crate) assets: Vec<Asset>,
    /// The page itself.
    pub(crate) index: Index,
}

/// A file under `assets/`.
#[derive(Debug)]
pub(crate) struct Asset {
    /// Its name, with its hash.
    pub(crate) name: String,
    /// Its path below `page/`; of joined modules, the name that they have together.
    pub(crate) source: String,
    pub(crate) hash: String,
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) gzip: Vec<u8>,
}

/// The page, around the value of its `<base href>`.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) hash: String,
}

/// A file whose references are known.
struct Source<'a> {
    text: &'a str,
    kind: Kind,
    /// In the order of the text, each with the path of the file that it means.
    references: Vec<(Reference, String)>,
    /// Of a module: what it imports and exports.
    module: Option<Module>,
}

type Sources<'a> = BTreeMap<&'a str, Source<'a>>;

impl Bundle {
    /// Makes all files that the page can load, and licences, from the texts by path.
    ///
    /// # Errors
    /// A sentence that names the file: it cannot be parsed, refers to a missing file or to itself through others,
    /// imports what is not exported, or has the name of another one.
    pub(crate) fn make(files: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut sources = Sources::new();
        for (path, text) in files {
            let source = Source::read(path, text, files).map_err(|why| format!("page/{path}: {why}"))?;
            sources.insert(path, source);
        }
        if let Some(index) = sources.get("index.html") {
            let scripts: Vec<String> = index.references.iter().map(|(_, target)| target.clone()).collect();
            for script in scripts {
                // One that neither imports nor exports is loaded as it is: it may not be a module.
                if let Some(source) = sources.get_mut(script.as_str()) {
                    source.module = source
                        .module
                        .take()
                        .filter(|module| !module.imports.is_empty() || !module.exports.is_empty());
                }
            }
        }
        let mut order = Vec::new();
        visit("index.html", &sources, &mut Vec::new(), &mut order)?;
        order.extend(sources.keys().copied().filter(|path| sources[path].kind == Kind::Text));
        let mut maker = Maker::new(&sources, order)?;
        for path in maker.order.clone() {
            maker.make(path).map_err(|why| format!("page/{path}: {why}"))?;
        }
        let index = maker.index()?;
        let mut assets = maker.assets;
        assets.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { assets, index })
    }
}

impl<'a> Source<'a> {
    fn read(path: &str, text: &'a str, files: &BTreeMap<String, String>) -> Result<Self, String> {
        let kind = Kind::of(path).ok_or("it is of no kind that is served")?;
        let found = match kind {
            Kind::Script => script::references(text)?,
            Kind::Style => style::references(text)?,
            Kind::Index => attributes(text),
            Kind::Picture | Kind::Text => Vec::new(),
        };
        let mut references = Vec::new();
        for reference in found {
            let target = resolve(path, &text[reference.at.clone()]);
            if !files.contains_key(&target) {
                return Err(format!("it refers to page/{target}, which does not exist"));
            }
            references.push((reference, target));
        }
        let module = if kind == Kind::Script { Some(Module::read(text)?) } else { None };
        Ok(Self { text, kind, references, module })
    }

    /// The text with references replaced.
    fn with(&self, named: impl Fn(&str) -> String) -> String {
        let mut text = String::with_capacity(self.text.len());
        let mut end = 0;
        for (reference, target) in &self.references {
            text.push_str(&self.text[end..reference.at.start]);
            text.push_str(&named(target));
            end = reference.at.end;
        }
        text.push_str(&self.text[end..]);
        text
    }
}

/// Adds a file to the order, after those that it refers to. `open` are the files that wait for this one.
fn visit<'a>(
    path: &'a str,
    sources: &'a Sources<'_>,
    open: &mut Vec<&'a str>,
    order: &mut Vec<&'a str>,
) -> Result<(), String> {
    if order.contains(&path) {
        return Ok(());
    }
    if let Some(first) = open.iter().position(|waiting| *waiting == path) {
        let circle = [&open[first..], &[path]].concat().join(" → ");
        return Err(format!("the files refer to each other in a circle: {circle}"));
    }
    open.push(path);
    for (_, target) in &sources[path].references {
        visit(target, sources, open, order)?;
    }
    open.pop();
    order.push(path);
    Ok(())
}

struct Maker<'a> {
    sources: &'a Sources<'a>,
    /// All files, each after those that it refers to.
    order: Vec<&'a str>,
    /// For each module, the name of the file that it is a part of.
    chunks: BTreeMap<&'a str, String>,
    /// The names of files that are made: by path, or by the name of a chunk.
    made: BTreeMap<String, String>,
    /// Chunks that are made, or wait for others.
    begun: BTreeSet<String>,
    assets: Vec<Asset>,
}

impl<'a> Maker<'a> {
    fn new(sources: &'a Sources<'a>, order: Vec<&'a str>) -> Result<Self, String> {
        let is_module = |path: &str| sources[path].module.is_some();
        let mut edges = chunks::Edges::new();
        for path in order.iter().filter(|path| sources[*path].kind == Kind::Script) {
            let targets =
                sources[path].references.iter().map(|(found, target)| (target.as_str(), found.usage));
            edges.insert(path, targets.filter(|(target, _)| sources[target].kind == Kind::Script).collect());
        }
        let scripts = sources.get("index.html").ok_or("page/index.html does not exist")?.references.iter();
        let first: Vec<&str> =
            scripts.map(|(_, target)| target.as_str()).filter(|path| is_module(path)).collect();
        let mut chunks = chunks::plan(&edges, &first);
        chunks.retain(|path, _| is_module(path));
        Ok(Self { sources, order, chunks, made: BTreeMap::new(), begun: BTreeSet::new(), assets: Vec::new() })
    }

    /// The name of the file that has this one; empty when it is not made yet.
    fn name(&self, path: &str) -> &str {
        let key = self.chunks.get(path).map_or(path, String::as_str);
        self.made.get(key).map_or("", String::as_str)
    }

    /// Makes a file, and for a module the one that it is a part of, after those that they refer to.
    fn make(&mut self, path: &str) -> Result<(), String> {
        let sources = self.sources;
        let source = &sources[path];
        if source.kind == Kind::Index || self.made.contains_key(path) {
            return Ok(());
        }
        let Some(chunk) = self.chunks.get(path).cloned() else {
            let text = source.with(|target| format!("./{}", self.name(target)));
            let text = match source.kind {
                Kind::Script => script::squeezed(&text)?,
                Kind::Style => style::without_comments(&text),
                Kind::Picture | Kind::Text | Kind::Index => text,
            };
            return self.add(path, path, text, source.kind);
        };
        if self.made.contains_key(&chunk) || self.begun.contains(&chunk) {
            return Ok(());
        }
        self.begun.insert(chunk.clone());
        let order = self.order.clone();
        let modules: Vec<&str> =
            order.into_iter().filter(|path| self.chunks.get(path) == Some(&chunk)).collect();
        // Files do not refer to each other in a circle where modules do not: those that the same entries need are one.
        for (_, target) in modules.iter().flat_map(|path| &sources[path].references) {
            self.make(target)?;
        }
        let text = self.joined(&chunk, &modules)?;
        self.add(&chunk, &format!("{chunk}.js"), text, Kind::Script)
    }

    fn add(&mut self, key: &str, source: &str, text: String, kind: Kind) -> Result<(), String> {
        let hash = hash(text.as_bytes());
        let file = source.rsplit('/').next().unwrap_or(source);
        let (stem, end) = file.rsplit_once('.').unwrap_or((file, ""));
        if let Some(other) = self.assets.iter().find(|asset| asset.source.rsplit('/').next() == Some(file)) {
            return Err(format!("it has the same name as page/{}", other.source));
        }
        let name = format!("{stem}.{hash}.{end}");
        let gzip = gzip(text.as_bytes()).map_err(|error| format!("failed to compress it: {error}"))?;
        let (source, media_type, bytes) = (source.to_owned(), kind.media_type(), text.into_bytes());
        self.made.insert(key.to_owned(), name.clone());
        self.assets.push(Asset { name, source, hash, media_type, bytes, gzip });
        Ok(())
    }

    /// The modules of a chunk as one.
    fn joined(&self, chunk: &str, modules: &[&str]) -> Result<String, String> {
        let mut imported: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut text = String::new();
        for path in modules {
            for (reference, target) in &self.sources[path].references {
                if reference.usage == Usage::Import && self.chunks[target.as_str()] != chunk {
                    imported.entry(self.name(target)).or_default().insert(variable(target));
                }
            }
            text.push_str(&self.wrapped(path).map_err(|why| format!("page/{path}: {why}"))?);
        }
        let exported: Vec<String> =
            modules.iter().filter(|path| self.is_wanted(path, chunk)).map(|path| variable(path)).collect();
        let mut joined = String::new();
        for (name, variables) in imported {
            let variables: Vec<String> = variables.into_iter().collect();
            joined.extend(["import{", &variables.join(","), "}from\"./", name, "\";\n"]);
        }
        joined += &text;
        if !exported.is_empty() {
            joined.extend(["export{", &exported.join(","), "};\n"]);
        }
        Ok(joined)
    }

    /// Whether a module of another chunk refers to this one.
    fn is_wanted(&self, path: &str, chunk: &str) -> bool {
        self.chunks.iter().any(|(other, others)| {
            self.sources[other].references.iter().any(|(reference, target)| {
                target == path && (others != chunk || reference.usage == Usage::OnDemand)
            })
        })
    }

    /// A module as a function that returns what it exports.
    fn wrapped(&self, path: &str) -> Result<String, String> {
        let none = Module::default();
        let module = self.sources[path].module.as_ref().unwrap_or(&none);
        let mut text = format!("const {}=(()=>{{", variable(path));
        let targets: Vec<String> = module.imports.iter().map(|import| resolve(path, &import.path)).collect();
        for (import, target) in module.imports.iter().zip(&targets) {
            let names = import.names.iter().map(|(there, here)| pair(there, here));
            self.must_export(target, import.names.iter().map(|(there, _)| there.as_str()))?;
            let names: Vec<String> = names.collect();
            if !names.is_empty() {
                text.extend(["const{", &names.join(","), "}=", &variable(target), ";"]);
            }
        }
        text.push('\n');
        text.push_str(&self.body(path, &script::squeezed(&module.body)?)?);
        let mut exports = Vec::new();
        for (name, value) in &module.exports {
            exports.push(match value {
                Value::Own(own) => pair(name, own),
                Value::Of(import, there) => {
                    self.must_export(&targets[*import], [there.as_str()])?;
                    format!("{name}:{}.{there}", variable(&targets[*import]))
                }
            });
        }
        text.extend(["return{", &exports.join(","), "}})();\n"]);
        Ok(text)
    }

    /// A body with the names of the files that it loads on demand.
    fn body(&self, path: &str, squeezed: &str) -> Result<String, String> {
        let (mut text, mut end) = (String::new(), 0);
        for reference in script::references(squeezed)? {
            let target = resolve(path, &squeezed[reference.at.clone()]);
            text.push_str(&squeezed[end..reference.at.start]);
            end = reference.at.end;
            text.extend(["./", self.name(&target)]);
            if self.chunks.contains_key(target.as_str()) {
                let rest = &squeezed[end..];
                if !rest.get(1..).is_some_and(|rest| rest.starts_with(')')) {
                    return Err(format!("import(…) of {target} has more than a path"));
                }
                // What comes is the file; the module is a part of it.
                text.extend([&rest[..1], ").then(file=>file.", &variable(&target), ")"]);
                end += 2;
            }
        }
        text.push_str(&squeezed[end..]);
        Ok(text)
    }

    fn must_export<'b>(&self, target: &str, names: impl IntoIterator<Item = &'b str>) -> Result<(), String> {
        let exports = self.sources[target].module.iter().flat_map(|module| &module.exports);
        let exports: BTreeSet<&str> = exports.map(|(name, _)| name.as_str()).collect();
        match names.into_iter().find(|name| !exports.contains(name)) {
            Some(name) => Err(format!("it imports {name} from page/{target}, which does not export it")),
            None => Ok(()),
        }
    }

    /// The page, with the files that its scripts import announced, so that they are loaded at once and not one after the
    /// other.
    fn index(&self) -> Result<Index, String> {
        let source = &self.sources["index.html"];
        let named = |target: &str| format!("assets/{}", self.name(target));
        let mut announced = BTreeSet::new();
        let entries: Vec<&str> = source.references.iter().map(|(_, target)| target.as_str()).collect();
        for entry in entries.iter().filter(|entry| self.chunks.contains_key(*entry)) {
            let chunk = &self.chunks[entry];
            let modules = self.chunks.iter().filter(|(_, other)| *other == chunk);
            for (reference, target) in modules.flat_map(|(path, _)| &self.sources[path].references) {
                if reference.usage == Usage::Import && self.chunks[target.as_str()] != *chunk {
                    announced.insert(named(target));
                }
            }
        }
        let mut links = String::new();
        for name in announced {
            writeln!(links, "<link rel=\"modulepreload\" href=\"{name}\">")
                .map_err(|error| error.to_string())?;
        }
        let text = source.with(named).replacen("</head>", &format!("{links}</head>"), 1);
        let (before, after) = text
            .split_once(BASE)
            .ok_or_else(|| format!("page/index.html has no {BASE}, where the base path stands"))?;
        Ok(Index { before: before.to_owned(), after: after.to_owned(), hash: hash(text.as_bytes()) })
    }
}

/// The variable of a module in a joined file.
fn variable(path: &str) -> String {
    let name = chunks::stem(path).replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("${name}")
}

/// A property of an object with a value of that name.
fn pair(name: &str, value: &str) -> String {
    if name == value { name.to_owned() } else { format!("{name}:{value}") }
}

/// The references of the index: `href="./x"` and `src="./x"`.
fn attributes(text: &str) -> Vec<Reference> {
    let mut found: Vec<Reference> = [" href=\"./", " src=\"./"]
        .iter()
        .flat_map(|attribute| {
            text.match_indices(attribute).filter_map(|(offset, _)| {
                let start = offset + attribute.len() - "./".len();
                let end = start + text[start..].find('"')?;
                Some(Reference { at: start..end, usage: Usage::Import })
            })
        })
        .collect();
    found.sort_by_key(|reference| reference.at.start);
    found
}

/// The path that a reference in the file `from` means.
fn resolve(from: &str, reference: &str) -> String {
    let mut steps: Vec<&str> = from.split('/').collect();
    steps.pop();
    for step in reference.split('/') {
        match step {
            "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.join("/")
}

fn hash(bytes: &[u8]) -> String {
    let mut hash =
        Sha256::digest(bytes).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
    hash.truncate(HASH_LENGTH);
    hash
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressed = Vec::new();
    zopfli::compress(Options::default(), Format::Gzip, bytes, &mut compressed)?;
    Ok(compressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "<head><base href=\"/\"><script src=\"./theme.js\"></script><script type=\"module\" src=\"./main.js\"></script></head>";

    fn make(files: &[(&str, &str)]) -> Result<Bundle, String> {
        let files = files.iter().chain(&[("index.html", INDEX), ("theme.js", "let dark;")]);
        Bundle::make(&files.map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    fn asset<'a>(bundle: &'a Bundle, source: &str) -> &'a Asset {
        bundle.assets.iter().find(|asset| asset.source == source).unwrap()
    }

    fn text<'a>(bundle: &'a Bundle, source: &str) -> &'a str {
        std::str::from_utf8(&asset(bundle, source).bytes).unwrap()
    }

    #[test]
    fn modules_are_joined_and_find_each_other() {
        let bundle = make(&[
            ("main.js", "import { twice as double } from \"./vendor/lib.js\";\nimport('./log.js').then((m) => m.Log(double));"),
            ("log.js", "import { one } from './one.js';\nimport lib from './vendor/lib.js';\nexport const Log = () => lib(one);"),
            ("vendor/lib.js", "export default function (n) { return n }\nexport const twice = (n) => n * 2;"),
            ("one.js", "import './vendor/lib.js';\nexport { twice as one } from './vendor/lib.js';"),
        ])
        .unwrap();
        let names = |source: &str| asset(&bundle, source).name.clone();
        assert_eq!(
            text(&bundle, "base.js"),
            "const $lib=(()=>{\nconst $default=\nfunction(n){return n}\nconst twice=(n)=>n*2;\nreturn{$default,twice}})();\nexport{$lib};\n"
        );
        let main = format!(
            "import{{$lib}}from\"./{}\";\nconst $main=(()=>{{const{{twice:double}}=$lib;\n\nimport('./{}').then(file=>file.$log).then((m)=>m.Log(double));\nreturn{{}}}})();\n",
            names("base.js"),
            names("log.js")
        );
        assert_eq!(text(&bundle, "main.js"), main);
        let log = format!(
            "import{{$lib}}from\"./{}\";\nconst $one=(()=>{{\n\nreturn{{one:$lib.twice}}}})();\nconst $log=(()=>{{const{{one}}=$one;const{{$default:lib}}=$lib;\n\nconst Log=()=>lib(one);\nreturn{{Log}}}})();\nexport{{$log}};\n",
            names("base.js")
        );
        assert_eq!(text(&bundle, "log.js"), log);
    }

    #[test]
    fn a_change_changes_the_name_of_every_file_that_leads_to_it() {
        let with = |leaf: &str| {
            make(&[
                ("main.js", "import {a} from './a.js'; import('./log.js')"),
                ("a.js", "export const a = 1"),
                ("log.js", leaf),
                ("d.txt", ""),
            ])
            .unwrap()
        };
        let (one, other) = (with("export const b = 1"), with("export const b = 2"));
        for source in ["main.js", "log.js"] {
            assert_ne!(asset(&one, source).name, asset(&other, source).name, "{source}");
        }
        for source in ["base.js", "theme.js", "d.txt"] {
            assert_eq!(asset(&one, source).name, asset(&other, source).name, "{source}");
        }
        assert_ne!(one.index.hash, other.index.hash);
    }

    #[test]
    fn what_the_first_page_imports_is_announced() {
        let bundle = make(&[
            ("main.js", "import './a.js'; import('./b.js')"),
            ("a.js", "export const a = 1"),
            ("b.js", "export const b = 1"),
        ])
        .unwrap();
        let links: Vec<&str> = bundle.index.after.split("<link").skip(1).collect();
        assert_eq!(links.len(), 1, "{}", bundle.index.after);
        assert!(links[0].contains(&format!("href=\"assets/{}\"", asset(&bundle, "base.js").name)));
        let script = format!("type=\"module\" src=\"assets/{}\"", asset(&bundle, "main.js").name);
        assert!(bundle.index.after.contains(&script), "{}", bundle.index.after);
        let theme = format!("<script src=\"assets/{}\"", asset(&bundle, "theme.js").name);
        assert!(bundle.index.after.contains(&theme), "{}", bundle.index.after);
        assert_eq!(text(&bundle, "theme.js"), "let dark;\n");
    }

    #[test]
    fn a_picture_is_found_by_its_address() {
        let bundle = make(&[
            ("main.js", "import { a } from './vendor/a.js';"),
            ("vendor/a.js", "export const a = new URL(\"../icons.svg\", import.meta.url);"),
            ("icons.svg", "<svg/>"),
        ])
        .unwrap();
        let address = format!("new URL(\"./{}\",import.meta.url)", asset(&bundle, "icons.svg").name);
        assert!(text(&bundle, "base.js").contains(&address), "{}", text(&bundle, "base.js"));
    }

    #[test]
    fn what_the_page_cannot_load_is_left_out() {
        let bundle = make(&[
            ("main.js", "import './a.js'"),
            ("a.js", "export {}"),
            ("types.js", "import './a.js'"),
            ("vendor/a.license.txt", "free"),
        ])
        .unwrap();
        let sources: BTreeSet<&str> = bundle.assets.iter().map(|asset| asset.source.as_str()).collect();
        assert_eq!(sources, BTreeSet::from(["base.js", "theme.js", "vendor/a.license.txt"]));
    }

    #[test]
    fn circles_missing_files_and_missing_exports_are_errors() {
        let circle = make(&[("main.js", "import './a.js'"), ("a.js", "import('./main.js')")]).unwrap_err();
        assert!(circle.contains("main.js → a.js → main.js"), "{circle}");
        let missing = make(&[("main.js", "import './a.js'")]).unwrap_err();
        assert_eq!(missing, "page/main.js: it refers to page/a.js, which does not exist");
        let unknown = make(&[("main.js", "import { b } from './a.js'"), ("a.js", "export const a = 1")]);
        assert!(unknown.unwrap_err().contains("it imports b from page/a.js, which does not export it"));
    }

    #[test]
    fn the_same_files_make_the_same_bundle() {
        let files = [("main.js", "import './a.js'"), ("a.js", "export let a;".trim_start_matches("export "))];
        let (one, other) = (make(&files).unwrap(), make(&files).unwrap());
        for (one, other) in one.assets.iter().zip(&other.assets) {
            assert_eq!((&one.name, &one.gzip), (&other.name, &other.gzip));
        }
    }
}
