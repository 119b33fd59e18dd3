//! What happened, counted.

/// What happened over all seeds, to see that the faults are real.
#[derive(Debug, Default)]
pub struct Tally {
    pub executions: usize,
    pub retries: usize,
    pub runs: usize,
    pub lost: usize,
    pub takeovers: usize,
    pub reboots: usize,
    pub cuts: usize,
    pub restores: usize,
    /// Offers that a busy agent declined.
    pub busy: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.executions += other.executions;
        self.retries += other.retries;
        self.runs += other.runs;
        self.lost += other.lost;
        self.takeovers += other.takeovers;
        self.reboots += other.reboots;
        self.cuts += other.cuts;
        self.restores += other.restores;
        self.busy += other.busy;
    }
}
