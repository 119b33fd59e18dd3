//! Whose output may be sent now, and from where: the brain of the log socket.
//!
//! The operator says absolute positions and never differences: up to where it takes output now (*granted*), and up
//! to where History holds all of it (*archived*). Whatever happens to a message, the next one says everything again.
//!
//! ```text
//!   0 ........ archived ........ next ........ granted ........ end of what the command wrote
//!   │ may leave the node │ on its way │  may be sent now  │  waits on the node's disk
//! ```
//!
//! After a new connection nobody knows what of "on its way" arrived, so sending begins again at *archived*, which the
//! operator says in its first Credit; a byte that comes twice is recognised by its position.

use std::collections::BTreeMap;
use std::ops::Bound;

use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::log::{LogControl, LogRecord};

/// Whether there may be output that was not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// There may be.
    Maybe,
    /// All was read when it was last looked.
    None,
}

/// What this connection knows of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// Nothing was said of it.
    Unsaid,
    /// Open was said; the first Credit says from where to send.
    Asked,
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
    /// Number of hints that there is more, so that one which comes during a read is not lost.
    hints: u64,
    opening: Opening,
    /// Nothing was ever sent of it, so that no Credit is needed to know where to begin.
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

/// What is to be read and sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRead {
    /// Of which Attempt.
    pub attempt: AttemptId,
    /// From which position on.
    pub from: u64,
    /// Before which position; a record that reaches over it is to be cut by [`before`].
    pub until: u64,
    hints: u64,
    connection: u64,
}

/// The flows of one agent.
#[derive(Debug, Default)]
pub struct Outflow {
    flows: BTreeMap<AttemptId, Flow>,
    /// Whose turn was last.
    last: Option<AttemptId>,
    /// Counts connections, so that what was read for one is not sent on the next.
    connection: u64,
}

impl Outflow {
    /// No flows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new Attempt, whose output may be sent up to `credit` at once. Repeating it changes nothing.
    pub fn begin(&mut self, attempt: AttemptId, credit: u64) {
        self.flows.entry(attempt).or_insert(Flow {
            oldest: 0,
            archived: 0,
            next: 0,
            granted: credit,
            end: None,
            unread: Unread::None,
            hints: 0,
            opening: Opening::Unsaid,
            fresh: true,
        });
    }

    /// An Attempt of an earlier life, whose output is there from `oldest` on. Repeating it changes nothing.
    pub fn resume(&mut self, attempt: AttemptId, oldest: u64) {
        self.flows.entry(attempt).or_insert(Flow {
            oldest,
            archived: oldest,
            next: oldest,
            granted: 0,
            end: None,
            unread: Unread::Maybe,
            hints: 0,
            opening: Opening::Unsaid,
            fresh: false,
        });
    }

    /// There may be new output.
    pub fn wrote(&mut self, attempt: &AttemptId) {
        if let Some(flow) = self.flows.get_mut(attempt) {
            flow.hints = flow.hints.wrapping_add(1);
            flow.unread = Unread::Maybe;
        }
    }

    /// The Attempt is over, and `end` is behind its last byte.
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

    /// Whether the Attempt still has output that is not archived, or may come to have some.
    pub fn knows(&self, attempt: &AttemptId) -> bool {
        self.flows.contains_key(attempt)
    }

    /// Whether a connection is needed.
    pub fn has_work(&self) -> bool {
        self.flows.values().any(Flow::has_work)
    }

    /// Bytes known to be on this node that History does not hold yet.
    pub fn waiting(&self) -> u64 {
        let of = |flow: &Flow| flow.end.unwrap_or(flow.next).max(flow.next).saturating_sub(flow.archived);
        self.flows.values().map(of).sum()
    }

    /// The connection is gone, and the operator's word with it: the next one may be another operator.
    pub fn disconnected(&mut self) {
        self.connection += 1;
        for flow in self.flows.values_mut() {
            flow.opening = Opening::Unsaid;
            flow.granted = 0;
            // What was sent and is not archived must be read again; what was never read is hinted at as ever.
            if flow.next > flow.archived {
                flow.unread = Unread::Maybe;
            }
            flow.next = flow.archived;
            flow.fresh = false;
        }
    }

    /// What is to be said on the connection before anything else: the flows that have work and were not announced.
    pub fn openings(&mut self) -> Vec<LogControl> {
        let mut openings = Vec::new();
        for (attempt, flow) in &mut self.flows {
            if flow.opening == Opening::Unsaid && flow.has_work() {
                flow.opening = if flow.fresh { Opening::Open } else { Opening::Asked };
                openings.push(LogControl::Open { attempt: attempt.clone(), oldest: flow.oldest });
            }
        }
        openings
    }

