//! The clocks and the boot id of this machine.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use sentinel_protocol::time::UnixMillis;

/// Milliseconds on the boot clock: it counts suspended time and cannot be set.
pub fn boot_clock_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The wall clock, for display and records.
pub fn wall_clock() -> UnixMillis {
    UnixMillis(wall_clock_micros() / 1000)
}

/// The wall clock in microseconds since the Unix epoch, for log records.
pub fn wall_clock_micros() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// The kernel's boot id: it changes at every boot. Read once, as no process outlives one.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known.clone());
    }
    let mut buffer = [0; 64];
    let read = File::open("/proc/sys/kernel/random/boot_id")?.read(&mut buffer)?;
    let boot_id = String::from_utf8_lossy(&buffer[..read]).trim().to_owned();
    Ok(BOOT_ID.get_or_init(|| boot_id).clone())
}
