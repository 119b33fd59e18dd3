//! The Journal on a real disk: durability, detection of damage, and its scope.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;

use std::fs;
use std::path::{Path, PathBuf};

use fixtures::{Node, finish, is_root, shell, start, wait_for};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sentinel_node_agent::journal::{
    Accepted, AgentWakeups, AttemptDir, AttemptState, Change, Delivery, JournalError, Loaded,
    ReceivedWakeups, StateDir, Tombstone,
};
use sentinel_node_agent::supervisor::{Launcher, Prefork};
use sentinel_protocol::ids::Epoch;
use sentinel_protocol::limits::MAX_COUNT;
use sentinel_protocol::log::DropReason;
use sentinel_protocol::outcome::Outcome;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Ended, OutputSummary, Usage};

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
    let attempt = state.create(accepted(number)).unwrap();
    let lock = attempt.try_lock().unwrap().unwrap();
    let supervisor =
        sentinel_node_agent::process::ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
    lock.set_state(&AttemptState::Starting {
        command: None,
        supervisor,
        cgroup: Some("/sys/fs/cgroup/sentinel/1.2".into()),
    })
    .unwrap();
    attempt.set_delivery(&Delivery { acked: Some(Stage::Running), archived: 77 }).unwrap();
    lock.record_exit(ended()).unwrap();
    attempt
}

/// Writes a record as an earlier release did.
fn write_record(path: &std::path::Path, json: &str) {
    let crc = crc32fast::hash(json.as_bytes());
    std::fs::write(path, format!("{json}\ncrc32 {crc:08x}\n")).unwrap();
}

/// An agent that had accepted an epoch at the end of the range, which a compromised agent had caused, refused every later
/// command.
#[test]
fn a_poisoned_epoch_is_discarded_and_the_journal_kept() {
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
        assert_eq!(state.highest_epoch().unwrap(), Epoch::ZERO, "{poison} is accepted");
        let loaded = state.load().unwrap();
        assert!(
            matches!(&loaded[..], [(_, Loaded::Readable(entry))] if entry.exit == Some(ended())),
            "{loaded:?}"
        );
        state.set_highest_epoch(Epoch::from(3)).unwrap();
        state.set_highest_epoch(Epoch::from(2)).unwrap();
        assert_eq!(state.highest_epoch().unwrap(), Epoch::from(3), "an older epoch is accepted again");
    }
}

#[test]
fn records_survive_reopening_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let id = state.state_id().to_owned();
    full_attempt(&state, 1);
    state.create(accepted(2)).unwrap();
    state.set_highest_epoch(Epoch::from(9)).unwrap();
    state.set_highest_epoch(Epoch::from(4)).unwrap();
    drop(state);
    let state = StateDir::open(root.path()).unwrap();
    assert_eq!((state.state_id(), state.highest_epoch().unwrap()), (id.as_str(), Epoch::from(9)));
    let loaded = state.load().unwrap();
    let entries: Vec<_> = loaded
        .iter()
        .map(|(dir, loaded)| match loaded {
            Loaded::Readable(entry) => (dir.name(), entry),
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
fn a_second_agent_cannot_open_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let second = StateDir::open(root.path()).unwrap_err();
    assert!(matches!(second, JournalError::Locked { .. }));
    assert!(second.to_string().contains("in use by another agent"));
    drop(state);
    StateDir::open(root.path()).unwrap();
}

#[test]
fn an_attempt_is_created_once() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = state.create(accepted(1)).unwrap();
    assert_eq!(attempt, state.attempt(&accepted(1).start.attempt));
    assert!(matches!(state.create(accepted(1)), Err(JournalError::Exists { .. })));
    let (task, run, number) = attempt.name_parts().unwrap();
    assert_eq!((task.as_str(), run.0, number), ("0b6c-1", 1, 1));
}

/// Two directories could be of one Attempt.
#[test]
fn a_directory_has_the_one_name_of_its_attempt() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = state.create(accepted(1)).unwrap();
    for name in ["0b6c-1.01.1", "0b6c-1.+1.1", "0b6c-1.1.01", "0b6c-1.1.0"] {
        fs::create_dir(attempt.path().with_file_name(name)).unwrap();
    }
    let known: Vec<_> = state.load().unwrap().into_iter().filter_map(|(dir, _)| dir.name_parts()).collect();
    assert_eq!(known.len(), 1, "{known:?}");
}

