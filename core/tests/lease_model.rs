//! The election under every order of reads and swaps, slow ones and lost answers included: never two leaders at a
//! time, never an epoch twice, and one leader when the faults stop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use proptest::prelude::*;
use sentinel_core::lease::{Candidate, LeaseAction, LeaseRecord, MAX_JUMP, Role, Timing};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::Epoch;

const TIMING: Timing = Timing::DEFAULT;

/// The record with its version, as the API server holds it.
#[derive(Default)]
struct Store {
    record: Option<LeaseRecord>,
    version: u64,
}

struct Process {
    candidate: Candidate,
    /// The version it read last: what its next swap is compared with.
    version: u64,
    /// A swap on its way: it arrives at that moment, and its answer may be lost.
    flight: Option<(Monotonic, u64, LeaseRecord, bool)>,
    acts_at: Monotonic,
    /// The offset of its clock.
    skew: u64,
}

#[derive(Debug, Clone)]
enum Fault {
    /// The next swap of this process takes so long.
    Slow(usize, u64),
    /// Its answer is lost.
    Mute(usize),
    /// The process is frozen for so long.
    Freeze(usize, u64),
    /// The process is killed and another takes its place.
    Kill(usize),
    Nothing,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0..3usize, 0..5_000u64).prop_map(|(p, d)| Fault::Slow(p, d)),
        (0..3usize).prop_map(Fault::Mute),
        (0..3usize, 0..10_000u64).prop_map(|(p, d)| Fault::Freeze(p, d)),
        (0..3usize).prop_map(Fault::Kill),
        Just(Fault::Nothing),
        Just(Fault::Nothing),
    ]
}

struct Election {
    store: Store,
    processes: Vec<Process>,
    now: Monotonic,
    born: u64,
    epochs: Vec<(Epoch, String)>,
}

impl Election {
    fn new() -> Self {
        let mut election =
            Self { store: Store::default(), processes: vec![], now: Monotonic(0), born: 0, epochs: vec![] };
        for _ in 0..3 {
            let process = election.born();
            election.processes.push(process);
        }
        election
    }

    fn born(&mut self) -> Process {
        self.born += 1;
        let name = format!("operator-{}", self.born);
        Process {
            candidate: Candidate::new(name, None, TIMING),
            version: 0,
            flight: None,
            acts_at: self.now,
            skew: self.born * 1_000_003,
        }
    }

    fn step(&mut self, fault: &Fault) {
        match *fault {
            Fault::Freeze(p, millis) => self.processes[p].acts_at = self.now.plus(millis),
            Fault::Kill(p) => self.processes[p] = self.born(),
            _ => {}
        }
        for p in 0..self.processes.len() {
            self.arrive(p);
            if self.now >= self.processes[p].acts_at {
                let delay = if let Fault::Slow(q, millis) = *fault
                    && p == q
                {
                    millis
                } else {
                    0
                };
                let mute = matches!(*fault, Fault::Mute(q) if p == q);
                self.act(p, delay, mute);
            }
        }
        self.check();
        self.now = self.now.plus(50);
    }

    fn local(&self, p: usize) -> Monotonic {
        self.now.plus(self.processes[p].skew)
    }

    /// A swap that is on its way reaches the store.
    fn arrive(&mut self, p: usize) {
        let Some((at, version, record, mute)) = self.processes[p].flight.clone() else { return };
        if self.now < at {
            return;
        }
        self.processes[p].flight = None;
        let local = self.local(p);
        let fits = version == self.store.version;
        if fits {
            self.store.record = Some(record.clone());
            self.store.version += 1;
        }
        let process = &mut self.processes[p];
        if fits && !mute {
            process.version = self.store.version;
            process.candidate.swapped(self.store.version, local);
        } else {
            process.candidate.swap_failed(local);
        }
    }

    fn act(&mut self, p: usize, delay: u64, mute: bool) {
        if self.processes[p].flight.is_some() {
            return;
        }
        let local = self.local(p);
        let process = &mut self.processes[p];
        process.version = self.store.version;
        let read = self.store.record.clone().map(|record| (record, self.store.version));
        process.candidate.read(read, local);
        match process.candidate.next(local) {
            LeaseAction::Read { .. } => {}
            LeaseAction::Swap(record) => {
                process.flight = Some((self.now.plus(delay), process.version, record, mute));
            }
            LeaseAction::Exit => self.processes[p] = self.born(),
        }
    }

