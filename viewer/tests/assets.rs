//! What is served obeys the rules of `src/lib.rs`: nothing from another host, nothing inline, names that are true, small
//! scripts, libraries as they were published.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sentinel_viewer::{Asset, BasePath, POLICY, assets, find, page};
use sha2::{Digest as _, Sha256};

/// Most bytes of the scripts that the first page needs, compressed.
const MAX_FIRST: usize = 35_000;

/// Most bytes of the scripts that any view loads, on demand too, those of the first page included, compressed.
const MAX_VIEW: usize = 60_000;

/// Names of XML, which nothing is loaded from.
const NAMESPACES: [&str; 4] = [
    "http://www.w3.org/2000/svg",
    "http://www.w3.org/1999/xhtml",
    "http://www.w3.org/1998/Math/MathML",
    "http://www.w3.org/1999/xlink",
];

fn text(asset: &Asset) -> &'static str {
    std::str::from_utf8(asset.bytes).unwrap_or_else(|error| panic!("{}: {error}", asset.source))
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// The values of an attribute in HTML.
fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    html.split(&format!(" {attribute}=\"")).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn names_have_the_hash_of_the_content() {
    for asset in assets() {
        assert!(sha256(asset.bytes).starts_with(asset.hash), "{}", asset.name);
        assert!(asset.name.contains(&format!(".{}.", asset.hash)), "{}", asset.name);
        assert_eq!(find(asset.name), Some(asset));
    }
    assert!(assets().len() > 5);
    assert_eq!(find("main.js"), None);
}

#[test]
fn compressed_content_is_the_content() {
    for asset in assets() {
        let mut whole = Vec::new();
        GzDecoder::new(asset.gzip).read_to_end(&mut whole).unwrap();
        assert_eq!(whole, asset.bytes, "{}", asset.name);
    }
}

#[test]
fn every_reference_leads_to_an_asset() {
    let html = page(&BasePath::default()).html;
    let from_page =
        values(&html, "href").into_iter().chain(values(&html, "src")).filter(|value| *value != "/");
    let mut names: Vec<&str> = from_page.map(|path| path.strip_prefix("assets/").unwrap()).collect();
    assert!(names.len() > 3, "{html}");
    for asset in assets().iter().filter(|asset| asset.media_type.starts_with("text/javascript")) {
        for mark in ["from\"./", "from \"./", "import(\"./", "import\"./", "import \"./", "URL(\"./"] {
            names.extend(text(asset).split(mark).skip(1).filter_map(|rest| rest.split('"').next()));
        }
    }
    for name in names {
        assert!(find(name).is_some(), "{name}");
    }
}

#[test]
fn no_file_refers_to_another_host() {
    let html = page(&BasePath::default()).html;
    let texts = assets()
        .iter()
        .filter(|asset| !asset.name.ends_with(".txt"))
        .map(|asset| (asset.source, text(asset)));
    for (source, text) in texts.chain([("index.html", &*html)]) {
        for (at, _) in text.match_indices("://") {
            let start = text[..at].rfind(|c: char| !c.is_ascii_alphabetic()).map_or(0, |before| before + 1);
            let address = &text[start..];
            let is_name = NAMESPACES.iter().any(|name| address.starts_with(name));
            let end = address.len().min(80);
            assert!(is_name, "{source} has {}", &address[..address.floor_char_boundary(end)]);
        }
        for loads in ["src=\"//", "href=\"//", "url(//", "from \"//", "sourceMappingURL"] {
            assert!(!text.contains(loads), "{source} has {loads}");
        }
    }
}

#[test]
fn the_page_has_no_inline_script_or_style() {
    let html = page(&BasePath::default()).html;
    for script in html.split("<script").skip(1) {
        let (attributes, rest) = script.split_once('>').unwrap();
        assert!(attributes.contains("src=\"assets/"), "{script}");
        assert!(rest.starts_with("</script>"), "{script}");
    }
    for banned in ["<style", " style=", "javascript:", "http-equiv"] {
        assert!(!html.contains(banned), "{banned}");
    }
    let handlers = html.split([' ', '\n']).filter(|part| part.starts_with("on") && part.contains('='));
    assert_eq!(handlers.collect::<Vec<_>>(), Vec::<&str>::new());
    for directive in ["default-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"] {
        assert!(POLICY.split("; ").any(|part| part == directive), "{directive}");
    }
    assert!(!POLICY.contains("unsafe"));
}

/// These are what a policy with Trusted Types refuses at run time, where a test may not come by.
#[test]
fn no_script_of_ours_writes_html() {
    let scripts = fs::read_dir(folder("page")).unwrap().map(|entry| entry.unwrap().path());
    let mut read = 0;
    for path in scripts.filter(|path| path.extension().is_some_and(|extension| extension == "js")) {
        let text = fs::read_to_string(&path).unwrap();
        for banned in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "dangerouslySetInnerHTML",
            "document.write",
            "eval(",
            "new Function",
        ] {
            assert!(!text.contains(banned), "{} has {banned}", path.display());
        }
        read += 1;
    }
    assert!(read > 1, "no scripts");
}