    /// The operator's word; the answer is the position up to which the node may let go, when that has moved.
    pub fn credit(&mut self, attempt: &AttemptId, granted: u64, archived: u64) -> Option<u64> {
        let flow = self.flows.get_mut(attempt)?;
        flow.granted = flow.granted.max(granted);
        let moved = archived > flow.archived;
        flow.archived = flow.archived.max(archived);
        flow.oldest = flow.oldest.max(flow.archived);
        if flow.opening == Opening::Asked {
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

    /// Whose turn it is: one after the other, so that nobody's flood keeps another's line waiting.
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
        let turn = behind.find_map(sendable).or_else(|| self.flows.iter().find_map(sendable))?;
        self.last = Some(turn.attempt.clone());
        Some(turn)
    }

    /// Records up to here are handed to the connection. Refused when they were read for an earlier connection or for
    /// an Attempt that is gone: then they must not be sent.
    pub fn send(&mut self, turn: &OutputRead, until: u64) -> bool {
        if turn.connection != self.connection {
            return false;
        }
        let Some(flow) = self.flows.get_mut(&turn.attempt) else { return false };
        flow.fresh = false;
        flow.next = flow.next.max(until);
        if flow.end.is_some_and(|end| flow.next >= end) {
            flow.unread = Unread::None;
        }
        true
    }

    /// Nothing was there to be read.
    pub fn nothing_there(&mut self, turn: &OutputRead) {
        if let Some(flow) = self.flows.get_mut(&turn.attempt)
            && flow.hints == turn.hints
            && turn.connection == self.connection
        {
            flow.unread = Unread::None;
        }
    }
}

/// The part of a record before `position`; `None` when nothing of it lies there.
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
        (0..count).filter_map(|_| outflow.next_read()).map(|turn| turn.attempt.run.0).collect()
    }

    #[test]
    fn a_new_attempt_may_send_its_credit_at_once() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        assert!(!outflow.has_work() && outflow.openings().is_empty());
        outflow.wrote(&id(1));
        assert_eq!(outflow.openings(), [LogControl::Open { attempt: id(1), oldest: 0 }]);
        let turn = outflow.next_read().unwrap();
        assert_eq!((turn.from, turn.until), (0, 100));
    }

    #[test]
    fn nothing_is_sent_beyond_the_credit_and_more_credit_lets_it_go_on() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 10);
        outflow.wrote(&id(1));
        outflow.openings();
        let turn = outflow.next_read().unwrap();
        assert_eq!(outflow.send(&turn, 10), true);
        assert_eq!(outflow.next_read(), None);
        assert_eq!(outflow.credit(&id(1), 25, 0), None);
        assert_eq!(outflow.next_read().map(|turn| (turn.from, turn.until)), Some((10, 25)));
    }

    #[test]
    fn after_a_new_connection_sending_begins_where_the_archive_ends() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let turn = outflow.next_read().unwrap();
        outflow.send(&turn, 80);
        assert_eq!(outflow.credit(&id(1), 100, 30), Some(30));
        outflow.disconnected();
        assert_eq!(outflow.openings(), [LogControl::Open { attempt: id(1), oldest: 30 }]);
        assert_eq!(outflow.next_read(), None, "before the first credit nobody knows from where");
        assert_eq!(outflow.credit(&id(1), 200, 50), Some(50));
        assert_eq!(outflow.next_read().map(|turn| (turn.from, turn.until)), Some((50, 200)));
    }

    #[test]
    fn an_attempt_is_done_when_all_of_it_is_archived() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let turn = outflow.next_read().unwrap();
        outflow.send(&turn, 7);
        outflow.ended(&id(1), 7);
        assert!(outflow.has_work(), "sent is not archived");
        assert_eq!(outflow.waiting(), 7);
        assert_eq!(outflow.credit(&id(1), 100, 7), Some(7));
        assert!(!outflow.has_work());
    }

    #[test]
    fn a_hint_that_comes_during_a_read_is_not_lost() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let turn = outflow.next_read().unwrap();
        outflow.wrote(&id(1));
        outflow.nothing_there(&turn);
        let turn = outflow.next_read().unwrap();
        outflow.nothing_there(&turn);
        assert_eq!(outflow.next_read(), None);
    }

    #[test]
    fn attempts_take_turns_and_one_without_credit_is_passed_over() {
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
    fn an_older_credit_takes_nothing_back() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        assert_eq!(outflow.credit(&id(1), 50, 0), None);
        assert_eq!(outflow.next_read().unwrap().until, 100);
    }

    #[test]
    fn what_was_read_for_an_earlier_connection_is_not_sent() {
        let mut outflow = Outflow::new();
        outflow.begin(id(1), 100);
        outflow.wrote(&id(1));
        outflow.openings();
        let turn = outflow.next_read().unwrap();
        outflow.disconnected();
        outflow.openings();
        outflow.credit(&id(1), 100, 0);
        assert_eq!(outflow.send(&turn, 50), false);
        assert_eq!(outflow.next_read().map(|turn| turn.from), Some(0));
    }

    #[test]
    fn what_is_forgotten_needs_no_connection() {
        let mut outflow = Outflow::new();
        outflow.resume(id(1), 5);
        assert!(outflow.has_work());
        outflow.forget(&id(1));
        assert!(!outflow.has_work());
        assert_eq!(outflow.credit(&id(1), 9, 9), None);
    }
}
