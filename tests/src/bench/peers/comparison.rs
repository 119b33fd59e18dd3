//! The table of the peers, of ours, and of the floor.

use std::fmt;

use crate::bench::figures::Times;
use crate::bench::table::write_table;

pub(in crate::bench) use crate::bench::table::Better;

/// One figure, of each that has it.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Measured<T> {
    /// Of socket.io and of NATS.
    pub(in crate::bench) peers: Option<[T; 2]>,
    pub(in crate::bench) ours: T,
    pub(in crate::bench) floor: Option<T>,
}

impl<T: Copy> Measured<T> {
    pub(in crate::bench) fn of(socketio: T, nats: T, ours: T, floor: T) -> Self {
        Self { peers: Some([socketio, nats]), ours, floor: Some(floor) }
    }

    fn map<U>(self, of: impl Fn(T) -> U) -> Measured<U> {
        let Self { peers, ours, floor } = self;
        Measured { peers: peers.map(|peers| peers.map(&of)), ours: of(ours), floor: floor.map(&of) }
    }
}

#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    better: Better,
    measured: Measured<f64>,
}

/// All rows, and what the columns of the peers are called.
#[derive(Debug)]
pub(in crate::bench) struct Comparison {
    peers: [String; 2],
    rows: Vec<Row>,
}

impl Comparison {
    pub(in crate::bench) fn of(peers: [String; 2]) -> Self {
        Self { peers, rows: Vec::new() }
    }

    /// Two rows: median and 99th percentile.
    pub(in crate::bench) fn times(&mut self, what: &str, measured: Measured<Times>) {
        let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let count = measured.ours.count;
        for (name, of) in [
            ("p50", measured.map(|times| millis(times.p50))),
            ("p99", measured.map(|times| millis(times.p99))),
        ] {
            self.number(&format!("{what}, {name} of {count}"), "ms", Better::Lower, of);
        }
    }

    pub(in crate::bench) fn number(
        &mut self,
        what: &str,
        unit: &'static str,
        better: Better,
        measured: Measured<f64>,
    ) {
        self.rows.push(Row { what: what.to_owned(), unit, better, measured });
    }

    /// The ratio of ours to the floor, by row.
    pub(in crate::bench) fn ratios(&self) -> impl Iterator<Item = (&str, f64, Better)> {
        self.rows.iter().filter_map(|row| Some((&*row.what, row.ratio()?, row.better)))
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.measured.floor.map(|floor| self.measured.ours / floor)
    }

    /// Whether ours is ahead of both peers, for people.
    fn verdict(&self) -> &'static str {
        let ahead =
            self.measured.peers.map(|peers| peers.map(|peer| self.better.is(self.measured.ours, peer)));
        match ahead {
            None => "",
            Some([true, true]) => "yes",
            Some([true, false]) => "no, behind NATS",
            Some([false, true]) => "no, behind socket.io",
            Some([false, false]) => "no, behind both",
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [socketio, nats] = self.peers.clone();
        let head = ["what", &socketio, &nats, "ours", "floor", "ours / floor", "ours is ahead of both"];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            let shown = |number: f64| {
                let places = if number.abs() < 10.0 { 2 } else { 0 };
                format!("{number:.places$} {}", row.unit)
            };
            let Measured { peers, ours, floor } = row.measured.map(shown);
            let [socketio, nats] = peers.unwrap_or_default();
            let ratio = row.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let verdict = row.verdict().to_owned();
            lines.push(vec![
                row.what.clone(),
                socketio,
                nats,
                ours,
                floor.unwrap_or_default(),
                ratio,
                verdict,
            ]);
        }
        write_table(f, &lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_ahead_of_both_only_where_it_beats_each() {
        let verdict = |better, ours| {
            let measured = Measured::of(10.0, 20.0, ours, 1.0);
            Row { what: String::new(), unit: "ms", better, measured }.verdict()
        };
        assert_eq!(verdict(Better::Lower, 9.0), "yes");
        assert_eq!(verdict(Better::Lower, 15.0), "no, behind socket.io");
        assert_eq!(verdict(Better::Lower, 20.0), "no, behind both");
        assert_eq!(verdict(Better::Higher, 21.0), "yes");
        assert_eq!(verdict(Better::Higher, 15.0), "no, behind NATS");
    }
}
