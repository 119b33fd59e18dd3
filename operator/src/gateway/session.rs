//! One control socket, from the upgrade to its end: *select → think → send*.
//!
//! A Session begins with a Hello and lives until either end closes it, the agent is silent for too long, a newer one
//! of the same node takes its place, its token is no longer accepted, or the agent does not read what is sent to it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::codec::{decode_text, encode_text, is_unknown_kind};
use sentinel_protocol::ids::{NodeName, SessionId};
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::to_agent::{ToAgent, Welcome};
use sentinel_protocol::to_operator::ToOperator;
use sentinel_protocol::version;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error as SocketError, Message, Utf8Bytes};

use super::Gateway;
use super::auth::{AgentIdentity, AuthError};
use super::meter::Meter;
use super::outbox::{Ending, Next, Outbox};
use super::registry::Replaced;

/// Every kind of message that this build knows.
const KNOWN: &[&str] = &["Hello", "Inventory", "Heartbeat", "Report", "Refused"];

/// How long a closing socket may take to say goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// Who is at the other end.
#[derive(Debug)]
pub(super) struct Caller {
    pub identity: AgentIdentity,
    /// Kept to have it reviewed again while the Session stands.
    pub bearer: Box<str>,
    /// Knows whether a message has been under way for too long.
    pub meter: Meter,
}

/// Why a Session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The agent closed it, or the network did.
    Gone,
    /// We end it and say why.
    Refused(SessionRefusal),
    /// Nothing was heard for too long.
    Silent,
    /// The agent does not read.
    NotReading,
}

/// What happened.
enum Event {
    Frame(Option<Result<Message, SocketError>>),
    Outbox,
    Due,
    Reviewed(Result<AgentIdentity, AuthError>),
}

/// Runs a control socket to its end.
pub(super) async fn run<S>(gateway: Gateway, mut socket: WebSocketStream<S>, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Caller { identity, bearer, meter } = caller;
    let node = identity.node.clone();
    let ended = match greet(&gateway, &mut socket, &node).await {
        Ok((session, outbox)) => {
            let standing = Standing { gateway: &gateway, node: &node, session: &session };
            let _counted = gateway.metrics().sessions.hold();
            let mut conversation = Conversation::new(&gateway, (&node, &bearer), &session, &outbox, meter);
            let ended = conversation.hold(&mut socket).await;
            drop(standing);
            tracing::info!(%node, %session, ?ended, "session ended");
            ended
        }
        Err(ended) => {
            tracing::info!(%node, ?ended, "session declined");
            ended
        }
    };
    gateway.count(&ended);
    goodbye(&mut socket, ended).await;
}

/// Hello, and Welcome or not.
async fn greet<S>(
    gateway: &Gateway,
    socket: &mut WebSocketStream<S>,
    node: &NodeName,
) -> Result<(SessionId, Arc<Outbox>), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let settings = gateway.settings();
    let text = timeout(settings.hello_within, first_text(socket)).await.unwrap_or(Err(Ended::Silent))?;
    let hello = match decode_text::<ToOperator>(&text) {
        Ok(ToOperator::Hello(hello)) => hello,
        Ok(_) => return Err(Ended::Refused(SessionRefusal::HelloExpected)),
        Err(error) => return Err(malformed(error.to_string())),
    };
    let Some(version) = version::choose(&hello.versions, version::SPOKEN) else {
        let spoken = version::SPOKEN.to_vec();
        return Err(Ended::Refused(SessionRefusal::Version { spoken }));
    };
    if let Some(refusal) = gateway.declines() {
        return Err(Ended::Refused(refusal));
    }
    gateway.hear_epoch(node, hello.highest_epoch).map_err(Ended::Refused)?;
    let session = Gateway::new_session_id();
    let (outbox, replaced) = gateway.registry().begin(node, session.clone(), hello, gateway.moment());
    gateway.metrics().begun.add(1);
    if replaced == Replaced::Yes {
        tracing::warn!(%node, %session, "a newer session takes the place of an older one that still stood");
    }
    let welcome = ToAgent::Welcome(Welcome {
        version,
        session: session.clone(),
        epoch: gateway.registry().epoch(),
        heartbeat_ms: settings.heartbeat.as_millis() as u64,
        dead_after_ms: settings.dead_after.as_millis() as u64,
    });
    // Through the outbox like everything else, so that nothing overtakes it.
    let text = encode_text(&welcome).map_err(|error| malformed(error.to_string()))?;
    let _ = outbox.push(text.into());
    tracing::info!(%node, %session, "session begun");
    Ok((session, outbox))
}

