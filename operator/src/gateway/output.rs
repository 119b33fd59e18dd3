//! One log socket: records in, credit out.
//!
//! It is tied to the control Session of the same agent and ends when that does not stand any more. Everything it says is
//! level, so closing it is the cure for whatever goes wrong: the agent opens another and goes on from where the credit
//! says that everything is archived.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::codec::{decode_record, decode_text, encode_text, is_unknown_kind};
use sentinel_protocol::ids::{AttemptId, NodeName, SessionId};
use sentinel_protocol::log::{LogControl, LogRecord};
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::to_operator::ReportedState;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::Gateway;
use super::meter::Meter;
use super::session::{Caller, GOODBYE, broken_refusal, first_text, short};
use crate::logs::End;
use crate::logs::hub::{Inlet, Taken};

/// Every kind of text message that this build knows.
const KNOWN: &[&str] = &["Hello", "Open", "Credit", "Refuse"];

/// Attempts whose output one socket may carry.
const MAX_OPEN: usize = 1024;

/// Attempts that are not known yet whose offers of output are remembered: an agent may dial its log socket before the
/// operator has heard all that it owns.
const MAX_UNKNOWN: usize = 64;

/// Bytes of output that one socket may be allowed to send and that are not archived, over all of its Attempts. A node
/// with as many commands as an agent takes at once has less outstanding while none of them is busy.
const MAX_CREDIT: u64 = 12 << 20;

/// The same beyond it for Attempts that are over: those never wait for commands that run and write nothing.
const CREDIT_OF_ENDED: u64 = 4 << 20;

/// Why a log socket ends.
#[derive(Debug)]
enum Ended {
    /// The agent closed it, or the network did.
    Gone,
    /// Nothing was heard, or nothing could be sent, for too long.
    Silent,
    /// There was no room in memory for too long.
    NoRoom,
    /// We end it and say why.
    Refused(SessionRefusal),
}

/// Runs a log socket to its end.
pub(super) async fn run<S>(gateway: Gateway, mut socket: WebSocketStream<S>, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Caller { identity, meter, .. } = caller;
    let node = identity.node;
    let _counted = gateway.metrics().log_sockets.hold();
    let ended = match greet(&gateway, &mut socket, &node).await {
        Ok(session) => {
            let mut link = Link::new(&gateway, &node, session, meter);
            match link.hold(&mut socket).await {
                Ok(()) => Ended::Gone,
                Err(ended) => ended,
            }
        }
        Err(ended) => ended,
    };
    match &ended {
        Ended::NoRoom => gateway.metrics().no_room.add(1),
        Ended::Refused(SessionRefusal::Malformed { .. } | SessionRefusal::HelloExpected) => {
            gateway.metrics().malformed.add(1);
        }
        _ => {}
    }
    tracing::debug!(%node, ?ended, "log socket ended");
    goodbye(&mut socket, ended).await;
}

async fn greet<S>(
    gateway: &Gateway,
    socket: &mut WebSocketStream<S>,
    node: &NodeName,
) -> Result<SessionId, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let text = match timeout(gateway.settings().hello_within, first_text(socket)).await {
        Ok(Ok(text)) => text,
        Ok(Err(super::session::Ended::Refused(refusal))) => return Err(Ended::Refused(refusal)),
        Ok(Err(_)) => return Err(Ended::Gone),
        Err(_) => return Err(Ended::Silent),
    };
    match decode_text::<LogControl>(&text) {
        Ok(LogControl::Hello { session }) if gateway.registry().stands(node, &session) => Ok(session),
        Ok(LogControl::Hello { .. }) => Err(Ended::Refused(SessionRefusal::Replaced)),
        Ok(_) => Err(Ended::Refused(SessionRefusal::HelloExpected)),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// A log socket that stands.
struct Link<'a> {
    gateway: &'a Gateway,
    node: &'a NodeName,
    session: SessionId,
    open: HashMap<AttemptId, Inlet>,
    /// Attempts that are not known, and the first position that is on the node.
    unknown: HashMap<AttemptId, u64>,
    meter: Meter,
    /// Notified when the credit of some Attempt may have changed.
    wake: Arc<Notify>,
    heard: Instant,
    sent: Instant,
}

