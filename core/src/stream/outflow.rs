//! Which Attempt's output the agent sends next on the log socket, and from which position.
//!
//! The operator sends absolute positions: up to where it accepts output (*granted*), and up to where History has all of it
//! (*archived*). A lost message is made up for by the next one.
//!
//! ```text
//!   0 ........ archived ........ next ........ granted ........ end of what the command wrote
//!   │ may be deleted     │ in flight  │  may be sent now  │  waits on the node's disk
//! ```
//!
//! On a new connection it is unknown what of "in flight" arrived, so sending restarts at *archived*, which the operator's
//! first Credit contains; the operator recognises repeated bytes by their position.

use std::collections::BTreeMap;
use std::ops::Bound;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogControl, LogRecord};

/// Most flows of ended Attempts that are open at a time; the next one follows when one of them is archived. An operator
/// closes a socket that opens more than it carries, and output must continue after an outage of History that was longer
/// than any such bound. Flows of living Attempts are not counted: there are never many, and people watch them.
pub const MAX_ENDED_OPEN: usize = 256;

/// Whether there may be unread output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// There may be.
    Maybe,
    /// The last read found none.
    None,
}

/// The state of a flow on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// `Open` was not sent.
    Unannounced,
    /// `Open` was sent; the first Credit has the position to send from.
    Announced,
    /// Records may be sent.
    Open,
}

#[derive(Debug, Clone)]
struct Flow {
    oldest: u64,
    archived: u64,
    next: u64,
    granted: u64,
    end: Option<u64>,
    unread: Unread,
    /// Counts notifications of new output, so that one that arrives during a read is not lost.
    hints: u64,
    opening: Opening,
    /// Nothing of it was ever sent, so it starts at 0 without waiting for a Credit.
    fresh: bool,
}

impl Flow {
    fn is_archived(&self) -> bool {
        self.end.is_some_and(|end| self.archived >= end)
    }

    fn has_work(&self) -> bool {
        !self.is_archived() && (self.unread == Unread::Maybe || self.archived < self.next)
    }
}

/// The next output to read and send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRead {
    /// The Attempt.
    pub attempt: AttemptId,
    /// The position to read from.
    pub from: u64,
    /// The position to stop before; a record that crosses it is cut by [`before`].
    pub until: u64,
    hints: u64,
    connection: u64,
}

/// The flows of one agent.
#[derive(Debug, Default)]
pub struct Outflow {
    flows: BTreeMap<AttemptId, Flow>,
    /// The Attempt that was read last.
    last: Option<AttemptId>,
    /// Counts connections, so that output read for one is not sent on the next.
    connection: u64,
}

impl Outflow {
    /// No flows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a new Attempt with an initial `credit`. Idempotent.
    pub fn begin(&mut self, attempt: AttemptId, credit: u64) {
        self.flows.entry(attempt).or_insert(Flow {
            oldest: 0,
            archived: 0,
            next: 0,
            granted: credit,
            end: None,
            unread: Unread::None,
            hints: 0,
            opening: Opening::Unannounced,
            fresh: true,
        });
    }

    /// Adds an Attempt of an earlier agent process with output from `oldest` on. Idempotent.
    pub fn resume(&mut self, attempt: AttemptId, oldest: u64) {
        self.flows.entry(attempt).or_insert(Flow {
            oldest,
            archived: oldest,
            next: oldest,
            granted: 0,
            end: None,
            unread: Unread::Maybe,
            hints: 0,
            opening: Opening::Unannounced,
            fresh: false,
        });
    }

    /// Notes that there may be new output.
    pub fn wrote(&mut self, attempt: &AttemptId) {
        if let Some(flow) = self.flows.get_mut(attempt) {
            flow.hints = flow.hints.wrapping_add(1);
            flow.unread = Unread::Maybe;
        }
    }

    /// The Attempt is over and its output ends at `end`.
    pub fn ended(&mut self, attempt: &AttemptId, end: u64) {
        if let Some(flow) = self.flows.get_mut(attempt) {
            flow.end = Some(end);
            if flow.next < end {
                flow.unread = Unread::Maybe;
            }
            if flow.is_archived() {
                self.flows.remove(attempt);
            }
        }
    }

    /// The Attempt is forgotten.
    pub fn forget(&mut self, attempt: &AttemptId) {
        self.flows.remove(attempt);
    }

    /// Whether the Attempt has, or may still write, output that is not archived.
    pub fn knows(&self, attempt: &AttemptId) -> bool {
        self.flows.contains_key(attempt)
    }

    /// Whether a connection is needed.
    pub fn has_work(&self) -> bool {
        self.flows.values().any(Flow::has_work)
    }

