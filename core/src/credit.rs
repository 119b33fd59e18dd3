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

    fn outstanding(&self) -> u64 {
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
    /// What was granted is never taken back.
    pub fn advance(&mut self, window: &mut Window, archived: u64, received: u64) {
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
            window.granted = window.granted.max(window.archived.saturating_add(size));
        }
        self.reserved += window.outstanding();
    }
}
