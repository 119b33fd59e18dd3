//! The numbers of the wire, each with its reason. Both ends refuse what is larger, before they allocate for it.

use std::ops::RangeInclusive;

/// Largest text frame on the control socket, bytes. A `Start` with the longest allowed command (128 KiB, and up to
/// six bytes of JSON for one of text) must fit.
pub const MAX_CONTROL_FRAME: usize = 1 << 20;

/// Largest binary frame on the log socket, bytes: one record, its head and the framing.
pub const MAX_LOG_FRAME: usize = MAX_RECORD_DATA + 4096;

/// Largest run of bytes in one log record. A WebSocket keeps about twice its largest message for as long as it is
/// open, so this is what one connection with output costs.
pub const MAX_RECORD_DATA: usize = 128 << 10;

/// Attempts in one part of an Inventory; at under 1 KiB each a part fits a control frame.
pub const INVENTORY_PART: usize = 500;

/// Bytes of arguments, or of a script; the kernel takes 128 KiB for one argument (`MAX_ARG_STRLEN`).
pub const MAX_COMMAND_BYTES: usize = 128 << 10;

/// Behind the last position of any log; what stores and readers count with is signed.
pub const MAX_POSITION: u64 = i64::MAX as u64;

/// Largest number that only counts something (bytes used, milliseconds passed): exact in every reader of JSON, and so
/// far below the end of a `u64` that sums over a fleet do not reach it.
pub const MAX_COUNT: u64 = (1 << 50) - 1;

/// Highest number of an Attempt; its text has five digits where Attempts are ordered by text.
pub const MAX_ATTEMPT: u32 = 99_999;

/// Processes that are named where a command would not end.
pub const MAX_PIDS_NAMED: usize = 64;

/// Disks, and network interfaces, in one sample of a node.
pub const MAX_DEVICES: usize = 32;

/// Protocol versions that an agent offers.
pub const MAX_VERSIONS: usize = 64;

/// Environments that an agent offers.
pub const MAX_ENVIRONMENTS: usize = 8;

/// Number of arguments.
pub const MAX_COMMAND_ITEMS: usize = 1024;

/// Bytes of standard input that a Task can carry.
pub const MAX_STDIN_BYTES: usize = 64 << 10;

/// Thousandths of a CPU that a command can be limited to. The kernel counts in periods of 100 ms and gives at least 1 ms.
pub const CPU_MILLIS: RangeInclusive<u32> = 10..=1_024_000;

/// Bytes of memory that a command can be limited to; with less not even a shell starts.
pub const MEMORY_BYTES: RangeInclusive<u64> = (4 << 20)..=(16 << 40);

/// Processes and threads that a command can be limited to; the kernel numbers no more.
pub const PIDS: RangeInclusive<u32> = 1..=4_194_304;

/// Open files that a process of a command may have: with less the dynamic loader opens nothing, more the kernel does not
/// count (`fs.nr_open`).
pub const NOFILE: RangeInclusive<u32> = 16..=1_073_741_816;

/// Bytes of a core dump of a process of a command.
pub const CORE_BYTES: RangeInclusive<u64> = 0..=(16 << 40);

/// Bytes of the first line of a script that names its interpreter; the kernel reads no more of it (`BINPRM_BUF_SIZE`).
pub const MAX_SHEBANG: usize = 255;

/// Processes that are named when a command left some behind.
pub const MAX_LEFT_PROCESSES: usize = 8;

/// Bytes of the name of a process; the kernel's own are up to 15 (`TASK_COMM_LEN`), and one that is not UTF-8 grows
/// when it is converted.
pub const MAX_PROCESS_NAME: usize = 48;

/// How long output is awaited after the main process of a command has ended, milliseconds: a process that it left may
/// hold the pipes.
pub const DRAIN_MS: u64 = 5_000;

/// Number of environment variables.
pub const MAX_ENV_ITEMS: usize = 256;

/// Bytes of all environment names and values.
pub const MAX_ENV_BYTES: usize = 64 << 10;

/// Time between Heartbeats, milliseconds.
pub const HEARTBEAT_MS: u64 = 5_000;

/// Silence after which either end takes the connection for dead, milliseconds. A node whose Heartbeats stop is
/// *unreachable* after this time, also when its TCP connection stays open.
pub const DEAD_AFTER_MS: u64 = 15_000;

/// Time within which the first message must follow the upgrade, milliseconds.
pub const HELLO_WITHIN_MS: u64 = 5_000;
