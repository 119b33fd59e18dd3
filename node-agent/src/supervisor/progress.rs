//! What a child and its supervisor tell each other, over a socket.
//!
//! ```text
//! child  → parent   'A' and the path: this Attempt was handed over; with it, a descriptor from which the values of its Secrets are read
//! parent → child    'L': its lock is held, and nothing was done about it; only where the directory was not prepared
//! child  → parent   'N' and JSON: nothing was started, and why
//! child  → parent   'X': only exec is left
//! ```
//!
//! End-of-file after 'X' shows that exec has succeeded, as it closes the socket. Before, it shows that the child has ended and nothing
//! was started.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use sentinel_secrets::values::SecretValues;
use zeroize::Zeroizing;

use super::start_error::NotStarted;
use crate::journal::AttemptDir;

/// Longest message, bytes: a path, or the reason of a failed start.
const MAX_MESSAGE: usize = 16 << 10;

const ATTEMPT: u8 = b'A';
const LOCKED: u8 = b'L';
const NOT_STARTED: u8 = b'N';
const EXECUTING: u8 = b'X';

/// How far a child has come.
pub(super) enum Progress {
    /// It has an Attempt, and the values of the Secrets that the command needs.
    Attempt(AttemptDir, Option<SecretValues>),
    /// It has not started the command.
    NotStarted(NotStarted),
    /// Only exec is left.
    Executing,
    /// Its end of the socket is closed.
    Closed,
}

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct Follower(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub(super) struct Reporter(OwnedFd);

impl Reporter {
    /// Reports which Attempt it has, and waits for the parent's lock unless its directory was prepared. False when the parent has
    /// ended, or does not get the lock.
    pub(super) fn attempt(
        &self,
        attempt: &AttemptDir,
        secrets: Option<&SecretValues>,
        is_prepared: bool,
    ) -> bool {
        let mut message = vec![ATTEMPT];
        message.extend_from_slice(attempt.path().as_os_str().as_bytes());
        let sent = match secrets {
            None => self.send(&message),
            Some(secrets) => in_memory(secrets).and_then(|file| self.send_with(&message, &file)).is_ok(),
        };
        sent && (is_prepared || receive(&self.0).is_some_and(|answer| answer == [LOCKED]))
    }

    /// Reports that only exec is left; false when the supervisor has ended.
    pub(super) fn executing(&self) -> bool {
        self.send(&[EXECUTING])
    }

    /// Reports that nothing was started.
    pub(super) fn not_started(&self, why: &NotStarted) {
        let mut message = vec![NOT_STARTED];
        if serde_json::to_writer(&mut message, why).is_ok() {
            self.send(&message);
        }
    }

    fn send_with(&self, message: &[u8], file: &File) -> io::Result<()> {
        let descriptors = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn send(&self, message: &[u8]) -> bool {
        send(&self.0, message, SendFlags::NOSIGNAL).is_ok()
    }
}

impl AsFd for Reporter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The next message; `None` at end-of-file.
fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        match recv(socket, &mut message[..], RecvFlags::empty()) {
            Ok((_, 0)) => return None,
            Ok((_, len)) => {
                message.truncate(len);
                return Some(message);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// The next message, and the file that came with it; `None` at end-of-file.
fn receive_with_file(socket: &OwnedFd) -> Option<(Vec<u8>, Option<File>)> {
    let mut message = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let len = loop {
        let mut into = [IoSliceMut::new(&mut message)];
        match recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(received) if received.bytes > 0 => break received.bytes,
            _ => return None,
        }
    };
    message.truncate(len);
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Some((message, file.map(File::from)))
}

/// Values in a file that is in no file system.
fn in_memory(secrets: &SecretValues) -> io::Result<File> {
    let mut file = File::from(memfd_create("secrets", MemfdFlags::CLOEXEC)?);
    file.write_all(&secrets.encode())?;
    file.rewind()?;
    Ok(file)
}

fn read_values(mut file: File) -> io::Result<SecretValues> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::new());
    bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    file.read_to_end(&mut bytes)?;
    SecretValues::decode(&bytes).map_err(io::Error::other)
}

/// Both ends.
pub(super) fn channel() -> io::Result<(Follower, Reporter)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Follower(ours), Reporter(theirs)))
}

impl Follower {
    /// Waits until the child has come further.
    pub(super) fn progress(&self) -> Progress {
        let Some((message, file)) = receive_with_file(&self.0) else { return Progress::Closed };
        match message.split_first() {
            Some((&ATTEMPT, path)) => {
                let attempt = AttemptDir::at(OsString::from_vec(path.to_vec()));
                // Values that cannot be read: the child has them, and the command's output could not be masked.
                match file.map(read_values).transpose() {
                    Ok(secrets) => Progress::Attempt(attempt, secrets),
                    Err(_) => Progress::Closed,
                }
            }
            Some((&NOT_STARTED, json)) => {
                serde_json::from_slice(json).map_or(Progress::Closed, Progress::NotStarted)
            }
            Some((&EXECUTING, _)) => Progress::Executing,
            _ => Progress::Closed,
        }
    }

    /// Lets the child continue, as the Attempt's lock is held.
    pub(super) fn note_locked(&self) {
        let _ = send(&self.0, &[LOCKED], SendFlags::NOSIGNAL);
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
