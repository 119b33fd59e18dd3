//! The Journal on a real disk: what survives, what is noticed, and whom damage hurts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests may panic"
)]

mod fixtures;

use std::fs;
use std::path::{Path, PathBuf};

use fixtures::{Node, finish, is_root, shell, start, wait_for};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sentinel_node_agent::journal::{
    Accepted, AttemptDir, AttemptState, Bell, Changed, Delivery, Heard, JournalError, Loaded, StateDir,
    Tombstone,
};
use sentinel_node_agent::supervisor::{Launcher, Warm};
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::limits::MAX_COUNT;
use sentinel_protocol::log::DropReason;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Stage, Usage};

fn accepted(number: u32) -> Accepted {
    Accepted::now(start(number, &["true"])).unwrap()
}

fn ended() -> Ended {
    Ended {
        outcome: Outcome::Failed { exit_code: 3 },
        started_at: Some(UnixMillis(5)),
        ended_at: UnixMillis(6),
        usage: Usage::default(),
        output: OutputSummary::default(),
        exit: sentinel_protocol::exit::ExitDetails::default(),
    }
}

/// An Attempt with every small file it can have.
fn full_attempt(state: &StateDir, number: u32) -> AttemptDir {
    let attempt = state.create(&accepted(number)).unwrap();
    let lock = attempt.try_lock().unwrap().unwrap();
    let supervisor =
        sentinel_node_agent::process::ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
    lock.set_state(&AttemptState::Starting {
        supervisor,
        cgroup: Some("/sys/fs/cgroup/sentinel/1.2".into()),
    })
    .unwrap();
    attempt.set_delivery(&Delivery { acked: Some(Stage::Running), archived: 77 }).unwrap();
    lock.record_exit(ended()).unwrap();
    attempt
}

/// Writes a record as the journal of an earlier release did.
fn write_record(path: &std::path::Path, json: &str) {
    let crc = crc32fast::hash(json.as_bytes());
    std::fs::write(path, format!("{json}\ncrc32 {crc:08x}\n")).unwrap();
}

/// An agent that had believed the epoch of a leader which one liar had carried to the end of all numbers refused every
/// command for ever after.
#[test]
fn an_agent_with_a_poisoned_epoch_comes_back_with_its_journal_and_believes_the_next_leader() {
    for poison in [u64::MAX, i64::MAX as u64, Epoch::MAX.get() + 1, Epoch::MAX.get()] {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        let attempt = full_attempt(&state, 1);
        drop(state);
        write_record(&root.path().join("highest_epoch"), &poison.to_string());
        let request = attempt.path().join("request");
        let text = std::fs::read_to_string(&request).unwrap();
        let json = text.split("\ncrc32 ").next().unwrap();
        assert!(json.contains("\"epoch\":1,"), "{json}");
        write_record(&request, &json.replace("\"epoch\":1,", &format!("\"epoch\":{poison},")));

        let state = StateDir::open(root.path()).unwrap();
        assert_eq!(state.highest_epoch().unwrap(), Epoch::ZERO, "{poison} is believed");
        let loaded = state.load().unwrap();
        assert!(
            matches!(&loaded[..], [(_, Loaded::Entry(entry))] if entry.exit == Some(ended())),
            "{loaded:?}"
        );
        state.set_highest_epoch(Epoch::from(3)).unwrap();
        state.set_highest_epoch(Epoch::from(2)).unwrap();
        assert_eq!(state.highest_epoch().unwrap(), Epoch::from(3), "an older leader is believed again");
    }
}

#[test]
fn what_was_written_is_there_after_the_directory_is_opened_again() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let id = state.state_id().to_owned();
    full_attempt(&state, 1);
    state.create(&accepted(2)).unwrap();
    state.set_highest_epoch(Epoch::from(9)).unwrap();
    state.set_highest_epoch(Epoch::from(4)).unwrap();
    drop(state);
    let state = StateDir::open(root.path()).unwrap();
    assert_eq!((state.state_id(), state.highest_epoch().unwrap()), (id.as_str(), Epoch::from(9)));
    let loaded = state.load().unwrap();
    let entries: Vec<_> = loaded
        .iter()
        .map(|(dir, loaded)| match loaded {
            Loaded::Entry(entry) => (dir.name(), entry),
            Loaded::Corrupt { why, .. } => panic!("{why}"),
        })
        .collect();
    assert_eq!(entries[0].0, "0b6c-1.1.1");
    assert_eq!(entries[0].1.exit, Some(ended()));
    assert_eq!(entries[0].1.delivery, Delivery { acked: Some(Stage::Running), archived: 77 });
    assert!(matches!(entries[0].1.state, AttemptState::Starting { .. }));
    assert_eq!((&entries[1].1.state, &entries[1].1.exit), (&AttemptState::Accepted, &None));
    assert!(state.free_bytes().unwrap() > 0);
}

