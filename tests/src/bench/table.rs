//! What is printed.

use std::fmt;
use std::time::Duration;

use super::figures::Times;

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    /// Of times, memory, writes.
    Lower,
    /// Of speeds.
    Higher,
}

impl Better {
    /// By the unit of a figure.
    fn of_unit(unit: &str) -> Self {
        if matches!(unit, "MB/s" | "GB/s") { Self::Higher } else { Self::Lower }
    }

    /// Whether `one` is better than `other`.
    pub(super) fn is(self, one: f64, other: f64) -> bool {
        match self {
            Self::Lower => one < other,
            Self::Higher => one > other,
        }
    }
}

/// One figure beside its limit.
#[derive(Debug)]
struct Row {
    what: String,
    ours: String,
    limit: String,
    ratio: String,
    aim: String,
}

/// A figure that does not depend on how fast the machine is: a ratio to the limit, or memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Portable {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) better: Better,
}

/// All figures.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    portable: Vec<Portable>,
    beside: Vec<Vec<String>>,
}

impl Table {
    /// Times beside the least they can be.
    pub(super) fn times(&mut self, what: &str, ours: Times, limit: Times, aim: &str) {
        let ratio =
            [(ours.p50, limit.p50), (ours.p99, limit.p99)].map(|(ours, limit)| millis(ours) / millis(limit));
        self.portable.push(Portable { what: format!("{what}, p50"), value: ratio[0], better: Better::Lower });
        self.rows.push(Row {
            what: format!("{what} (p50 / p99 of {})", ours.count),
            ours: shown_times(ours),
            limit: shown_times(limit),
            ratio: format!("{:.2} / {:.2}", ratio[0], ratio[1]),
            aim: aim.to_owned(),
        });
    }

    /// Times of the machine alone.
    pub(super) fn limit(&mut self, what: &str, limit: Times) {
        self.rows.push(Row {
            what: format!("{what} (p50 / p99 of {})", limit.count),
            ours: String::new(),
            limit: shown_times(limit),
            ratio: String::new(),
            aim: String::new(),
        });
    }

    /// A number beside its limit.
    pub(super) fn number(&mut self, what: &str, ours: f64, limit: Option<f64>, unit: &str, aim: &str) {
        let shown = |number: f64| {
            let places = if number.abs() < 10.0 && !unit.is_empty() { 2 } else { 0 };
            format!("{number:.places$} {unit}").trim_end().to_owned()
        };
        let ratio = limit.map(|limit| ours / limit);
        let memory = matches!(unit, "MiB" | "KiB").then_some(ours);
        if let Some(value) = ratio.or(memory) {
            self.portable.push(Portable {
                what: what.trim().to_owned(),
                value,
                better: Better::of_unit(unit),
            });
        }
        self.rows.push(Row {
            what: what.to_owned(),
            ours: shown(ours),
            limit: limit.map(shown).unwrap_or_default(),
            ratio: ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            aim: aim.to_owned(),
        });
    }

    /// Times that have no limit.
    pub(super) fn median(&mut self, what: &str, ours: Times, aim: &str) {
        self.rows.push(Row {
            what: format!("{what} (median of {})", ours.count),
            ours: format!("{:.2} ms", millis(ours.p50)),
            limit: String::new(),
            ratio: String::new(),
            aim: aim.to_owned(),
        });
    }

    /// How much more there is of something after a while; less is below zero.
    pub(super) fn growth(&mut self, what: &str, more: f64, unit: &str, aim: &str) {
        self.rows.push(Row {
            what: what.to_owned(),
            ours: format!("{more:+.0} {unit}").trim_end().to_owned(),
            limit: String::new(),
            ratio: String::new(),
            aim: aim.to_owned(),
        });
    }

    /// A table of its own, with other columns: lines with the headings first, and what of it can be compared with another run.
    pub(super) fn beside(&mut self, lines: Vec<Vec<String>>, portable: impl IntoIterator<Item = Portable>) {
        self.beside = lines;
        self.portable.extend(portable);
    }

    /// What can be compared with another run. The 99th percentile of a time is left out: that of one build differs by more
    /// from run to run than a change that matters.
    pub(super) fn portable(&self) -> &[Portable] {
        &self.portable
    }
}

fn shown_times(times: Times) -> String {
    format!("{:.2} / {:.2} ms", millis(times.p50), millis(times.p99))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["what", "ours", "limit", "ours / limit", "aim"].map(str::to_owned);
        let mut lines = vec![head.to_vec()];
        for row in &self.rows {
            lines.push([&row.what, &row.ours, &row.limit, &row.ratio, &row.aim].map(Clone::clone).to_vec());
        }
        if !self.rows.is_empty() {
            write_table(f, &lines)?;
        }
        if !self.rows.is_empty() && !self.beside.is_empty() {
            writeln!(f)?;
        }
        write_table(f, &self.beside)
    }
}

/// Lines as a table of Markdown, which is aligned; the first has the headings.
fn write_table(f: &mut fmt::Formatter<'_>, lines: &[Vec<String>]) -> fmt::Result {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (at, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(f, "| {} |", cells.collect::<Vec<_>>().join(" | "))?;
        if at == 0 {
            let rules = widths.iter().map(|width| "-".repeat(*width));
            writeln!(f, "| {} |", rules.collect::<Vec<_>>().join(" | "))?;
        }
    }
    Ok(())
}
