//! Ids of traces and spans, derived from what they are about.

use sentinel_protocol::ids::{AttemptId, RunNumber, TaskUid};
use sha2::{Digest, Sha256};

/// The trace of a Run that joins none.
pub(super) fn trace_of_run(task: &TaskUid, run: RunNumber) -> [u8; 16] {
    derived(&["trace", task.as_str(), &run.to_string()])
}

/// The span of a Run.
pub(super) fn span_of_run(task: &TaskUid, run: RunNumber) -> [u8; 8] {
    derived(&["run", task.as_str(), &run.to_string()])
}

/// The span of an Attempt, or of a part of it.
pub(super) fn span_of_attempt(part: &str, attempt: &AttemptId) -> [u8; 8] {
    derived(&[part, &attempt.to_string()])
}

/// The first bytes of a SHA-256 of the parts. Never all zero, which is not an id.
fn derived<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let mut id = [0; N];
    for (byte, digested) in id.iter_mut().zip(digest.finalize()) {
        *byte = digested;
    }
    if let (true, Some(last)) = (id == [0; N], id.last_mut()) {
        *last = 1;
    }
    id
}
