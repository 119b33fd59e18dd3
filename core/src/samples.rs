//! The last 15 minutes of a node's metrics, for charts: one sample for each 10 seconds, in a ring of a fixed size.
//!
//! The ring is filled from Heartbeats. A slot has the last Heartbeat in it, and none where the node was silent: a reader
//! sees a gap. Slots are of a monotonic clock, so that a step of the wall clock tears no hole. Values are rounded to what
//! a chart shows; [`RING_BYTES`] is what a ring takes.

use sentinel_protocol::metrics::NodeMetrics;

use crate::time::Monotonic;

/// Span of a slot, milliseconds.
pub const SLOT_MS: u64 = 10_000;

/// Slots of a ring: 15 minutes.
pub const SLOTS: usize = 90;

/// Size of a ring, bytes. A test holds it.
pub const RING_BYTES: usize = 1536;

/// How a node was in a slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// CPU usage of all processors, percent from 0 to 100.
    pub cpu: f64,
    /// Memory in use, percent.
    pub memory: f64,
    /// Usage of the fullest disk, percent; `None` when the node has reported no disk.
    pub disk: Option<f64>,
    /// Load average over a minute.
    pub load: f64,
    /// Bytes received a second, over all interfaces; `None` when there is nothing to compare with.
    pub received: Option<u64>,
    /// Bytes sent a second.
    pub sent: Option<u64>,
}

/// A [`Point`] in 16 bytes. The greatest value of a field stands for an unknown one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// Hundredths of a percent; [`u16::MAX`] in a slot without a sample.
    cpu: u16,
    /// Hundredths of a percent.
    memory: u16,
    /// Hundredths, up to 655.
    load: u16,
    /// Halves of a percent.
    disk: u8,
    /// In [`RATE_UNIT`].
    received: u32,
    /// In [`RATE_UNIT`].
    sent: u32,
}

const NO_SAMPLE: Slot =
    Slot { cpu: u16::MAX, memory: 0, load: 0, disk: u8::MAX, received: u32::MAX, sent: u32::MAX };

/// Bytes a second; with it a rate of 500 Gbit/s fits into a slot.
const RATE_UNIT: u64 = 16;

/// What a rate is the difference of.
#[derive(Debug, Clone, Copy)]
struct Counters {
    at: Monotonic,
    uptime_seconds: u64,
    interfaces: usize,
    received: u64,
    sent: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SampleRing {
    slots: [Slot; SLOTS],
    /// Number of the newest slot, from the start of the clock; the slot `n` is at `n % SLOTS`.
    newest: u64,
    /// The last counters of an earlier slot than the newest, and the latest: rates are over a slot, not over a Heartbeat.
    before: Option<Counters>,
    latest: Counters,
}

impl SampleRing {
    /// A ring with its first sample.
    pub fn new(at: Monotonic, metrics: &NodeMetrics) -> Self {
        let newest = slot_of(at);
        let mut ring =
            Self { slots: [NO_SAMPLE; SLOTS], newest, before: None, latest: Counters::of(at, metrics) };
        ring.put(metrics);
        ring
    }

    /// Takes in a sample. One that is older than the newest is ignored.
    pub fn record(&mut self, at: Monotonic, metrics: &NodeMetrics) {
        let slot = slot_of(at);
        if slot < self.newest {
            return;
        }
        if slot > self.newest {
            let skipped = (slot - self.newest).min(SLOTS as u64);
            for number in slot - skipped + 1..=slot {
                self.slots[place(number)] = NO_SAMPLE;
            }
            self.newest = slot;
            self.before = Some(self.latest);
        }
        self.latest = Counters::of(at, metrics);
        self.put(metrics);
    }

    /// The slots up to the one of `now`, oldest first; `None` is one without a sample.
    pub fn read(&self, now: Monotonic) -> [Option<Point>; SLOTS] {
        let end = slot_of(now);
        let oldest_kept = (self.newest + 1).saturating_sub(SLOTS as u64);
        std::array::from_fn(|index| {
            let number = (end + 1 + index as u64).checked_sub(SLOTS as u64)?;
            let is_kept = (oldest_kept..=self.newest).contains(&number);
            if is_kept { self.slots[place(number)].point() } else { None }
        })
    }

    fn put(&mut self, metrics: &NodeMetrics) {
        let rates = self.before.and_then(|before| self.latest.rates_since(&before));
        self.slots[place(self.newest)] = Slot::of(metrics, rates);
    }
}

/// Begin of the oldest slot that [`SampleRing::read`] returns at `now`, milliseconds before `now`.
pub fn age_of_oldest(now: Monotonic) -> u64 {
    (SLOTS as u64 - 1) * SLOT_MS + now.0 % SLOT_MS
}

fn slot_of(at: Monotonic) -> u64 {
    at.0 / SLOT_MS
}

fn place(number: u64) -> usize {
    (number % SLOTS as u64) as usize
}

impl Counters {
    fn of(at: Monotonic, metrics: &NodeMetrics) -> Self {
        let networks = &metrics.networks;
        Self {
            at,
            uptime_seconds: metrics.uptime_seconds,
            interfaces: networks.len(),
            received: networks.iter().fold(0, |sum, one| sum.saturating_add(one.received)),
            sent: networks.iter().fold(0, |sum, one| sum.saturating_add(one.sent)),
        }
    }

