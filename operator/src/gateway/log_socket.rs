//! One log socket: records in, Credit out.
//!
//! It belongs to the control Session of the same agent and closes when that is no longer the current one. All of its
//! messages are level-triggered, so closing it is the remedy for every fault: the agent opens another and continues
//! from the position that Credit names as archived.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sentinel_protocol::codec::{decode_record, decode_text, encode_text, is_unknown_kind};
use sentinel_protocol::ids::{AttemptId, NodeName, SessionId};
use sentinel_protocol::log::{LogControl, LogRecord};
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::to_operator::ReportedState;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tracing::Instrument as _;

use super::gate::Gateway;
use super::socket::{AgentSocket, Caller, SocketEnd};
use crate::logs::End;
use crate::logs::hub::{LogPublisher, PublishResult};

/// Every kind of text message that this release knows.
const KNOWN: &[&str] = &["Hello", "Open", "Credit", "Refuse"];

/// Attempts whose output one socket may carry.
const MAX_OPEN: usize = 1024;

/// Offers of output of unknown Attempts that are remembered: an agent may dial its log socket before the operator has
/// received its whole Inventory.
const MAX_UNKNOWN: usize = MAX_OPEN;

/// How often it is checked whether the operator knows them by now.
const KNOWN_EVERY: Duration = Duration::from_millis(500);

/// Credit and unarchived output of one socket, bytes, over all of its Attempts. A node with as many commands as an agent
/// runs at once has less outstanding while none of them is busy.
const MAX_CREDIT: u64 = 12 << 20;

/// More of it for Attempts that have ended, so that they never wait for commands that run and write nothing.
const CREDIT_OF_ENDED: u64 = 4 << 20;

/// What woke the socket's task.
enum LogSocketEvent {
    Frame(Result<Message, SocketEnd>),
    Credit,
    Deadline,
    KnownCheck,
}

/// Runs a log socket until it closes.
pub(super) fn run<S>(
    gateway: Gateway,
    stream: WebSocketStream<S>,
    caller: Caller,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let span = tracing::info_span!("log_socket", node = %caller.node, session = tracing::field::Empty);
    serve(gateway, stream, caller).instrument(span)
}

async fn serve<S>(gateway: Gateway, stream: WebSocketStream<S>, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Caller { node, meter, .. } = caller;
    let _counted = gateway.metrics().output.sockets.hold();
    let mut socket = AgentSocket::new(stream, meter, *gateway.settings());
    let end = match greet(&gateway, &mut socket, &node).await {
        Ok(session) => LogSession::new(&gateway, &node, session).run(&mut socket).await,
        Err(end) => end,
    };
    gateway.count_log_socket_end(&node, &end);
    tracing::debug!(reason = end.category(), detail = ?end, "log socket closed");
    socket.close(end, |refusal| encode_text(&LogControl::Refuse { refusal }).ok()).await;
}

/// Receives the Hello, which names the Session that the socket belongs to.
async fn greet<S>(
    gateway: &Gateway,
    socket: &mut AgentSocket<S>,
    node: &NodeName,
) -> Result<SessionId, SocketEnd>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    match decode_text::<LogControl>(&socket.receive_hello().await?) {
        Ok(LogControl::Hello { session }) if gateway.registry().is_current(node, &session) => {
            tracing::Span::current().record("session", tracing::field::display(&session));
            Ok(session)
        }
        Ok(LogControl::Hello { .. }) => Err(SocketEnd::Refused(SessionRefusal::Replaced)),
        Ok(_) => Err(SocketEnd::Refused(SessionRefusal::HelloExpected)),
        Err(error) => Err(SocketEnd::malformed(error)),
    }
}

/// An offer of the output of an Attempt that the operator does not know yet.
#[derive(Debug, Clone, Copy)]
struct UnknownOffer {
    /// The first position of the output on the node.
    oldest: u64,
    /// Records of it were sent and ignored: the agent believes that they have arrived.
    has_ignored: bool,
}

/// An established log socket.
struct LogSession<'a> {
    gateway: &'a Gateway,
    node: &'a NodeName,
    session: SessionId,
    open: HashMap<AttemptId, LogPublisher>,
    unknown: HashMap<AttemptId, UnknownOffer>,
    /// When they are checked next.
    known_check_at: Instant,
    /// Notified when the Credit of an Attempt may have changed.
    credit_changed: Arc<Notify>,
}

