//! The files of a node, through the code that reads them when an agent starts. Most have checksums, which no fuzzer guesses: by its
//! first byte an input is put into the right form, or taken as it is.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use sentinel_node_agent::journal::{AttemptDir, Listing, Loaded, StateDir};
use sentinel_node_agent::spool::{Reader, recover};
use tempfile::TempDir;

use crate::selected;

/// A request as it is in the journal; `SLOT` is the slot in the write-ahead log.
const REQUEST: &str = include_str!("request.json");

thread_local! {
    static NODE: Node = Node::new();
}

/// A state directory that is used again for each input, in memory where that can be had.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let node = Self { dir: dir.expect("a directory") };
        drop(StateDir::open(&node.root()).expect("a state directory"));
        node
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The directory of an Attempt, with nothing in it but its request.
    fn attempt(&self, number: u32) -> AttemptDir {
        let path = self.root().join(format!("attempts/u.{number}.1"));
        let _ = fs::remove_dir_all(&path);
        for directory in [path.clone(), path.join("log")] {
            fs::create_dir_all(&directory).expect("a directory");
            fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).expect("its mode");
        }
        write(&path.join("request"), &record(request(number, "null").as_bytes()));
        AttemptDir::at(path)
    }
}

fn request(number: u32, slot: &str) -> String {
    REQUEST.trim().replace("u/1/n/1", &format!("u/{number}/n/1")).replace("\"SLOT\"", slot)
}

fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A record file: JSON, and its checksum.
fn record(json: &[u8]) -> Vec<u8> {
    let mut bytes = json.to_vec();
    bytes.extend_from_slice(format!("\ncrc32 {:08x}\n", crc32fast::hash(json)).as_bytes());
    bytes
}

/// A damaged file of an Attempt makes its own Attempt unreadable at most, and no other.
pub fn journal(data: &[u8]) {
    const FILES: &[&str] = &["request", "state", "exit", "delivery", "cancel"];
    let Some((first, rest)) = selected(data) else { return };
    let name = FILES[usize::from(first & 0x7f) % FILES.len()];
    NODE.with(|node| {
        let (attempt, other) = (node.attempt(1), node.attempt(2));
        let bytes = if first & 0x80 == 0 { record(rest) } else { rest.to_vec() };
        write(&attempt.path().join(name), &bytes);
        let state =
            StateDir::open(&node.root()).expect("a damaged Attempt does not keep an agent from starting");
        let loaded = state.load().expect("it can be listed");
        let of = |dir: &AttemptDir| {
            loaded.iter().find(|(found, _)| found.name() == dir.name()).map(|(_, loaded)| loaded)
        };
        assert!(matches!(of(&other), Some(Loaded::Readable(_))), "the other Attempt: {:?}", of(&other));
        if let Some(Loaded::Readable(record)) = of(&attempt) {
            assert_eq!(record.exit, attempt.exit().expect("read before"));
            assert_eq!(record.accepted.start.attempt.directory_name(), attempt.name());
        }
        let listing = Listing::read(&node.root()).expect("it can be listed").to_string();
        assert!(listing.contains("u/2/n/1") || listing.contains("u.2.1"), "{listing}");
    });
}

