//! Flow control of output: how much more each Attempt may send, over one bounded memory pool.
//!
//! Output that is granted and not archived may have to be held in memory, so that is what the pool counts. Every Attempt
//! with output gets a small window at once; a window that is used up grows, up to its share of the pool. Granting stops
//! only when memory is short, because History is unavailable or slower than the nodes. Then output fills the agents'
//! spools, and once those are full the commands block.

/// The limits of the pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditRules {
    /// Total for all Attempts.
    pub pool: u64,
    /// Smallest window of an Attempt.
    pub min_window: u64,
    /// Largest window of an Attempt.
    pub max_window: u64,
}

impl Default for CreditRules {
    fn default() -> Self {
        Self { pool: 24 << 20, min_window: 128 << 10, max_window: 4 << 20 }
    }
}

/// The pool, shared by all windows.
#[derive(Debug, Clone)]
pub struct CreditPool {
    rules: CreditRules,
    windows: u64,
    reserved: u64,
    held: u64,
}

/// The window of one Attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    granted: u64,
    archived: u64,
    received: u64,
    size: u64,
}

impl Window {
    /// Position up to which the agent may send.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// Bytes that are granted and not archived.
    pub fn outstanding(&self) -> u64 {
        self.granted - self.archived
    }
}

impl CreditPool {
    /// An empty pool.
    pub fn new(rules: CreditRules) -> Self {
        Self { rules, windows: 0, reserved: 0, held: 0 }
    }

    /// Its limits.
    pub fn rules(&self) -> CreditRules {
        self.rules
    }

    /// Bytes granted and not archived, over all windows.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Memory in use for output that waits for History, in bytes.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether so much memory is in use that nothing more is granted.
    pub fn is_short(&self) -> bool {
        self.held >= self.rules.pool / 4 * 3
    }

    /// Whether `more` bytes fit into memory: the hard bound, whatever was granted.
    pub fn has_room(&self, more: u64) -> bool {
        self.held.saturating_add(more) <= self.rules.pool
    }

    /// Adds memory in use.
    pub fn grow(&mut self, bytes: u64) {
        self.held = self.held.saturating_add(bytes);
    }

