//! Who may depend on whom: `protocol ← core ← {operator, node-agent} ← cli`, `protocol ← audit`, and what the pure crates may use.

#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_types, reason = "a test, which asks cargo")]

use std::collections::BTreeSet;
use std::process::Command;

/// Direct dependencies, `[dependencies]` only, that a crate may have; a new line here is a decision.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sentinel-protocol", &["bytes", "serde", "serde_json", "thiserror"]),
    (
        "sentinel-policy",
        &["jiff", "sentinel-protocol", "serde", "serde-saphyr", "serde_json", "sha2", "ssh-key", "thiserror"],
    ),
    ("sentinel-audit", &["sentinel-protocol", "serde", "serde_json", "sha2", "thiserror"]),
    ("sentinel-secrets", &["base64", "hpke", "sentinel-protocol", "thiserror", "zeroize"]),
    ("sentinel-viewer", &["thiserror"]),
    ("sentinel-core", &["bytes", "memchr", "sentinel-protocol", "serde", "serde_json", "sha2", "thiserror"]),
];

/// Crates that a crate must never reach directly.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "sentinel-node-agent",
        &["kube", "k8s-openapi", "mongodb", "redis", "rusqlite", "warp", "sentinel-operator"],
    ),
    ("sentinel-operator", &["sentinel-node-agent", "sysinfo", "nix"]),
];

#[test]
fn crates_depend_only_on_allowed_crates() {
    for (package, allowed) in ALLOWED {
        let extra: Vec<String> =
            dependencies(package).into_iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(extra.is_empty(), "{package} must not depend on {extra:?}");
    }
    for (package, forbidden) in FORBIDDEN {
        let found: Vec<String> =
            dependencies(package).into_iter().filter(|name| forbidden.contains(&name.as_str())).collect();
        assert!(found.is_empty(), "{package} must not depend on {found:?}");
    }
}

/// A sum that wrapped around once let one agent stop the fleet.
#[test]
fn overflow_checks_are_on_in_every_shipped_profile() {
    let manifest = include_str!("../../Cargo.toml");
    for profile in ["[profile.release]", "[profile.agent]"] {
        let section = manifest.split(profile).nth(1).expect("the profile exists");
        let section = section.split("\n[").next().expect("a section");
        assert!(section.contains("\noverflow-checks = true\n"), "{profile} has no overflow-checks:{section}");
    }
}

/// Of the first build that people make, a good part of the time went into optimising each crate twice. The parts of a crate are
/// optimised together where that is worth the time.
#[test]
fn only_the_agent_pays_for_link_time_optimisation() {
    let manifest = include_str!("../../Cargo.toml");
    for (profile, lto) in [("release", "off"), ("agent", "fat")] {
        let section = manifest.split(&format!("[profile.{profile}]")).nth(1).expect("the profile exists");
        let section = section.split("\n[").next().expect("a section");
        assert!(section.contains(&format!("\nlto = \"{lto}\"\n")), "{profile}:{section}");
    }
}

fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let found =
        packages.iter().find(|p| p["name"] == package).unwrap_or_else(|| panic!("no package {package}"));
    found["dependencies"]
        .as_array()
        .expect("a list of dependencies")
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
        .collect()
}
