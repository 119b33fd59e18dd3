//! What the readers of merged logs hold: a bound for all of them together, however many do not read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a reader may hold when the shared memory is used up.
const LEAST_READ_AHEAD: usize = 128 << 10;

/// Bytes that all readers share.
const SHARED: usize = 24 << 20;

/// A permit is for so many bytes.
const UNIT: usize = 64 << 10;

/// Of what is left, a reader takes this part: the first one 6 MiB, and some is left for the next ones.
const PART: usize = 4;

/// The memory that readers share. Cloning it shares it.
#[derive(Debug, Clone)]
pub(crate) struct MergeMemory(Arc<Semaphore>);

impl Default for MergeMemory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARED / UNIT)))
    }
}

/// What one reader may hold, until it is dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    permit: Option<OwnedSemaphorePermit>,
}

impl MergeMemory {
    /// A share for one more reader: the later, the smaller. No reader waits for one, because one that stalls keeps its own.
    pub(super) fn share(&self) -> MemoryShare {
        let units = self.0.available_permits() / PART;
        let is_enough = units * UNIT > LEAST_READ_AHEAD;
        let take = || Arc::clone(&self.0).try_acquire_many_owned(u32::try_from(units).ok()?).ok();
        MemoryShare { permit: if is_enough { take() } else { None } }
    }
}

impl MemoryShare {
    /// Bytes.
    pub(super) fn bytes(&self) -> usize {
        self.permit.as_ref().map_or(LEAST_READ_AHEAD, |permit| permit.num_permits() * UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_a_bounded_memory() {
        let memory = MergeMemory::default();
        let first = memory.share();
        assert_eq!(first.bytes(), SHARED / PART);
        let shares: Vec<MemoryShare> = (0..200).map(|_| memory.share()).collect();
        let of_all: usize = shares.iter().map(MemoryShare::bytes).sum();
        assert!(of_all <= SHARED + 200 * LEAST_READ_AHEAD, "{of_all}");
        assert!(shares[2].bytes() > 2 << 20, "{}", shares[2].bytes());
        assert_eq!(shares[199].bytes(), LEAST_READ_AHEAD);
        drop((first, shares));
        assert_eq!(memory.share().bytes(), SHARED / PART);
    }
}