    /// Bytes a second, received and sent. There are none after a reboot, and when an interface has come or gone: then the
    /// sums are not of the same.
    fn rates_since(&self, before: &Self) -> Option<(u64, u64)> {
        let ms = u128::from(self.at.since(before.at));
        let is_same = self.uptime_seconds >= before.uptime_seconds && self.interfaces == before.interfaces;
        if ms == 0 || !is_same || self.interfaces == 0 {
            return None;
        }
        let rate = |now: u64, then: u64| {
            let bytes = u128::from(now.checked_sub(then)?);
            u64::try_from(bytes * 1000 / ms).ok()
        };
        Some((rate(self.received, before.received)?, rate(self.sent, before.sent)?))
    }
}

impl Slot {
    fn of(metrics: &NodeMetrics, rates: Option<(u64, u64)>) -> Self {
        let fullest = metrics.disks.iter().filter(|disk| disk.total > 0).map(|disk| {
            let used = disk.total.saturating_sub(disk.available);
            share(used, disk.total)
        });
        let fullest = fullest.max_by(f64::total_cmp);
        let rate = |rate: u64| u32::try_from(rate / RATE_UNIT).unwrap_or(u32::MAX).min(u32::MAX - 1);
        Self {
            cpu: whole(f64::from(metrics.cpu_percent) * 100.0, 10_000),
            memory: whole(share(metrics.memory_used, metrics.memory_total) * 100.0, 10_000),
            load: whole(metrics.load[0] * 100.0, u16::MAX),
            // At most 200, so that the cast is exact.
            disk: fullest.map_or(u8::MAX, |percent| whole(percent * 2.0, 200) as u8),
            received: rates.map_or(u32::MAX, |(received, _)| rate(received)),
            sent: rates.map_or(u32::MAX, |(_, sent)| rate(sent)),
        }
    }

    fn point(&self) -> Option<Point> {
        if *self == NO_SAMPLE {
            return None;
        }
        let rate = |rate: u32| (rate != u32::MAX).then(|| u64::from(rate) * RATE_UNIT);
        Some(Point {
            cpu: f64::from(self.cpu) / 100.0,
            memory: f64::from(self.memory) / 100.0,
            disk: (self.disk != u8::MAX).then(|| f64::from(self.disk) / 2.0),
            load: f64::from(self.load) / 100.0,
            received: rate(self.received),
            sent: rate(self.sent),
        })
    }
}

/// Percent; 0 of nothing.
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 * 100.0 }
}