/// Found by power cuts: the delivery record is not synced, and an empty one made the whole Attempt corrupt, so that its
/// command was `Lost` (`StateLost`), or its known result was reported so.
#[test]
fn a_damaged_delivery_record_counts_as_empty() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = full_attempt(&state, 1);
    let path = attempt.path().join("delivery");
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let [(_, Loaded::Readable(entry))] = &state.load().unwrap()[..] else {
            panic!("a delivery record cut to {len} bytes made the attempt corrupt")
        };
        assert_eq!(entry.delivery, Delivery::default());
        assert!(entry.exit.is_some(), "the result is kept");
    }
    let noted = Delivery { acked: Some(Stage::Ended), archived: 9 };
    attempt.set_delivery(&noted).unwrap();
    assert_eq!(attempt.delivery().unwrap(), noted, "it is written anew");
}

#[test]
fn a_damaged_record_makes_only_its_own_attempt_corrupt() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = full_attempt(&state, 1);
    full_attempt(&state, 2);
    let is_corrupt = |what: &str| {
        let loaded = state.load().unwrap();
        assert!(matches!(loaded[1].1, Loaded::Readable(_)), "{what} of one attempt damaged the other");
        match &loaded[0].1 {
            Loaded::Corrupt { why } => {
                assert_eq!(loaded[0].0, attempt);
                assert!(why.contains("unreadable"), "{why}");
                true
            }
            Loaded::Readable(_) => false,
        }
    };
    for file in ["request", "state", "exit"] {
        let path = attempt.path().join(file);
        let whole = fs::read(&path).unwrap();
        assert!(whole.iter().all(|b| b.is_ascii() && *b != 0), "{file} is readable text");
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
        assert!(is_corrupt(file), "{file} with garbage after it");
        fs::write(&path, &whole).unwrap();
        assert!(!is_corrupt(file));
    }
    fs::remove_file(attempt.path().join("request")).unwrap();
    assert!(is_corrupt("the request removed"));
    fs::create_dir(attempt.path().join("request")).unwrap();
    assert!(matches!(state.load().unwrap()[0].1, Loaded::Corrupt { .. }), "a directory in its place");
}

#[test]
fn swapped_records_are_detected_by_name() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let (one, two) = (full_attempt(&state, 1), full_attempt(&state, 2));
    fs::copy(one.path().join("request"), two.path().join("request")).unwrap();
    let loaded = state.load().unwrap();
    assert!(matches!(loaded[0].1, Loaded::Readable(_)));
    assert!(matches!(loaded[1].1, Loaded::Corrupt { .. }));
}

#[test]
fn incomplete_directories_are_ignored_and_removed() {
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
fn a_temporary_file_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = state.create(accepted(1)).unwrap();
    fs::write(attempt.path().join("state.tmp"), "half a st").unwrap();
    assert_eq!(attempt.state().unwrap(), AttemptState::Accepted);
    attempt.set_delivery(&Delivery { acked: Some(Stage::Accepted), archived: 0 }).unwrap();
    fs::write(attempt.path().join("delivery.tmp"), "").unwrap();
    attempt.set_delivery(&Delivery { acked: Some(Stage::Ended), archived: 0 }).unwrap();
    assert_eq!(attempt.delivery().unwrap().acked, Some(Stage::Ended));
}

#[test]
fn an_exit_record_is_written_once_and_valid_before_rename() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let attempt = state.create(accepted(1)).unwrap();
    let lock = attempt.try_lock().unwrap().unwrap();
    assert!(attempt.try_lock().unwrap().is_none(), "the lock is exclusive");
    assert_eq!(lock.exit().unwrap(), None, "a reserve is not a record");
    lock.record_exit(ended()).unwrap();
    let other = Ended { outcome: Outcome::Cancelled, ..ended() };
    assert_eq!(lock.record_exit(other.clone()).unwrap(), ended(), "the first one is kept");
    // As after a power cut before the rename.
    fs::rename(attempt.path().join("exit"), attempt.path().join("exit.reserve")).unwrap();
    assert_eq!(attempt.exit().unwrap(), None);
    assert_eq!(lock.exit().unwrap(), Some(ended()));
    assert_eq!(lock.record_exit(other).unwrap(), ended());
    assert_eq!(attempt.exit().unwrap(), Some(ended()));
}

