//! The write-ahead log: what it restores after a loss of power, what it must not restore, and who may use a slot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use fixtures::start;
use sentinel_node_agent::journal::{
    Accepted, AttemptDir, AttemptRecord, AttemptState, Loaded, StateDir, Tombstone,
};
use sentinel_node_agent::process::ProcessIdentity;
use sentinel_protocol::exit::ExitDetails;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Usage};

/// Bytes of a slot; see docs/spool-format.md.
const SLOT_SIZE: usize = 16 << 10;

/// A request of this boot.
fn accepted(number: u32) -> Accepted {
    Accepted::now(start(number, &["true"])).unwrap()
}

/// A request of an earlier boot: what a directory has lost of it, it lost by a loss of power.
fn of_an_earlier_boot(number: u32) -> Accepted {
    Accepted { boot_id: "earlier".to_owned(), ..accepted(number) }
}

fn ended(exit_code: u8) -> Ended {
    Ended {
        outcome: Outcome::Failed { exit_code },
        started_at: Some(UnixMillis(5)),
        ended_at: UnixMillis(6),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: ExitDetails::default(),
    }
}

fn starting() -> AttemptState {
    let supervisor = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
    AttemptState::Starting { supervisor, command: None, cgroup: Some("/sys/fs/cgroup/sentinel/1.2".into()) }
}

/// How far an Attempt had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Accepted,
    Starting,
    Ended,
}

const ALL: [Progress; 3] = [Progress::Accepted, Progress::Starting, Progress::Ended];

fn attempt(state: &StateDir, accepted: Accepted, progress: Progress) -> AttemptDir {
    let dir = state.create(accepted).unwrap();
    let lock = dir.try_lock().unwrap().unwrap();
    if progress >= Progress::Starting {
        lock.announce_start(&starting()).unwrap().sync().unwrap();
    }
    if progress >= Progress::Ended {
        lock.record_exit(ended(3)).unwrap();
    }
    drop(lock);
    dir
}

fn loaded(state: &StateDir) -> Vec<AttemptRecord> {
    let readable = |(_, loaded)| match loaded {
        Loaded::Readable(record) => *record,
        Loaded::Corrupt { why } => panic!("{why}"),
    };
    state.load().unwrap().into_iter().map(readable).collect()
}

fn slot(dir: &AttemptDir) -> u32 {
    dir.accepted().unwrap().unwrap().slot.expect("a slot").index
}

fn tombstone(accepted: &Accepted) -> Tombstone {
    Tombstone {
        attempt: accepted.start.attempt.clone(),
        spec_hash: Some(accepted.start.spec_hash.clone()),
        outcome: Outcome::Cancelled,
        ended_at: sentinel_node_agent::host::wall_clock(),
    }
}

