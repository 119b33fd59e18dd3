//! The log socket: open while there is output, beside the control socket of the same Session.
//!
//! What may be sent, and from where, is decided by [`sentinel_core::stream::outflow`]. Here frames are read and
//! written, and the Spools are read ahead by one batch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sentinel_core::stream::outflow::Outflow;
use sentinel_protocol::codec::{decode_text, is_unknown_kind};
use sentinel_protocol::ids::AttemptId;
use sentinel_protocol::limits::MAX_LOG_FRAME;
use sentinel_protocol::log::LogControl;
use sentinel_protocol::refusal::SessionRefusal;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::control::SessionInfo;
use super::dial::Dialer;
use super::socket::{SocketError, TimedSocket};
use super::spool_readers::{ReadResult, SpoolReaders};
use super::timing::{ReconnectBackoff, Timing};
use crate::agent_metrics::AgentMetrics;
use crate::channel::{Input, Mailbox, OutputNotice, OutputNotices, OutputOrigin};
use crate::error_category::ErrorCategory;
use crate::shortage::describe;
use crate::spans::log_socket_span;

/// The gateway's path.
const PATH: &str = "/agent/v1/logs";

/// Largest text frame that is read on this socket, bytes; a Credit is a few hundred bytes.
const MAX_TEXT: usize = 64 << 10;

/// The kinds that [`LogControl`] knows.
const KNOWN_KINDS: &[&str] = &["Hello", "Open", "Credit", "Refuse"];

