//! Joins markers of dropped bytes: many drops in a row are reported as one.

use sentinel_protocol::log::{DropReason, Stream};

/// Dropped bytes of each stream that were not reported yet.
#[derive(Debug, Default)]
pub(super) struct Drops([Option<(u64, DropReason)>; 2]);

impl Drops {
    /// Adds dropped bytes; returns what must be reported first, since the reason differs.
    pub(super) fn add(&mut self, stream: Stream, len: u64, why: DropReason) -> Option<(u64, DropReason)> {
        let unreported = &mut self.0[usize::from(stream == Stream::Stderr)];
        match unreported {
            Some((total, reason)) if *reason == why => {
                *total = total.saturating_add(len);
                None
            }
            _ => unreported.replace((len, why)),
        }
    }

    /// Whether nothing is unreported.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Takes what is unreported.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Stream, u64, DropReason)> + use<> {
        let [stdout, stderr] = std::mem::take(&mut self.0);
        let of = |stream, drop: Option<(u64, DropReason)>| drop.map(|(len, why)| (stream, len, why));
        [of(Stream::Stdout, stdout), of(Stream::Stderr, stderr)].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_drops_with_the_same_reason() {
        let mut drops = Drops::default();
        assert_eq!(drops.add(Stream::Stdout, 5, DropReason::LimitReached), None);
        assert_eq!(drops.add(Stream::Stderr, 1, DropReason::LimitReached), None);
        assert_eq!(drops.add(Stream::Stdout, 7, DropReason::LimitReached), None);
        let before = drops.add(Stream::Stdout, 2, DropReason::Unreadable);
        assert_eq!(before, Some((12, DropReason::LimitReached)));
        let rest: Vec<_> = drops.take().collect();
        assert_eq!(
            rest,
            [(Stream::Stdout, 2, DropReason::Unreadable), (Stream::Stderr, 1, DropReason::LimitReached),]
        );
        assert!(drops.is_empty());
    }
}