/// The first text frame; anything else but pings is no Hello.
pub(super) async fn first_text<S>(socket: &mut WebSocketStream<S>) -> Result<Utf8Bytes, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                return Err(Ended::Refused(SessionRefusal::HelloExpected));
            }
            Some(Ok(Message::Close(_))) | None => return Err(Ended::Gone),
            Some(Err(error)) => return Err(broken(&error)),
        }
    }
}

/// A Session that stands.
struct Conversation<'a> {
    gateway: &'a Gateway,
    node: &'a NodeName,
    bearer: &'a str,
    session: &'a SessionId,
    outbox: &'a Arc<Outbox>,
    meter: Meter,
    heard: Instant,
    sent: Instant,
    review_at: Instant,
    review: Option<BoxFuture<'a, Result<AgentIdentity, AuthError>>>,
}

impl<'a> Conversation<'a> {
    fn new(
        gateway: &'a Gateway,
        (node, bearer): (&'a NodeName, &'a str),
        session: &'a SessionId,
        outbox: &'a Arc<Outbox>,
        meter: Meter,
    ) -> Self {
        let now = Instant::now();
        let review_at = now + Gateway::jittered(gateway.settings().review_every);
        Self { gateway, node, bearer, session, outbox, meter, heard: now, sent: now, review_at, review: None }
    }

