//! What a run is asked for.

use std::path::PathBuf;

use super::quiet::Patience;
use crate::cluster::repository;

/// Where figures are kept that other runs are compared with, unless another file is named.
const BASELINE: &str = "docs/benchmarks.json";

/// The arguments of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) patience: Patience,
    /// How long `soak` takes.
    pub(super) minutes: Option<u64>,
    /// Where the figures are written.
    pub(super) record: Option<PathBuf>,
    /// The figures that the run is compared with.
    pub(super) check: Option<PathBuf>,
    /// The sections; without one, all.
    pub(super) sections: Vec<String>,
}

impl Arguments {
    /// Parses them.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut parsed =
            Self { patience: Patience::None, minutes: None, record: None, check: None, sections: Vec::new() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (&*argument, None),
            };
            let file = || value.clone().map_or_else(|| repository().join(BASELINE), PathBuf::from);
            match flag {
                "--patient" => parsed.patience = Patience::Some,
                "--record" => parsed.record = Some(file()),
                "--check" => parsed.check = Some(file()),
                "--minutes" => {
                    let text = value.or_else(|| arguments.next()).unwrap_or_default();
                    let minutes = text.parse().ok().filter(|minutes| *minutes > 0);
                    parsed.minutes =
                        Some(minutes.ok_or(format!("--minutes is a whole number, and not {text:?}"))?);
                }
                _ if flag.starts_with('-') => return Err(format!("no flag {flag:?}")),
                _ => parsed.sections.push(argument),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_and_sections_come_in_any_order() {
        let parsed =
            parse("soak --minutes 60 --check peers --record=here.json --patient").expect("arguments");
        assert_eq!(parsed.sections, ["soak", "peers"]);
        assert_eq!((parsed.minutes, parsed.patience), (Some(60), Patience::Some));
        assert_eq!(parsed.check, Some(repository().join(BASELINE)));
        assert_eq!(parsed.record, Some(PathBuf::from("here.json")));
        assert_eq!(parse("--minutes=2").expect("arguments").minutes, Some(2));
    }

    #[test]
    fn what_it_does_not_know_is_named() {
        assert_eq!(parse("--fast"), Err("no flag \"--fast\"".to_owned()));
        assert!(parse("--minutes soak").is_err_and(|error| error.contains("\"soak\"")));
        assert!(parse("--minutes").is_err());
    }
}
