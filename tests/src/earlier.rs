//! Operator and node agent as built from earlier commits of this repository.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::repository;

/// An earlier build.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The commit it was built from.
    pub commit: String,
    /// The operator's program.
    pub operator: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
}

/// Builds operator and agent of a commit, unless they are in the cache. `previous` is the latest ancestor of the commit
/// that is checked out whose programs are in the cache, else its parent; `other-protocol` is the last commit that spoke
/// other versions of the protocol.
///
/// # Panics
/// When the commit is not in the repository, for example in a shallow clone, or does not build.
pub fn build(commit: &str) -> Earlier {
    let output = Command::new(repository().join("tests/earlier")).arg(commit).output().expect("bash starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no operator and agent of {commit}:\n{errors}");
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let commit = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Earlier {
        commit: commit.trim_start_matches("earlier-").to_owned(),
        operator: folder.join("operator"),
        agent: folder.join("node-agent"),
    }
}