/// Rounded and bounded; NaN becomes 0.
fn whole(value: f64, most: u16) -> u16 {
    value.round().clamp(0.0, f64::from(most)) as u16
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::metrics::{DiskMetrics, NetworkMetrics};

    use super::*;

    fn metrics(cpu: f32) -> NodeMetrics {
        NodeMetrics {
            cpu_percent: cpu,
            cpu_count: 4,
            memory_used: 1 << 30,
            memory_total: 4 << 30,
            load: [1.5, 0.0, 0.0],
            ..NodeMetrics::default()
        }
    }

    fn with_network(received: u64, sent: u64, uptime_seconds: u64) -> NodeMetrics {
        let network = NetworkMetrics { interface: "eth0".into(), received, sent };
        NodeMetrics { networks: vec![network], uptime_seconds, ..metrics(1.0) }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1000)
    }

    fn cpus(ring: &SampleRing, now: Monotonic) -> Vec<Option<f64>> {
        ring.read(now).iter().map(|point| point.map(|point| point.cpu)).collect()
    }

    #[test]
    fn a_ring_has_its_stated_size() {
        let bytes = size_of::<SampleRing>();
        assert!(bytes <= RING_BYTES, "{bytes}");
        // It has nothing on the heap.
        assert!(!std::mem::needs_drop::<SampleRing>());
    }

    #[test]
    fn a_slot_has_its_last_sample_and_silence_is_a_gap() {
        let mut ring = SampleRing::new(at(1000), &metrics(10.0));
        ring.record(at(1005), &metrics(20.0));
        ring.record(at(1030), &metrics(30.0));
        let read = cpus(&ring, at(1049));
        assert_eq!(read[SLOTS - 5..], [Some(20.0), None, None, Some(30.0), None]);
        assert!(read[..SLOTS - 5].iter().all(Option::is_none));
    }

    #[test]
    fn keeps_the_last_15_minutes_only() {
        let mut ring = SampleRing::new(at(0), &metrics(0.0));
        for slot in 1..=200_u64 {
            ring.record(at(slot * 10), &metrics((slot % 100) as f32));
        }
        let expected: Vec<_> = (111..=200_u64).map(|slot| Some((slot % 100) as f64)).collect();
        assert_eq!(cpus(&ring, at(2000)), expected);
        let later = cpus(&ring, at(2000 + 890));
        assert_eq!((later[0], &later[1..]), (Some(0.0), &[None; SLOTS - 1][..]));
        assert_eq!(cpus(&ring, at(2000 + 900)), [None; SLOTS]);
        // A silence that is longer than the ring leaves nothing of what was before.
        ring.record(at(9000), &metrics(7.0));
        let after = cpus(&ring, at(9000));
        assert_eq!((after[SLOTS - 1], &after[..SLOTS - 1]), (Some(7.0), &[None; SLOTS - 1][..]));
    }

    #[test]
    fn an_older_sample_changes_nothing() {
        let mut ring = SampleRing::new(at(1000), &metrics(10.0));
        ring.record(at(980), &metrics(90.0));
        assert_eq!(cpus(&ring, at(1000))[SLOTS - 3..], [None, None, Some(10.0)]);
    }

    #[test]
    fn a_rate_is_over_the_time_since_the_slot_before() {
        let mut ring = SampleRing::new(at(1000), &with_network(0, 0, 100));
        ring.record(at(1005), &with_network(1_000, 0, 105));
        ring.record(at(1010), &with_network(81_000, 1_600, 110));
        ring.record(at(1015), &with_network(161_000, 1_600, 115));
        let read = ring.read(at(1015));
        assert_eq!(read[SLOTS - 2].unwrap().received, None, "nothing to compare with");
        let last = read[SLOTS - 1].unwrap();
        assert_eq!((last.received, last.sent), (Some(16_000), Some(160)));
    }

    #[test]
    fn a_reboot_and_another_interface_give_no_rate() {
        let rate = |after: &NodeMetrics| {
            let mut ring = SampleRing::new(at(1000), &with_network(1_000, 1_000, 500));
            ring.record(at(1010), after);
            ring.read(at(1010))[SLOTS - 1].unwrap().received
        };
        assert_eq!(rate(&with_network(161_000, 1_000, 510)), Some(16_000));
        assert_eq!(rate(&with_network(161_000, 161_000, 3)), None, "a reboot");
        assert_eq!(rate(&with_network(500, 1_000, 510)), None, "a counter that went back");
        let mut more = with_network(161_000, 1_000, 510);
        more.networks.push(NetworkMetrics { interface: "veth0".into(), received: 1 << 40, sent: 0 });
        assert_eq!(rate(&more), None, "an interface has come");
        assert_eq!(rate(&metrics(1.0)), None, "no interface");
    }

    #[test]
    fn values_are_rounded_and_extreme_ones_are_bounded() {
        let disk = |total, available| DiskMetrics { mount: "/".into(), total, available };
        let one = NodeMetrics { disks: vec![disk(100, 90), disk(1000, 120), disk(0, 5)], ..metrics(33.333) };
        let point = SampleRing::new(at(5), &one).read(at(5))[SLOTS - 1].unwrap();
        assert_eq!((point.cpu, point.memory, point.load), (33.33, 25.0, 1.5));
        assert_eq!(point.disk, Some(88.0), "the fullest");

        let mut extreme = NodeMetrics {
            cpu_percent: 100.0,
            memory_used: u64::MAX,
            memory_total: 1,
            load: [1e300, 0.0, 0.0],
            ..with_network(u64::MAX, u64::MAX, 9)
        };
        extreme.networks.push(extreme.networks[0].clone());
        extreme.disks = vec![disk(1, u64::MAX)];
        let mut before = with_network(0, 0, 1);
        before.networks.push(before.networks[0].clone());
        before.networks[1].received = 0;
        let mut ring = SampleRing::new(at(0), &before);
        ring.record(at(10), &extreme);
        let point = ring.read(at(10))[SLOTS - 1].unwrap();
        assert_eq!((point.cpu, point.memory, point.load, point.disk), (100.0, 100.0, 655.35, Some(0.0)));
        assert_eq!(point.received, Some(u64::from(u32::MAX - 1) * RATE_UNIT));
    }

    #[test]
    fn a_full_idle_node_is_not_a_gap() {
        let mut ring = SampleRing::new(at(0), &NodeMetrics::default());
        ring.record(at(10), &NodeMetrics::default());
        assert_eq!(cpus(&ring, at(10))[SLOTS - 2..], [Some(0.0), Some(0.0)]);
    }

    #[test]
    fn the_oldest_slot_begins_within_the_last_15_minutes() {
        assert_eq!(age_of_oldest(at(1000)), 890_000);
        assert_eq!(age_of_oldest(Monotonic(1_009_999)), 899_999);
    }
}
