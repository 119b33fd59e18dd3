//! The process itself, under the names that every Prometheus client library has for it.

use procfs::process::{LimitValue, Process};

use super::registry::{Kind, Registry};

/// Publishes CPU time, memory, open files, threads and the start time of this process. Nothing is published where `/proc`
/// cannot be read.
pub fn publish_process(metrics: &Registry) {
    let Ok(started) = Process::myself().and_then(|process| process.stat()).map(|stat| stat.starttime) else {
        return;
    };
    let ticks = procfs::ticks_per_second() as f64;
    let booted = procfs::boot_time_secs().unwrap_or_default() as f64;
    let publish = |kind, name, help, value: fn(&Process) -> Option<f64>| {
        metrics.computed(kind, name, help, &[], move || {
            Process::myself().ok().and_then(|process| value(&process)).unwrap_or(f64::NAN)
        });
    };
    let start = booted + started as f64 / ticks;
    let help = "When the process started, in seconds since 1970.";
    metrics.computed(Kind::Gauge, "process_start_time_seconds", help, &[], move || start);
    let help = "CPU time of the process, in user mode and in the kernel, in seconds.";
    publish(Kind::Counter, "process_cpu_seconds_total", help, |process| {
        let stat = process.stat().ok()?;
        Some((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
    });
    publish(Kind::Gauge, "process_resident_memory_bytes", "Resident memory, in bytes.", |process| {
        Some((process.stat().ok()?.rss * procfs::page_size()) as f64)
    });
    publish(Kind::Gauge, "process_virtual_memory_bytes", "Virtual memory, in bytes.", |process| {
        Some(process.stat().ok()?.vsize as f64)
    });
    publish(Kind::Gauge, "process_threads", "Threads.", |process| {
        Some(process.stat().ok()?.num_threads as f64)
    });
    publish(Kind::Gauge, "process_open_fds", "Open file descriptors.", |process| {
        Some(process.fd_count().ok()? as f64)
    });
    let help = "Most file descriptors that may be open.";
    publish(Kind::Gauge, "process_max_fds", help, |process| {
        match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(most) => Some(most as f64),
            LimitValue::Unlimited => Some(f64::INFINITY),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_this_process_are_credible() {
        let metrics = Registry::new();
        publish_process(&metrics);
        let text = metrics.render();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
    }
}
