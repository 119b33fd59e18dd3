//! What the allocator keeps, and what it returns to the kernel.
//!
//! Output passes through blocks of up to a megabyte. glibc gets such blocks from the kernel each time, which clears them: a fifth of the
//! operator's processor time for output.
//!
//! A wave of connections leaves memory behind. Until it is upgraded, a connection takes 16 KiB for HTTP. After a change of leader thousands are made at once, and what
//! is freed then lies between what stays, where glibc would keep it.

use std::time::Duration;

/// How often Sessions are counted.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Sessions that make a wave.
const WAVE: u64 = 256;

/// Calls `release` after each wave. `begun` is how many Sessions have begun. Runs until it is dropped.
pub(super) async fn after_waves(begun: impl Fn() -> u64, release: fn()) {
    let (mut released, mut before) = (begun(), begun());
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let now = begun();
        // Not while it lasts: the next connections would take the memory again.
        if now == before && now.saturating_sub(released) >= WAVE {
            released = now;
            // It may take some milliseconds. A panic is only possible in a test.
            let _ = tokio::task::spawn_blocking(release).await;
        }
        before = now;
    }
}

/// Keeps blocks that are smaller than this, bytes: larger than a frame of output, and than a segment of the archive.
#[cfg(target_env = "gnu")]
const KEPT_BELOW: std::ffi::c_int = 4 << 20;

/// Keeps this much at the end of the heap, bytes.
#[cfg(target_env = "gnu")]
const KEPT_AT_END: std::ffi::c_int = 16 << 20;

/// Has freed blocks kept for the next output; to be called before the operator starts.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "it has no safe interface")]
pub(super) fn keep_blocks() {
    // From malloc.h.
    const M_TRIM_THRESHOLD: std::ffi::c_int = -1;
    const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
    unsafe extern "C" {
        fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
    }
    // SAFETY: it may be called at any time, from any thread (mallopt(3)). Where it fails, the values of glibc stay.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, KEPT_BELOW);
        mallopt(M_TRIM_THRESHOLD, KEPT_AT_END);
    }
}

/// Other allocators keep them.
#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_blocks() {}

/// Returns whole pages that are free.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "it has no safe interface")]
pub(super) fn release() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: it may be called at any time, from any thread (malloc_trim(3)), and changes only what is free.
    unsafe {
        malloc_trim(0);
    }
}

/// Other allocators return it without being asked.
#[cfg(not(target_env = "gnu"))]
pub(super) fn release() {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    static RELEASED: AtomicU64 = AtomicU64::new(0);

    #[tokio::test(start_paused = true)]
    async fn memory_is_released_once_after_each_wave() {
        let begun = Arc::new(AtomicU64::new(0));
        let count = begun.clone();
        let release = || {
            RELEASED.fetch_add(1, Ordering::Relaxed);
        };
        let task = tokio::spawn(after_waves(move || count.load(Ordering::Relaxed), release));
        let mut released = Vec::new();
        for more in [WAVE / 2, WAVE, WAVE, 0, 0, WAVE - 1, 0, 1, 0, 0] {
            begun.fetch_add(more, Ordering::Relaxed);
            tokio::time::sleep(CHECK_EVERY).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            released.push(RELEASED.load(Ordering::Relaxed));
        }
        task.abort();
        assert_eq!(released, [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]);
    }
}
