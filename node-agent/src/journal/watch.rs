//! Sees that something changed in an Attempt's directory, by inotify. A hint and no more: every look reads the
//! files, and a lost event is repaired by the next look.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::attempt_dir::CANCEL;
use super::{AttemptDir, JournalError};

/// Something that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In which Attempt.
    pub attempt: AttemptDir,
    /// What.
    pub what: Changed,
}

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Changed {
    /// State or exit record.
    Record,
    /// There is new output.
    Output,
}

/// Whether new output is watched too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It is.
    Watched,
    /// Only records are.
    Unwatched,
}

/// Watches Attempt directories; its descriptor is readable when [`Watch::changes`] has something to say.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    watched: HashMap<i32, (AttemptDir, Changed)>,
}

impl Watch {
    /// A watch over nothing yet.
    ///
    /// # Errors
    /// When the kernel has no inotify instance left for us.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify, watched: HashMap::new() })
    }

    /// Watches this Attempt from now on. Look at its files once *after* this call: earlier changes are not told.
    ///
    /// # Errors
    /// When the directory is missing, or the kernel's limit of watches is reached.
    pub fn add(&mut self, attempt: &AttemptDir, output: Output) -> Result<(), JournalError> {
        let failed = |e| JournalError::io("watch", attempt.path(), e);
        let wd =
            inotify::add_watch(&self.inotify, attempt.path(), WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)
                .map_err(failed)?;
        self.watched.insert(wd, (attempt.clone(), Changed::Record));
        if output == Output::Watched {
            let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::ONLYDIR;
            let wd = inotify::add_watch(&self.inotify, attempt.log(), flags).map_err(failed)?;
            self.watched.insert(wd, (attempt.clone(), Changed::Output));
        }
        Ok(())
    }

    /// Watches this Attempt no more.
    pub fn remove(&mut self, attempt: &AttemptDir) {
        let inotify = &self.inotify;
        self.watched.retain(|wd, (watched, _)| {
            if watched == attempt {
                // It is gone already when the directory is.
                let _ = inotify::remove_watch(inotify, *wd);
            }
            watched != attempt
        });
    }

    /// What may have changed since the last call, each thing once; empty when nothing did. When the kernel lost
    /// count, everything watched may have changed.
    ///
    /// # Errors
    /// When inotify cannot be read.
    pub fn changes(&mut self) -> io::Result<Vec<Change>> {
        let mut changed: Vec<(i32, bool)> = Vec::new();
        let mut lost_count = false;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            lost_count |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let gone = event.events().contains(ReadFlags::IGNORED);
            let ours = event.file_name().is_some_and(|name| name.to_bytes() == CANCEL.as_bytes());
            if !ours && changed.last() != Some(&(event.wd(), gone)) && !changed.contains(&(event.wd(), gone))
            {
                changed.push((event.wd(), gone));
            }
        }
        if lost_count {
            changed = self.watched.keys().map(|wd| (*wd, false)).collect();
        }
        let told = |wd: &i32| {
            self.watched.get(wd).map(|(attempt, what)| Change { attempt: attempt.clone(), what: *what })
        };
        let changes = changed.iter().filter(|(_, gone)| !gone).filter_map(|(wd, _)| told(wd)).collect();
        for (wd, _) in changed.iter().filter(|(_, gone)| *gone) {
            self.watched.remove(wd);
        }
        Ok(changes)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}