enum Event {
    Frame(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
    Credit,
    Due,
}

impl<'a> Link<'a> {
    fn new(gateway: &'a Gateway, node: &'a NodeName, session: SessionId, meter: Meter) -> Self {
        let now = Instant::now();
        let (open, unknown) = (HashMap::new(), HashMap::new());
        Self { gateway, node, session, open, unknown, meter, wake: Arc::default(), heard: now, sent: now }
    }

    async fn hold<S>(&mut self, socket: &mut WebSocketStream<S>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        loop {
            let settings = self.gateway.settings();
            let due = (self.heard + settings.dead_after).min(self.sent + settings.heartbeat);
            let is_spent = self.open.values().any(Inlet::is_spent);
            let (wake, hub) = (&self.wake, self.gateway.hub());
            // Dropping any of these loses nothing: a frame stays in the socket's buffer until it is whole, and credit
            // is computed anew each time.
            let event = tokio::select! {
                frame = socket.next() => Event::Frame(frame),
                () = wake.notified() => Event::Credit,
                () = hub.freed(), if is_spent => Event::Credit,
                () = sleep_until(due) => Event::Due,
            };
            match event {
                Event::Frame(None | Some(Ok(Message::Close(_)))) => return Ok(()),
                Event::Frame(Some(Err(error))) => {
                    return Err(broken_refusal(&error).map_or(Ended::Gone, Ended::Refused));
                }
                Event::Frame(Some(Ok(message))) => {
                    self.heard = Instant::now();
                    self.meter.saw(&message);
                    match message {
                        Message::Text(text) => self.text(socket, &text).await?,
                        Message::Binary(frame) => self.record(&frame).await?,
                        _ => {}
                    }
                }
                Event::Credit => self.send_credit(socket).await?,
                Event::Due => self.due(socket).await?,
            }
        }
    }

    async fn text<S>(&mut self, socket: &mut WebSocketStream<S>, text: &str) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (attempt, oldest) = match decode_text::<LogControl>(text) {
            Ok(LogControl::Open { attempt, oldest }) => (attempt, oldest),
            Ok(_) => return Err(malformed("only Open may follow Hello on the log socket".to_owned())),
            Err(_) if is_unknown_kind(text, KNOWN) => {
                self.gateway.metrics().unknown.add(1);
                return Ok(());
            }
            Err(error) => return Err(malformed(error.to_string())),
        };
        self.gateway.own(self.node, &attempt).map_err(Ended::Refused)?;
        if !self.gateway.knows(&attempt) {
            self.gateway.metrics().unknown_output.add(1);
            if self.unknown.len() < MAX_UNKNOWN {
                self.unknown.insert(attempt, oldest);
            }
            return Ok(());
        }
        self.open(attempt, oldest)?;
        self.send_credit(socket).await
    }

