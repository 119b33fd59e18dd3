//! The files of a bundle, and its manifest.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Result;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::Value;

use super::redact::{self, Redacted, text};

/// The folder that the archive unpacks to.
const FOLDER: &str = "sentinel-report";

/// Bytes of all files together; what is more is left out, and listed as such.
const MOST: usize = 64 << 20;

/// Files, by name.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    files: BTreeMap<String, Vec<u8>>,
    size: usize,
    /// What was replaced, by file.
    redacted: BTreeMap<String, BTreeMap<&'static str, usize>>,
    /// What is not in it, and why.
    missing: Vec<(String, String)>,
}

impl Bundle {
    /// Adds a document that was redacted.
    pub(super) fn add(&mut self, name: &str, document: Redacted<Value>) {
        // What no rule for a field replaced, a rule for text may.
        let Redacted { content, replaced } = redact::document(document);
        let json = serde_json::to_string_pretty(&content).unwrap_or_default();
        self.insert(name, json.into_bytes(), replaced);
    }

    /// Adds a text.
    pub(super) fn add_text(&mut self, name: &str, content: &str) {
        let scrubbed = text(content);
        self.insert(name, scrubbed.content.into_bytes(), scrubbed.replaced);
    }

    /// Notes that something is not in it.
    pub(super) fn miss(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.missing.push((what.into(), text(&why.into()).content));
    }

    /// Number of files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Number of parts that are not in it.
    pub(super) fn missing(&self) -> usize {
        self.missing.len()
    }

    fn insert(&mut self, name: &str, content: Vec<u8>, replaced: BTreeMap<&'static str, usize>) {
        if self.size + content.len() > MOST {
            self.miss(name, format!("the bundle would be larger than {} MiB", MOST >> 20));
            return;
        }
        self.size += content.len();
        if !replaced.is_empty() {
            self.redacted.insert(name.to_owned(), replaced);
        }
        self.files.insert(name.to_owned(), content);
    }

    fn manifest(&self) -> String {
        let mut page = format!(
            "# Report of Sentinel Node\n\nMade by sentinel {} at {}.\n\n## Files\n\n| File | Bytes | Replaced |\n|---|---|---|\n",
            env!("CARGO_PKG_VERSION"),
            Timestamp::now()
        );
        for (name, content) in &self.files {
            let replaced = self.redacted.get(name).map(|all| {
                all.iter().map(|(what, count)| format!("{count} × {what}")).collect::<Vec<_>>().join(", ")
            });
            let _ = writeln!(page, "| {name} | {} | {} |", content.len(), replaced.unwrap_or_default());
        }
        page.push_str("\nA replaced value reads `[redacted]`, in some places with its length.\n");
        page.push_str("\n## Not in it\n\nSecrets, and output of commands, are never read.\n\n");
        for (what, why) in &self.missing {
            let _ = writeln!(page, "- {what}: {why}");
        }
        page
    }

    /// The archive.
    pub(super) fn pack(mut self) -> Result<Vec<u8>> {
        let manifest = self.manifest();
        self.files.insert("MANIFEST.md".to_owned(), manifest.into_bytes());
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(Timestamp::now().as_second().max(0) as u64);
            archive.append_data(&mut header, format!("{FOLDER}/{name}"), content.as_slice())?;
        }
        archive.into_inner()?.finish()
    }
}
