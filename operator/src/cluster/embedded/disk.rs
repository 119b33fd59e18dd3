//! One JSON file for each object, written to a temporary file and renamed, so that a crash leaves the old or the new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::error::ClusterError;
use crate::digest;
use crate::files;
use crate::resource::{TargetSlice, Task};

/// Largest file of one object, bytes: an API server accepts 1.5 MiB, and these files are indented.
const MAX_OBJECT: u64 = 32 << 20;

/// Longest name of an object that its file has whole, bytes: file names have 255 on Linux, and a temporary one is as long.
const MAX_NAME: usize = 200;

/// The directory of an embedded cluster.
#[derive(Debug)]
pub(super) struct Disk {
    tasks: PathBuf,
    slices: PathBuf,
}

/// The objects found in it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tasks: Vec<Task>,
    pub(super) slices: Vec<TargetSlice>,
}

impl Disk {
    /// Reads every object.
    pub(super) fn open(directory: &Path) -> Result<(Self, Found), ClusterError> {
        let disk = Self { tasks: directory.join("tasks"), slices: directory.join("targetslices") };
        for folder in [&disk.tasks, &disk.slices] {
            fs::create_dir_all(folder).map_err(|error| failed("make the directory", folder, error))?;
        }
        let found = Found { tasks: read_all(&disk.tasks)?, slices: read_all(&disk.slices)? };
        Ok((disk, found))
    }

    /// Writes a Task.
    pub(super) fn put_task(&self, task: &Task) -> Result<(), ClusterError> {
        write(&self.task_file(task), task)
    }

    /// Removes a Task.
    pub(super) fn remove_task(&self, task: &Task) -> Result<(), ClusterError> {
        remove(&self.task_file(task))
    }

    /// Writes a slice.
    pub(super) fn put_slice(&self, name: &str, slice: &TargetSlice) -> Result<(), ClusterError> {
        write(&self.slices.join(file_name(name)), slice)
    }

    /// Removes a slice.
    pub(super) fn remove_slice(&self, name: &str) -> Result<(), ClusterError> {
        remove(&self.slices.join(file_name(name)))
    }

    /// Names and namespaces are validated: letters, digits, `-` and `.`; a namespace has no `.`.
    fn task_file(&self, task: &Task) -> PathBuf {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        self.tasks.join(file_name(&format!("{}.{}", of(&task.metadata.namespace), of(&task.metadata.name))))
    }
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

fn write(path: &Path, object: &impl Serialize) -> Result<(), ClusterError> {
    let attempt = || -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(object)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    };
    attempt().map_err(|error| failed("write", path, error))
}

fn remove(path: &Path) -> Result<(), ClusterError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => sync_parent(path).map_err(|error| failed("remove", path, error)),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn failed(what: &str, path: &Path, error: io::Error) -> ClusterError {
    ClusterError::Unavailable { doing: format!("{what} {}", path.display()), source: Box::new(error) }
}