#[test]
fn a_second_agent_is_told_that_the_directory_is_in_use() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let second = StateDir::open(root.path()).unwrap_err();
    assert!(matches!(second, JournalError::Locked { .. }));
    assert!(second.to_string().contains("in use by another agent"));
    drop(state);
    StateDir::open(root.path()).unwrap();
}

#[test]
fn an_attempt_is_taken_once() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = state.create(&accepted(1)).unwrap();
    assert_eq!(attempt, state.attempt(&accepted(1).start.attempt));
    assert!(matches!(state.create(&accepted(1)), Err(JournalError::Exists { .. })));
    let (task, run, number) = attempt.name_parts().unwrap();
    assert_eq!((task.as_str(), run.0, number), ("0b6c-1", 1, 1));
}

/// Found by power cuts: the note on archived output is not synced, and an empty one made the whole Attempt unreadable, so
/// that its command was `Lost` (`StateLost`), or its result reported so after it was known.
#[test]
fn a_damaged_note_of_what_the_operator_knows_loses_nothing_but_the_note() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = full_attempt(&state, 1);
    let path = attempt.path().join("delivery");
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let [(_, Loaded::Entry(entry))] = &state.load().unwrap()[..] else {
            panic!("a note cut to {len} bytes made the attempt unreadable")
        };
        assert_eq!(entry.delivery, Delivery::default());
        assert!(entry.exit.is_some(), "the result is still there");
    }
    let told = Delivery { acked: Some(Stage::Ended), archived: 9 };
    attempt.set_delivery(&told).unwrap();
    assert_eq!(attempt.delivery().unwrap(), told, "it is noted anew");
}

#[test]
fn a_cut_or_flipped_byte_in_a_small_file_hurts_its_own_attempt_and_no_other() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = full_attempt(&state, 1);
    full_attempt(&state, 2);
    let is_corrupt = |what: &str| {
        let loaded = state.load().unwrap();
        assert!(matches!(loaded[1].1, Loaded::Entry(_)), "{what} of one attempt hurt the other");
        match &loaded[0].1 {
            Loaded::Corrupt { dir, why } => {
                assert_eq!(dir, &attempt);
                assert!(why.contains("unreadable"), "{why}");
                true
            }
            Loaded::Entry(_) => false,
        }
    };
    for file in ["request", "state", "exit"] {
        let path = attempt.path().join(file);
        let whole = fs::read(&path).unwrap();
        assert!(whole.iter().all(|b| b.is_ascii() && *b != 0), "{file} is readable by a person");
        for len in (0..whole.len()).step_by(3).chain([whole.len() - 1]) {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(is_corrupt(file), "{file} cut to {len} of {} bytes", whole.len());
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, &flipped).unwrap();
            assert!(is_corrupt(file), "{file} with byte {at} flipped");
        }
        let mut longer = whole.clone();
        longer.extend_from_slice(b"\0\0garbage");
        fs::write(&path, &longer).unwrap();
        assert!(is_corrupt(file), "{file} with garbage behind it");
        fs::write(&path, &whole).unwrap();
        assert!(!is_corrupt(file));
    }
    fs::remove_file(attempt.path().join("request")).unwrap();
    assert!(is_corrupt("the request removed"));
    fs::create_dir(attempt.path().join("request")).unwrap();
    assert!(matches!(state.load().unwrap()[0].1, Loaded::Corrupt { .. }), "a directory in its place");
}

#[test]
fn records_of_two_attempts_that_were_swapped_are_noticed_by_their_names() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let (one, two) = (full_attempt(&state, 1), full_attempt(&state, 2));
    fs::copy(one.path().join("request"), two.path().join("request")).unwrap();
    let loaded = state.load().unwrap();
    assert!(matches!(loaded[0].1, Loaded::Entry(_)));
    assert!(matches!(loaded[1].1, Loaded::Corrupt { .. }));
}