/// What is lost, and how.
type Damage = (&'static str, fn(&Path));

/// Everything that a loss of power can do to a directory whose files were never synced.
#[test]
fn whatever_a_directory_has_lost_is_restored() {
    let damages: [Damage; 7] = [
        ("nothing", |_| ()),
        ("all of it", |dir| fs::remove_dir_all(dir).unwrap()),
        ("its request is empty", |dir| fs::write(dir.join("request"), "").unwrap()),
        ("its request is torn", |dir| {
            let bytes = fs::read(dir.join("request")).unwrap();
            fs::write(dir.join("request"), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("its request is zeros", |dir| {
            let len = fs::metadata(dir.join("request")).unwrap().len() as usize;
            fs::write(dir.join("request"), vec![0; len]).unwrap();
        }),
        ("state and exit record are gone", |dir| {
            let _ = fs::remove_file(dir.join("state"));
            let _ = fs::remove_file(dir.join("exit"));
        }),
        ("state and exit record are empty", |dir| {
            for name in ["state", "exit"].map(|name| dir.join(name)) {
                if name.exists() {
                    fs::write(name, "").unwrap();
                }
            }
        }),
    ];
    for (lost, damage) in damages {
        for progress in ALL {
            let root = tempfile::tempdir().unwrap();
            let state = StateDir::open(root.path()).unwrap();
            let dir = attempt(&state, of_an_earlier_boot(1), progress);
            drop(state);
            damage(dir.path());
            // A second loss of power while it is restored changes nothing.
            for _ in 0..2 {
                let state = StateDir::open(root.path()).unwrap();
                let records = loaded(&state);
                let [record] = &records[..] else { panic!("{lost}, {progress:?}: {records:?}") };
                assert_eq!(record.accepted.start, start(1, &["true"]), "{lost}, {progress:?}");
                let is_starting = matches!(record.state, AttemptState::Starting { .. });
                assert_eq!(is_starting, progress >= Progress::Starting, "{lost}, {progress:?}");
                let exit = (progress == Progress::Ended).then(|| ended(3));
                assert_eq!(record.exit, exit, "{lost}, {progress:?}");
            }
        }
    }
}

#[test]
fn a_forgotten_attempt_is_not_restored() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let accepted = of_an_earlier_boot(1);
    let dir = attempt(&state, accepted.clone(), Progress::Ended);
    // The tombstone is durable; that the slot was erased is not.
    let wal = fs::read(root.path().join("wal")).unwrap();
    state.compact(&dir, &tombstone(&accepted)).unwrap();
    drop(state);
    fs::write(root.path().join("wal"), wal).unwrap();
    assert_eq!(loaded(&StateDir::open(root.path()).unwrap()), []);
}

#[test]
fn a_refused_request_is_not_restored() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dir = attempt(&state, of_an_earlier_boot(1), Progress::Accepted);
    state.remove(&dir).unwrap();
    drop(state);
    assert_eq!(loaded(&StateDir::open(root.path()).unwrap()), []);
}

/// An Attempt that was confirmed after a reboot has other clocks; the old request must not come back, and what the old
/// acceptance recorded does not count.
#[test]
fn an_earlier_acceptance_of_the_same_attempt_is_not_restored() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    attempt(&state, of_an_earlier_boot(1), Progress::Ended);
    let wal = fs::read(root.path().join("wal")).unwrap();
    state.replace(&accepted(1)).unwrap();
    drop(state);
    fs::write(root.path().join("wal"), wal).unwrap();
    let records = loaded(&StateDir::open(root.path()).unwrap());
    assert_eq!((&records[0].state, &records[0].exit), (&AttemptState::Accepted, &None));
    assert_eq!(records[0].accepted.boot_id, accepted(1).boot_id);
}

/// An agent that was killed between the log and the directory has accepted nothing.
#[test]
fn a_request_of_this_boot_without_a_directory_is_erased() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dir = attempt(&state, accepted(1), Progress::Accepted);
    drop(state);
    fs::remove_dir_all(dir.path()).unwrap();
    for _ in 0..2 {
        assert_eq!(loaded(&StateDir::open(root.path()).unwrap()), []);
    }
}

#[test]
fn a_new_agent_leaves_the_slots_of_running_attempts_to_them() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let running = attempt(&state, accepted(1), Progress::Starting);
    drop(state);
    let state = StateDir::open(root.path()).unwrap();
    let second = attempt(&state, accepted(2), Progress::Accepted);
    assert_ne!(slot(&running), slot(&second));
    running.try_lock().unwrap().unwrap().record_exit(ended(3)).unwrap();
    assert_eq!(loaded(&state).len(), 2);
}

#[test]
fn without_a_free_slot_a_directory_is_durable_and_slots_become_free_again() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dirs: Vec<_> = (1..=130).map(|number| attempt(&state, accepted(number), Progress::Ended)).collect();
    let with_slot = |dir: &&AttemptDir| dir.accepted().unwrap().unwrap().slot.is_some();
    assert_eq!(dirs.iter().filter(with_slot).count(), 127);
    assert!(state.is_durable(&dirs[129]));
    let freed = slot(&dirs[5]);
    state.compact(&dirs[5], &tombstone(&accepted(6))).unwrap();
    assert_eq!(slot(&attempt(&state, accepted(200), Progress::Accepted)), freed);
}

#[test]
fn a_request_that_does_not_fit_a_slot_is_synced() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let long = Accepted::now(start(1, &["echo", &"x".repeat(8 << 10)])).unwrap();
    let dir = attempt(&state, long, Progress::Ended);
    assert_eq!(dir.accepted().unwrap().unwrap().slot, None);
    assert!(state.is_durable(&dir));
    assert_eq!(loaded(&state)[0].exit, Some(ended(3)));
}

