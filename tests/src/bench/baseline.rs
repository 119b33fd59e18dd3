//! The figures of an earlier run that another one can be compared with, in a file; and what has become worse.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::table::{Better, Portable};

/// A figure that is worse by more than this part of the earlier one is named.
const TOLERANCE: f64 = 0.1;

/// A figure that became worse.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Worse {
    what: String,
    before: f64,
    now: f64,
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.3}, and it was {:.3}", self.what, self.now, self.before)
    }
}

/// Figures by what they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Baseline(BTreeMap<String, f64>);

impl Baseline {
    /// What the file has.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        serde_json::from_str(&text).map(Self).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Why it cannot be written, for people.
    pub(super) fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(&self.0).expect("numbers are JSON");
        std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Takes the figures of a run; those of sections that were not part of it stay.
    pub(super) fn record(&mut self, run: &[Portable]) {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        self.0.extend(run.iter().map(|figure| (figure.what.clone(), rounded(figure.value))));
    }

    /// Figures of a run that the file has too.
    pub(super) fn known<'a>(&self, run: &'a [Portable]) -> Vec<(&'a Portable, f64)> {
        run.iter().filter_map(|figure| Some((figure, *self.0.get(&figure.what)?))).collect()
    }

    /// Which of them are worse than in the file.
    pub(super) fn worse(&self, run: &[Portable]) -> Vec<Worse> {
        let is_worse = |figure: &Portable, before: f64| match figure.better {
            Better::Lower => figure.value > before * (1.0 + TOLERANCE),
            Better::Higher => figure.value < before * (1.0 - TOLERANCE),
        };
        let worse = self.known(run).into_iter().filter(|(figure, before)| is_worse(figure, *before));
        worse
            .map(|(Portable { what, value, .. }, before)| Worse { what: what.clone(), before, now: *value })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(what: &str, value: f64, better: Better) -> Portable {
        Portable { what: what.to_owned(), value, better }
    }

    fn recorded() -> Baseline {
        let mut baseline = Baseline::default();
        baseline.record(&[figure("time", 2.0, Better::Lower), figure("speed", 0.5, Better::Higher)]);
        baseline
    }

    #[test]
    fn what_is_worse_by_more_than_a_tenth_is_named() {
        let run = [figure("time", 2.21, Better::Lower), figure("speed", 0.44, Better::Higher)];
        let worse = recorded().worse(&run);
        let texts: Vec<String> = worse.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["time: 2.210, and it was 2.000", "speed: 0.440, and it was 0.500"]);
    }

    #[test]
    fn what_is_better_or_worse_by_a_tenth_is_not_named() {
        let worse = |time, speed| {
            recorded().worse(&[figure("time", time, Better::Lower), figure("speed", speed, Better::Higher)])
        };
        assert_eq!(worse(2.19, 0.46), []);
        assert_eq!(worse(0.1, 9.0), []);
    }

    #[test]
    fn a_figure_that_the_file_does_not_have_is_compared_with_nothing() {
        let run = [figure("new", 9.0, Better::Lower)];
        assert_eq!((recorded().known(&run).len(), recorded().worse(&run)), (0, vec![]));
    }

    #[test]
    fn a_run_of_some_sections_leaves_the_figures_of_the_others() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("ratios.json");
        recorded().write(&file).expect("written");
        let mut baseline = Baseline::read(&file).expect("read");
        baseline.record(&[figure("time", 1.2345, Better::Lower)]);
        baseline.write(&file).expect("written");
        let text = std::fs::read_to_string(&file).expect("the file");
        assert_eq!(text, "{\n  \"speed\": 0.5,\n  \"time\": 1.235\n}\n");
        assert!(Baseline::read(&directory.path().join("none")).is_err_and(|error| error.contains("none")));
    }
}
