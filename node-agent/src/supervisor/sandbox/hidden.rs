//! Where the agent's own files can be seen: its state, its token, its sockets.
//!
//! A directory can be mounted in several places, and on the node it has another path than in the agent's container. So it is found by
//! its file system and its place there, in the list of mounts of each environment.

use std::ffi::CString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstat};
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::Environment;

use super::super::invocation::HostNamespaces;
use super::super::root::Root;
use super::super::start_error::StartError;

/// One place to hide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hidden {
    pub(super) path: CString,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// The places to hide in each environment, found once for all commands of an agent.
#[derive(Debug, Default)]
pub(in super::super) struct Hiding {
    container: Vec<Hidden>,
    /// Or why they are not known.
    host: Option<Result<Vec<Hidden>, String>>,
}

impl Hiding {
    /// Finds these files of the agent.
    pub(in super::super) fn find(paths: &[PathBuf], host: HostNamespaces) -> Self {
        let own_mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own: Vec<MountPoint> = mounts(&own_mounts).collect();
        let files = paths.iter().filter_map(|path| OwnFile::at(versioned(path).unwrap_or(path), &own));
        let files: Vec<OwnFile> = files.collect();
        let root = Root::own();
        let other_places = files.iter().flat_map(|file| file.places(&own, &root));
        let mut container: Vec<Hidden> = files.iter().map(OwnFile::as_is).chain(other_places).collect();
        without_repeats(&mut container);
        let on_the_host = || {
            let root = Root::of(Environment::Host, host).map_err(|error| error.message)?;
            if root.is_own() {
                return Ok(container.clone());
            }
            let text = fs::read_to_string("/proc/1/mountinfo").map_err(|error| error.to_string())?;
            let theirs: Vec<MountPoint> = mounts(&text).collect();
            let mut places: Vec<Hidden> = files.iter().flat_map(|file| file.places(&theirs, &root)).collect();
            without_repeats(&mut places);
            Ok(places)
        };
        let host = Some(on_the_host());
        Self { container, host }
    }

    /// Those of an environment.
    pub(super) fn of(&self, environment: Environment) -> Result<Vec<Hidden>, StartError> {
        match (environment, &self.host) {
            (Environment::Container, _) => Ok(self.container.clone()),
            (Environment::Host, None) => Ok(Vec::new()),
            (Environment::Host, Some(Ok(host))) => Ok(host.clone()),
            (Environment::Host, Some(Err(why))) => Err(StartError::new(
                StartFailure::Namespace,
                format!(
                    "the agent's files cannot be hidden from commands on the host: its mounts are not known: {why}"
                ),
            )),
        }
    }
}

/// The directory of a file that kubelet replaces: it is a link to the newest of several versions beside it.
fn versioned(path: &Path) -> Option<&Path> {
    fs::read_link(path).ok().filter(|target| target.starts_with("..data")).and(path.parent())
}

fn without_repeats(places: &mut Vec<Hidden>) {
    places.sort_by(|a, b| a.path.cmp(&b.path));
    places.dedup();
}

/// A file or directory of the agent.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    metadata: Metadata,
    /// Its file system, and its path from the root of that.
    device: String,
    inside: PathBuf,
}

impl OwnFile {
    /// `None` when it does not exist, or its mount is not known.
    fn at(path: &Path, own: &[MountPoint]) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        let metadata = fs::metadata(&path).ok()?;
        // Of those at the same place the last one is on top.
        let mount =
            own.iter().filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| depth(&mount.at))?;
        let inside = join(&mount.root, path.strip_prefix(&mount.at).ok()?);
        Some(Self { device: mount.device.clone(), inside, path, metadata })
    }

    fn kind(&self) -> Kind {
        if self.metadata.is_dir() { Kind::Directory } else { Kind::File }
    }

    fn as_is(&self) -> Hidden {
        Hidden { path: c_string(&self.path), kind: self.kind() }
    }

    /// Where it is among these mounts, below this root.
    fn places<'a>(&'a self, mounts: &'a [MountPoint], root: &'a Root) -> impl Iterator<Item = Hidden> + 'a {
        mounts.iter().filter(|mount| mount.device == self.device).filter_map(move |mount| {
            if let Ok(rest) = self.inside.strip_prefix(&mount.root) {
                let place = join(&mount.at, rest);
                // Another mount may cover it.
                let is_it = identity(root, &place).is_ok_and(|found| found == self.identity());
                return is_it.then(|| Hidden { path: c_string(&place), kind: self.kind() });
            }
            // A part of it is mounted elsewhere, a directory or a file.
            mount.root.starts_with(&self.inside).then(|| {
                let is_directory = fs_is_directory(root, &mount.at);
                Hidden {
                    path: c_string(&mount.at),
                    kind: if is_directory { Kind::Directory } else { Kind::File },
                }
            })
        })
    }

    fn identity(&self) -> (u64, u64) {
        (self.metadata.dev(), self.metadata.ino())
    }
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

/// Without a slash at the end, where there is nothing to join.
fn join(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_owned() } else { path.join(rest) }
}

fn identity(root: &Root, path: &Path) -> io::Result<(u64, u64)> {
    let stat = fstat(root.open(path, OFlags::PATH)?)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn fs_is_directory(root: &Root, path: &Path) -> bool {
    root.open(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
}

/// A path has no NUL byte.
fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// A line of `/proc/<pid>/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPoint {
    /// Major and minor number of the file system.
    device: String,
    /// The directory of the file system that is mounted.
    root: PathBuf,
    /// Where.
    pub(super) at: PathBuf,
    pub(super) options: String,
}

/// The lines of a `mountinfo`.
pub(super) fn mounts(text: &str) -> impl Iterator<Item = MountPoint> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        Some(MountPoint {
            device: fields.next()?.to_owned(),
            root: unescape(fields.next()?),
            at: unescape(fields.next()?),
            options: fields.next()?.to_owned(),
        })
    })
}

/// Spaces, tabs, newlines and backslashes are octal in it.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\');
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mounts_with_unusual_names() {
        let text = "23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n\
            36 35 98:0 /a\\040b\\134c /mnt/x\\011y rw,nosuid shared:1 master:2 - ext4 /dev/root rw\nbroken line\n";
        let found: Vec<MountPoint> = mounts(text).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[1].root.as_path(), found[1].at.as_path()),
            (Path::new("/a b\\c"), Path::new("/mnt/x\ty"))
        );
        assert_eq!((found[1].device.as_str(), found[1].options.as_str()), ("98:0", "rw,nosuid"));
    }
}