#[test]
fn the_base_path_is_in_the_page_and_in_its_tag() {
    let (root, below) = (page(&BasePath::default()), page(&"/ops/sentinel".parse().unwrap()));
    assert!(root.html.contains("<base href=\"/\">"), "{}", root.html);
    assert!(below.html.contains("<base href=\"/ops/sentinel/\">"), "{}", below.html);
    assert_ne!(root.tag, below.tag);
    // Before it, nothing has an address.
    assert!(!below.html.split("<base").next().unwrap().contains("href"));
}

/// Adds the scripts that a script loads before it runs, itself included, and those that it loads on demand.
fn loaded_by(name: &'static str, on_demand: bool, found: &mut BTreeSet<&'static str>) {
    if found.insert(name) {
        let marks = ["from\"./", "import\"./", "import(\"./"];
        for mark in &marks[..if on_demand { 3 } else { 2 }] {
            for import in text(find(name).unwrap()).split(mark).skip(1) {
                loaded_by(import.split('"').next().unwrap(), on_demand, found);
            }
        }
    }
}

fn compressed(names: &BTreeSet<&str>) -> usize {
    names.iter().map(|name| find(name).unwrap().gzip.len()).sum()
}

#[test]
fn scripts_are_small() {
    let html = page(&BasePath::default()).html;
    let mut first = BTreeSet::new();
    for script in values(&html, "src") {
        loaded_by(find(script.strip_prefix("assets/").unwrap()).unwrap().name, false, &mut first);
    }
    let all: BTreeSet<&str> =
        assets().iter().map(|asset| asset.name).filter(|name| name.ends_with(".js")).collect();
    println!("scripts, compressed: first page {} bytes, all {} bytes", compressed(&first), compressed(&all));
    let mut views = BTreeMap::new();
    for script in first.clone() {
        for view in text(find(script).unwrap()).split("import(\"./").skip(1) {
            let view = find(view.split('"').next().unwrap()).unwrap();
            // The scripts of the first page load the other views too, after this one is shown.
            let mut needed = first.clone();
            loaded_by(view.name, true, &mut needed);
            views.insert(view.source, needed);
        }
    }
    for (view, needed) in &views {
        let bytes = compressed(needed);
        let sources: Vec<&str> = needed.iter().map(|name| find(name).unwrap().source).collect();
        println!("{bytes} bytes for {view}: {}", sources.join(" "));
        assert!(bytes <= MAX_VIEW, "{view} loads {bytes} bytes, {MAX_VIEW} are allowed");
    }
    let bytes = compressed(&first);
    assert!(bytes <= MAX_FIRST, "the first page needs {bytes} bytes, {MAX_FIRST} are allowed");
    let names: Vec<&str> = views.keys().copied().collect();
    let expected = ["execution.js", "fleet.js", "form.js", "history.js", "log.js", "node-page.js", "task.js"];
    assert_eq!(names, expected);
    let of_node = &views["node-page.js"];
    assert!(
        of_node.iter().any(|name| name.starts_with("charts.")),
        "what is loaded on demand is not counted"
    );
}

/// `viewer/vendor --check` compares them with the registry; this needs no network.
#[test]
fn libraries_are_as_they_were_published_and_have_their_licences() {
    let vendored = folder("page/vendor");
    let sums = fs::read_to_string(vendored.join("SHA256SUMS")).unwrap();
    let expected: BTreeMap<&str, &str> =
        sums.lines().map(|line| line.split_once("  ").unwrap()).map(|(sum, name)| (name, sum)).collect();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(&vendored).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "SHA256SUMS" || name.ends_with(".d.ts") {
            continue;
        }
        let sum = sha256(&fs::read(&path).unwrap());
        assert_eq!(
            expected.get(name.as_str()).copied(),
            Some(sum.as_str()),
            "page/vendor/{name} was changed: run viewer/vendor"
        );
        found.insert(name);
    }
    assert_eq!(found.len(), expected.len(), "page/vendor/ lacks files of SHA256SUMS");
    let licences = found.iter().filter(|name| name.ends_with(".license.txt"));
    let libraries = ["preact", "htm", "signals", "signals-core", "uplot"];
    assert_eq!(licences.count(), libraries.len());
    for library in libraries {
        assert!(
            find_source(&format!("vendor/{library}.license.txt")).is_some(),
            "{library} is served without its licence"
        );
    }
}

#[test]
fn pinned_packages_have_versions_and_digests() {
    let lock = fs::read_to_string(folder("package-lock.json")).unwrap();
    let packages = lock.matches("\n    \"node_modules/").count();
    assert!(packages > 5, "{packages}");
    assert_eq!(lock.matches("\"integrity\": \"sha512-").count(), packages);
    assert!(
        !lock.contains("://") || lock.split("://").skip(1).all(|rest| !rest.contains(".tgz")),
        "a package is pinned to a host"
    );
    let manifest = fs::read_to_string(folder("package.json")).unwrap();
    assert!(!manifest.contains(['^', '~']), "package.json has a range of versions");
}

fn find_source(source: &str) -> Option<&'static Asset> {
    assets().iter().find(|asset| asset.source == source)
}
