//! Which of the processes of a start gets the processor first: the command.
//!
//! A process that is woken may take the processor of the one that wakes it, and a supervisor is woken in the middle of its command's
//! start. With `SCHED_BATCH` it does not (`sched(7)`); it runs as soon as a processor is idle. So supervisors have that policy until
//! their command runs.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

/// Whether [`step_back`] has changed the policy, of this process or of the one that has forked it.
static STEPPED_BACK: AtomicBool = AtomicBool::new(false);

/// Lets others run first, unless this process was given a policy of its own.
pub(super) fn step_back() {
    if policy() == libc::SCHED_OTHER && set(libc::SCHED_BATCH) {
        STEPPED_BACK.store(true, Ordering::Relaxed);
    }
}

/// The same, for a thread that never undoes it.
pub(crate) fn let_others_run_first() {
    if policy() == libc::SCHED_OTHER {
        set(libc::SCHED_BATCH);
    }
}

/// Undoes [`step_back`].
pub(super) fn step_up() {
    if STEPPED_BACK.swap(false, Ordering::Relaxed) {
        set(libc::SCHED_OTHER);
    }
}

#[expect(unsafe_code, reason = "policies have no safe interface")]
fn policy() -> i32 {
    // SAFETY: it only reads.
    unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) as i32 }
}

/// Between these two policies every process may change.
#[expect(unsafe_code, reason = "policies have no safe interface")]
fn set(policy: i32) -> bool {
    // All zero, as both policies require.
    let parameters = [0_i32; 4];
    // SAFETY: the kernel reads a `struct sched_param`, one integer.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, parameters.as_ptr()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_changed_and_restored_and_one_of_its_own_is_kept() {
        // A thread of its own: policies belong to threads.
        let seen = std::thread::spawn(|| {
            let mut seen = vec![policy()];
            step_back();
            seen.push(policy());
            step_up();
            seen.push(policy());
            set(libc::SCHED_BATCH);
            step_back();
            step_up();
            seen.push(policy());
            seen
        });
        let batch = libc::SCHED_BATCH;
        assert_eq!(seen.join().unwrap(), [libc::SCHED_OTHER, batch, libc::SCHED_OTHER, batch]);
    }
}
