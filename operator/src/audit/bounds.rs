//! Which minor records are made: each party has an [`Allowance`], and so have all of one kind together. The kinds do not take from each
//! other: callers that are not known, of whom one attacker can be many, use up nothing of people or namespaces.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use sentinel_audit::Record;
use sentinel_audit::allowance::{Allowance, Terms};
use sentinel_audit::record::Omission;

/// Parties of each kind that are remembered. Beyond, those that have used nothing lately are forgotten, and further ones are one party.
const MAX_PARTIES: usize = 1024;

/// One party has this part of what all of its kind have.
const SHARE: u64 = 8;

/// What was left out is recorded at most this often.
const EVERY: Duration = Duration::from_mins(10);

/// Parties that one record of what was left out names: those of whom most was.
const NAMED: usize = 8;

/// Who causes minor records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who may write the Tasks of a namespace.
    Namespace,
    /// A person who is refused.
    User,
    /// A person who approves, again and again perhaps.
    Approver,
    /// A person who reads output.
    Reader,
    /// A caller that is not known.
    Address,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Namespace, Self::User, Self::Approver, Self::Reader, Self::Address];

    /// What all parties of this kind may use of so many bytes that are kept. All kinds together: a quarter at once, and a sixteenth a day.
    fn terms(self, kept: u64) -> Terms {
        match self {
            Self::Reader => Terms { at_once: kept / 8, per_day: kept / 32 },
            _ => Terms { at_once: kept / 32, per_day: kept / 128 },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "namespace",
            Self::User => "user",
            Self::Approver => "approver",
            Self::Reader => "reader",
            Self::Address => "address",
        })
    }
}

/// One party of a kind.
#[derive(Debug)]
struct Party {
    allowance: Allowance,
    /// Records that were left out, and are not recorded as such yet.
    omitted: u64,
}

/// All parties of a kind.
#[derive(Debug)]
struct Parties {
    all: Allowance,
    /// What one of them may use.
    each: Terms,
    /// By name.
    known: HashMap<String, Party>,
    others: Party,
}

impl Parties {
    fn new(terms: Terms) -> Self {
        let each = Terms { at_once: terms.at_once / SHARE, per_day: terms.per_day / SHARE };
        let others = Party { allowance: Allowance::full(each, Duration::ZERO), omitted: 0 };
        Self { all: Allowance::full(terms, Duration::ZERO), each, known: HashMap::new(), others }
    }

    /// The first of these sizes for which there is room, which is used then; otherwise it is counted.
    fn take(&mut self, name: &str, sizes: &[u64], now: Duration) -> Option<usize> {
        let has_room = sizes.iter().any(|bytes| self.all.has(*bytes, now));
        let is_known = self.is_known(name, now, has_room);
        let Self { all, each, known, others } = self;
        let full = || Party { allowance: Allowance::full(*each, now), omitted: 0 };
        let party = if is_known { known.entry(name.to_owned()).or_insert_with(full) } else { others };
        let taken = sizes.iter().position(|bytes| all.has(*bytes, now) && party.allowance.take(*bytes, now));
        match taken {
            Some(size) => drop(all.take(sizes[size], now)),
            None => party.omitted += 1,
        }
        taken
    }

    /// Whether this party is remembered. A new one takes no place while there is no room for its records.
    fn is_known(&mut self, name: &str, now: Duration, has_room: bool) -> bool {
        if self.known.contains_key(name) || !has_room {
            return self.known.contains_key(name);
        }
        if self.known.len() >= MAX_PARTIES {
            self.known.retain(|_, party| party.omitted > 0 || !party.allowance.is_full(now));
        }
        self.known.len() < MAX_PARTIES
    }
}

/// What all have caused.
#[derive(Debug)]
pub(super) struct Bounds {
    kinds: [Parties; Kind::ALL.len()],
    /// Records that were left out, and are not recorded as such yet.
    omitted: u64,
    recorded_at: Option<Duration>,
}

impl Bounds {
    /// With so many bytes that are kept.
    pub(super) fn new(kept: u64) -> Self {
        let kinds = Kind::ALL.map(|kind| Parties::new(kind.terms(kept)));
        Self { kinds, omitted: 0, recorded_at: None }
    }

    /// The first of these sizes in which a record of this party can be made, at this time of a monotonic clock; otherwise it is counted.
    pub(super) fn take(&mut self, (kind, name): (Kind, &str), sizes: &[u64], now: Duration) -> Option<usize> {
        let taken = self.kinds[kind as usize].take(name, sizes, now);
        self.omitted += u64::from(taken.is_none());
        taken
    }

    /// The record of what was left out, if it is due at this time. It is due until it is [noted](Self::note).
    pub(super) fn due(&self, now: Duration, is_end: bool) -> Option<Record> {
        let is_due = is_end || self.recorded_at.is_none_or(|at| now.saturating_sub(at) >= EVERY);
        if self.omitted == 0 || !is_due {
            return None;
        }
        let mut by: Vec<Omission> = Vec::new();
        for (kind, parties) in Kind::ALL.iter().zip(&self.kinds) {
            let known = parties.known.iter().map(|(name, party)| (format!("{kind} {name}"), party));
            let others = (format!("others of kind {kind}"), &parties.others);
            let omitted = known.chain([others]).filter(|(_, party)| party.omitted > 0);
            by.extend(omitted.map(|(cause, party)| Omission { cause: cause.into(), omitted: party.omitted }));
        }
        by.sort_unstable_by(|a, b| (b.omitted, a.cause.as_str()).cmp(&(a.omitted, b.cause.as_str())));
        by.truncate(NAMED);
        Some(Record::Omitted { omitted: self.omitted, by })
    }

