//! The table of the peers, of ours, and of the floor.

use std::time::Duration;

use crate::bench::figures::Times;
use crate::bench::table::{Better, Portable};

/// One figure, of each that has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured<T> {
    /// Of socket.io and of NATS.
    pub(super) peers: Option<[T; 2]>,
    pub(super) ours: T,
    pub(super) floor: Option<T>,
}

impl<T: Copy> Measured<T> {
    pub(super) fn of(socketio: T, nats: T, ours: T, floor: T) -> Self {
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
pub(super) struct Comparison {
    peers: [String; 2],
    rows: Vec<Row>,
}

impl Comparison {
    pub(super) fn of(peers: [String; 2]) -> Self {
        Self { peers, rows: Vec::new() }
    }

    /// Two rows: median and 99th percentile.
    pub(super) fn times(&mut self, what: &str, measured: Measured<Times>) {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let count = measured.ours.count;
        for (name, of) in [
            ("p50", measured.map(|times| millis(times.p50))),
            ("p99", measured.map(|times| millis(times.p99))),
        ] {
            self.number(&format!("{what}, {name} of {count}"), "ms", Better::Lower, of);
        }
    }

    pub(super) fn number(&mut self, what: &str, unit: &'static str, better: Better, measured: Measured<f64>) {
        self.rows.push(Row { what: what.to_owned(), unit, better, measured });
    }

    /// What can be compared with another run: ours to the floor, without the 99th percentiles.
    pub(super) fn portable(&self) -> Vec<Portable> {
        let portable = |row: &Row| {
            let what = format!("peers: {}", row.what.trim());
            Some(Portable { what, value: row.ratio()?, better: row.better })
        };
        self.rows.iter().filter(|row| !row.what.contains(", p99")).filter_map(portable).collect()
    }

    /// The table: lines of columns, the headings first.
    pub(super) fn lines(&self) -> Vec<Vec<String>> {
        let [socketio, nats] = &self.peers;
        let head = ["what", socketio, nats, "ours", "floor", "ours / floor", "ours is ahead of both"];
        std::iter::once(head.map(str::to_owned).to_vec()).chain(self.rows.iter().map(Row::line)).collect()
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

    fn line(&self) -> Vec<String> {
        let shown = |number: f64| {
            let places = if number.abs() < 10.0 { 2 } else { 0 };
            format!("{number:.places$} {}", self.unit)
        };
        let Measured { peers, ours, floor } = self.measured.map(shown);
        let [socketio, nats] = peers.unwrap_or_default();
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let verdict = self.verdict().to_owned();
        vec![self.what.clone(), socketio, nats, ours, floor.unwrap_or_default(), ratio, verdict]
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