impl<'a> LogSession<'a> {
    fn new(gateway: &'a Gateway, node: &'a NodeName, session: SessionId) -> Self {
        let (open, unknown) = (HashMap::new(), HashMap::new());
        let known_check_at = Instant::now() + KNOWN_EVERY;
        Self { gateway, node, session, open, unknown, known_check_at, credit_changed: Arc::default() }
    }

    async fn run<S>(&mut self, socket: &mut AgentSocket<S>) -> SocketEnd
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        loop {
            let has_unknown = !self.unknown.is_empty();
            let deadline = socket.next_deadline();
            let is_spent = self.open.values().any(LogPublisher::is_spent);
            let hub = self.gateway.hub();
            // Cancel-safe: a frame stays in the buffer until it is whole, and Credit is computed anew each time.
            let event = tokio::select! {
                frame = socket.receive() => LogSocketEvent::Frame(frame),
                () = self.credit_changed.notified() => LogSocketEvent::Credit,
                () = hub.freed(), if is_spent => LogSocketEvent::Credit,
                () = sleep_until(deadline) => LogSocketEvent::Deadline,
                () = sleep_until(self.known_check_at), if has_unknown => LogSocketEvent::KnownCheck,
            };
            let step = match event {
                LogSocketEvent::Frame(Ok(Message::Text(text))) => self.on_text(socket, &text).await,
                LogSocketEvent::Frame(Ok(Message::Binary(frame))) => self.on_record(&frame).await,
                LogSocketEvent::Frame(Ok(_)) => Ok(()),
                LogSocketEvent::Frame(Err(end)) => Err(end),
                LogSocketEvent::Credit => self.send_credit(socket).await,
                LogSocketEvent::Deadline => self.on_deadline(socket).await,
                LogSocketEvent::KnownCheck => self.on_known_check(socket).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn on_text<S>(&mut self, socket: &mut AgentSocket<S>, text: &str) -> Result<(), SocketEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (attempt, oldest) = match decode_text::<LogControl>(text) {
            Ok(LogControl::Open { attempt, oldest }) => (attempt, oldest),
            Ok(_) => return Err(SocketEnd::malformed("only Open may follow Hello on the log socket")),
            Err(_) if is_unknown_kind(text, KNOWN) => {
                self.gateway.metrics().unknown_messages.add(1);
                return Ok(());
            }
            Err(error) => return Err(SocketEnd::malformed(error)),
        };
        self.gateway.check_node(self.node, &attempt).map_err(SocketEnd::Refused)?;
        if !self.gateway.is_known(&attempt) {
            self.gateway.metrics().output.unknown.add(1);
            if self.unknown.len() < MAX_UNKNOWN {
                self.unknown.insert(attempt, UnknownOffer { oldest, has_ignored: false });
            }
            return Ok(());
        }
        self.open(attempt, oldest)?;
        self.send_credit(socket).await
    }

    /// Opens the Attempts that were offered before they were known. Where records were ignored in between, the socket is
    /// closed instead, and the agent starts at the right position on the next one: it may have nothing more to send by
    /// which the gap would show.
    fn open_known(&mut self) -> Result<(), SocketEnd> {
        let known: Vec<AttemptId> =
            self.unknown.keys().filter(|attempt| self.gateway.is_known(attempt)).cloned().collect();
        for attempt in known {
            let Some(offer) = self.unknown.remove(&attempt) else { continue };
            if offer.has_ignored {
                return Err(SocketEnd::OutputIgnored);
            }
            self.open(attempt, offer.oldest)?;
        }
        Ok(())
    }

    fn open(&mut self, attempt: AttemptId, oldest: u64) -> Result<(), SocketEnd> {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&attempt) {
            self.open.retain(|_, publisher| !publisher.is_complete());
            if self.open.len() >= MAX_OPEN {
                let message = format!("output of more than {MAX_OPEN} attempts at once");
                return Err(SocketEnd::malformed(message));
            }
        }
        let publisher = self.gateway.hub().open(&attempt, oldest, self.credit_changed.clone());
        if let Some(ReportedState::Ended(ended)) = self.gateway.registry().report(&attempt).map(|r| r.state) {
            self.gateway.hub().ended(&attempt, End::At(ended.output.end));
        }
        self.open.insert(attempt, publisher);
        Ok(())
    }

