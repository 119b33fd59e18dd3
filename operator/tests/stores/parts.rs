//! The real stores, from the file that `tests/parts/up` writes.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The fields that the tests of stores use.
#[derive(Debug, Deserialize)]
pub(crate) struct Parts {
    pub(crate) redis_url: String,
    pub(crate) mongodb_uri: String,
    /// Paths of the servers' programs, by name; only of those that `tests/parts/up` started.
    #[serde(default)]
    pub(crate) bin: BTreeMap<String, String>,
    #[serde(default)]
    processes: Vec<Process>,
}

#[derive(Debug, Deserialize)]
struct Process {
    name: String,
    port: u16,
}

impl Parts {
    /// The port of a part that `tests/parts/up` started.
    pub(crate) fn port(&self, name: &str) -> Option<u16> {
        self.processes.iter().find(|process| process.name == name).map(|process| process.port)
    }
}

/// The real stores; `None`, with a message on stderr, where there are none. In CI that is a failure.
pub(crate) fn parts(test: &str) -> Option<Parts> {
    let Some(path) = std::env::var_os("SENTINEL_PARTS") else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "SENTINEL_PARTS is not set, and CI must test the real stores: run through tests/parts/with-parts"
        );
        eprintln!("NOT TESTED on the real store, because SENTINEL_PARTS is not set: {test}");
        return None;
    };
    let text =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("SENTINEL_PARTS {}: {e}", path.display()));
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("SENTINEL_PARTS {}: {e}", path.display())))
}

/// A name that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}
