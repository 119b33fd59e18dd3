//! The log socket: open while there is output, beside the control socket of the same Session.
//!
//! What may be sent, and from where, is decided by [`sentinel_core::stream::outflow`]. Here frames are read and written, and
//! the Spools are read ahead by one batch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sentinel_core::stream::outflow::Outflow;
use sentinel_protocol::codec::{CodecError, decode_text, encode_text, is_unknown_kind};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::limits::MAX_LOG_FRAME;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Note, Origin};
use super::dial::{DialError, Dialer, Socket};
use super::reconnect::{Session, Timing};
use super::shelf::{Done, Shelf};
use crate::agent::{Input, Mailbox, chain};
use crate::vitals::Vitals;

/// The gateway's path.
const PATH: &str = "/agent/v1/logs";

/// Largest text frame that is read here; a Credit is a few hundred bytes.
const MAX_TEXT: usize = 64 << 10;

/// The kinds that [`LogControl`] knows.
const KNOWN_KINDS: &[&str] = &["Hello", "Open", "Credit", "Refuse"];

/// How often output that could not be read is tried again, and an idle socket is thought about.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why the log socket closed.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error("the agent is stopping")]
    Stopped,
    #[error("there is no output")]
    Idle,
    #[error("the session is over")]
    SessionOver,
    #[error("no connection")]
    Dial(#[source] DialError),
    #[error("the operator refused the log socket: {0}")]
    Refused(SessionRefusal),
    #[error("unable to understand the operator: {0}")]
    Malformed(String),
    #[error("the connection broke")]
    Broken(#[source] Box<tungstenite::Error>),
    #[error("the operator closed the connection")]
    Closed,
    #[error("nothing was heard of the operator for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("unable to write a message")]
    Encode(#[source] CodecError),
}

/// All that the log socket needs.
pub(crate) struct Logs {
    pub(crate) dialer: Dialer,
    pub(crate) timing: Timing,
    pub(crate) board: Arc<Board>,
    pub(crate) mailbox: Mailbox,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) session: watch::Receiver<Option<Session>>,
    pub(crate) random: fn() -> f64,
}

/// Carries output to the operator whenever there is a Session and some output, until it is stopped.
pub(crate) async fn carry_output(logs: Logs, stop: &CancellationToken) {
    let mut carrier =
        Carrier { logs, outflow: Outflow::new(), shelf: Shelf::default(), unreadable: Vec::new() };
    let mut wait_bound = carrier.logs.timing.first_wait;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            session = carrier.wait_for_work() => {
                let began = Instant::now();
                let ended = tokio::select! {
                    ended = carrier.carry(&session) => ended,
                    () = stop.cancelled() => LogsError::Stopped,
                };
                carrier.outflow.disconnected();
                match ended {
                    LogsError::Stopped => return,
                    LogsError::Idle | LogsError::SessionOver => {
                        wait_bound = carrier.logs.timing.first_wait;
                        continue;
                    }
                    error => tracing::warn!(error = chain(&error), "no log socket"),
                }
                if began.elapsed() >= carrier.logs.timing.settled_after {
                    wait_bound = carrier.logs.timing.first_wait;
                }
                let wait = wait_bound.mul_f64((carrier.logs.random)());
                wait_bound = (wait_bound * 2).min(carrier.logs.timing.longest_wait);
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

struct Carrier {
    logs: Logs,
    outflow: Outflow,
    shelf: Shelf,
    /// Attempts whose Spool could not be read.
    unreadable: Vec<AttemptId>,
}

/// What was waited for on the open socket.
enum Happened {
    Posted,
    Done(Done),
    Heard(Option<Result<Message, tungstenite::Error>>),
    LookAgain,
    SessionChanged,
}

impl Carrier {
    /// Without a socket: takes note of what is posted until there is a Session and something to send.
    async fn wait_for_work(&mut self) -> Session {
        loop {
            self.absorb();
            if self.outflow.has_work()
                && let Some(session) = self.logs.session.borrow_and_update().clone()
            {
                return session;
            }
            tokio::select! {
                () = self.logs.board.posted() => {}
                changed = self.logs.session.changed() => if changed.is_err() {
                    // The link is gone; so will be this.
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// Takes what is posted over into the outflow and onto the shelf.
    fn absorb(&mut self) {
        for (attempt, note) in self.logs.board.take() {
            let Note { known, wrote, end, forgotten } = note;
            if forgotten {
                self.outflow.forget(&attempt);
                self.shelf.remove(&attempt);
            }
            if let Some((dir, origin)) = known {
                self.shelf.add(attempt.clone(), dir);
                match origin {
                    Origin::New { credit } => self.outflow.begin(attempt.clone(), credit),
                    Origin::Earlier { oldest } => self.outflow.resume(attempt.clone(), oldest),
                }
            }
            if wrote {
                self.outflow.wrote(&attempt);
            }
            if let Some(end) = end {
                self.outflow.ended(&attempt, end);
                if !self.outflow.knows(&attempt) {
                    self.finish(&attempt, end);
                }
            }
        }
        self.logs.vitals.set_waiting(self.outflow.waiting());
    }

    async fn carry(&mut self, session: &Session) -> LogsError {
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .max_write_buffer_size(4 * MAX_LOG_FRAME)
            .max_message_size(Some(MAX_TEXT))
            .max_frame_size(Some(MAX_TEXT));
        let mut socket = match self.logs.dialer.dial(PATH, session.at.as_deref(), config).await {
            Ok(socket) => socket,
            Err(error) => return LogsError::Dial(error),
        };
        let ended = match self.talk(&mut socket, session).await {
            Ok(()) => LogsError::Idle,
            Err(error) => error,
        };
        // Best effort: the gateway finds out by itself otherwise.
        let _ = timeout(Duration::from_millis(200), socket.close(None)).await;
        ended
    }

    async fn talk(&mut self, socket: &mut Socket, session: &Session) -> Result<(), LogsError> {
        let patience = session.dead_after;
        say(socket, &[LogControl::Hello { session: session.id.clone() }], patience).await?;
        let mut heard_at = Instant::now();
        let mut busy_at = Instant::now();
        let mut look_again = interval(LOOK_AGAIN.min(patience / 3));
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.absorb();
            let openings = self.outflow.openings();
            say(socket, &openings, patience).await?;
            let outflow = &mut self.outflow;
            self.shelf.begin(|| outflow.next_read());
            // Nothing is lost when one branch is dropped for another: all of them keep what they have.
            let happened = tokio::select! {
                biased;
                _ = self.logs.session.changed() => Happened::SessionChanged,
                frame = socket.next() => Happened::Heard(frame),
                done = self.shelf.done() => Happened::Done(done),
                () = self.logs.board.posted() => Happened::Posted,
                _ = look_again.tick() => Happened::LookAgain,
            };
            match happened {
                Happened::Posted => {}
                Happened::SessionChanged => return Err(LogsError::SessionOver),
                Happened::Heard(frame) => {
                    heard_at = Instant::now();
                    self.hear(frame)?;
                }
                Happened::Done(done) => {
                    busy_at = Instant::now();
                    let frames = self.take_note(done);
                    // The next batch is read while this one is written.
                    let outflow = &mut self.outflow;
                    self.shelf.begin(|| outflow.next_read());
                    write(socket, frames, patience).await?;
                }
                Happened::LookAgain => {
                    if heard_at.elapsed() >= patience {
                        return Err(LogsError::Silent(patience));
                    }
                    for attempt in self.unreadable.drain(..) {
                        self.outflow.wrote(&attempt);
                    }
                    if self.outflow.has_work() || self.shelf.is_working() || self.shelf.has_releases() {
                        busy_at = Instant::now();
                    } else if busy_at.elapsed() >= self.logs.timing.log_idle {
                        return Ok(());
                    }
                    let ping = socket.send(Message::Ping(Bytes::new()));
                    timeout(patience, ping)
                        .await
                        .map_err(|_| LogsError::Silent(patience))?
                        .map_err(broken)?;
                }
            }
        }
    }

    /// Frames that follow from a job.
    fn take_note(&mut self, done: Done) -> Vec<Bytes> {
        match done {
            Done::Released => Vec::new(),
            Done::Failed { turn } => {
                self.outflow.note_empty(&turn);
                self.unreadable.push(turn.attempt);
                Vec::new()
            }
            Done::Read { turn, frames, until } => {
                if frames.is_empty() {
                    self.outflow.note_empty(&turn);
                    return frames;
                }
                match self.outflow.send(&turn, until) {
                    true => frames,
                    false => Vec::new(),
                }
            }
        }
    }

    fn hear(&mut self, frame: Option<Result<Message, tungstenite::Error>>) -> Result<(), LogsError> {
        let text = match frame {
            None | Some(Ok(Message::Close(_))) => return Err(LogsError::Closed),
            Some(Err(error)) => return Err(broken(error)),
            Some(Ok(Message::Binary(_))) => {
                return Err(LogsError::Malformed("a binary frame on the log socket".to_owned()));
            }
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(_)) => return Ok(()),
        };
        match decode_text(&text) {
            Ok(LogControl::Credit { attempt, granted, archived }) => {
                self.credit(&attempt, granted, archived);
                Ok(())
            }
            Ok(LogControl::Refuse { refusal }) => Err(LogsError::Refused(refusal)),
            Ok(LogControl::Hello { .. } | LogControl::Open { .. }) => {
                Err(LogsError::Malformed("a message that only agents send".to_owned()))
            }
            Err(_) if is_unknown_kind(&text, KNOWN_KINDS) => Ok(()),
            Err(error) => Err(LogsError::Malformed(error.to_string())),
        }
    }

    fn credit(&mut self, attempt: &AttemptId, granted: u64, archived: u64) {
        if let Some(position) = self.outflow.credit(attempt, granted, archived) {
            self.shelf.release(attempt, position);
        }
        if !self.outflow.knows(attempt) {
            self.finish(attempt, archived);
        }
        self.logs.vitals.set_waiting(self.outflow.waiting());
    }

    /// All of an Attempt's output is archived.
    fn finish(&mut self, attempt: &AttemptId, position: u64) {
        self.shelf.finish(attempt);
        // Unnoted, the output is offered once more after a restart.
        self.logs.mailbox.try_post(Input::Archived { attempt: attempt.clone(), position });
    }
}

async fn say(socket: &mut Socket, messages: &[LogControl], patience: Duration) -> Result<(), LogsError> {
    if messages.is_empty() {
        return Ok(());
    }
    let writing = async {
        for message in messages {
            let text = encode_text(message).map_err(LogsError::Encode)?;
            socket.feed(Message::text(text)).await.map_err(broken)?;
        }
        socket.flush().await.map_err(broken)
    };
    timeout(patience, writing).await.map_err(|_| LogsError::Silent(patience))?
}

async fn write(socket: &mut Socket, frames: Vec<Bytes>, patience: Duration) -> Result<(), LogsError> {
    if frames.is_empty() {
        return Ok(());
    }
    let writing = async {
        for frame in frames {
            socket.feed(Message::Binary(frame)).await.map_err(broken)?;
        }
        socket.flush().await.map_err(broken)
    };
    timeout(patience, writing).await.map_err(|_| LogsError::Silent(patience))?
}

fn broken(error: tungstenite::Error) -> LogsError {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => LogsError::Closed,
        error => LogsError::Broken(Box::new(error)),
    }
}
