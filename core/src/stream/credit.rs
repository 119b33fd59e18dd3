//! How much more output an agent may send: flow control over one bounded pool of memory.
//!
//! What is granted and not yet archived may have to be held in memory, so that is what the pool counts. Every Attempt
//! that has output gets a small window at once, however many there are; a window that is used up grows, up to its
//! share of the pool. Only when memory is *really* short (History is away, or slower than the nodes) does granting
//! stop; then the agents' spools take over, and behind them the commands wait.

/// The numbers of the pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditRules {
    /// For all Attempts together.
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

/// All windows together.
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

    /// Bytes that the agent may send, or has sent, and that are not archived.
    pub fn outstanding(&self) -> u64 {
        self.granted - self.archived
    }
}

impl CreditPool {
    /// An empty pool.
    pub fn new(rules: CreditRules) -> Self {
        Self { rules, windows: 0, reserved: 0, held: 0 }
    }

    /// The numbers it works by.
    pub fn rules(&self) -> CreditRules {
        self.rules
    }

    /// Bytes that agents may still send or that are waiting for History.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Memory that is really in use for output that waits for History.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether so much is held that nothing more is granted.
    pub fn is_short(&self) -> bool {
        self.held >= self.rules.pool / 4 * 3
    }

    /// Whether `more` bytes may be taken into memory: the hard bound, whatever was granted.
    pub fn has_room(&self, more: u64) -> bool {
        self.held.saturating_add(more) <= self.rules.pool
    }

    /// So much more memory is in use.
    pub fn grow(&mut self, bytes: u64) {
        self.held = self.held.saturating_add(bytes);
    }

    /// So much memory was freed.
    pub fn shrink(&mut self, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// How much may be kept of what is archived already, for readers that are nearly up to date: nothing once a
    /// quarter of the pool is in use.
    pub fn recent_allowance(&self) -> u64 {
        if self.held < self.rules.pool / 4 { u64::MAX } else { 0 }
    }

    /// A window for an Attempt whose output is archived up to `archived`. Nothing is granted yet.
    pub fn open(&mut self, archived: u64) -> Window {
        self.windows += 1;
        Window { granted: archived, archived, received: archived, size: self.rules.min_window }
    }

    /// The Attempt has no more output, or nobody to send it.
    pub fn close(&mut self, window: Window) {
        self.windows = self.windows.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(window.outstanding());
    }

    /// Moves the window on: History holds everything before `archived`, and everything before `received` is here.
    /// What was granted is never taken back; at most `more` bytes are granted beyond it.
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
    fn a_window_that_is_used_up_grows_to_its_share_and_one_that_is_not_does_not() {
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
    fn many_attempts_share_the_pool_and_each_gets_something() {
        let mut pool = CreditPool::new(RULES);
        let mut windows: Vec<Window> = (0..500).map(|_| pool.open(0)).collect();
        for window in &mut windows {
            pool.advance(window, 0, 0, u64::MAX);
            assert_eq!(window.granted(), 10);
        }
        assert_eq!(pool.reserved(), 5000);
    }

    #[test]
    fn no_more_is_granted_than_the_node_may_have() {
        let mut pool = CreditPool::new(RULES);
        let mut window = pool.open(0);
        pool.advance(&mut window, 0, 0, 0);
        assert_eq!(window.granted(), 0);
        pool.advance(&mut window, 0, 0, 7);
        assert_eq!((window.granted(), pool.reserved()), (7, 7));
    }

    #[test]
    fn nothing_more_is_granted_while_memory_is_short_and_again_when_it_is_not() {
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
        fn what_is_outstanding_is_bounded_and_never_taken_back(ops in prop::collection::vec(op(), 1..120)) {
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
