//! Counters, gauges and histograms by name. `prometheus-client` has their values and renders them.
//!
//! Its own registry takes each metric once and does not notice a name of two kinds, so that names are kept here, and it
//! renders them as a [`Collector`]. Each family has one kind. Code that asks for a name as another kind gets a metric that
//! is not exposed; that is logged as an error and counted in `sentinel_metrics_conflicts_total`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::{MetricType, counter, gauge, histogram};

use super::format::Format;

/// The labels of one time series.
pub type Labels<'a> = &'a [(&'static str, &'static str)];

/// All metrics of a process. Clones share them.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Metrics>);

#[derive(Debug)]
struct Metrics {
    families: Mutex<BTreeMap<&'static str, Family>>,
    conflicts: Counter,
}

#[derive(Debug)]
struct Family {
    kind: MetricType,
    help: &'static str,
    series: BTreeMap<Vec<(&'static str, &'static str)>, Series>,
}

#[derive(Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    /// Read at each scrape.
    Computed(Kind, Arc<dyn Fn() -> f64 + Send + Sync>),
}

/// The kind of a computed metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It never decreases.
    Counter,
    /// It can go up and down.
    Gauge,
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())
    }
}

impl Series {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) | Self::Computed(Kind::Counter, _) => MetricType::Counter,
            Self::Gauge(_) | Self::Computed(Kind::Gauge, _) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(counter) => counter.0.encode(encoder),
            Self::Gauge(gauge) => gauge.0.encode(encoder),
            Self::Histogram(histogram) => histogram.0.encode(encoder),
            Self::Computed(kind, value) => {
                let value = value();
                let is_whole = value.fract() == 0.0 && value.abs() < 1e15;
                match kind {
                    Kind::Counter if is_whole => {
                        encoder.encode_counter::<NoLabelSet, _, u64>(&(value as u64), None)
                    }
                    Kind::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
                    Kind::Gauge if is_whole => encoder.encode_gauge(&(value as i64)),
                    Kind::Gauge => encoder.encode_gauge(&value),
                }
            }
        }
    }
}

/// A number that never decreases.
#[derive(Debug, Clone, Default)]
pub struct Counter(counter::Counter);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A number that can go up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(gauge::Gauge);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.get()
    }

    /// Adds one until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.inc();
        Held(self.clone())
    }
}

/// Counts as one in a [`Gauge`] until it is dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.dec();
    }
}

/// Upper bounds of the buckets for times, in seconds: 0.5 ms to 30 s.
pub const TIMES: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A histogram of durations.
#[derive(Debug, Clone)]
pub struct Histogram(histogram::Histogram);

impl Default for Histogram {
    fn default() -> Self {
        Self(histogram::Histogram::new(TIMES.iter().copied()))
    }
}

impl Histogram {
    /// Adds one duration.
    pub fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }
}

impl Family {
    fn new(kind: MetricType, help: &'static str) -> Self {
        Self { kind, help, series: BTreeMap::new() }
    }
}

impl Default for Registry {
    fn default() -> Self {
        let registry = Self(Arc::new(Metrics { families: Mutex::default(), conflicts: Counter::default() }));
        let help = "Metrics that the code registers under two kinds; the second is not exposed.";
        let conflicts = Series::Counter(registry.0.conflicts.clone());
        registry.series("sentinel_metrics_conflicts_total", help, &[], conflicts);
        registry
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of that name without labels; the same one on every call.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.counter_with(name, help, &[])
    }

    /// The counter of that name and those labels.
    pub fn counter_with(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        match self.series(name, help, labels, Series::Counter(Counter::default())) {
            Series::Counter(counter) => counter,
            computed => self.shadowed(name, &computed),
        }
    }