    /// Bytes known to be on this node and not in History.
    pub fn waiting(&self) -> u64 {
        let of = |flow: &Flow| flow.end.unwrap_or(flow.next).max(flow.next).saturating_sub(flow.archived);
        self.flows.values().map(of).sum()
    }

    /// The connection is lost, and with it all grants: the next one may be to another operator.
    pub fn disconnected(&mut self) {
        self.connection += 1;
        for flow in self.flows.values_mut() {
            flow.opening = Opening::Unannounced;
            flow.granted = 0;
            // What was sent and is not archived must be read again.
            if flow.next > flow.archived {
                flow.unread = Unread::Maybe;
            }
            flow.next = flow.archived;
            flow.fresh = false;
        }
    }

    /// The `Open` messages for flows with work that were not announced on this connection, of at most [`MAX_ENDED_OPEN`]
    /// ended Attempts at a time.
    pub fn openings(&mut self) -> Vec<LogControl> {
        let mut openings = Vec::new();
        let is_open = |flow: &&Flow| flow.end.is_some() && flow.opening != Opening::Unannounced;
        let mut ended = self.flows.values().filter(is_open).count();
        for (attempt, flow) in &mut self.flows {
            if flow.opening == Opening::Unannounced && flow.has_work() {
                if flow.end.is_some() {
                    if ended >= MAX_ENDED_OPEN {
                        continue;
                    }
                    ended += 1;
                }
                flow.opening = if flow.fresh { Opening::Open } else { Opening::Announced };
                openings.push(LogControl::Open { attempt: attempt.clone(), oldest: flow.oldest });
            }
        }
        openings
    }

    /// Applies a Credit. Returns the position up to which the node may delete output, if it has moved.
    pub fn credit(&mut self, attempt: &AttemptId, granted: u64, archived: u64) -> Option<u64> {
        let flow = self.flows.get_mut(attempt)?;
        flow.granted = flow.granted.max(granted);
        let moved = archived > flow.archived;
        flow.archived = flow.archived.max(archived);
        flow.oldest = flow.oldest.max(flow.archived);
        if flow.opening == Opening::Announced {
            flow.opening = Opening::Open;
            flow.next = flow.archived;
        }
        flow.next = flow.next.max(flow.archived);
        let position = flow.archived;
        if flow.is_archived() {
            self.flows.remove(attempt);
        }
        moved.then_some(position)
    }

    /// The next output to read, round-robin, so that one Attempt's flood does not delay another's.
    pub fn next_read(&mut self) -> Option<OutputRead> {
        let connection = self.connection;
        let sendable = |(attempt, flow): (&AttemptId, &Flow)| {
            let ready =
                flow.opening == Opening::Open && flow.unread == Unread::Maybe && flow.next < flow.granted;
            ready.then(|| OutputRead {
                attempt: attempt.clone(),
                from: flow.next,
                until: flow.granted,
                hints: flow.hints,
                connection,
            })
        };
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.flows.range::<AttemptId, _>((after, Bound::Unbounded));
        let read = behind.find_map(sendable).or_else(|| self.flows.iter().find_map(sendable))?;
        self.last = Some(read.attempt.clone());
        Some(read)
    }

    /// Notes that records up to `until` are being sent. Returns false if they must not be sent, because they were read for
    /// an earlier connection or the Attempt was removed.
    pub fn send(&mut self, read: &OutputRead, until: u64) -> bool {
        if read.connection != self.connection {
            return false;
        }
        let Some(flow) = self.flows.get_mut(&read.attempt) else { return false };
        flow.fresh = false;
        flow.next = flow.next.max(until);
        if flow.end.is_some_and(|end| flow.next >= end) {
            flow.unread = Unread::None;
        }
        true
    }

    /// Notes that a read found no output.
    pub fn note_empty(&mut self, read: &OutputRead) {
        if let Some(flow) = self.flows.get_mut(&read.attempt)
            && flow.hints == read.hints
            && read.connection == self.connection
        {
            flow.unread = Unread::None;
        }
    }
}

