//! Returns memory to the kernel that a wave of connections leaves behind.
//!
//! Until it is upgraded, a connection takes 16 KiB for HTTP. After a change of leader thousands are made at once, and what
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
