//! The supervisor's `main`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Host;
use super::cgroup::{Cgroup, join_supervisors};
use super::outside;
use super::supervise::supervise;
use crate::baseline::{self, Role};
use crate::journal::{AttemptDir, SUPERVISOR_LOG};
use crate::shortage;

/// The first argument that makes this binary a supervisor.
pub(super) const ARGUMENT: &str = "__supervise";

/// The argument behind it that says where `environment: Host` is; see [`Host`].
pub(super) const HOST_IS_HERE: &str = "host-is-here";

/// Longest path that is read from standard input.
const MAX_PATH: u64 = 4096;

/// How long a new supervisor keeps still: the one before it is just starting its command.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Whether this process was started as a supervisor. To be asked first thing in `main`.
pub fn is_requested() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

/// Carries one Attempt to its end. To be called before any thread or runtime exists.
///
/// It waits on its standard input for the path of the Attempt's directory; end-of-file without one means that the
/// agent is gone, and so is this process.
pub fn main() -> ExitCode {
    if let Err(error) = baseline::settle(Role::Supervisor) {
        note(&error.to_string());
    }
    let is_here = std::env::args_os().nth(2).is_some_and(|argument| argument == HOST_IS_HERE);
    let host = if is_here { Host::Here } else { Host::OfProcess1 };
    // Takes descriptor 3, if nothing has it, so that whatever is opened later can be moved there in the child.
    let reserved = File::open("/dev/null");
    // Out of the agent's session, so that a Ctrl-C at its terminal is not meant for us.
    let _ = rustix::process::setsid();
    let cgroup = Cgroup::new();
    let moved = wait_for_quiet();
    let ended = wait_for_attempt().map(|attempt| {
        detach(&attempt)?;
        let moved = move_before_the_command(moved);
        if let Err(error) = &cgroup {
            // The walk over the process tree does without.
            note(&format!("no control group of our own: {error}"));
        }
        supervise(&attempt, cgroup.as_ref().ok(), moved, host)
            .map_err(|error| io::Error::other(shortage::describe(&error)))
    });
    // A group in which processes were kept, or would not end, stays; it is removed when they are gone.
    if let Ok(cgroup) = cgroup
        && let Err(error) = cgroup.remove()
        && cgroup.pids().is_empty()
    {
        note(&format!("unable to remove the control group: {error}"));
    }
    drop(reserved);
    match ended {
        None | Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            note(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Whether this process sits with the other supervisors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// It does, or cannot.
    Yes,
    /// Not yet.
    NotYet,
}

/// Moves to the other supervisors, unless an Attempt comes first: it is not to wait for that.
fn wait_for_quiet() -> Moved {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut fds, Some(&QUIET)) {
        Ok(0) => {
            // Without it we live and end with the agent's own group.
            let _ = join_supervisors();
            Moved::Yes
        }
        _ => Moved::NotYet,
    }
}

/// Where the command would inherit groups that end with the agent's pod, moving cannot wait until it runs.
fn move_before_the_command(moved: Moved) -> Moved {
    if moved == Moved::NotYet && outside::is_inherited() {
        if let Err(error) = join_supervisors() {
            note(&format!("unable to leave the control groups of the agent's pod: {error}"));
        }
        return Moved::Yes;
    }
    moved
}

/// Writes a line to standard error, which is the Attempt's `supervisor.log`. Never panics, unlike the print macros.
pub(super) fn note(what: &str) {
    let _ = writeln!(io::stderr(), "{} {what}", crate::host::wall_clock().0);
}

fn wait_for_attempt() -> Option<AttemptDir> {
    let mut path = Vec::new();
    io::stdin().lock().take(MAX_PATH).read_to_end(&mut path).ok()?;
    (!path.is_empty()).then(|| AttemptDir::at(OsString::from_vec(path)))
}

/// Lets go of what is shared with the agent.
fn detach(attempt: &AttemptDir) -> io::Result<()> {
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(attempt.file(SUPERVISOR_LOG));
    match log {
        Ok(log) => rustix::stdio::dup2_stderr(log)?,
        // A full disk must not keep the Attempt from being recorded.
        Err(_) => rustix::stdio::dup2_stderr(OpenOptions::new().write(true).open("/dev/null")?)?,
    }
    std::env::set_current_dir("/")
}