#[test]
fn a_request_is_durable_once_the_log_was_synced() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dir = state.create(accepted(1)).unwrap();
    assert!(!state.is_durable(&dir));
    state.sync().unwrap();
    assert!(state.is_durable(&dir));
}

/// After a reboot a directory may still name a slot that another Attempt has now.
#[test]
fn an_attempt_does_not_write_into_the_slot_of_another() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let old = attempt(&state, of_an_earlier_boot(1), Progress::Starting);
    drop(state);
    let state = StateDir::open(root.path()).unwrap();
    let new = attempt(&state, of_an_earlier_boot(2), Progress::Starting);
    assert_eq!(slot(&old), slot(&new), "the test needs both in one slot");
    old.try_lock().unwrap().unwrap().record_exit(ended(9)).unwrap();
    drop(state);
    fs::remove_dir_all(new.path()).unwrap();
    let exits: Vec<_> =
        loaded(&StateDir::open(root.path()).unwrap()).into_iter().map(|record| record.exit).collect();
    assert_eq!(exits, [Some(ended(9)), None]);
}

/// A block that a loss of power left half written, at every place.
#[test]
fn a_damaged_slot_is_free_and_damages_no_other() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let first = attempt(&state, of_an_earlier_boot(1), Progress::Ended);
    let second = attempt(&state, of_an_earlier_boot(2), Progress::Ended);
    let at = slot(&first) as usize * SLOT_SIZE;
    drop(state);
    let whole = fs::read(root.path().join("wal")).unwrap();
    for from in (at..at + SLOT_SIZE).step_by(512) {
        let mut torn = whole.clone();
        torn[from..from + 512].fill(0xa5);
        fs::write(root.path().join("wal"), &torn).unwrap();
        for dir in [&first, &second] {
            let _ = fs::remove_dir_all(dir.path());
        }
        let state = StateDir::open(root.path()).unwrap();
        let exits: Vec<_> = loaded(&state)
            .into_iter()
            .map(|record| (record.accepted.start.attempt.run.0, record.exit.is_some()))
            .collect();
        assert!(exits.contains(&(2, true)), "damage at {}: {exits:?}", from - at);
        assert!(exits.len() <= 2, "{exits:?}");
    }
}

#[test]
fn a_log_of_an_unknown_form_is_replaced_and_one_that_cannot_be_made_is_not_needed() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("wal"), "another form").unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dir = attempt(&state, accepted(1), Progress::Ended);
    assert!(slot(&dir) > 0);
    drop(state);

    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("wal")).unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dir = attempt(&state, accepted(1), Progress::Ended);
    assert_eq!(dir.accepted().unwrap().unwrap().slot, None);
    assert_eq!(loaded(&state)[0].exit, Some(ended(3)));
}

/// A result is seen only once it is durable, also by the next holder of the lock.
#[test]
fn a_result_in_the_log_counts_though_its_file_was_not_written() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dir = attempt(&state, accepted(1), Progress::Ended);
    // Its writer was killed between the log and the file.
    fs::remove_file(dir.path().join("exit")).unwrap();
    let lock = dir.try_lock().unwrap().unwrap();
    assert_eq!(lock.exit().unwrap(), Some(ended(3)));
    assert_eq!(lock.record_exit(ended(9)).unwrap(), ended(3), "the first one is kept");
}

#[test]
fn the_log_has_the_documented_form() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let dir = attempt(&state, accepted(1), Progress::Ended);
    let file = fs::File::open(root.path().join("wal")).unwrap();
    let mut header = [0; 8];
    file.read_exact_at(&mut header, 0).unwrap();
    assert_eq!(&header, b"SNWAL001");
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    for part in [0, 1 << 10, 8 << 10] {
        let mut magic = [0; 4];
        let at = slot(&dir) as usize * SLOT_SIZE + part;
        file.read_exact_at(&mut magic, at as u64).unwrap();
        assert_eq!(&magic, b"SNW1", "at {part}");
    }
}