    /// Opens what was offered too early, once it is known. What was sent of it meanwhile was not taken: the agent then
    /// continues behind a gap, the socket is closed, and the next one begins where it must.
    fn open_known(&mut self) -> Result<(), Ended> {
        let known: Vec<AttemptId> =
            self.unknown.keys().filter(|attempt| self.gateway.knows(attempt)).cloned().collect();
        for attempt in known {
            if let Some(oldest) = self.unknown.remove(&attempt) {
                self.open(attempt, oldest)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, attempt: AttemptId, oldest: u64) -> Result<(), Ended> {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&attempt) {
            self.open.retain(|_, inlet| !inlet.is_complete());
            if self.open.len() >= MAX_OPEN {
                return Err(malformed(format!("output of more than {MAX_OPEN} attempts at once")));
            }
        }
        let inlet = self.gateway.hub().open(&attempt, oldest, self.wake.clone());
        if let Some(ReportedState::Ended(ended)) = self.gateway.registry().report(&attempt).map(|r| r.state) {
            self.gateway.hub().ended(&attempt, End::At(ended.output.end));
        }
        self.open.insert(attempt, inlet);
        Ok(())
    }

    async fn record(&mut self, frame: &Bytes) -> Result<(), Ended> {
        let (attempt, record) = decode_record(frame).map_err(|error| malformed(error.to_string()))?;
        let Some(inlet) = self.open.get(&attempt) else {
            self.gateway.own(self.node, &attempt).map_err(Ended::Refused)?;
            if self.unknown.contains_key(&attempt) || !self.gateway.knows(&attempt) {
                // Not an error of the agent's, perhaps, and none that the output of its other Attempts should wait for.
                self.gateway.metrics().unknown_output.add(1);
                return Ok(());
            }
            return Err(malformed(format!("output of {attempt}, which was not opened")));
        };
        self.make_room(&record).await?;
        let bytes = record.data.len() as u64;
        let counts = self.gateway.metrics();
        match inlet.accept(record) {
            Taken::New => {
                counts.records.add(1);
                counts.log_bytes.add(bytes);
            }
            Taken::Repeated => counts.repeated.add(1),
            Taken::Gap { expected } => {
                counts.gaps.add(1);
                return Err(malformed(format!("output of {attempt} was expected at {expected}")));
            }
            Taken::BeyondCredit { granted } => {
                return Err(malformed(format!("output of {attempt} beyond its credit, {granted}")));
            }
            // Another socket of the same agent carries it now; this one is on its way out.
            Taken::Superseded => {}
        }
        Ok(())
    }

    /// The hard bound on memory: while there is no room nothing is read, and then the socket is closed.
    async fn make_room(&self, record: &LogRecord) -> Result<(), Ended> {
        let deadline = Instant::now() + self.gateway.settings().room_within;
        timeout_at(deadline, self.gateway.hub().room_for(record)).await.map_err(|_| Ended::NoRoom)
    }

    async fn send_credit<S>(&mut self, socket: &mut WebSocketStream<S>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut messages = Vec::new();
        let mut outstanding: u64 = self.open.values().map(Inlet::outstanding).sum();
        for inlet in self.open.values() {
            let before = inlet.outstanding();
            let most = if inlet.has_end() { MAX_CREDIT + CREDIT_OF_ENDED } else { MAX_CREDIT };
            // What has none waits until the others are archived; what has some may finish.
            if outstanding >= most && before == 0 {
                continue;
            }
            let credit = inlet.credit(most.saturating_sub(outstanding));
            outstanding = (outstanding - before).saturating_add(inlet.outstanding());
            if let Some(credit) = credit {
                let text = encode_text(&credit).map_err(|error| malformed(error.to_string()))?;
                messages.push(Message::Text(text.into()));
            }
        }
        self.open.retain(|_, inlet| !inlet.is_complete());
        self.write(socket, messages).await
    }

    async fn due<S>(&mut self, socket: &mut WebSocketStream<S>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let settings = self.gateway.settings();
        if self.heard.elapsed() >= settings.dead_after {
            return Err(Ended::Silent);
        }
        if !self.gateway.registry().stands(self.node, &self.session) {
            return Err(Ended::Refused(SessionRefusal::Replaced));
        }
        if self.meter.is_overdue(settings.dead_after) {
            let _ = self.gateway.slow_message(self.node);
            return Err(Ended::Silent);
        }
        self.open_known()?;
        self.send_credit(socket).await?;
        if self.sent.elapsed() >= settings.heartbeat {
            self.write(socket, vec![Message::Ping(Bytes::new())]).await?;
        }
        Ok(())
    }

    async fn write<S>(&mut self, socket: &mut WebSocketStream<S>, messages: Vec<Message>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        if messages.is_empty() {
            return Ok(());
        }
        let write = async {
            for message in messages {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        match timeout(self.gateway.settings().dead_after, write).await {
            Ok(Ok(())) => {
                self.sent = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(broken_refusal(&error).map_or(Ended::Gone, Ended::Refused)),
            Err(_) => Err(Ended::Silent),
        }
    }
}

fn malformed(message: String) -> Ended {
    Ended::Refused(SessionRefusal::Malformed { message: message.into() })
}

async fn goodbye<S>(socket: &mut WebSocketStream<S>, ended: Ended)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let say = async {
        let close = match ended {
            Ended::Silent => return,
            Ended::Gone => None,
            Ended::NoRoom => {
                let reason = "no memory for output now; keep it and try again".into();
                Some(CloseFrame { code: CloseCode::Again, reason })
            }
            Ended::Refused(refusal) => {
                let reason = short(&refusal.to_string());
                if let Ok(text) = encode_text(&LogControl::Refuse { refusal }) {
                    let _ = socket.send(Message::Text(text.into())).await;
                }
                Some(CloseFrame { code: CloseCode::Policy, reason })
            }
        };
        let _ = socket.close(close).await;
    };
    let _ = timeout(GOODBYE, say).await;
}
