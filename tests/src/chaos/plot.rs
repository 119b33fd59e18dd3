//! What a witness does and writes, known from the id of its Attempt alone: the witness acts it, the check expects it.

use super::dice::Dice;

/// What a witness does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    attempt: String,
    seed: u64,
    /// Lines of output.
    pub lines: u64,
    /// How long it takes over all of them, milliseconds.
    pub millis: u64,
    /// The code it exits with.
    pub exit_code: u8,
    /// Whether it shrugs off TERM.
    pub ignores_term: bool,
}

impl Plot {
    /// What the witness of an Attempt does, in at most so many milliseconds.
    pub fn of(attempt: &str, most_millis: u64) -> Self {
        let mut dice = Dice::of(attempt);
        Self {
            attempt: attempt.to_owned(),
            seed: dice.roll(),
            lines: dice.below(400),
            millis: dice.below(most_millis.max(1)),
            exit_code: if dice.percent(25) { 1 + dice.below(100) as u8 } else { 0 },
            ignores_term: dice.percent(20),
        }
    }

    /// Line `number` of the output, and whether it goes to standard error.
    pub fn line(&self, number: u64) -> (String, bool) {
        let mut dice = Dice::new(self.seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let filling = "x".repeat(dice.below(200) as usize);
        (format!("{number:06} {} {filling}\n", self.attempt), dice.percent(20))
    }

    /// All that goes to one stream, when all is written.
    pub fn stream(&self, stderr: bool) -> String {
        (0..self.lines).map(|n| self.line(n)).filter(|(_, to)| *to == stderr).map(|(line, _)| line).collect()
    }
}
