//! The directory of an embedded cluster: one JSON file for each object, and two logs of changes that are not in these files
//! yet.
//!
//! A change is durable once it is in a log. When one log is full, the other continues, and a thread writes what is in the
//! full one to the files of the objects (a *checkpoint*), each to a temporary file that is renamed, and then makes it empty.
//! A log is made empty after its own checkpoint and before that of the next, so the older of two is never applied over files
//! that are newer than both. At the start both are checkpointed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::log_file::{self, Change, Held, LogFile};
use crate::cluster::error::ClusterError;
use crate::digest;
use crate::files;
use crate::resource::{TargetSlice, Task};

/// Bytes of a log after which the other one continues.
pub(super) const LOG_CAPACITY: u64 = 1 << 20;

/// Largest file of one object, bytes: an API server accepts 1.5 MiB, and these files are indented.
const MAX_OBJECT: u64 = 32 << 20;

/// Longest name of an object that its file has whole, bytes: file names have 255 on Linux, and a temporary one is as long.
const MAX_NAME: usize = 200;

/// Pause before a checkpoint that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

const TASKS: &str = "tasks";
const SLICES: &str = "targetslices";
const LOGS: [&str; 2] = ["changes-0.log", "changes-1.log"];

/// The newest content of each changed file; empty for one that is removed.
type Changed = BTreeMap<String, Vec<u8>>;

/// The directory of an embedded cluster.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    capacity: u64,
    active: LogFile,
    /// An empty log, unless it is being checkpointed.
    spare: Option<LogFile>,
    /// What the active log holds.
    changed: Changed,
    checkpoint: Option<JoinHandle<Option<LogFile>>>,
    stop: Arc<AtomicBool>,
    /// The sequence of the next change.
    next: u64,
}

/// The objects found in it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tasks: Vec<Task>,
    pub(super) slices: Vec<TargetSlice>,
}

impl Disk {
    /// Writes what is in the logs to the files, and reads every object.
    pub(super) fn open(directory: &Path, capacity: u64) -> Result<(Self, Found), ClusterError> {
        for folder in [TASKS, SLICES].map(|name| directory.join(name)) {
            fs::create_dir_all(&folder).map_err(|error| failed("make the directory", &folder, error))?;
        }
        let logs = LOGS.map(|name| directory.join(name));
        let mut held = Vec::new();
        for path in &logs {
            let found = log_file::read(path).map_err(|error| failed("read", path, error))?;
            held.push((found, path));
        }
        // The older one first, to be replayed and to be made empty.
        held.sort_by_key(|(held, _)| held.as_ref().map(|held| held.generation));
        let next = check_sequence(&held)?;
        let generation = held.iter().filter_map(|(held, _)| held.as_ref()).map(|held| held.generation).max();
        let order: Vec<&PathBuf> = held.iter().map(|(_, path)| *path).collect();
        let changes = held.iter().filter_map(|(held, _)| held.as_ref()).flat_map(|held| held.changes.clone());
        write_changed(directory, &changes.map(|change| (change.file, change.content)).collect())?;
        let open = |path: &Path, after: u64| {
            let generation = generation.unwrap_or(0) + after;
            LogFile::open(path, capacity, generation).map_err(|error| failed("make", path, error))
        };
        let (active, spare) = (open(order[0], 1)?, open(order[1], 2)?);
        let found =
            Found { tasks: read_all(&directory.join(TASKS))?, slices: read_all(&directory.join(SLICES))? };
        let disk = Self {
            directory: directory.to_owned(),
            capacity,
            active,
            spare: Some(spare),
            changed: Changed::new(),
            checkpoint: None,
            stop: Arc::default(),
            next,
        };
        Ok((disk, found))
    }

    /// Makes changes durable, in this order. After an error nothing more can be written: what the disk has is not known.
    pub(super) fn append(&mut self, changes: Vec<Change>) -> Result<(), ClusterError> {
        if self.active.len() >= self.capacity {
            self.turn();
        }
        self.active.append(self.next, &changes).map_err(|error| failed("write", &self.active.path, error))?;
        self.next += changes.len() as u64;
        self.changed.extend(changes.into_iter().map(|change| (change.file, change.content)));
        Ok(())
    }