    async fn hold<S>(&mut self, socket: &mut WebSocketStream<S>) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        loop {
            let due = self.next_due();
            let outbox = self.outbox;
            // Dropping any of these loses nothing: a frame stays in the socket's buffer until it is whole, the outbox
            // is asked again, a deadline is computed anew, and the review is kept across rounds.
            let event = tokio::select! {
                frame = socket.next() => Event::Frame(frame),
                () = outbox.changed() => Event::Outbox,
                () = sleep_until(due) => Event::Due,
                reviewed = pending(self.review.as_mut()) => Event::Reviewed(reviewed),
            };
            let done = match event {
                Event::Frame(frame) => self.frame(frame),
                Event::Outbox => self.send(socket).await,
                Event::Due => self.due(socket).await,
                Event::Reviewed(answer) => self.reviewed(answer),
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    fn next_due(&self) -> Instant {
        let settings = self.gateway.settings();
        let dead_at = self.heard + settings.dead_after;
        let ping_at = self.sent + settings.heartbeat;
        let due = dead_at.min(ping_at);
        if self.review.is_none() { due.min(self.review_at) } else { due }
    }

    fn frame(&mut self, frame: Option<Result<Message, SocketError>>) -> Result<(), Ended> {
        let message = match frame {
            None | Some(Ok(Message::Close(_))) => return Err(Ended::Gone),
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(message)) => message,
        };
        self.heard = Instant::now();
        self.meter.saw(&message);
        self.gateway.registry().heard(self.node, self.gateway.moment());
        match message {
            Message::Text(text) => self.text(&text),
            Message::Binary(_) => Err(malformed("a binary frame on the control socket".to_owned())),
            _ => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Ended> {
        let message = match decode_text::<ToOperator>(text) {
            Ok(message) => message,
            Err(_) if is_unknown_kind(text, KNOWN) => {
                self.gateway.metrics().unknown.add(1);
                return Ok(());
            }
            Err(error) => return Err(malformed(error.to_string())),
        };
        let (gateway, node, session) = (self.gateway, self.node, self.session);
        let taken = match message {
            ToOperator::Hello(_) => return Err(malformed("a second Hello".to_owned())),
            ToOperator::Heartbeat(heartbeat) => {
                gateway.heartbeat(node, session, heartbeat);
                Ok(())
            }
            ToOperator::Inventory(inventory) => gateway.inventory(node, session, &inventory),
            ToOperator::Report(report) => gateway.report(node, session, &report),
            ToOperator::Refused(refused) => gateway.refused(node, &refused),
        };
        taken.map_err(Ended::Refused)
    }

    async fn due<S>(&mut self, socket: &mut WebSocketStream<S>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let settings = self.gateway.settings();
        let now = Instant::now();
        if now >= self.heard + settings.dead_after {
            return Err(Ended::Silent);
        }
        if self.meter.is_overdue(settings.dead_after) {
            return Err(self.gateway.slow_message(self.node));
        }
        if self.review.is_none() && now >= self.review_at {
            self.review = Some(self.gateway.authenticate(self.bearer, None));
        }
        if now >= self.sent + settings.heartbeat {
            self.write(socket, vec![Message::Ping(Bytes::new())]).await?;
        }
        self.send(socket).await
    }

    fn reviewed(&mut self, answer: Result<AgentIdentity, AuthError>) -> Result<(), Ended> {
        self.review = None;
        self.review_at = Instant::now() + Gateway::jittered(self.gateway.settings().review_every);
        match answer {
            Ok(identity) if identity.node == *self.node => Ok(()),
            // Nobody could tell: what runs goes on, and it is asked again.
            Err(AuthError::Unavailable(_) | AuthError::Busy) => Ok(()),
            Ok(_) | Err(_) => Err(Ended::Refused(SessionRefusal::Unauthenticated)),
        }
    }

    async fn send<S>(&mut self, socket: &mut WebSocketStream<S>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        // Until there is nothing left: what came while something was written woke nobody.
        loop {
            match self.outbox.next() {
                Next::Wait => return Ok(()),
                Next::End(Ending::Refuse(refusal)) => return Err(Ended::Refused(refusal)),
                Next::End(Ending::NotReading) => return Err(Ended::NotReading),
                Next::Send(messages, since) => {
                    self.write(socket, messages.into_iter().map(Message::Text).collect()).await?;
                    self.gateway.metrics().dispatch.observe(since.elapsed());
                }
            }
        }
    }

    /// Writes all of it, unless the agent does not take it in time, or too much piles up behind it.
    async fn write<S>(&mut self, socket: &mut WebSocketStream<S>, messages: Vec<Message>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let deadline = Instant::now() + self.gateway.settings().dead_after;
        let write = async {
            for message in messages {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        let outbox = self.outbox;
        let written = tokio::select! {
            written = timeout_at(deadline, write) => written,
            () = ended(outbox) => return Err(Ended::NotReading),
        };
        match written {
            Ok(Ok(())) => {
                self.sent = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(broken(&error)),
            Err(_) => Err(Ended::NotReading),
        }
    }
}

/// Returns when the outbox is to end. What else changes meanwhile is seen by the next look at it.
async fn ended(outbox: &Outbox) {
    while !outbox.is_ending() {
        outbox.changed().await;
    }
}

/// The review in progress, or never.
async fn pending<T>(future: Option<&mut BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Takes the Session out of the registry however it ends.
struct Standing<'a> {
    gateway: &'a Gateway,
    node: &'a NodeName,
    session: &'a SessionId,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.gateway.ended(self.node, self.session);
    }
}

fn malformed(message: String) -> Ended {
    Ended::Refused(SessionRefusal::Malformed { message: message.into() })
}

/// What a broken socket means: worth an answer only when the agent sent something that is no WebSocket message.
pub(super) fn broken_refusal(error: &SocketError) -> Option<SessionRefusal> {
    let message = match error {
        SocketError::Capacity(error) => error.to_string(),
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        SocketError::Protocol(error) => error.to_string(),
        SocketError::Utf8(error) => error.clone(),
        _ => return None,
    };
    Some(SessionRefusal::Malformed { message: message.into() })
}

fn broken(error: &SocketError) -> Ended {
    broken_refusal(error).map_or(Ended::Gone, Ended::Refused)
}

/// Tells the agent why, where it can still be told, and closes.
async fn goodbye<S>(socket: &mut WebSocketStream<S>, ended: Ended)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let say = async {
        match ended {
            Ended::Refused(refusal) => {
                let code =
                    if matches!(refusal, SessionRefusal::Malformed { .. } | SessionRefusal::HelloExpected) {
                        CloseCode::Protocol
                    } else {
                        CloseCode::Policy
                    };
                let reason = short(&refusal.to_string());
                if let Ok(text) = encode_text(&ToAgent::Refuse(refusal)) {
                    let _ = socket.send(Message::Text(text.into())).await;
                }
                let _ = socket.close(Some(CloseFrame { code, reason })).await;
            }
            Ended::Gone => {
                let _ = socket.close(None).await;
            }
            // It would not hear us.
            Ended::Silent | Ended::NotReading => {}
        }
    };
    let _ = timeout(GOODBYE, say).await;
}

/// The reason of a close frame has at most 123 bytes.
pub(super) fn short(text: &str) -> Utf8Bytes {
    text[..text.floor_char_boundary(123)].into()
}
