//! Digests of programs, so that each is read once until it changes.

use std::collections::VecDeque;
use std::io;

use sentinel_core::agent::FileIdentity;

use crate::supervisor::{OpenContent, sha256_of};

/// Digests that are remembered; beyond, the oldest is dropped.
const MOST: usize = 64;

/// Digests of programs by the files that have them.
#[derive(Debug, Default)]
pub struct Digests(VecDeque<(FileIdentity, String)>);

impl Digests {
    /// The SHA-256 of a file, in hexadecimal.
    ///
    /// # Errors
    /// When it cannot be read, or changed meanwhile.
    pub fn of(&mut self, identity: &FileIdentity, open: OpenContent<'_>) -> io::Result<String> {
        if let Some((_, digest)) = self.0.iter().find(|(known, _)| known == identity) {
            return Ok(digest.clone());
        }
        let digest = sha256_of(identity, &open()?)?;
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((identity.clone(), digest.clone()));
        Ok(digest)
    }
}
