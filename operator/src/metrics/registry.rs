//! Counters, gauges and histograms by name, and their text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The labels of one time series.
pub type Labels<'a> = &'a [(&'static str, &'static str)];

/// All metrics of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<&'static str, Family>>>);

#[derive(Debug)]
struct Family {
    help: &'static str,
    series: BTreeMap<String, Series>,
}

#[derive(Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    /// Asked for at the moment of the scrape.
    Computed(Kind, Arc<dyn Fn() -> f64 + Send + Sync>),
}

/// What kind a computed metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl Series {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) | Self::Computed(Kind::Counter, _) => "counter",
            Self::Gauge(_) | Self::Computed(Kind::Gauge, _) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A number that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until what is returned is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }
}

/// Counts as one in a [`Gauge`] while it lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Upper bounds of the buckets for times, in seconds: 0.5 ms to 30 s.
pub const TIMES: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How often which times were seen.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    counts: Vec<AtomicU64>,
    sum_micros: AtomicU64,
}

impl Histogram {
    fn new() -> Self {
        let counts = TIMES.iter().map(|_| AtomicU64::new(0)).chain([AtomicU64::new(0)]).collect();
        Self(Arc::new(Buckets { counts, sum_micros: AtomicU64::new(0) }))
    }

    /// Adds one time.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = TIMES.iter().position(|bound| seconds <= *bound).unwrap_or(TIMES.len());
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum_micros.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// How many times were added.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of that name without labels; the same one whenever it is asked for.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.counter_with(name, help, &[])
    }

    /// The counter of that name and those labels.
    pub fn counter_with(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        match self.series(name, help, labels, || Series::Counter(Counter::default())) {
            Series::Counter(counter) => counter,
            // Two kinds under one name is a mistake in the code; a number of its own does no harm.
            _ => Counter::default(),
        }
    }

    /// The gauge of that name without labels.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauge_with(name, help, &[])
    }

    /// The gauge of that name and those labels.
    pub fn gauge_with(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        match self.series(name, help, labels, || Series::Gauge(Gauge::default())) {
            Series::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }

    /// The histogram of times of that name and those labels.
    pub fn histogram_with(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Histogram {
        match self.series(name, help, labels, || Series::Histogram(Histogram::new())) {
            Series::Histogram(histogram) => histogram,
            _ => Histogram::new(),
        }
    }

    /// A number that is asked for at each scrape. Another one of the same name and labels takes its place.
    pub fn computed(
        &self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family { help, series: BTreeMap::new() });
        family.series.insert(label_text(labels), Series::Computed(kind, Arc::new(value)));
    }

    fn series(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        make: impl FnOnce() -> Series,
    ) -> Series {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family { help, series: BTreeMap::new() });
        family.series.entry(label_text(labels)).or_insert_with(make).clone()
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, family) in families.iter() {
            let kind = family.series.values().next().map_or("untyped", Series::kind);
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, series) in &family.series {
                render_series(&mut text, name, labels, series);
            }
        }
        text
    }
}

fn render_series(text: &mut String, name: &str, labels: &str, series: &Series) {
    let braced = |labels: &str| if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    // Writing to a String cannot fail.
    let _ = match series {
        Series::Counter(counter) => writeln!(text, "{name}{} {}", braced(labels), counter.get()),
        Series::Gauge(gauge) => writeln!(text, "{name}{} {}", braced(labels), gauge.get()),
        Series::Computed(_, value) => writeln!(text, "{name}{} {}", braced(labels), value()),
        Series::Histogram(histogram) => {
            let mut sum = 0;
            let comma = if labels.is_empty() { "" } else { "," };
            let bounds = TIMES.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (count, bound) in histogram.0.counts.iter().zip(bounds) {
                sum += count.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {sum}");
            }
            let seconds = Duration::from_micros(histogram.0.sum_micros.load(Ordering::Relaxed)).as_secs_f64();
            let labels = braced(labels);
            writeln!(text, "{name}_sum{labels} {seconds}\n{name}_count{labels} {sum}")
        }
    };
}

fn label_text(labels: Labels<'_>) -> String {
    let parts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Registry::new();
        metrics.counter_with("sentinel_a_total", "As.", &[("kind", "x")]).add(2);
        metrics.counter_with("sentinel_a_total", "As.", &[("kind", "x")]).add(1);
        metrics.gauge("sentinel_b", "Bs.").set(-4);
        metrics.computed(Kind::Gauge, "sentinel_c", "Cs.", &[], || 1.5);
        metrics.histogram_with("sentinel_d_seconds", "Ds.", &[]).observe(Duration::from_millis(2));
        let text = metrics.render();
        for line in [
            "# HELP sentinel_a_total As.",
            "# TYPE sentinel_a_total counter",
            "sentinel_a_total{kind=\"x\"} 3",
            "sentinel_b -4",
            "sentinel_c 1.5",
            "# TYPE sentinel_d_seconds histogram",
            "sentinel_d_seconds_bucket{le=\"0.001\"} 0",
            "sentinel_d_seconds_bucket{le=\"0.0025\"} 1",
            "sentinel_d_seconds_bucket{le=\"+Inf\"} 1",
            "sentinel_d_seconds_sum 0.002",
            "sentinel_d_seconds_count 1",
        ] {
            assert!(text.lines().any(|seen| seen == line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn what_is_held_is_counted_while_it_lives() {
        let gauge = Registry::new().gauge("sentinel_x", "X.");
        let held = gauge.hold();
        assert_eq!(gauge.get(), 1);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }
}