/// How often output that could not be read is retried, and an idle socket is checked.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Why the log socket closed.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error("the agent is stopping")]
    Stopped,
    #[error("no output left to send")]
    Idle,
    #[error("the session has ended")]
    SessionOver,
    #[error("log socket refused by the operator: {0}")]
    Refused(SessionRefusal),
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl LogsError {
    fn category(&self) -> ErrorCategory {
        match self {
            Self::Stopped | Self::Idle | Self::SessionOver => ErrorCategory::Shutdown,
            Self::Refused(_) => ErrorCategory::Refused,
            Self::Socket(error) => error.category(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Stopped => false,
            Self::Idle | Self::SessionOver | Self::Refused(_) => true,
            Self::Socket(error) => error.is_retryable(),
        }
    }
}

/// All that the log link needs.
pub(crate) struct LogLink {
    /// Name of the node, for the log only.
    pub(crate) node: String,
    pub(crate) dialer: Dialer,
    pub(crate) timing: Timing,
    pub(crate) notices: Arc<OutputNotices>,
    pub(crate) mailbox: Mailbox,
    pub(crate) metrics: Arc<AgentMetrics>,
    pub(crate) session: watch::Receiver<Option<SessionInfo>>,
}

/// Sends output to the operator whenever there is a Session and output, until it is stopped.
pub(crate) async fn run_log_link(link: LogLink, stop: CancellationToken) {
    let mut backoff = ReconnectBackoff::new(link.timing);
    let readers = SpoolReaders::new(link.metrics.clone());
    let mut sender = OutputSender { link, outflow: Outflow::new(), readers, unreadable: Vec::new() };
    loop {
        let session = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            session = sender.wait_for_work() => session,
        };
        let began = Instant::now();
        let span = log_socket_span(&sender.link.node, session.id.as_str());
        let ended = tokio::select! {
            ended = sender.connect_and_send(&session).instrument(span.clone()) => ended,
            () = stop.cancelled() => LogsError::Stopped,
        };
        sender.outflow.disconnected();
        match ended {
            LogsError::Stopped => return,
            LogsError::Idle | LogsError::SessionOver => {
                backoff.reset();
                continue;
            }
            error => span.in_scope(|| {
                tracing::warn!(
                    category = error.category().as_str(),
                    retryable = error.is_retryable(),
                    error = describe(&error),
                    "log socket closed; will reconnect"
                );
            }),
        }
        backoff.settle(began.elapsed());
        tokio::select! {
            () = sleep(backoff.next(fastrand::f64())) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What is sent, from which Spools; it outlives connections.
struct OutputSender {
    link: LogLink,
    outflow: Outflow,
    readers: SpoolReaders,
    /// Attempts whose Spool could not be read; they are retried.
    unreadable: Vec<AttemptId>,
}

impl OutputSender {
    /// Without a socket: applies notices until there is a Session and something to send.
    async fn wait_for_work(&mut self) -> SessionInfo {
        loop {
            self.apply_notices();
            if self.outflow.has_work()
                && let Some(session) = self.link.session.borrow_and_update().clone()
            {
                return session;
            }
            tokio::select! {
                () = self.link.notices.published() => {}
                changed = self.link.session.changed() => if changed.is_err() {
                    // The control link has exited, and the agent is about to stop this one.
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    fn apply_notices(&mut self) {
        for (attempt, notice) in self.link.notices.take() {
            let OutputNotice { opened, written, end, forgotten } = notice;
            if forgotten {
                self.outflow.forget(&attempt);
                self.readers.remove(&attempt);
            }
            if let Some((dir, origin)) = opened {
                self.readers.add(attempt.clone(), dir);
                match origin {
                    OutputOrigin::New { credit } => self.outflow.begin(attempt.clone(), credit),
                    OutputOrigin::Resumed { oldest } => self.outflow.resume(attempt.clone(), oldest),
                }
            }
            if written {
                self.outflow.wrote(&attempt);
            }
            if let Some(end) = end {
                self.outflow.ended(&attempt, end);
                if !self.outflow.knows(&attempt) {
                    self.finish(&attempt, end);
                }
            }
        }
        self.link.metrics.set_pending_output(self.outflow.waiting());
    }

    async fn connect_and_send(&mut self, session: &SessionInfo) -> LogsError {
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .max_write_buffer_size(4 * MAX_LOG_FRAME)
            .max_message_size(Some(MAX_TEXT))
            .max_frame_size(Some(MAX_TEXT));
        let dialled =
            TimedSocket::connect(&self.link.dialer, PATH, session.at.as_deref(), config, session.dead_after);
        let socket = match dialled.await {
            Ok(socket) => socket,
            Err(error) => return error.into(),
        };
        let mut connection = Connection::new(self, socket, session.dead_after);
        let ended = match connection.run(session).await {
            Ok(()) => LogsError::Idle,
            Err(error) => error,
        };
        connection.socket.close().await;
        ended
    }

    /// The frames to send after a job of the readers.
    fn on_read(&mut self, result: ReadResult) -> Vec<Bytes> {
        match result {
            ReadResult::Released => Vec::new(),
            ReadResult::Failed { read } => {
                self.outflow.note_empty(&read);
                self.unreadable.push(read.attempt);
                Vec::new()
            }
            ReadResult::Read { read, frames, .. } if frames.is_empty() => {
                self.outflow.note_empty(&read);
                frames
            }
            ReadResult::Read { read, frames, until } => {
                if self.outflow.send(&read, until) {
                    frames
                } else {
                    Vec::new()
                }
            }
        }
    }

    fn on_message(&mut self, text: &str) -> Result<(), LogsError> {
        match decode_text(text) {
            Ok(LogControl::Credit { attempt, granted, archived }) => {
                self.on_credit(&attempt, granted, archived);
                Ok(())
            }
            Ok(LogControl::Refuse { refusal }) => Err(LogsError::Refused(refusal)),
            Ok(LogControl::Hello { .. } | LogControl::Open { .. }) => {
                Err(SocketError::Malformed("a message that only agents send".to_owned()).into())
            }
            Err(_) if is_unknown_kind(text, KNOWN_KINDS) => Ok(()),
            Err(error) => Err(SocketError::Malformed(error.to_string()).into()),
        }
    }

    fn on_credit(&mut self, attempt: &AttemptId, granted: u64, archived: u64) {
        if let Some(position) = self.outflow.credit(attempt, granted, archived) {
            self.readers.release(attempt, position);
        }
        if !self.outflow.knows(attempt) {
            self.finish(attempt, archived);
        }
        self.link.metrics.set_pending_output(self.outflow.waiting());
    }

    /// All of an Attempt's output is archived.
    fn finish(&mut self, attempt: &AttemptId, position: u64) {
        self.readers.finish(attempt);
        // If this is lost, the output is offered once more after a restart.
        self.link.mailbox.try_send(Input::Archived { attempt: attempt.clone(), position });
    }
}

/// What an open log socket waits for.
enum LogEvent {
    NoticesPublished,
    ReadDone(ReadResult),
    Received(Result<Option<Utf8Bytes>, SocketError>),
    RetryDue,
    SessionChanged,
}

/// An open log socket.
struct Connection<'a> {
    sender: &'a mut OutputSender,
    socket: TimedSocket,
    dead_after: Duration,
    retry: Interval,
    last_received: Instant,
    last_busy: Instant,
}

impl<'a> Connection<'a> {
    fn new(sender: &'a mut OutputSender, socket: TimedSocket, dead_after: Duration) -> Self {
        let mut retry = interval(RETRY_EVERY.min(dead_after / 3));
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        Self { sender, socket, dead_after, retry, last_received: now, last_busy: now }
    }

    /// Sends output until there has been none for a while.
    async fn run(&mut self, session: &SessionInfo) -> Result<(), LogsError> {
        let mut hello = Some(LogControl::Hello { session: session.id.clone() });
        self.socket.send_texts(|| hello.take()).await?;
        loop {
            self.sender.apply_notices();
            let openings = self.sender.outflow.openings();
            if !openings.is_empty() {
                let mut openings = openings.into_iter();
                self.socket.send_texts(|| openings.next()).await?;
            }
            self.start_read();
            let event = self.next_event().await;
            if self.on_event(event).await? == Activity::Idle {
                return Ok(());
            }
        }
    }

    fn start_read(&mut self) {
        let OutputSender { outflow, readers, .. } = &mut *self.sender;
        readers.start_next(|| outflow.next_read());
    }

    /// Every branch is cancel safe.
    async fn next_event(&mut self) -> LogEvent {
        let OutputSender { link, readers, .. } = &mut *self.sender;
        tokio::select! {
            biased;
            _ = link.session.changed() => LogEvent::SessionChanged,
            received = self.socket.recv() => LogEvent::Received(received),
            result = readers.finished() => LogEvent::ReadDone(result),
            () = link.notices.published() => LogEvent::NoticesPublished,
            _ = self.retry.tick() => LogEvent::RetryDue,
        }
    }

    async fn on_event(&mut self, event: LogEvent) -> Result<Activity, LogsError> {
        match event {
            LogEvent::NoticesPublished => {}
            LogEvent::SessionChanged => return Err(LogsError::SessionOver),
            LogEvent::Received(received) => {
                self.last_received = Instant::now();
                if let Some(text) = received? {
                    self.sender.on_message(&text)?;
                }
            }
            LogEvent::ReadDone(result) => {
                self.last_busy = Instant::now();
                let frames = self.sender.on_read(result);
                // The next batch is read while this one is written.
                self.start_read();
                self.socket.send_frames(frames).await?;
            }
            LogEvent::RetryDue => return self.on_retry_due().await,
        }
        Ok(Activity::Busy)
    }

    async fn on_retry_due(&mut self) -> Result<Activity, LogsError> {
        if self.last_received.elapsed() >= self.dead_after {
            return Err(SocketError::TimedOut(self.dead_after).into());
        }
        let OutputSender { link, outflow, readers, unreadable } = &mut *self.sender;
        for attempt in unreadable.drain(..) {
            outflow.wrote(&attempt);
        }
        readers.retry_releases();
        if outflow.has_work() || readers.is_busy() || readers.has_releases() {
            self.last_busy = Instant::now();
        } else if self.last_busy.elapsed() >= link.timing.log_idle {
            return Ok(Activity::Idle);
        }
        self.socket.send_ping().await?;
        Ok(Activity::Busy)
    }
}

/// Whether the socket is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Busy,
    /// No output for as long as [`Timing::log_idle`].
    Idle,
}