    /// The gauge of that name without labels.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauge_with(name, help, &[])
    }

    /// The gauge of that name and those labels.
    pub fn gauge_with(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        match self.series(name, help, labels, Series::Gauge(Gauge::default())) {
            Series::Gauge(gauge) => gauge,
            computed => self.shadowed(name, &computed),
        }
    }

    /// The histogram of durations of that name and those labels, with the buckets of [`TIMES`].
    pub fn histogram_with(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Histogram {
        self.histogram_in(name, help, labels, TIMES)
    }

    /// The same, with buckets of these upper bounds, in seconds.
    pub fn histogram_in(
        &self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        bounds: &[f64],
    ) -> Histogram {
        let new = Histogram(histogram::Histogram::new(bounds.iter().copied()));
        match self.series(name, help, labels, Series::Histogram(new)) {
            Series::Histogram(histogram) => histogram,
            computed => self.shadowed(name, &computed),
        }
    }

    /// A number that is read at each scrape. A later one of the same name and labels replaces it.
    pub fn computed(
        &self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let series = Series::Computed(kind, Arc::new(value));
        let mut families = self.families();
        let kind = series.kind();
        let family = families.entry(name).or_insert_with(|| Family::new(kind, help));
        let labels = labels.to_vec();
        let replaces = family.series.get(&labels).is_none_or(|old| matches!(old, Series::Computed(..)));
        if family.kind == kind && replaces {
            family.series.insert(labels, series);
        } else {
            self.conflict(name, family.kind.as_str(), "computed");
        }
    }

    /// How often a name was asked for as another kind than its family has.
    pub fn conflicts(&self) -> u64 {
        self.0.conflicts.get()
    }

    /// The series of that name and those labels, or the new one, unregistered, where the kinds clash.
    fn series(&self, name: &'static str, help: &'static str, labels: Labels<'_>, new: Series) -> Series {
        let mut families = self.families();
        let kind = new.kind();
        let family = families.entry(name).or_insert_with(|| Family::new(kind, help));
        if family.kind != kind {
            self.conflict(name, family.kind.as_str(), kind.as_str());
            return new;
        }
        family.series.entry(labels.to_vec()).or_insert(new).clone()
    }

    /// For a name and labels that belong to a computed metric: a metric that is not exposed.
    fn shadowed<T: Default>(&self, name: &str, registered: &Series) -> T {
        self.conflict(name, "computed", registered.kind().as_str());
        T::default()
    }

    fn conflict(&self, name: &str, registered: &str, requested: &str) {
        self.0.conflicts.add(1);
        tracing::error!(
            name,
            registered,
            requested,
            "a metric is registered under two kinds; the second is not exposed"
        );
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.0.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.render_as(Format::PrometheusText)
    }

    /// All metrics in this format.
    pub fn render_as(&self, format: Format) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut rendered = String::with_capacity(32 << 10);
        // Writing to a String cannot fail.
        let _ = match format {
            Format::PrometheusText => prometheus_text::encode(&mut rendered, &registry),
            Format::OpenMetrics => text::encode(&mut rendered, &registry),
        };
        rendered
    }
}

impl Collector for Registry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, family) in self.families().iter() {
            // The encoder appends the suffix to the names of counters.
            let stem = match family.kind {
                MetricType::Counter => name.strip_suffix("_total").unwrap_or(name),
                _ => name,
            };
            let mut encoder = encoder.encode_descriptor(stem, family.help, None, family.kind)?;
            for (labels, series) in &family.series {
                series.encode(encoder.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_prometheus_text_format() {
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
            assert!(text.lines().any(|rendered| rendered == line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn counts_a_held_gauge_until_the_guard_is_dropped() {
        let gauge = Registry::new().gauge("sentinel_x", "X.");
        let held = gauge.hold();
        assert_eq!(gauge.get(), 1);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_name_of_two_kinds_is_counted_and_only_the_first_is_exposed() {
        let metrics = Registry::new();
        metrics.counter("sentinel_a_total", "As.").add(1);
        metrics.gauge("sentinel_a_total", "As.").set(9);
        metrics.histogram_with("sentinel_a_total", "As.", &[("kind", "x")]).observe(Duration::ZERO);
        metrics.computed(Kind::Gauge, "sentinel_a_total", "As.", &[], || 9.0);
        metrics.computed(Kind::Counter, "sentinel_b_total", "Bs.", &[], || 2.0);
        metrics.counter("sentinel_b_total", "Bs.").add(9);
        assert_eq!(metrics.conflicts(), 4);
        let text = metrics.render();
        for line in ["sentinel_a_total 1", "sentinel_b_total 2", "sentinel_metrics_conflicts_total 4"] {
            assert!(text.lines().any(|rendered| rendered == line), "no line {line:?} in\n{text}");
        }
        assert!(!text.contains('9'), "the second kind is exposed:\n{text}");
    }
}