/// The part of a record before `position`, if any.
pub fn before(mut record: LogRecord, position: u64) -> Option<LogRecord> {
    let len = position.saturating_sub(record.head.position).min(record.head.len);
    if len == 0 {
        return None;
    }
    if record.head.dropped.is_none() {
        record.data.truncate(usize::try_from(len).unwrap_or(usize::MAX));
    }
    record.head.len = len;
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> AttemptId {
        format!("task/{n}/node/1").parse().unwrap()
    }

    fn turns(outflow: &mut Outflow, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| outflow.next_read()).map(|read| read.attempt.run.0).collect()
    }

    #[test]
    fn new_attempt_sends_its_initial_credit() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        assert!(!outflow.has_work() && outflow.openings().is_empty());
        outflow.wrote(&id(1));
        assert_eq!(outflow.openings(), [LogControl::Open { attempt: id(1), oldest: 0 }]);
        let read = outflow.next_read().unwrap();
        assert_eq!((read.from, read.until), (0, 100));
    }

    #[test]
    fn sending_stops_at_the_credit_and_resumes_with_more() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 10);
        outflow.wrote(&id(1));
        outflow.openings();
        let read = outflow.next_read().unwrap();
        assert!(outflow.send(&read, 10));
        assert_eq!(outflow.next_read(), None);
        assert_eq!(outflow.credit(&id(1), 25, 0), None);
        assert_eq!(outflow.next_read().map(|read| (read.from, read.until)), Some((10, 25)));
    }

    #[test]
    fn sending_restarts_at_the_archived_position_on_a_new_connection() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let read = outflow.next_read().unwrap();
        outflow.send(&read, 80);
        assert_eq!(outflow.credit(&id(1), 100, 30), Some(30));
        outflow.disconnected();
        assert_eq!(outflow.openings(), [LogControl::Open { attempt: id(1), oldest: 30 }]);
        assert_eq!(outflow.next_read(), None, "the position is unknown before the first credit");
        assert_eq!(outflow.credit(&id(1), 200, 50), Some(50));
        assert_eq!(outflow.next_read().map(|read| (read.from, read.until)), Some((50, 200)));
    }

    #[test]
    fn attempt_is_done_once_all_output_is_archived() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let read = outflow.next_read().unwrap();
        outflow.send(&read, 7);
        outflow.ended(&id(1), 7);
        assert!(outflow.has_work(), "sent is not archived");
        assert_eq!(outflow.waiting(), 7);
        assert_eq!(outflow.credit(&id(1), 100, 7), Some(7));
        assert!(!outflow.has_work());
    }

    /// A node had more unarchived Attempts than an operator opens on one socket: it was closed each time before any output
    /// was sent.
    #[test]
    fn a_bounded_number_of_ended_attempts_is_open_at_a_time() {
        let mut outflow = Outflow::new();
        for n in 1..=2_000 {
            outflow.resume(id(n), 0);
            outflow.ended(&id(n), 10);
        }
        outflow.begin(id(9_999), 100);
        outflow.wrote(&id(9_999));
        let opened = |outflow: &mut Outflow| -> Vec<AttemptId> {
            let openings = outflow.openings().into_iter();
            openings
                .map(|open| if let LogControl::Open { attempt, .. } = open { attempt } else { panic!() })
                .collect()
        };
        let first = opened(&mut outflow);
        assert_eq!(first.len(), MAX_ENDED_OPEN + 1);
        assert!(first.contains(&id(9_999)), "a living attempt waits for the output of ended ones");
        let mut archived = 0;
        let mut open = first;
        while let Some(attempt) = open.pop() {
            outflow.credit(&attempt, 10, 10);
            archived += 1;
            open.extend(opened(&mut outflow));
        }
        assert_eq!(archived, 2_001, "attempts were never opened");
    }

    #[test]
    fn notification_during_a_read_is_kept() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let read = outflow.next_read().unwrap();
        outflow.wrote(&id(1));
        outflow.note_empty(&read);
        let read = outflow.next_read().unwrap();
        outflow.note_empty(&read);
        assert_eq!(outflow.next_read(), None);
    }

    #[test]
    fn round_robin_skips_attempts_without_credit() {
        let mut outflow = Outflow::new();
        for (n, credit) in [(1, 100), (2, 0), (3, 100)] {
            outflow.begin(id(n), credit);
            outflow.wrote(&id(n));
        }
        outflow.openings();
        assert_eq!(turns(&mut outflow, 5), [1, 3, 1, 3, 1]);
        outflow.credit(&id(2), 1, 0);
        assert_eq!(turns(&mut outflow, 4), [2, 3, 1, 2]);
    }

    #[test]
    fn older_credit_revokes_nothing() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        assert_eq!(outflow.credit(&id(1), 50, 0), None);
        assert_eq!(outflow.next_read().unwrap().until, 100);
    }

    #[test]
    fn output_read_for_an_earlier_connection_is_not_sent() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let read = outflow.next_read().unwrap();
        outflow.disconnected();
        outflow.openings();
        outflow.credit(&id(1), 100, 0);
        assert!(!outflow.send(&read, 50));
        assert_eq!(outflow.next_read().map(|read| read.from), Some(0));
    }

    #[test]
    fn forgotten_attempt_needs_no_connection() {
        let mut outflow = Outflow::new();
        outflow.resume(id(1), 5);
        assert!(outflow.has_work());
        outflow.forget(&id(1));
        assert!(!outflow.has_work());
        assert_eq!(outflow.credit(&id(1), 9, 9), None);
    }
}
