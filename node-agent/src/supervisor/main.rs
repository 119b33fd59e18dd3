//! The supervisor's `main`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cgroup::{Placement, join_supervisors};
use super::invocation::{HostNamespaces, state_dir_from_arguments};
use super::log;
use super::pod_cgroup;
use super::standby::Standby;
use super::supervise::supervise;
use crate::baseline::{self, Role};
use crate::journal::AttemptDir;
use crate::shortage;

/// Longest path that is read from standard input, bytes.
const MAX_PATH: u64 = 4096;

/// How long a new supervisor waits before it moves to the others: the previous one is just starting its command, and a
/// move stalls every fork of the machine.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Supervises one Attempt to its end. To be called before any thread or runtime exists.
///
/// It reads the path of the Attempt's directory from standard input; end-of-file without one means that the agent has
/// exited, and so does this process.
pub fn main() -> ExitCode {
    if let Err(error) = baseline::apply(Role::Supervisor) {
        log::write_line(&error.to_string());
    }
    let host = HostNamespaces::from_arguments();
    // Occupies descriptor 3, if it is free, so that whatever is opened later can be moved there in the child.
    let reserved = File::open("/dev/null");
    // Leaves the agent's session, so that Ctrl-C at its terminal does not reach this process.
    let _ = rustix::process::setsid();
    let mut standby = Standby::new(host);
    // Where the command would inherit groups that end with the agent's pod, this process leaves them before the fork.
    let leaves_first = pod_cgroup::is_inherited();
    if !leaves_first {
        standby.fork();
    }
    if let Some(state_dir) = state_dir_from_arguments() {
        standby.prepare_directory(&state_dir);
    }
    let mut placement = wait_for_quiet();
    if leaves_first {
        placement = leave_the_pod(placement);
        standby.fork();
    }
    let ended = wait_for_attempt().map(|attempt| {
        // Closes what is shared with the agent.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        std::env::set_current_dir("/")?;
        supervise(&attempt, &mut standby, placement).map_err(|error| {
            io::Error::other(format!("{} ({})", shortage::describe(&error), error.category()))
        })
    });
    standby.discard();
    // A group with remaining processes stays; the agent removes it when they have ended.
    if let Some(cgroup) = &standby.cgroup
        && let Err(error) = cgroup.remove()
        && cgroup.pids().is_empty()
    {
        log::write_line(&format!("unable to remove the control group: {error}"));
    }
    drop(reserved);
    match ended {
        None | Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            log::write_line(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Moves to the other supervisors, unless an Attempt comes first: it must not wait for that.
fn wait_for_quiet() -> Placement {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut fds, Some(&QUIET)) {
        Ok(0) => {
            // Where this fails, the supervisor ends with the agent's own group.
            let _ = join_supervisors();
            Placement::WithSupervisors
        }
        _ => Placement::WithAgent,
    }
}

/// Leaves the groups of the agent's pod, if that has not been done.
fn leave_the_pod(placement: Placement) -> Placement {
    if placement == Placement::WithAgent
        && let Err(error) = join_supervisors()
    {
        log::write_line(&format!("unable to leave the control groups of the agent's pod: {error}"));
    }
    Placement::WithSupervisors
}

fn wait_for_attempt() -> Option<AttemptDir> {
    let mut path = Vec::new();
    io::stdin().lock().take(MAX_PATH).read_to_end(&mut path).ok()?;
    (!path.is_empty()).then(|| AttemptDir::at(OsString::from_vec(path)))
}
