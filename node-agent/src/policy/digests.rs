//! Digests of programs, so that each is read once until it changes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sentinel_core::agent::FileIdentity;

use crate::supervisor::{OpenContent, sha256_of};

/// Digests that are remembered; beyond, the oldest is dropped.
const MOST: usize = 64;

/// Digests of programs by the files that have them.
#[derive(Debug, Default)]
pub struct Digests(Mutex<Known>);

type Known = VecDeque<(FileIdentity, String)>;

impl Digests {
    /// The SHA-256 of a file, in hexadecimal.
    ///
    /// # Errors
    /// When it cannot be read, or changed meanwhile.
    pub fn of(&self, identity: &FileIdentity, open: OpenContent<'_>) -> io::Result<String> {
        if let Some((_, digest)) = self.known().iter().find(|(known, _)| known == identity) {
            return Ok(digest.clone());
        }
        // Read without the lock: it may take long, or forever.
        let digest = sha256_of(identity, &open()?)?;
        let mut known = self.known();
        if known.len() >= MOST {
            known.pop_front();
        }
        known.push_back((identity.clone(), digest.clone()));
        Ok(digest)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