    /// What was left out is recorded.
    pub(super) fn note(&mut self, now: Duration) {
        self.recorded_at = Some(now);
        self.omitted = 0;
        for parties in &mut self.kinds {
            parties.others.omitted = 0;
            parties.known.values_mut().for_each(|party| party.omitted = 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use sentinel_audit::line::greatest_length;

    use super::*;

    /// Of these, a party has 256 KiB and a kind 2 MiB, but readers four times that.
    const KEPT: u64 = 64 << 20;
    const START: Duration = Duration::from_secs(7);
    const DAY: Duration = Duration::from_hours(24);

    fn taken(bounds: &mut Bounds, party: (Kind, &str), times: usize, now: Duration) -> usize {
        (0..times).filter(|_| bounds.take(party, &[1024], now).is_some()).count()
    }

    /// What is recorded now as left out.
    fn omitted(bounds: &mut Bounds, now: Duration, is_end: bool) -> (u64, Vec<(String, u64)>) {
        match bounds.due(now, is_end) {
            Some(Record::Omitted { omitted, by }) => {
                bounds.note(now);
                (omitted, by.into_iter().map(|one| (one.cause.to_string(), one.omitted)).collect())
            }
            None => (0, Vec::new()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_exceeds_the_allowance_of_a_party_is_counted_and_recorded_from_time_to_time() {
        let mut bounds = Bounds::new(KEPT);
        let team = (Kind::Namespace, "team-a");
        let of_team = |omitted| (omitted, vec![("namespace team-a".to_owned(), omitted)]);
        assert_eq!(taken(&mut bounds, team, 276, START), 256);
        assert_eq!(taken(&mut bounds, (Kind::Namespace, "team-b"), 20, START), 20, "another has its own");
        assert_eq!(omitted(&mut bounds, START, false), of_team(20));
        assert_eq!(taken(&mut bounds, team, 20, START), 0);
        assert_eq!(bounds.due(START + EVERY / 2, false), None);
        assert_eq!(bounds.due(START + EVERY, false), bounds.due(START + EVERY, false), "until it is noted");
        assert_eq!(omitted(&mut bounds, START + EVERY, false), of_team(20));
        assert_eq!(omitted(&mut bounds, START + 2 * EVERY, true), (0, vec![]));
        assert_eq!(taken(&mut bounds, team, 200, START + DAY), 64);
        assert_eq!(omitted(&mut bounds, START + DAY, true), of_team(136));
    }

    #[test]
    fn a_record_for_which_there_is_no_room_is_made_in_a_shorter_form() {
        let mut bounds = Bounds::new(KEPT);
        let team = (Kind::Namespace, "team-a");
        assert_eq!(bounds.take(team, &[200 << 10, 1024], START), Some(0));
        assert_eq!(bounds.take(team, &[200 << 10, 1024], START), Some(1));
        assert_eq!(taken(&mut bounds, team, 100, START), 55);
        assert_eq!(omitted(&mut bounds, START, true).0, 45, "counted once each");
    }

    #[test]
    fn callers_that_are_not_known_use_up_nothing_of_people_however_many_addresses_they_have() {
        let mut bounds = Bounds::new(KEPT);
        let address = |n: usize| format!("192.0.2.{n}");
        let all: usize = (0..5_000).map(|n| taken(&mut bounds, (Kind::Address, &address(n)), 1, START)).sum();
        assert_eq!(all, MAX_PARTIES + 256, "what 1,024 of them have, and all others as one");
        let more: usize =
            (0..1_024).map(|n| taken(&mut bounds, (Kind::Address, &address(n)), 1, START)).sum();
        assert_eq!(all + more, 2_048, "what all of them have together");
        for kind in [Kind::Namespace, Kind::User, Kind::Approver] {
            assert_eq!(taken(&mut bounds, (kind, "one"), 300, START), 256, "{kind}");
        }
        assert_eq!(taken(&mut bounds, (Kind::Reader, "one"), 2_000, START), 1024);
        let (left_out, by) = omitted(&mut bounds, START, true);
        assert_eq!(left_out, 6_024 - 2_048 + 3 * 44 + 976);
        assert_eq!(by[0], ("others of kind address".to_owned(), 5_000 - 1_024 - 256));
        assert_eq!((&by[1], by.len()), (&("reader one".to_owned(), 976), NAMED));
    }

    /// `docs/audit.md` states this time.
    #[test]
    fn whatever_is_asked_a_week_of_minor_records_leaves_what_was_recorded_before() {
        let mut bounds = Bounds::new(KEPT);
        let (mut bytes, mut now) = (0_u64, START);
        while now < START + 7 * DAY {
            for kind in Kind::ALL {
                for n in 0..40 {
                    let name = format!("{}-{n}", now.as_secs() % 2_000);
                    bytes += taken(&mut bounds, (kind, &name), 5, now) as u64 * 1024;
                }
            }
            if let Some(record) = bounds.due(now, false) {
                bounds.note(now);
                bytes += greatest_length(&record);
            }
            now += Duration::from_mins(5);
        }
        assert!(bounds.kinds.iter().all(|parties| parties.known.len() <= MAX_PARTIES));
        // Of eight files, six are whole and kept, whatever the two others have.
        assert!(bytes < KEPT * 6 / 8, "{bytes} of {KEPT}");
        assert!(bytes > KEPT * 5 / 8, "{bytes}: nothing was exhausted");
    }
}
