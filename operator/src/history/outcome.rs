//! Outcomes by name, for queries and counts.

use std::fmt;
use std::str::FromStr;

use sentinel_protocol::outcome::Outcome;
use serde::{Deserialize, Serialize};

macro_rules! outcome_names {
    ($($name:ident),+ $(,)?) => {
        /// The name of an [`Outcome`], without its details.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum OutcomeName {
            $(#[doc = concat!("See [`Outcome::", stringify!($name), "`].")] $name,)+
        }

        impl OutcomeName {
            /// Every name with its text.
            pub const NAMES: &'static [(&'static str, Self)] = &[$((stringify!($name), Self::$name)),+];

            /// The same text as [`Outcome::name`].
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }

        impl From<&Outcome> for OutcomeName {
            fn from(outcome: &Outcome) -> Self {
                match outcome {
                    $(Outcome::$name { .. } => Self::$name,)+
                }
            }
        }
    };
}

outcome_names! {
    Succeeded,
    Failed,
    Signaled,
    StartFailed,
    StartTimedOut,
    TimedOut,
    IdleTimedOut,
    OomKilled,
    Cancelled,
    CancelFailed,
    Refused,
    Skipped,
    Interrupted,
    Lost,
    NotStarted,
}

impl fmt::Display for OutcomeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that does not name an Outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an Outcome")]
pub struct UnknownOutcome;

impl FromStr for OutcomeName {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, name)| *name).ok_or(UnknownOutcome)
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::outcome::LostReason;

    use super::*;

    #[test]
    fn names_agree_with_the_protocol() {
        let outcomes = [
            Outcome::Succeeded { exit_code: 0 },
            Outcome::StartTimedOut { why: None },
            Outcome::OomKilled { peak: None },
            Outcome::CancelFailed { pids: vec![] },
            Outcome::Lost { reason: LostReason::StateLost },
            Outcome::NotStarted,
        ];
        for outcome in outcomes {
            let name = OutcomeName::from(&outcome);
            assert_eq!(name.as_str(), outcome.name());
            assert_eq!(outcome.name().parse(), Ok(name));
            assert_eq!(serde_json::to_value(name).unwrap(), outcome.name());
        }
        assert_eq!("succeeded".parse::<OutcomeName>(), Err(UnknownOutcome));
    }
}