#[test]
fn half_made_and_half_removed_directories_are_no_attempts() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempts = root.path().join("attempts");
    fs::create_dir(attempts.join(".new.0b6c-1.7.1")).unwrap();
    fs::create_dir_all(attempts.join(".gone.0b6c-1.8.1/log")).unwrap();
    assert_eq!(state.load().unwrap(), []);
    drop(state);
    StateDir::open(root.path()).unwrap();
    assert_eq!(fs::read_dir(&attempts).unwrap().count(), 0);
}

#[test]
fn a_temporary_file_that_was_not_renamed_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = state.create(&accepted(1)).unwrap();
    fs::write(attempt.path().join("state.tmp"), "half a st").unwrap();
    assert_eq!(attempt.state().unwrap(), AttemptState::Accepted);
    attempt.set_delivery(&Delivery { acked: Some(Stage::Accepted), archived: 0 }).unwrap();
    fs::write(attempt.path().join("delivery.tmp"), "").unwrap();
    attempt.set_delivery(&Delivery { acked: Some(Stage::Ended), archived: 0 }).unwrap();
    assert_eq!(attempt.delivery().unwrap().acked, Some(Stage::Ended));
}

#[test]
fn an_exit_record_is_written_once_and_counts_when_only_its_rename_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = state.create(&accepted(1)).unwrap();
    let lock = attempt.try_lock().unwrap().unwrap();
    assert!(attempt.try_lock().unwrap().is_none(), "the lock is exclusive");
    assert_eq!(lock.exit().unwrap(), None, "a reserve is no record");
    lock.record_exit(ended()).unwrap();
    let other = Ended { outcome: Outcome::Cancelled, ..ended() };
    assert_eq!(lock.record_exit(other.clone()).unwrap(), ended(), "the first one stands");
    // As if the power had gone before the rename.
    fs::rename(attempt.path().join("exit"), attempt.path().join("exit.reserve")).unwrap();
    assert_eq!(attempt.exit().unwrap(), None);
    assert_eq!(lock.exit().unwrap(), Some(ended()));
    assert_eq!(lock.record_exit(other).unwrap(), ended());
    assert_eq!(attempt.exit().unwrap(), Some(ended()));
}

fn tombstone(number: u32, buried_at: UnixMillis) -> Tombstone {
    Tombstone {
        attempt: format!("0b6c-1/{number}/node-1/1").parse().unwrap(),
        spec_hash: number.is_multiple_of(2).then(|| "0".repeat(64).parse().unwrap()),
        outcome: Outcome::Succeeded { exit_code: 0 },
        buried_at,
    }
}

#[test]
fn what_was_buried_is_remembered_and_its_directory_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let now = sentinel_node_agent::host::wall_clock();
    let attempt = full_attempt(&state, 1);
    state.bury(&attempt, &tombstone(1, now)).unwrap();
    state.bury(&attempt, &tombstone(1, now)).unwrap();
    state.entomb(&tombstone(2, now)).unwrap();
    assert!(!attempt.path().exists());
    drop(state);
    // A torn line at the end, as a crash leaves it.
    let files: Vec<PathBuf> =
        fs::read_dir(root.path().join("tombstones")).unwrap().map(|e| e.unwrap().path()).collect();
    let mut bytes = fs::read(&files[0]).unwrap();
    let torn = bytes[..40].to_vec();
    bytes.extend_from_slice(&torn);
    fs::write(&files[0], bytes).unwrap();
    let state = StateDir::open(root.path()).unwrap();
    state.entomb(&tombstone(3, now)).unwrap();
    for number in 1..=3 {
        let expected = tombstone(number, now);
        assert_eq!(state.tombstone(&expected.attempt), Some(expected));
    }
    assert_eq!(state.tombstone(&tombstone(4, now).attempt), None);
    assert_eq!(state.tombstone_count(), 3);
}

#[test]
fn tombstones_go_after_thirty_days() {
    let root = tempfile::tempdir().unwrap();
    let now = sentinel_node_agent::host::wall_clock();
    let days_ago = |days: i64| UnixMillis(now.0 - days * 24 * 3_600_000);
    for (number, days) in [(1, 40), (2, 20)] {
        // Each opening begins a file of its own.
        StateDir::open(root.path()).unwrap().entomb(&tombstone(number, days_ago(days))).unwrap();
    }
    let state = StateDir::open(root.path()).unwrap();
    assert_eq!(state.tombstone(&tombstone(1, now).attempt), None);
    assert!(state.tombstone(&tombstone(2, now).attempt).is_some());
}

