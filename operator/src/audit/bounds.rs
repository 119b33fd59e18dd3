//! How many records a namespace or a caller may cause by what leads to nothing, and by reading. The rest is counted, and recorded as
//! left out: retention would remove older records for them.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use sentinel_audit::Record;
use sentinel_audit::allowance::{Allowance, Terms};

/// Refusals that a party may cause: 10,000 Tasks of a namespace can be held at once.
const REFUSALS: Terms = Terms { at_once: 10_000, per_hour: 600 };

/// Reads of output by a person.
const READS: Terms = Terms { at_once: 10_000, per_hour: 3_600 };

/// Refusals of all callers together that are known by their address only: an attacker can have many.
const ADDRESSES: Terms = Terms { at_once: 10_000, per_hour: 3_600 };

/// Parties that are remembered. Beyond, those that have used nothing lately are forgotten, and further ones count as one.
const MAX_CAUSES: usize = 1024;

/// What was left out is recorded at most this often for each party.
const EVERY: Duration = Duration::from_mins(1);

/// Who causes records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// Who may write the Tasks of this namespace.
    Namespace(String),
    /// A person whose requests are refused.
    User(String),
    /// A person who reads.
    Reader(String),
    /// A caller that is not known, by its address.
    Address(String),
    /// Those that are too many to remember.
    Others,
}

impl Cause {
    fn terms(&self) -> Terms {
        match self {
            Self::Reader(_) => READS,
            _ => REFUSALS,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Reader(name) => write!(f, "reader {name}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Others => f.write_str("others"),
        }
    }
}

/// What one party has caused.
#[derive(Debug)]
struct Caused {
    allowance: Allowance,
    /// Records that were left out, and are not recorded as such yet.
    omitted: u64,
    recorded_at: Option<Duration>,
}

/// What all have caused.
#[derive(Debug)]
pub(super) struct Bounds {
    causes: HashMap<Cause, Caused>,
    addresses: Allowance,
    /// Whether a party may have records that were left out.
    has_omitted: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            causes: HashMap::new(),
            addresses: Allowance::full(ADDRESSES, Duration::ZERO),
            has_omitted: false,
        }
    }
}

impl Bounds {
    /// Whether a record of this party is made at this time of a monotonic clock; otherwise it is counted.
    pub(super) fn take(&mut self, cause: Cause, now: Duration) -> bool {
        let cause = self.remembered(cause, now);
        let is_unknown = matches!(cause, Cause::Address(_) | Cause::Others);
        let terms = cause.terms();
        let caused = self.causes.entry(cause).or_insert_with(|| Caused {
            allowance: Allowance::full(terms, now),
            omitted: 0,
            recorded_at: None,
        });
        let is_allowed =
            caused.allowance.take(terms, now, 1) && (!is_unknown || self.addresses.take(ADDRESSES, now, 1));
        if !is_allowed {
            caused.omitted += 1;
            self.has_omitted = true;
        }
        is_allowed
    }

    fn remembered(&mut self, cause: Cause, now: Duration) -> Cause {
        if self.causes.contains_key(&cause) || self.causes.len() < MAX_CAUSES {
            return cause;
        }
        self.causes
            .retain(|cause, caused| caused.omitted > 0 || !caused.allowance.is_full(cause.terms(), now));
        if self.causes.len() < MAX_CAUSES { cause } else { Cause::Others }
    }

    /// The records of what was left out that are due at this time; at the end, of everything.
    pub(super) fn due(&mut self, now: Duration, is_end: bool) -> Vec<Record> {
        if !self.has_omitted {
            return Vec::new();
        }
        let mut records = Vec::new();
        self.has_omitted = false;
        for (cause, caused) in self.causes.iter_mut().filter(|(_, caused)| caused.omitted > 0) {
            if !is_end && caused.recorded_at.is_some_and(|at| now.saturating_sub(at) < EVERY) {
                self.has_omitted = true;
                continue;
            }
            caused.recorded_at = Some(now);
            let omitted = std::mem::take(&mut caused.omitted);
            records.push(Record::Omitted { cause: cause.to_string().into(), omitted });
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bounds: &mut Bounds, cause: &Cause, times: usize, now: Duration) -> usize {
        (0..times).filter(|_| bounds.take(cause.clone(), now)).count()
    }

    fn omitted(records: Vec<Record>) -> Vec<(String, u64)> {
        let mut omitted: Vec<_> = records
            .into_iter()
            .map(|record| match record {
                Record::Omitted { cause, omitted } => (cause.to_string(), omitted),
                record => panic!("{record:?}"),
            })
            .collect();
        omitted.sort_unstable();
        omitted
    }

    #[test]
    fn what_exceeds_the_allowance_of_a_party_is_counted_and_recorded_once_a_minute() {
        let mut bounds = Bounds::default();
        let (team, alice) = (Cause::Namespace("team-a".into()), Cause::Reader("alice".into()));
        let start = Duration::from_secs(7);
        assert_eq!(taken(&mut bounds, &team, 10_020, start), 10_000);
        assert_eq!(taken(&mut bounds, &alice, 20, start), 20, "another party has its own");
        assert_eq!(omitted(bounds.due(start, false)), [("namespace team-a".to_owned(), 20)]);
        assert_eq!(taken(&mut bounds, &team, 20, start), 0);
        assert_eq!(bounds.due(start + EVERY / 2, false), [], "not within the minute");
        assert_eq!(omitted(bounds.due(start + EVERY, false)), [("namespace team-a".to_owned(), 20)]);
        assert_eq!(bounds.due(start + 2 * EVERY, true), []);
        assert_eq!(taken(&mut bounds, &team, 2_000, start + Duration::from_hours(1)), 600);
        assert_eq!(taken(&mut bounds, &team, 1, start + Duration::from_hours(1)), 0);
        assert_eq!(
            omitted(bounds.due(start + Duration::from_hours(1), true)),
            [("namespace team-a".to_owned(), 1_401)]
        );
    }

    #[test]
    fn callers_that_are_not_known_have_one_allowance_however_many_addresses_they_have() {
        let mut bounds = Bounds::default();
        let now = Duration::ZERO;
        let of = |n: usize| Cause::Address(format!("192.0.2.{n}"));
        let all: usize = (0..3_000).map(|n| taken(&mut bounds, &of(n), 4, now)).sum();
        assert_eq!((all, bounds.causes.len()), (10_000, MAX_CAUSES + 1));
        assert!(
            bounds.take(Cause::Namespace("team-a".into()), Duration::from_hours(20)),
            "those of addresses are forgotten"
        );
        let records = omitted(bounds.due(now, true));
        assert_eq!(records.iter().map(|(_, omitted)| omitted).sum::<u64>(), 2_000, "{records:?}");
    }
}
