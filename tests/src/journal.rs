//! A node's state directory as a test sees it.

use std::path::Path;

/// The names of the Attempts that a node has not forgotten. Directories that are being prepared, made or removed are none.
pub fn attempts(state_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state_dir.join("attempts")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}