    async fn on_record(&mut self, frame: &Bytes) -> Result<(), SocketEnd> {
        let (attempt, record) = decode_record(frame).map_err(SocketEnd::malformed)?;
        let Some(publisher) = self.open.get(&attempt) else { return self.on_unopened(&attempt) };
        self.wait_for_room(&record).await?;
        let bytes = record.data.len() as u64;
        let counts = &self.gateway.metrics().output;
        match publisher.publish(record) {
            PublishResult::New => {
                counts.records.add(1);
                counts.bytes.add(bytes);
            }
            PublishResult::Repeated => counts.repeated.add(1),
            PublishResult::Gap { expected } => {
                counts.gaps.add(1);
                return Err(SocketEnd::malformed(format!("output of {attempt} was expected at {expected}")));
            }
            PublishResult::BeyondCredit { granted } => {
                return Err(SocketEnd::malformed(format!(
                    "output of {attempt} beyond its credit, {granted}"
                )));
            }
            // Another socket of the same agent carries it now; this one is about to close.
            PublishResult::Superseded => {}
        }
        Ok(())
    }

    /// A record of an Attempt that this socket did not open. For one that the operator does not know yet it is ignored,
    /// so that the output of the agent's other Attempts continues.
    fn on_unopened(&mut self, attempt: &AttemptId) -> Result<(), SocketEnd> {
        self.gateway.check_node(self.node, attempt).map_err(SocketEnd::Refused)?;
        let offer = self.unknown.get_mut(attempt);
        if offer.is_some() || !self.gateway.is_known(attempt) {
            if let Some(offer) = offer {
                offer.has_ignored = true;
            }
            self.gateway.metrics().output.unknown.add(1);
            return Ok(());
        }
        Err(SocketEnd::malformed(format!("output of {attempt}, which was not opened")))
    }

    /// The hard bound on memory: nothing is read while there is no room, and in the end the socket is closed.
    async fn wait_for_room(&self, record: &LogRecord) -> Result<(), SocketEnd> {
        let deadline = Instant::now() + self.gateway.settings().room_within;
        timeout_at(deadline, self.gateway.hub().room_for(record)).await.map_err(|_| SocketEnd::NoRoom)
    }

    async fn send_credit<S>(&mut self, socket: &mut AgentSocket<S>) -> Result<(), SocketEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut messages = Vec::new();
        let mut outstanding: u64 = self.open.values().map(LogPublisher::outstanding).sum();
        for publisher in self.open.values() {
            let before = publisher.outstanding();
            let limit = if publisher.has_end() { MAX_CREDIT + CREDIT_OF_ENDED } else { MAX_CREDIT };
            // An Attempt without Credit waits until the others are archived; one that has some may finish.
            if outstanding >= limit && before == 0 {
                continue;
            }
            let credit = publisher.credit(limit.saturating_sub(outstanding));
            outstanding = (outstanding - before).saturating_add(publisher.outstanding());
            if let Some(credit) = credit {
                let text = encode_text(&credit).map_err(SocketEnd::malformed)?;
                messages.push(Message::Text(text.into()));
            }
        }
        self.open.retain(|_, publisher| !publisher.is_complete());
        socket.send(messages).await
    }

    async fn on_deadline<S>(&mut self, socket: &mut AgentSocket<S>) -> Result<(), SocketEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        socket.check_deadlines()?;
        if !self.gateway.registry().is_current(self.node, &self.session) {
            return Err(SocketEnd::Refused(SessionRefusal::Replaced));
        }
        self.send_credit(socket).await?;
        socket.ping_if_due().await
    }

    async fn on_known_check<S>(&mut self, socket: &mut AgentSocket<S>) -> Result<(), SocketEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.known_check_at = Instant::now() + KNOWN_EVERY;
        self.open_known()?;
        self.send_credit(socket).await
    }
}
