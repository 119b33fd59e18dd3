//! What a process uses, from /proc.

use std::fs;

/// Largest resident set that a process ever had, bytes.
pub fn peak_rss(pid: u32) -> u64 {
    status_field(pid, "VmHWM:")
}

/// Largest resident set that a process ever had without pages of files, bytes. Those are its program: several times as many
/// in an unoptimized build as in a released one, and no memory that it has to give back.
pub fn peak_without_files(pid: u32) -> u64 {
    peak_rss(pid).saturating_sub(status_field(pid, "RssFile:"))
}

/// Resident set of a process, bytes.
pub fn rss(pid: u32) -> u64 {
    status_field(pid, "VmRSS:")
}

/// Proportional set size of a process, bytes: what is shared counts by share.
pub fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    field(&text, "Pss:")
}

/// Processor time that a process has used, itself only, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// Child processes of `pid`, whichever of its threads started them.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

fn status_field(pid: u32, name: &str) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), name)
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