    fn leaders(&self) -> Vec<(usize, Epoch)> {
        let role = |p: usize| match self.processes[p].candidate.role(self.local(p)) {
            Role::Leading(epoch) => Some((p, epoch)),
            _ => None,
        };
        (0..self.processes.len()).filter_map(role).collect()
    }

    fn check(&mut self) {
        let leaders = self.leaders();
        assert!(leaders.len() <= 1, "two leaders at {:?}: {leaders:?}", self.now);
        for (p, epoch) in leaders {
            let name = format!("{:?}", self.processes[p].skew);
            let known = self.epochs.iter().find(|(e, _)| *e == epoch);
            assert!(known.is_none_or(|(_, n)| *n == name), "epoch {epoch} was led twice");
            if known.is_none() {
                assert!(self.epochs.iter().all(|(e, _)| *e < epoch), "epoch {epoch} is not above all before");
                self.epochs.push((epoch, name));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn there_is_never_more_than_one_leader_and_when_faults_stop_there_is_one(
        faults in prop::collection::vec(fault(), 0..400)
    ) {
        let mut election = Election::new();
        for fault in &faults {
            election.step(fault);
        }
        // The longest freeze and the longest swap, then one lease and two polls.
        for _ in 0..(15_000 + TIMING.duration_ms * 2) / 50 {
            election.step(&Fault::Nothing);
        }
        prop_assert_eq!(election.leaders().len(), 1);
    }
}

#[test]
fn released_lease_is_taken_at_the_next_poll() {
    let mut first = Candidate::new("a".into(), None, TIMING);
    first.read(None, Monotonic(0));
    let LeaseAction::Swap(record) = first.next(Monotonic(0)) else { panic!("no swap") };
    first.swapped(0, Monotonic(1));
    assert_eq!(first.role(Monotonic(1)), Role::Leading(Epoch::from(1)));
    let mut second = Candidate::new("b".into(), None, TIMING);
    second.read(Some((record, 0)), Monotonic(10));
    assert_eq!(second.next(Monotonic(10)), LeaseAction::Read { after_ms: TIMING.poll_ms });
    let given_back = first.resign(Monotonic(20)).unwrap();
    second.read(Some((given_back, 0)), Monotonic(30));
    assert!(
        matches!(second.next(Monotonic(30)), LeaseAction::Swap(record) if record.epoch == Epoch::from(2))
    );
}

#[test]
fn leader_that_cannot_renew_is_deposed_before_a_takeover() {
    let mut leader = Candidate::new("a".into(), None, TIMING);
    leader.read(None, Monotonic(0));
    leader.next(Monotonic(0));
    leader.swapped(0, Monotonic(700));
    assert_eq!(
        leader.role(Monotonic(1_999)),
        Role::Leading(Epoch::from(1)),
        "the renewal counts from when it was begun"
    );
    assert_eq!(leader.role(Monotonic(2_000)), Role::Deposed);
    assert_eq!(leader.next(Monotonic(2_000)), LeaseAction::Exit);
}

#[test]
fn leader_raises_its_epoch_above_an_observed_one() {
    let mut leader = Candidate::new("a".into(), None, TIMING);
    leader.read(None, Monotonic(0));
    leader.next(Monotonic(0));
    leader.swapped(0, Monotonic(0));
    leader.observe_epoch(Epoch::from(41));
    let LeaseAction::Swap(record) = leader.next(Monotonic(10)) else { panic!("no swap") };
    leader.swapped(0, Monotonic(11));
    assert_eq!((record.epoch, leader.role(Monotonic(11))), (Epoch::from(42), Role::Leading(Epoch::from(42))));
}

/// One agent that named the highest epoch there is made the next one wrap around, and the whole fleet refuse its leader.
#[test]
fn implausible_epoch_is_ignored() {
    let mut leader = Candidate::new("a".into(), None, TIMING);
    leader.read(None, Monotonic(0));
    leader.next(Monotonic(0));
    leader.swapped(0, Monotonic(0));
    for named in [Epoch::MAX, Epoch::new(Epoch::MAX.get() / 2).unwrap(), Epoch::new(MAX_JUMP + 2).unwrap()] {
        leader.observe_epoch(named);
        assert!(matches!(leader.next(Monotonic(10)), LeaseAction::Read { .. }), "{named} moved the leader");
    }
    leader.observe_epoch(Epoch::new(MAX_JUMP + 1).unwrap());
    let LeaseAction::Swap(record) = leader.next(Monotonic(10)) else { panic!("no swap") };
    assert_eq!(record.epoch, Epoch::new(MAX_JUMP + 2).unwrap());
}

#[test]
fn record_with_the_highest_epoch_can_be_taken_over() {
    let record =
        LeaseRecord { holder: None, address: None, epoch: Epoch::MAX, duration_ms: TIMING.duration_ms };
    let mut candidate = Candidate::new("a".into(), None, TIMING);
    candidate.read(Some((record, 0)), Monotonic(0));
    let LeaseAction::Swap(record) = candidate.next(Monotonic(0)) else { panic!("no swap") };
    assert_eq!(record.epoch, Epoch::from(1));
}

/// An unavailable API server may refuse within a millisecond: it was asked hundreds of times a second.
#[test]
fn failed_reads_and_writes_back_off() {
    let asked_in_a_second = |step: &mut dyn FnMut(&mut Candidate, Monotonic)| {
        let mut candidate = Candidate::new("a".into(), None, TIMING);
        let (mut now, mut asked) = (Monotonic(0), 0);
        while now < Monotonic(1_000) {
            match candidate.next(now) {
                LeaseAction::Read { after_ms } if after_ms > 0 => now = now.plus(after_ms),
                _ => {
                    asked += 1;
                    now = now.plus(1);
                    step(&mut candidate, now);
                }
            }
        }
        asked
    };
    assert_eq!(asked_in_a_second(&mut Candidate::read_failed), 11);
    // It may be read, and is free, and may not be written.
    let refused = asked_in_a_second(&mut |candidate, now| {
        candidate.read(None, now);
        candidate.next(now);
        candidate.swap_failed(now);
    });
    assert!((5..=12).contains(&refused), "{refused}");
}

#[test]
fn leader_reads_at_once_after_a_failed_swap() {
    let mut leader = Candidate::new("a".into(), None, TIMING);
    leader.read(None, Monotonic(0));
    leader.next(Monotonic(0));
    leader.swapped(0, Monotonic(0));
    leader.next(Monotonic(500));
    leader.swap_failed(Monotonic(510));
    assert_eq!(leader.next(Monotonic(510)), LeaseAction::Read { after_ms: 0 });
    leader.read_failed(Monotonic(520));
    assert_eq!(leader.next(Monotonic(520)), LeaseAction::Read { after_ms: 100 });
    // The swap had come through, and only its answer was lost.
    let record = LeaseRecord {
        holder: Some("a".into()),
        address: None,
        epoch: Epoch::from(1),
        duration_ms: TIMING.duration_ms,
    };
    leader.read(Some((record, 0)), Monotonic(620));
    assert!(matches!(leader.next(Monotonic(620)), LeaseAction::Swap(_)));
}

/// Agents were sent to the dead leader for as long as its record stood, and so waited longer for the next.
#[test]
fn leader_without_renewals_is_not_named() {
    let mut leader = Candidate::new("a".into(), Some("10.0.0.1:7979".into()), TIMING);
    leader.read(None, Monotonic(0));
    let LeaseAction::Swap(record) = leader.next(Monotonic(0)) else { panic!("no swap") };
    let mut follower = Candidate::new("b".into(), None, TIMING);
    follower.read(Some((record.clone(), 0)), Monotonic(100));
    follower.read(Some((record, 0)), Monotonic(2_000));
    assert_eq!(follower.leader_address(Monotonic(2_099)), Some("10.0.0.1:7979"));
    assert_eq!(follower.leader_address(Monotonic(2_100)), None);
}
