//! Which modules are one file. Small files compress badly, and each is a request; one file for all would load what a reader
//! does not want.
//!
//! Modules that the same entries need are together. An entry is a script of the page, or what is loaded on demand. What the
//! page needs first is in two files: `base`, which the others import, and the rest, which has the names of the others in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::script::Usage;

/// The module that a reference leads to, and how it is loaded.
pub(crate) type Edges<'a> = BTreeMap<&'a str, Vec<(&'a str, Usage)>>;

/// The file of what the page needs first.
const BASE: &str = "base";

/// The name of the file that each module belongs to. `first` are the scripts of the page.
pub(crate) fn plan<'a>(modules: &Edges<'a>, first: &[&'a str]) -> BTreeMap<&'a str, String> {
    let on_demand: BTreeSet<&str> = modules
        .values()
        .flatten()
        .filter(|(_, usage)| *usage == Usage::OnDemand)
        .map(|(module, _)| *module)
        .collect();
    let mut at_once = BTreeSet::new();
    for entry in first {
        imports(entry, modules, &mut at_once);
    }
    let mut files = BTreeMap::new();
    for module in &at_once {
        let mut below = BTreeSet::new();
        imports(module, modules, &mut below);
        let loads_others =
            below.iter().flat_map(|module| &modules[module]).any(|(_, usage)| *usage == Usage::OnDemand);
        let entry = first.first().copied().unwrap_or(module);
        files.insert(*module, if loads_others { stem(entry).to_owned() } else { BASE.to_owned() });
    }
    let mut entries: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for entry in on_demand {
        let mut needed = BTreeSet::new();
        imports(entry, modules, &mut needed);
        for module in needed.difference(&at_once) {
            entries.entry(module).or_default().push(stem(entry));
        }
    }
    files.extend(entries.into_iter().map(|(module, entries)| (module, entries.join("-"))));
    files
}

/// Adds a module and what it imports before it runs.
fn imports<'a>(module: &'a str, modules: &Edges<'a>, found: &mut BTreeSet<&'a str>) {
    if found.insert(module) {
        for (target, _) in modules[module].iter().filter(|(_, usage)| *usage == Usage::Import) {
            imports(target, modules, found);
        }
    }
}

/// The name of a file without its folder and end.
pub(crate) fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(modules: &[(&'static str, &[(&'static str, Usage)])]) -> Vec<(&'static str, String)> {
        let modules: Edges<'static> =
            modules.iter().map(|(name, targets)| (*name, targets.to_vec())).collect();
        plan(&modules, &["main.js"]).into_iter().collect()
    }

    #[test]
    fn modules_that_the_same_entries_need_are_together() {
        use Usage::{Import, OnDemand};
        let files = planned(&[
            ("main.js", &[("lib/a.js", Import), ("log.js", OnDemand), ("map.js", OnDemand)]),
            ("lib/a.js", &[]),
            ("log.js", &[("lib/a.js", Import), ("rows.js", Import), ("scale.js", Import)]),
            ("map.js", &[("scale.js", Import)]),
            ("rows.js", &[]),
            ("scale.js", &[("tick.js", Import)]),
            ("tick.js", &[]),
        ]);
        let expected = [
            ("lib/a.js", "base"),
            ("log.js", "log"),
            ("main.js", "main"),
            ("map.js", "map"),
            ("rows.js", "log"),
            ("scale.js", "log-map"),
            ("tick.js", "log-map"),
        ];
        assert_eq!(files, expected.map(|(module, file)| (module, file.to_owned())));
    }
}
