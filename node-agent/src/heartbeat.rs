//! Samples the node's metrics in a thread of its own, since a hung mount can block a sample forever. A Heartbeat takes
//! the latest sample and never waits for one.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sentinel_protocol::metrics::{DiskMetrics, NetworkMetrics, NodeMetrics};
use sysinfo::{DiskRefreshKind, Disks, MINIMUM_CPU_UPDATE_INTERVAL, Networks, System};

/// Largest number of disks, and of networks, in one sample.
const MAX_ITEMS: usize = 32;

/// Samples the node; cloned handles share one thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Sampler {
    latest: Arc<Mutex<NodeMetrics>>,
    /// The thread exits when the last handle is dropped.
    _alive: SyncSender<()>,
}

impl Sampler {
    /// Starts sampling, about every `period`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(period: Duration) -> io::Result<Self> {
        let latest = Arc::new(Mutex::new(NodeMetrics::default()));
        let (alive, closed) = sync_channel::<()>(0);
        let published = latest.clone();
        let main = move || {
            let mut probe = Probe::new();
            keep_sampling(period, &closed, || {
                *published.lock().unwrap_or_else(PoisonError::into_inner) = probe.sample();
            });
        };
        thread::Builder::new().name("sample".to_owned()).stack_size(256 << 10).spawn(main)?;
        Ok(Self { latest, _alive: alive })
    }

    /// The latest sample; all zero before the first one.
    pub fn latest(&self) -> NodeMetrics {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Samples until the last handle is dropped. A sample that panics is logged and counted, and the next one is taken.
fn keep_sampling(period: Duration, closed: &Receiver<()>, mut sample: impl FnMut()) {
    // The share of the processors is known from the second sample on.
    let mut wait = MINIMUM_CPU_UPDATE_INTERVAL;
    let mut panics = 0_u64;
    loop {
        if catch_unwind(AssertUnwindSafe(&mut sample)).is_err() {
            panics += 1;
            tracing::error!(
                part = "sampler",
                panics,
                "a sample panicked; the previous one is reported until the next"
            );
        }
        if closed.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        wait = period.max(MINIMUM_CPU_UPDATE_INTERVAL);
    }
}

/// What is kept between samples. A part that the system lacks stays empty.
struct Probe {
    system: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
}

impl Probe {
    fn new() -> Self {
        Self { system: System::new().ok(), disks: Disks::new().ok(), networks: Networks::new().ok() }
    }

    fn sample(&mut self) -> NodeMetrics {
        let mut metrics = NodeMetrics::default();
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            let used = system.global_cpu_usage();
            metrics.cpu_percent = if used.is_finite() { used.clamp(0.0, 100.0) } else { 0.0 };
            metrics.cpu_count = u32::try_from(system.cpus().len()).unwrap_or(u32::MAX);
            metrics.memory_used = system.used_memory();
            metrics.memory_total = system.total_memory();
        }
        if let Ok(load) = System::load_average() {
            metrics.load = [load.one, load.five, load.fifteen];
        }
        metrics.uptime_seconds = System::uptime().unwrap_or(0);
        if let Some(disks) = &mut self.disks {
            disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
            // A container has files of its node mounted, such as /etc/hosts: each would be shown as a disk.
            let are_disks = disks.iter().filter(|disk| disk.mount_point().is_dir());
            metrics.disks = are_disks.map(disk).take(MAX_ITEMS).collect();
        }
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
            metrics.networks = networks
                .iter()
                .map(|(name, data)| NetworkMetrics {
                    interface: name.to_string_lossy().as_ref().into(),
                    received: data.total_received(),
                    sent: data.total_transmitted(),
                })
                .take(MAX_ITEMS)
                .collect();
            metrics.networks.sort_by(|a, b| a.interface.cmp(&b.interface));
        }
        metrics
    }
}

fn disk(disk: &sysinfo::Disk) -> DiskMetrics {
    let mount: &Path = disk.mount_point();
    DiskMetrics {
        mount: mount.to_string_lossy().as_ref().into(),
        total: disk.total_space(),
        available: disk.available_space(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_processors_memory_load_and_uptime() {
        let sample = Probe::new().sample();
        assert!(sample.cpu_count > 0 && sample.memory_total > sample.memory_used && sample.memory_used > 0);
        assert!(sample.uptime_seconds > 0);
        assert!(sample.networks.iter().any(|network| network.interface == "lo"));
        assert!(sample.disks.len() <= MAX_ITEMS && sample.networks.len() <= MAX_ITEMS);
    }

    #[test]
    fn sampling_continues_after_a_panic() {
        let (alive, closed) = sync_channel::<()>(0);
        let mut alive = Some(alive);
        let mut samples = 0;
        keep_sampling(Duration::ZERO, &closed, || {
            samples += 1;
            if samples == 2 {
                alive = None;
            }
            assert!(samples > 1, "a defect of the sampler");
        });
        assert_eq!(samples, 2);
    }

    #[test]
    fn the_thread_exits_with_the_last_handle() {
        let sampler = Sampler::start(Duration::from_hours(1)).unwrap();
        let shown = Arc::downgrade(&sampler.latest);
        drop(sampler);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while shown.strong_count() > 0 {
            assert!(std::time::Instant::now() < deadline, "the thread is still running");
            thread::yield_now();
        }
    }
}
