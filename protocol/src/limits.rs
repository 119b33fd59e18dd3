//! The limits of the protocol, each with its reason. Both ends reject larger input before they allocate memory for it.
//! `docs/protocol.md` tells what happens at each.

use std::ops::RangeInclusive;

/// Largest text frame on the control socket, bytes. A `Start` with the longest allowed command must fit: 128 KiB of
/// text take up to six times as much in JSON.
pub const MAX_CONTROL_FRAME: usize = 1 << 20;

/// Largest binary frame on the log socket, bytes: one record with its head.
pub const MAX_LOG_FRAME: usize = MAX_RECORD_DATA + 4096;

/// Most data in one log record, bytes. A WebSocket keeps buffers of about twice its largest message while it is open,
/// so this determines the memory of a connection with output.
pub const MAX_RECORD_DATA: usize = 128 << 10;

/// Attempts in one part of an Inventory; at less than 1 KiB each, a part fits a control frame.
pub const INVENTORY_PART: usize = 500;

/// Bytes of all arguments, or of a script. The kernel accepts 128 KiB for one argument.
///
/// Source: `MAX_ARG_STRLEN` in `execve(2)`.
pub const MAX_COMMAND_BYTES: usize = 128 << 10;

/// Highest position in a log; stores and readers use signed 64-bit numbers.
pub const MAX_POSITION: u64 = i64::MAX as u64;

/// Largest value of a number that counts something (bytes, milliseconds). Every JSON reader represents it exactly, and
/// sums over a fleet do not overflow a `u64`.
pub const MAX_COUNT: u64 = (1 << 50) - 1;

/// Highest number of an Attempt; [`crate::ids::AttemptId::sort_key`] has five digits for it.
pub const MAX_ATTEMPT: u32 = 99_999;

/// Most processes listed when a command could not be killed.
pub const MAX_PIDS_NAMED: usize = 64;

/// Most disks, and most network interfaces, in one sample of a node.
pub const MAX_DEVICES: usize = 32;

/// Most protocol versions that an agent can offer.
pub const MAX_VERSIONS: usize = 64;

/// Most environments that an agent can offer.
pub const MAX_ENVIRONMENTS: usize = 8;

/// Most arguments of a command, the program included.
pub const MAX_COMMAND_ITEMS: usize = 1024;

/// Most bytes of standard input in a Task.
pub const MAX_STDIN_BYTES: usize = 64 << 10;

/// Range of `run.limits.cpu`, thousandths of a CPU. The kernel schedules in periods of 100 ms and grants at least 1 ms.
pub const CPU_MILLIS: RangeInclusive<u32> = 10..=1_024_000;

/// Range of `run.limits.memory`, bytes; with less, not even a shell starts.
pub const MEMORY_BYTES: RangeInclusive<u64> = (4 << 20)..=(16 << 40);

/// Range of `run.limits.pids`, processes and threads. The maximum is that of `kernel.pid_max`.
///
/// Source: `proc_sys_kernel(5)`.
pub const PIDS: RangeInclusive<u32> = 1..=4_194_304;

/// Range of `run.limits.nofile`, open files of one process. With less the dynamic loader fails; the maximum is that of
/// `fs.nr_open`.
pub const NOFILE: RangeInclusive<u32> = 16..=1_073_741_816;

/// Range of `run.limits.core`, bytes of a core dump of one process.
pub const CORE_BYTES: RangeInclusive<u64> = 0..=(16 << 40);

/// Most bytes in the `#!` line of a script; the kernel reads no more (`BINPRM_BUF_SIZE`).
///
/// Source: `execve(2)`.
pub const MAX_SHEBANG: usize = 255;

/// Most processes listed when a command left some running.
pub const MAX_LEFT_PROCESSES: usize = 8;

/// Most bytes in the name of a process. The kernel's names have up to 15 (`TASK_COMM_LEN`); one that is not UTF-8 grows
/// when it is converted.
pub const MAX_PROCESS_NAME: usize = 48;

/// Time to wait for more output after the main process of a command has ended, milliseconds. A process that it left
/// running may hold the pipes open.
pub const DRAIN_MS: u64 = 5_000;

/// Most environment variables in a Task.
pub const MAX_ENV_ITEMS: usize = 256;

/// Most bytes of all environment names and values in a Task.
pub const MAX_ENV_BYTES: usize = 64 << 10;

/// Interval between Heartbeats, milliseconds.
pub const HEARTBEAT_MS: u64 = 5_000;

/// Time without a frame after which either end considers the connection dead, milliseconds. A node whose Heartbeats
/// stop is *unreachable* after this time, even if its TCP connection stays open.
pub const DEAD_AFTER_MS: u64 = 15_000;

/// Time for the first message after the upgrade, milliseconds.
pub const HELLO_WITHIN_MS: u64 = 5_000;
