//! What is printed.

use std::fmt;

use super::figures::Times;

/// One figure beside its limit.
#[derive(Debug)]
struct Row {
    what: String,
    ours: String,
    limit: String,
    ratio: String,
    aim: String,
}

/// All figures.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Times beside the least they can be.
    pub(super) fn times(&mut self, what: &str, ours: Times, limit: Times, aim: &str) {
        let shown = |times: Times| format!("{:.2} / {:.2} ms", millis(times.p50), millis(times.p99));
        self.rows.push(Row {
            what: format!("{what} (p50 / p99 of {})", ours.count),
            ours: shown(ours),
            limit: shown(limit),
            ratio: format!(
                "{:.2} / {:.2}",
                millis(ours.p50) / millis(limit.p50),
                millis(ours.p99) / millis(limit.p99)
            ),
            aim: aim.to_owned(),
        });
    }

    /// Times of the machine alone.
    pub(super) fn limit(&mut self, what: &str, limit: Times) {
        self.rows.push(Row {
            what: format!("{what} (p50 / p99 of {})", limit.count),
            ours: String::new(),
            limit: format!("{:.2} / {:.2} ms", millis(limit.p50), millis(limit.p99)),
            ratio: String::new(),
            aim: String::new(),
        });
    }

    /// A number beside its limit.
    pub(super) fn number(&mut self, what: &str, ours: f64, limit: Option<f64>, unit: &str, aim: &str) {
        let shown = |number: f64| {
            if number.abs() < 10.0 { format!("{number:.2} {unit}") } else { format!("{number:.0} {unit}") }
        };
        self.rows.push(Row {
            what: what.to_owned(),
            ours: shown(ours),
            limit: limit.map(shown).unwrap_or_default(),
            ratio: limit.map(|limit| format!("{:.2}", ours / limit)).unwrap_or_default(),
            aim: aim.to_owned(),
        });
    }
}

fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["what", "ours", "limit", "ours / limit", "aim"].map(str::to_owned);
        let mut lines = vec![head];
        for row in &self.rows {
            lines.push([&row.what, &row.ours, &row.limit, &row.ratio, &row.aim].map(Clone::clone));
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..5).map(width).collect();
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
}