    /// Has room for changes of this many bytes; returns the room that there is.
    ///
    /// # Errors
    /// When the disk is full.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<u64, ClusterError> {
        if self.active.len() >= self.capacity {
            self.turn();
        }
        self.active.reserve(bytes).map_err(|error| failed("extend", &self.active.path, error))?;
        Ok(self.active.room())
    }

    /// Bytes of changes that can be made durable whatever room the disk has.
    pub(super) fn room(&self) -> u64 {
        self.active.room()
    }

    /// Its directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    #[cfg(test)]
    pub(super) fn break_down(&mut self) {
        self.active.break_down();
    }

    /// The other log continues, and a thread checkpoints this one. While the other is still being checkpointed, or could not
    /// be, this one grows.
    fn turn(&mut self) {
        if self.checkpoint.as_ref().is_some_and(JoinHandle::is_finished) {
            self.spare = self.checkpoint.take().and_then(|thread| thread.join().ok().flatten());
        }
        let Some(spare) = self.spare.take() else { return };
        let full = std::mem::replace(&mut self.active, spare);
        let changed = std::mem::take(&mut self.changed);
        let (directory, capacity, stop) = (self.directory.clone(), self.capacity, self.stop.clone());
        let work = move || checkpoint(&directory, &changed, full, capacity, &stop);
        match std::thread::Builder::new().name("checkpoint".to_owned()).spawn(work) {
            Ok(thread) => self.checkpoint = Some(thread),
            Err(error) => tracing::warn!(%error, "unable to start a thread; the log of changes grows"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is not checkpointed is in the logs.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.checkpoint.take() {
            let _ = thread.join();
        }
    }
}

/// The sequence behind the last change. The logs follow each other without a gap: the newer one has its first change when
/// the older one is full.
fn check_sequence(held: &[(Option<Held>, &PathBuf)]) -> Result<u64, ClusterError> {
    let mut older: Option<Option<u64>> = None;
    for (held, path) in held.iter().filter_map(|(held, path)| Some((held.as_ref()?, path))) {
        let Some(first) = held.first else {
            older = Some(older.flatten());
            continue;
        };
        if older.is_some_and(|next| next != Some(first)) {
            let lost = format!("changes before number {first} are missing: the other log is damaged");
            return Err(failed("read", path, io::Error::other(lost)));
        }
        older = Some(Some(first + held.changes.len() as u64));
    }
    Ok(older.flatten().unwrap_or(1))
}

/// Writes what a log holds to the files, and makes it empty; `None` when it was stopped.
fn checkpoint(
    directory: &Path,
    changed: &Changed,
    mut full: LogFile,
    capacity: u64,
    stop: &AtomicBool,
) -> Option<LogFile> {
    loop {
        let attempt = write_changed(directory, changed).and_then(|()| {
            let next = full.generation + 2;
            full.reset(capacity, next).map_err(|error| failed("write", &full.path, error))
        });
        match attempt {
            Ok(()) => return Some(full),
            Err(error) => tracing::warn!(error = %chain(&error), "unable to write objects; will retry"),
        }
        for _ in 0..10 {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(RETRY / 10);
        }
    }
}

fn chain(error: &ClusterError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

/// Writes and removes the files of objects, durably.
fn write_changed(directory: &Path, changed: &Changed) -> Result<(), ClusterError> {
    for (file, content) in changed {
        let path = directory.join(file);
        let done = if content.is_empty() { remove(&path) } else { write(&path, content) };
        done.map_err(|error| failed("write", &path, error))?;
    }
    if changed.is_empty() {
        return Ok(());
    }
    for folder in [TASKS, SLICES].map(|name| directory.join(name)) {
        let synced = File::open(&folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("write", &folder, error))?;
    }
    Ok(())
}

/// Indented: people read these files.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let object: serde_json::Value = serde_json::from_slice(content)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(&object)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The file of a Task. Names and namespaces are validated: letters, digits, `-` and `.`; a namespace has no `.`.
pub(super) fn task_file(task: &Task) -> String {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = file_name(&format!("{}.{}", of(&task.metadata.namespace), of(&task.metadata.name)));
    format!("{TASKS}/{name}")
}

/// The file of a slice.
pub(super) fn slice_file(name: &str) -> String {
    format!("{SLICES}/{}", file_name(name))
}

/// The file of an object. A name that would be too long ends with a digest of it, behind a character that no name has.
fn file_name(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return format!("{name}.json");
    }
    let digest = digest::short_of(name);
    // The characters are one byte each.
    format!("{}~{digest}.json", &name[..MAX_NAME - digest.len() - 1])
}

fn read_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>, ClusterError> {
    let entries = fs::read_dir(folder).map_err(|error| failed("read the directory", folder, error))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed("read the directory", folder, error))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = files::read(&path, MAX_OBJECT).map_err(|error| failed("read", &path, error))?;
        let object = serde_json::from_slice(&bytes);
        found.push(object.map_err(|error| failed("read", &path, io::Error::other(error)))?);
    }
    Ok(found)
}

fn failed(what: &str, path: &Path, error: io::Error) -> ClusterError {
    ClusterError::Unavailable { doing: format!("{what} {}", path.display()), source: Box::new(error) }
}
