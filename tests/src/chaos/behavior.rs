//! What a recorder does and writes, computed from the id of its Attempt alone: the recorder does it, the check
//! expects it.

use super::rng::Rng;

/// What a recorder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behavior {
    attempt: String,
    seed: u64,
    /// Lines of output.
    pub lines: u64,
    /// How long it takes over all of them, milliseconds.
    pub millis: u64,
    /// The code it exits with.
    pub exit_code: u8,
    /// Whether it ignores SIGTERM.
    pub ignores_term: bool,
}

impl Behavior {
    /// What the recorder of an Attempt does, within at most `most_millis` milliseconds.
    pub fn of(attempt: &str, most_millis: u64) -> Self {
        let mut rng = Rng::of(attempt);
        Self {
            attempt: attempt.to_owned(),
            seed: rng.next_u64(),
            lines: rng.below(400),
            millis: rng.below(most_millis.max(1)),
            exit_code: if rng.percent(25) { 1 + rng.below(100) as u8 } else { 0 },
            ignores_term: rng.percent(20),
        }
    }

    /// Line `number` of the output, and whether it goes to standard error.
    pub fn line(&self, number: u64) -> (String, bool) {
        let mut rng = Rng::new(self.seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let filling = "x".repeat(rng.below(200) as usize);
        (format!("{number:06} {} {filling}\n", self.attempt), rng.percent(20))
    }

    /// All that goes to one stream, when all is written.
    pub fn stream(&self, stderr: bool) -> String {
        (0..self.lines).map(|n| self.line(n)).filter(|(_, to)| *to == stderr).map(|(line, _)| line).collect()
    }
}
