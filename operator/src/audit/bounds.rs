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

    /// What all parties of this kind may use of so many bytes that are kept. All kinds together: a quarter at once, and an eighth a day.
    fn terms(self, kept: u64) -> Terms {
        match self {
            Self::Reader => Terms { at_once: kept / 8, per_day: kept / 16 },
            _ => Terms { at_once: kept / 32, per_day: kept / 64 },
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
        let each = Terms { at_once: terms.at_once / 4, per_day: terms.per_day / 4 };
        let others = Party { allowance: Allowance::full(each, Duration::ZERO), omitted: 0 };
        Self { all: Allowance::full(terms, Duration::ZERO), each, known: HashMap::new(), others }
    }

    fn take(&mut self, name: &str, bytes: u64, now: Duration) -> bool {
        let has_room = self.all.has(bytes, now);
        let party = self.party(name, now, has_room);
        let is_taken = has_room && party.allowance.take(bytes, now);
        if is_taken {
            return self.all.take(bytes, now);
        }
        party.omitted += 1;
        false
    }

    /// The party of this name. One that is not known takes no place while there is no room for its records.
    fn party(&mut self, name: &str, now: Duration, has_room: bool) -> &mut Party {
        if !self.known.contains_key(name) {
            if !has_room {
                return &mut self.others;
            }
            if self.known.len() >= MAX_PARTIES {
                self.known.retain(|_, party| party.omitted > 0 || !party.allowance.is_full(now));
            }
            if self.known.len() >= MAX_PARTIES {
                return &mut self.others;
            }
        }
        let full = || Party { allowance: Allowance::full(self.each, now), omitted: 0 };
        self.known.entry(name.to_owned()).or_insert_with(full)
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

    /// Whether a record of this party is made, of so many bytes, at this time of a monotonic clock; otherwise it is counted.
    pub(super) fn take(&mut self, (kind, name): (Kind, &str), bytes: u64, now: Duration) -> bool {
        let is_taken = self.kinds[kind as usize].take(name, bytes, now);
        self.omitted += u64::from(!is_taken);
        is_taken
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
    use super::*;

    /// Of these, a party has 256 KiB and a kind 1 MiB, but readers four times that.
    const KEPT: u64 = 32 << 20;
    const START: Duration = Duration::from_secs(7);
    const DAY: Duration = Duration::from_hours(24);

    fn taken(bounds: &mut Bounds, party: (Kind, &str), times: usize, now: Duration) -> usize {
        (0..times).filter(|_| bounds.take(party, 1024, now)).count()
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
        assert_eq!(taken(&mut bounds, team, 200, START + DAY), 128);
        assert_eq!(omitted(&mut bounds, START + DAY, true), of_team(72));
    }

    #[test]
    fn callers_that_are_not_known_use_up_nothing_of_people_however_many_addresses_they_have() {
        let mut bounds = Bounds::new(KEPT);
        let all: usize =
            (0..5_000).map(|n| taken(&mut bounds, (Kind::Address, &n.to_string()), 1, START)).sum();
        assert_eq!(all, 1024, "what all of them have together");
        for kind in [Kind::Namespace, Kind::User, Kind::Approver] {
            assert_eq!(taken(&mut bounds, (kind, "one"), 300, START), 256, "{kind}");
        }
        assert_eq!(taken(&mut bounds, (Kind::Reader, "one"), 2_000, START), 1024);
        let (left_out, by) = omitted(&mut bounds, START, true);
        assert_eq!(left_out, 3_976 + 3 * 44 + 976);
        assert_eq!(by[0], ("others of kind address".to_owned(), 3_976));
        assert_eq!(by[1], ("reader one".to_owned(), 976));
        assert_eq!(by.len(), 5);
    }

    /// With their own records, a thousand parties that are left out would fill what is kept.
    #[test]
    fn whatever_is_asked_the_records_of_a_week_leave_a_place_for_others() {
        let mut bounds = Bounds::new(KEPT);
        let (mut bytes, mut now) = (0_u64, START);
        while now < START + 4 * DAY {
            for kind in Kind::ALL {
                for n in 0..40 {
                    let name = format!("{}-{n}", now.as_secs() % 2_000);
                    bytes += taken(&mut bounds, (kind, &name), 2, now) as u64 * 1024;
                }
            }
            if let Some(record) = bounds.due(now, false) {
                bounds.note(now);
                bytes += serde_json::to_vec(&record).unwrap().len() as u64;
            }
            now += Duration::from_mins(1);
        }
        assert!(bounds.kinds.iter().all(|parties| parties.known.len() <= MAX_PARTIES));
        assert!(bytes < KEPT * 7 / 8, "{bytes} of {KEPT}");
        assert!(bytes > KEPT / 2, "{bytes}: nothing was exhausted");
    }
}
