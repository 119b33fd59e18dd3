//! The supervisor's `main`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use sentinel_secrets::values::SecretValues;

use super::cgroup::{Placement, join_supervisors};
use super::invocation::{HostNamespaces, hidden_from_arguments, state_dir_from_arguments};
use super::progress::Progress;
use super::sandbox::{self, Hiding};
use super::standby::Standby;
use super::supervise::supervise;
use super::zygote::Zygote;
use super::{fork_server, log, pod_cgroup, scheduling};
use crate::baseline::{self, Role};
use crate::host::{boot_clock_ms, boot_id};
use crate::journal::AttemptDir;
use crate::shortage;

/// How long a new supervisor waits before it moves to the others: the previous one is just starting its command, and a
/// move stalls every fork of the machine.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Forks supervisors, and in each of them supervises one Attempt to its end. To be called before any thread or runtime exists.
///
/// A child of a supervisor reads the path of the Attempt's directory from standard input; end-of-file without one means that the agent
/// has exited, and so does this process.
pub fn main() -> ExitCode {
    if let Err(error) = baseline::apply(Role::Supervisor) {
        log::write_line(&error.to_string());
    }
    let host = HostNamespaces::from_arguments();
    // Occupies descriptor 3, if it is free, so that whatever is opened later can be moved there in the child.
    let reserved = File::open("/dev/null");
    // Leaves the agent's session, so that Ctrl-C at its terminal does not reach this process.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"fork-server");
    // What is read once is known to every supervisor that is forked.
    let _ = (boot_clock_ms(), boot_id());
    let hiding = Hiding::find(&hidden_from_arguments(), host);
    sandbox::prepare();
    scheduling::step_back();
    if !fork_server::serve() {
        return ExitCode::SUCCESS;
    }
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"supervisor");
    let mut standby = Standby::new(host, hiding);
    if let Some(state_dir) = state_dir_from_arguments() {
        standby.prepare_directory(&state_dir);
    }
    let ended = wait_for_attempt(&standby).map(|(child, attempt, secrets, placement)| {
        if secrets.is_some() {
            // They stay in its memory, to be found in the output. Best effort: there is no core dump of a process without a crash.
            let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
        // Closes what is shared with the agent; the child has its own.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        std::env::set_current_dir("/")?;
        supervise(&attempt, secrets.as_ref(), &mut standby, child, placement).map_err(|error| {
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

/// Waits with a child until it has an Attempt; `None` when the agent has exited.
///
/// After a while without one this process moves to the other supervisors. Where the command would inherit groups that end with the
/// agent's pod, it leaves them before the fork.
fn wait_for_attempt(standby: &Standby) -> Option<(Zygote, AttemptDir, Option<SecretValues>, Placement)> {
    let mut placement = Placement::WithAgent;
    if pod_cgroup::is_inherited() {
        is_quiet(rustix::stdio::stdin());
        placement = leave();
    }
    let child = match Zygote::fork(standby, None) {
        Ok(child) => child,
        Err(error) => {
            log::write_line(&format!("unable to create a process: {error}"));
            return None;
        }
    };
    standby.prepare_start(child.pid());
    if placement == Placement::WithAgent && is_quiet(child.follower().as_fd()) {
        placement = leave();
    }
    // A child that ends without an Attempt has ended with the agent, or was killed: what it may have read is launched again.
    match child.follower().progress() {
        Progress::Attempt(attempt, secrets) => Some((child, attempt, secrets, placement)),
        _ => None,
    }
}

/// Whether there is nothing to be read for a while.
fn is_quiet(from: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)], Some(&QUIET)) == Ok(0)
}

/// Moves to the other supervisors.
fn leave() -> Placement {
    // Where this fails, the supervisor ends with the agent's own group.
    if let Err(error) = join_supervisors()
        && pod_cgroup::is_inherited()
    {
        log::write_line(&format!("unable to leave the control groups of the agent's pod: {error}"));
    }
    Placement::WithSupervisors
}