/// What an agent reads of its state directory when it starts: the write-ahead log after a power cut, tombstones, numbers.
pub fn state_dir(data: &[u8]) {
    let Some((first, rest)) = selected(data) else { return };
    NODE.with(|node| {
        let root = node.root();
        let _ = fs::remove_dir_all(root.join("attempts"));
        let _ = fs::remove_dir_all(root.join("tombstones"));
        fs::create_dir(root.join("attempts")).expect("a directory");
        fs::create_dir(root.join("tombstones")).expect("a directory");
        for name in ["attempts", "tombstones"] {
            fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o700)).expect("its mode");
        }
        let _ = fs::remove_file(root.join("highest_epoch"));
        let mut log = log_with(2, request(2, r#"{"index":2,"generation":7}"#).as_bytes(), b"", b"");
        match first % 4 {
            0 => {
                // Three parts of one slot, each after its length.
                let (request, rest) = part(rest);
                let (start, exit) = part(rest);
                log[SLOT..2 * SLOT].copy_from_slice(&log_with(1, request, start, exit)[SLOT..2 * SLOT]);
            }
            1 => {
                let length = rest.len().min(SLOT);
                log[SLOT..SLOT + length].copy_from_slice(&rest[..length]);
            }
            2 => {
                let lines = rest.split(|byte| *byte == b'\n').map(|line| {
                    let mut checked = format!("{:08x} ", crc32fast::hash(line)).into_bytes();
                    checked.extend_from_slice(line);
                    checked
                });
                write(&root.join("tombstones/1700000000000.log"), &lines.collect::<Vec<_>>().join(&b'\n'));
            }
            _ => write(&root.join("highest_epoch"), &record(rest)),
        }
        write(&root.join("wal"), &log);
        let state = match StateDir::open(&root) {
            Ok(state) => state,
            // An agent that cannot read which epoch it has seen does not start; nor one whose log has an Attempt of another form.
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        let _ = state.highest_epoch();
        assert!(state.tombstone_count() <= rest.len());
        let loaded = state.load().expect("it can be listed");
        assert!(loaded.len() <= 2, "there are two slots");
        let has_second =
            loaded.iter().any(|(dir, loaded)| dir.name() == "u.2.1" && matches!(loaded, Loaded::Readable(_)));
        assert!(has_second, "what another slot has is lost");
    });
}

const SLOT: usize = 16 << 10;

/// A write-ahead log of four slots; one has these parts.
fn log_with(index: usize, request: &[u8], start: &[u8], exit: &[u8]) -> Vec<u8> {
    let mut log = vec![0; 4 * SLOT];
    let header = b"SNWAL001 slots of 16384 bytes; see docs/spool-format.md\n";
    log[..header.len()].copy_from_slice(header);
    for (payload, at, room) in [(start, 0, 1 << 10), (request, 1 << 10, 7 << 10), (exit, 8 << 10, 8 << 10)] {
        let payload = &payload[..payload.len().min(room - 20)];
        if payload.is_empty() {
            continue;
        }
        let mut frame = b"SNW1".to_vec();
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.extend(7_u64.to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&frame);
        checksum.update(payload);
        frame.extend(checksum.finalize().to_le_bytes());
        frame.extend_from_slice(payload);
        let at = index * SLOT + at;
        log[at..at + frame.len()].copy_from_slice(&frame);
    }
    log
}

/// A part of the input, after its length of two bytes, and the rest.
fn part(data: &[u8]) -> (&[u8], &[u8]) {
    match data {
        [high, low, rest @ ..] => {
            rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()))
        }
        _ => (data, &[]),
    }
}

/// A reader comes to an end, and returns each position once, as data or as missing.
pub fn spool(data: &[u8]) {
    let Some((first, rest)) = selected(data) else { return };
    NODE.with(|node| {
        let attempt = node.attempt(1);
        let (one, two) = if first & 2 == 0 { (rest, &[][..]) } else { part(rest) };
        for (position, bytes) in [(0_u64, one), (1000, two)] {
            let segment = if first & 1 == 0 { segment(position, bytes) } else { bytes.to_vec() };
            if position == 0 || !bytes.is_empty() {
                write(&attempt.log().join(format!("{position:020}.seg")), &segment);
            }
        }
        if first & 4 != 0 {
            write(&attempt.log().join(format!("{:020}.drop", 0)), two);
        }
        let mut reader = Reader::open(&attempt).expect("it can be listed");
        let Ok(oldest) = reader.oldest() else { return };
        let (mut at, mut bytes) = (oldest, 0);
        for _ in 0..100_000 {
            let Ok(records) = reader.read(at, 1 << 16) else { return };
            if records.is_empty() {
                break;
            }
            for record in records {
                assert_eq!(record.head.position, at, "a gap or a repeat");
                assert!(record.end() > at);
                at = record.end();
                bytes += record.data.len();
            }
        }
        assert!(bytes <= data.len(), "more output than there is");
        if let Ok(Some(lock)) = attempt.try_lock() {
            let _ = recover(&lock);
        }
    });
}

/// A segment with a valid header, and records with valid checksums, made from the input: eight bytes for each head, then its data.
fn segment(position: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"SNSPOOL1".to_vec();
    for number in [position, position, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend([0; 4]);
    let (mut at, mut offsets, mut rest) = (position, [position, 0], data);
    while let [stream, dropped, high, low, shift, kind, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let stream = stream & 3;
        let of_stream = usize::from(stream == 2);
        let is_hole = dropped & 7 != 0;
        let shown = &tail[..if is_hole { 0 } else { length.min(tail.len()) }];
        // Mostly what follows; now and then another number.
        let number =
            |right: u64| if *kind & 0xf0 == 0xf0 { right.wrapping_add(1 << (shift & 63)) } else { right };
        let len = if is_hole { number(length as u64) } else { shown.len() as u64 };
        let mut head = b"REC1".to_vec();
        head.extend([stream, dropped & 7, 0, 0]);
        for value in [len, at, number(offsets[of_stream]), u64::from(*kind)] {
            head.extend(value.to_le_bytes());
        }
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head);
        checksum.update(shown);
        head.extend(checksum.finalize().to_le_bytes());
        bytes.extend(head);
        bytes.extend_from_slice(shown);
        at = at.wrapping_add(len);
        offsets[of_stream] = offsets[of_stream].wrapping_add(len);
        rest = &tail[shown.len()..];
    }
    // What does not make a head is what a torn write leaves.
    bytes.extend_from_slice(rest);
    bytes
}