fn tombstone(number: u32, ended_at: UnixMillis) -> Tombstone {
    Tombstone {
        attempt: format!("0b6c-1/{number}/node-1/1").parse().unwrap(),
        spec_hash: number.is_multiple_of(2).then(|| "0".repeat(64).parse().unwrap()),
        outcome: Outcome::Succeeded { exit_code: 0 },
        ended_at,
    }
}

#[test]
fn compaction_keeps_a_tombstone_and_removes_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let now = sentinel_node_agent::host::wall_clock();
    let attempt = full_attempt(&state, 1);
    state.compact(&attempt, &tombstone(1, now)).unwrap();
    state.compact(&attempt, &tombstone(1, now)).unwrap();
    state.write_tombstone(&tombstone(2, now)).unwrap();
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
    state.write_tombstone(&tombstone(3, now)).unwrap();
    for number in 1..=3 {
        let expected = tombstone(number, now);
        assert_eq!(state.tombstone(&expected.attempt), Some(expected));
    }
    assert_eq!(state.tombstone(&tombstone(4, now).attempt), None);
    assert_eq!(state.tombstone_count(), 3);
}

#[test]
fn tombstones_expire_after_thirty_days() {
    let root = tempfile::tempdir().unwrap();
    let now = sentinel_node_agent::host::wall_clock();
    let days_ago = |days: i64| UnixMillis(now.0 - days * 24 * 3_600_000);
    for (number, days) in [(1, 40), (2, 20)] {
        // Each opening begins a file of its own.
        StateDir::open(root.path()).unwrap().write_tombstone(&tombstone(number, days_ago(days))).unwrap();
    }
    let state = StateDir::open(root.path()).unwrap();
    assert_eq!(state.tombstone(&tombstone(1, now).attempt), None);
    assert!(state.tombstone(&tombstone(2, now).attempt).is_some());
}

#[test]
fn a_supervisor_wakes_the_agent_for_records_and_output() {
    let mut node = Node::new();
    let mut wakeups = AgentWakeups::open(node.path()).unwrap();
    let attempt = node.accept(&shell(1, "echo x"));
    assert_eq!(wakeups.drain().unwrap(), ReceivedWakeups::default());
    node.launcher.launch(&attempt).unwrap();
    let mut seen = Vec::new();
    wait_for("both kinds of wake-up", || {
        seen.extend(wakeups.drain().unwrap().wakeups);
        let has = |change| seen.iter().any(|it| it.attempt == attempt.name() && it.change == change);
        (has(Change::Record) && has(Change::Output) && attempt.exit().unwrap().is_some()).then_some(())
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
            fixtures::cannot_run("it needs root and a tmpfs");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Uses up the remaining space.
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
fn a_full_disk_refuses_new_attempts_and_records_exits() {
    let Some(disk) = SmallDisk::of("256k") else { return };
    let state = StateDir::open(&disk.path().join("state")).unwrap();
    let attempt = state.create(accepted(1)).unwrap();
    disk.fill();
    let error = state.create(accepted(2)).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(state.load().unwrap().len(), 1, "nothing incomplete");
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
fn a_command_that_fills_the_disk_continues_with_holes() {
    let Some(disk) = SmallDisk::of("2m") else { return };
    let state = StateDir::open(&disk.path().join("state")).unwrap();
    let mut launcher = Launcher::of(fixtures::PROGRAM, Prefork::Off);
    let much = shell(1, "head -c 5000000 /dev/zero; echo end >&2; exit 5");
    let attempt = state.create(Accepted::now(much).unwrap()).unwrap();
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

/// It was removed and created again; a power cut between the two lost an Attempt of the Inventory, so that it became
/// `Lost`, though it had never started.
#[test]
fn replacing_an_attempt_never_leaves_it_absent() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let old = state.create(accepted(1)).unwrap();
    fs::write(old.log().join("left"), "by the previous boot").unwrap();
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
            state.replace(&accepted(1)).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(watching.join().unwrap(), 0);
    });
    assert!(!old.log().join("left").exists());
    let names: Vec<_> =
        fs::read_dir(root.path().join("attempts")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [old.name()]);
    // A missing one is created.
    state.replace(&accepted(2)).unwrap();
    assert_eq!(state.load().unwrap().len(), 2);
}