#[test]
fn a_supervisor_rings_for_state_exit_and_output() {
    let mut node = Node::new();
    let mut bell = Bell::open(node.path()).unwrap();
    let attempt = node.accept(&shell(1, "echo x"));
    assert_eq!(bell.rings().unwrap(), (vec![], Heard::All));
    node.launcher.launch(&attempt).unwrap();
    let mut seen = Vec::new();
    wait_for("both kinds of ring", || {
        seen.extend(bell.rings().unwrap().0);
        let has = |what| seen.iter().any(|ring| ring.attempt == attempt.name() && ring.what == what);
        (has(Changed::Record) && has(Changed::Output) && attempt.exit().unwrap().is_some()).then_some(())
    });
}

/// A file system of a few hundred KiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn of(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let tmpfs = Some("tmpfs");
        if !is_root() || mount(tmpfs, dir.path(), tmpfs, MsFlags::empty(), Some(options.as_str())).is_err() {
            eprintln!("NOT RUN: a tmpfs cannot be mounted here");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        assert!(file.write_all(&[1]).is_err());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn on_a_full_disk_nothing_new_is_taken_and_what_was_taken_can_still_be_recorded() {
    let Some(disk) = SmallDisk::of("256k") else { return };
    let state = StateDir::open(&disk.path().join("state")).unwrap();
    let attempt = state.create(&accepted(1)).unwrap();
    disk.fill();
    let error = state.create(&accepted(2)).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(state.load().unwrap().len(), 1, "nothing half-made");
    let lock = attempt.try_lock().unwrap().unwrap();
    let process = sentinel_protocol::exit::LeftProcess { pid: 4_194_304, name: "\u{1}".repeat(48) };
    let left = sentinel_protocol::exit::LeftBehind {
        count: u32::MAX,
        fate: sentinel_protocol::exit::Fate::Ended,
        processes: vec![process; 8],
    };
    let exit = sentinel_protocol::exit::ExitDetails {
        signal: Some(64),
        killed: true,
        left: Some(left),
        output_held_ms: Some(MAX_COUNT),
        ..sentinel_protocol::exit::ExitDetails::clock(sentinel_protocol::exit::Clock::Total, MAX_COUNT)
    };
    let longest = Ended { outcome: Outcome::CancelFailed { pids: vec![4_194_304; 64] }, exit, ..ended() };
    lock.record_exit(longest.clone()).unwrap();
    assert_eq!(attempt.exit().unwrap(), Some(longest));
}

#[test]
fn a_command_that_fills_the_disk_goes_on_and_its_missing_output_is_counted_and_shown() {
    let Some(disk) = SmallDisk::of("2m") else { return };
    let state = StateDir::open(&disk.path().join("state")).unwrap();
    let mut launcher = Launcher::of(fixtures::PROGRAM, Warm::No);
    let much = shell(1, "head -c 5000000 /dev/zero; echo end >&2; exit 5");
    let attempt = state.create(&Accepted::now(much).unwrap()).unwrap();
    launcher.launch(&attempt).unwrap();
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Failed { exit_code: 5 });
    let output = &run.ended.output;
    assert_eq!((output.stdout.bytes, output.stderr.bytes), (5_000_000, 4));
    assert_eq!(run.missing(), output.stdout.dropped + output.stderr.dropped);
    assert!(output.stdout.dropped > 5_000_000 - (2 << 20), "more than the disk holds was kept");
    assert!(run.records.iter().all(|r| r.head.dropped.is_none_or(|why| why == DropReason::DiskFull)));
    assert_eq!(output.stdout.sha256, fixtures::sha256(&vec![0; 5_000_000]));
}

/// It was removed and made again; a power cut between the two took what the operator had been told we own, and the
/// Attempt was Lost for want of its record, though it had never started.
#[test]
fn an_attempt_that_is_taken_once_more_after_a_boot_is_never_absent() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let old = state.create(&accepted(1)).unwrap();
    fs::write(old.log().join("left"), "by the boot before").unwrap();
    let (path, done) = (old.path().to_owned(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut absent = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                absent += u32::from(!path.exists());
            }
            absent
        });
        for _ in 0..50 {
            state.create_again(&accepted(1)).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(watching.join().unwrap(), 0);
    });
    assert!(!old.log().join("left").exists());
    let names: Vec<_> =
        fs::read_dir(root.path().join("attempts")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [old.name()]);
    // What is not there is made.
    state.create_again(&accepted(2)).unwrap();
    assert_eq!(state.load().unwrap().len(), 2);
}