    /// Subtracts freed memory.
    pub fn shrink(&mut self, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// How much archived output may be kept for readers that are nearly up to date: nothing once a quarter of the pool is
    /// in use.
    pub fn recent_allowance(&self) -> u64 {
        if self.held < self.rules.pool / 4 { u64::MAX } else { 0 }
    }

    /// A window for an Attempt with output archived up to `archived`. Grants nothing yet.
    pub fn open(&mut self, archived: u64) -> Window {
        self.windows += 1;
        Window { granted: archived, archived, received: archived, size: self.rules.min_window }
    }

    /// Closes a window: the Attempt has no more output, or no connection.
    pub fn close(&mut self, window: Window) {
        self.windows = self.windows.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(window.outstanding());
    }

    /// Advances the window: History has everything before `archived`, and the operator everything before `received`.
    /// Grants are never revoked; at most `more` bytes are granted beyond them.
    pub fn advance(&mut self, window: &mut Window, archived: u64, received: u64, more: u64) {
        self.reserved = self.reserved.saturating_sub(window.outstanding());
        let used_up =
            received > window.received && received.saturating_add(window.size / 2) >= window.granted;
        window.received = received.max(window.received);
        window.archived = archived.max(window.archived);
        window.granted = window.granted.max(window.archived);
        let share =
            (self.rules.pool / self.windows.max(1)).clamp(self.rules.min_window, self.rules.max_window);
        if used_up {
            window.size = window.size.saturating_mul(2);
        }
        window.size = window.size.clamp(self.rules.min_window, share);
        if !self.is_short() {
            let free = self.rules.pool.saturating_sub(self.reserved);
            let size = window.size.min(free).max(self.rules.min_window);
            let most = window.granted.saturating_add(more);
            window.granted = window.granted.max(window.archived.saturating_add(size).min(most));
        }
        self.reserved += window.outstanding();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: CreditRules = CreditRules { pool: 1000, min_window: 10, max_window: 200 };

    #[test]
    fn only_used_windows_grow_to_their_share() {
        let mut pool = CreditPool::new(RULES);
        let mut window = pool.open(0);
        pool.advance(&mut window, 0, 0, u64::MAX);
        assert_eq!(window.granted(), 10);
        for _ in 0..8 {
            let all = window.granted();
            pool.advance(&mut window, all, all, u64::MAX);
        }
        assert_eq!(window.outstanding(), 200);
        let mut idle = pool.open(0);
        for _ in 0..8 {
            pool.advance(&mut idle, 0, 0, u64::MAX);
        }
        assert_eq!(idle.granted(), 10);
    }

    #[test]
    fn many_attempts_share_the_pool() {
        let mut pool = CreditPool::new(RULES);
        let mut windows: Vec<Window> = (0..500).map(|_| pool.open(0)).collect();
        for window in &mut windows {
            pool.advance(window, 0, 0, u64::MAX);
            assert_eq!(window.granted(), 10);
        }
        assert_eq!(pool.reserved(), 5000);
    }

    #[test]
    fn grants_at_most_the_nodes_allowance() {
        let mut pool = CreditPool::new(RULES);
        let mut window = pool.open(0);
        pool.advance(&mut window, 0, 0, 0);
        assert_eq!(window.granted(), 0);
        pool.advance(&mut window, 0, 0, 7);
        assert_eq!((window.granted(), pool.reserved()), (7, 7));
    }

    #[test]
    fn grants_stop_while_memory_is_short() {
        let mut pool = CreditPool::new(RULES);
        let mut window = pool.open(0);
        pool.advance(&mut window, 0, 0, u64::MAX);
        pool.grow(750);
        pool.advance(&mut window, 10, 10, u64::MAX);
        assert_eq!((window.granted(), pool.has_room(250), pool.has_room(251)), (10, true, false));
        pool.shrink(1);
        pool.advance(&mut window, 10, 10, u64::MAX);
        assert!(window.granted() >= 20);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Open,
        Close { which: usize },
        Advance { which: usize, received: u64, archived: u64 },
        Grow(u64),
        Shrink(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => Just(Op::Open),
            1 => any::<usize>().prop_map(|which| Op::Close { which }),
            6 => (any::<usize>(), 0..=100_u64, 0..=100_u64)
                .prop_map(|(which, received, archived)| Op::Advance { which, received, archived }),
            1 => (0..400_u64).prop_map(Op::Grow),
            1 => (0..400_u64).prop_map(Op::Shrink),
        ]
    }

    proptest! {
        #[test]
        fn outstanding_bytes_are_bounded_and_never_revoked(ops in prop::collection::vec(op(), 1..120)) {
            let mut pool = CreditPool::new(RULES);
            let mut windows: Vec<(Window, u64)> = Vec::new();
            for op in ops {
                match op {
                    Op::Open => windows.push((pool.open(7), 7)),
                    Op::Close { which } if !windows.is_empty() => {
                        let (window, _) = windows.swap_remove(which % windows.len());
                        pool.close(window);
                    }
                    Op::Advance { which, received, archived } if !windows.is_empty() => {
                        let count = windows.len();
                        let (window, seen) = &mut windows[which % count];
                        let before = *window;
                        // An honest agent sends within its credit, and only what was sent is archived.
                        *seen += (window.granted().max(*seen) - *seen) * received / 100;
                        let archived = before.archived + (*seen - before.archived) * archived / 100;
                        pool.advance(window, archived, *seen, u64::MAX);
                        prop_assert!(window.granted() >= before.granted());
                        prop_assert!(window.outstanding() <= RULES.max_window.max(before.outstanding()));
                        prop_assert!(pool.is_short() || window.outstanding() >= RULES.min_window);
                    }
                    Op::Close { .. } | Op::Advance { .. } => {}
                    Op::Grow(bytes) => pool.grow(bytes),
                    Op::Shrink(bytes) => pool.shrink(bytes),
                }
                let outstanding: u64 = windows.iter().map(|(window, _)| window.outstanding()).sum();
                prop_assert_eq!(pool.reserved(), outstanding);
                prop_assert!(outstanding <= RULES.pool + windows.len() as u64 * RULES.min_window);
            }
        }
    }
}
