//! The clocks and the identity of this machine.

use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use sentinel_protocol::time::UnixMillis;

/// Milliseconds on the boot clock: it counts suspended time and no one can set it.
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

/// Where a process lives: the boot of its machine and, as far as that can be told, its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The boot.
    pub boot_id: String,
    /// The process id namespace; see [`pid_namespace`].
    pub namespace: Option<String>,
}

impl Home {
    /// Of this process.
    ///
    /// # Errors
    /// When the boot id cannot be read.
    pub fn here() -> io::Result<Self> {
        Ok(Self { boot_id: boot_id()?, namespace: pid_namespace() })
    }
}

/// This process's namespace of process ids, by its number and when its first process began: numbers come again.
/// `None` where `/proc` does not say. When the first process ends, the kernel ends all others in it
/// (`pid_namespaces(7)`).
pub fn pid_namespace() -> Option<String> {
    let number = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let began = crate::process::stat(1).ok()?.start_time;
    Some(format!("{}@{began}", number.display()))
}

/// The kernel's boot id: another one means that the machine was started anew.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    let mut buffer = [0; 64];
    let read = File::open("/proc/sys/kernel/random/boot_id")?.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..read]).trim().to_owned())
}
