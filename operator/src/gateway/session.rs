//! One control socket, from the upgrade to its close: *select → step → send*.
//!
//! A Session begins with a Hello. It ends when either end closes it, the agent is silent for too long, a newer Session of
//! the same node replaces it, its token is no longer valid, or the agent does not read what is sent to it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sentinel_protocol::codec::{decode_text, encode_text, is_unknown_kind};
use sentinel_protocol::ids::{NodeName, SessionId};
use sentinel_protocol::refusal::SessionRefusal;
use sentinel_protocol::to_agent::{ToAgent, Welcome};
use sentinel_protocol::to_operator::{Hello, ToOperator};
use sentinel_protocol::version;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tracing::Instrument as _;

use super::auth::AgentIdentity;
use super::gate::Gateway;
use super::outbox::{CloseReason, Outbox, OutboxAction};
use super::session_table::NodeEntry;
use super::socket::{AgentSocket, Caller, SocketEnd};
use crate::identity::AuthError;

/// Every kind of message that this release knows.
const KNOWN: &[&str] = &["Hello", "Inventory", "Heartbeat", "Report", "Refused"];

/// How often an agent is given the head of the audit chain.
const AUDIT_HEAD_EVERY: Duration = Duration::from_mins(1);

/// What woke the Session.
enum SessionEvent {
    Frame(Result<Message, SocketEnd>),
    Outbox,
    Deadline,
    Reviewed(Result<AgentIdentity, AuthError>),
}

/// Runs a control socket until it closes.
pub(super) fn run<S>(
    gateway: Gateway,
    stream: WebSocketStream<S>,
    caller: Caller,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let span = tracing::info_span!("session", node = %caller.node, session = tracing::field::Empty);
    let Caller { node, bearer, meter } = caller;
    // Boxed, because a future has room for what is moved into it twice.
    let socket = Box::new(AgentSocket::new(stream, meter, *gateway.settings()));
    serve(gateway, socket, node, bearer).instrument(span)
}

async fn serve<S>(gateway: Gateway, mut socket: Box<AgentSocket<S>>, node: NodeName, bearer: Box<str>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let end = match greet(&gateway, &mut socket, &node).await {
        Ok((session, outbox)) => {
            let _guard = SessionGuard { gateway: &gateway, node: &node, session: &session };
            let _counted = gateway.metrics().sessions.active.hold();
            let mut session = Session::new(&gateway, &node, &session, &bearer, &outbox);
            let end = session.run(&mut socket).await;
            tracing::info!(reason = end.category(), detail = ?end, "session ended");
            end
        }
        Err(end) => {
            tracing::info!(reason = end.category(), detail = ?end, "session declined");
            end
        }
    };
    gateway.count_session_end(&node, &end);
    socket.close(end, |refusal| encode_text(&ToAgent::Refuse(refusal)).ok()).await;
}

/// Receives the Hello, and begins a Session or declines.
async fn greet<S>(
    gateway: &Gateway,
    socket: &mut AgentSocket<S>,
    node: &NodeName,
) -> Result<(SessionId, Arc<Outbox>), SocketEnd>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let hello = match decode_text::<ToOperator>(&socket.receive_hello().await?) {
        Ok(ToOperator::Hello(hello)) => hello,
        Ok(_) => return Err(SocketEnd::Refused(SessionRefusal::HelloExpected)),
        Err(error) => return Err(SocketEnd::malformed(error)),
    };
    begin(gateway, node, hello)
}

fn begin(gateway: &Gateway, node: &NodeName, hello: Hello) -> Result<(SessionId, Arc<Outbox>), SocketEnd> {
    let Some(version) = version::choose(&hello.versions, version::SPOKEN) else {
        let spoken = version::SPOKEN.to_vec();
        return Err(SocketEnd::Refused(SessionRefusal::Version { spoken }));
    };
    if let Some(refusal) = gateway.declines() {
        return Err(SocketEnd::Refused(refusal));
    }
    gateway.observe_epoch(node, hello.highest_epoch).map_err(SocketEnd::Refused)?;
    let session = Gateway::new_session_id();
    tracing::Span::current().record("session", tracing::field::display(&session));
    let (outbox, replaced) = gateway.registry().begin(node, session.clone(), hello, gateway.now());
    gateway.metrics().sessions.begun.add(1);
    if replaced {
        tracing::warn!("a newer session replaces the current one of this node");
    }
    let settings = gateway.settings();
    let welcome = ToAgent::Welcome(Welcome {
        version,
        session: session.clone(),
        epoch: gateway.registry().epoch(),
        heartbeat_ms: settings.heartbeat.as_millis() as u64,
        dead_after_ms: settings.dead_after.as_millis() as u64,
    });
    // Through the outbox like everything else, so that nothing overtakes it.
    let text = encode_text(&welcome).map_err(SocketEnd::malformed)?;
    let _ = outbox.push(text.into());
    tracing::info!("session begun");
    Ok((session, outbox))
}

/// An established Session.
struct Session<'a> {
    gateway: &'a Gateway,
    node: &'a NodeName,
    id: &'a SessionId,
    bearer: &'a str,
    outbox: &'a Outbox,
    entry: Option<Arc<NodeEntry>>,
    review_at: Instant,
    review: Option<BoxFuture<'a, Result<AgentIdentity, AuthError>>>,
    /// When a head of the audit chain was sent, and its number.
    audit_head: Option<(Instant, u64)>,
}

impl<'a> Session<'a> {
    fn new(
        gateway: &'a Gateway,
        node: &'a NodeName,
        id: &'a SessionId,
        bearer: &'a str,
        outbox: &'a Outbox,
    ) -> Self {
        let review_at = Instant::now() + Gateway::jittered(gateway.settings().review_every);
        let entry = gateway.registry().entry(node);
        Self { gateway, node, id, bearer, outbox, entry, review_at, review: None, audit_head: None }
    }

    async fn run<S>(&mut self, socket: &mut AgentSocket<S>) -> SocketEnd
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut timer = std::pin::pin!(sleep_until(socket.next_deadline().min(self.review_at)));
        loop {
            let deadline = match self.review {
                Some(_) => socket.next_deadline(),
                None => socket.next_deadline().min(self.review_at),
            };
            // Each frame defers the deadline. One too early costs a wake-up, and the timer is not set at every frame.
            if timer.is_elapsed() || deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            // Cancel-safe: a frame stays in the buffer until it is whole, the outbox and the deadlines are level, and
            // the review is kept across rounds.
            let event = tokio::select! {
                frame = socket.receive() => SessionEvent::Frame(frame),
                () = self.outbox.changed() => SessionEvent::Outbox,
                () = timer.as_mut() => SessionEvent::Deadline,
                reviewed = pending(self.review.as_mut()) => SessionEvent::Reviewed(reviewed),
            };
            let step = match event {
                SessionEvent::Frame(frame) => frame.and_then(|message| self.on_frame(message)),
                SessionEvent::Outbox => self.send(socket).await,
                SessionEvent::Deadline => self.on_deadline(socket).await,
                SessionEvent::Reviewed(answer) => self.on_review(answer),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn on_frame(&mut self, message: Message) -> Result<(), SocketEnd> {
        if let Some(entry) = &self.entry {
            entry.touch(self.gateway.monotonic());
        }
        match message {
            Message::Text(text) => self.on_text(&text),
            Message::Binary(_) => Err(SocketEnd::malformed("a binary frame on the control socket")),
            _ => Ok(()),
        }
    }

    fn on_text(&mut self, text: &str) -> Result<(), SocketEnd> {
        let message = match decode_text::<ToOperator>(text) {
            Ok(message) => message,
            Err(_) if is_unknown_kind(text, KNOWN) => {
                self.gateway.metrics().unknown_messages.add(1);
                return Ok(());
            }
            Err(error) => return Err(SocketEnd::malformed(error)),
        };
        let (gateway, node, id) = (self.gateway, self.node, self.id);
        let applied = match message {
            ToOperator::Hello(_) => return Err(SocketEnd::malformed("a second Hello")),
            ToOperator::Heartbeat(heartbeat) => {
                gateway.on_heartbeat(node, id, heartbeat);
                self.send_audit_head();
                Ok(())
            }
            ToOperator::Inventory(inventory) => gateway.on_inventory(node, id, &inventory),
            ToOperator::Report(report) => gateway.on_report(node, id, *report),
            ToOperator::Refused(refused) => gateway.on_refused(node, &refused),
        };
        applied.map_err(SocketEnd::Refused)
    }

    /// Gives the agent the head of the operator's audit chain, at most once a minute.
    fn send_audit_head(&mut self) {
        let is_recent = |(at, _): &(Instant, u64)| at.elapsed() < AUDIT_HEAD_EVERY;
        if self.audit_head.as_ref().is_some_and(is_recent) {
            return;
        }
        let sent = self.audit_head.as_ref().map(|(_, seq)| *seq);
        let Some(head) = self.gateway.parts().audit.head_after(sent) else { return };
        self.audit_head = Some((Instant::now(), head.seq));
        if let Ok(text) = encode_text(&ToAgent::AuditHead(head)) {
            let _ = self.outbox.push(text.into());
        }
    }

    async fn on_deadline<S>(&mut self, socket: &mut AgentSocket<S>) -> Result<(), SocketEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        socket.check_deadlines()?;
        if self.review.is_none() && Instant::now() >= self.review_at {
            self.review = Some(self.gateway.authenticate(self.bearer, None));
        }
        socket.ping_if_due().await?;
        self.send(socket).await
    }

    fn on_review(&mut self, answer: Result<AgentIdentity, AuthError>) -> Result<(), SocketEnd> {
        self.review = None;
        self.review_at = Instant::now() + Gateway::jittered(self.gateway.settings().review_every);
        match answer {
            Ok(identity) if identity.node == *self.node => Ok(()),
            // The token may still be valid: the Session continues until a review succeeds.
            Err(error) if error.is_retryable() => Ok(()),
            Ok(_) | Err(_) => Err(SocketEnd::Refused(SessionRefusal::Unauthenticated)),
        }
    }

    async fn send<S>(&mut self, socket: &mut AgentSocket<S>) -> Result<(), SocketEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        // Until the queue is empty: what was queued during a write notifies no task.
        loop {
            match self.outbox.next_action() {
                OutboxAction::Wait => return Ok(()),
                OutboxAction::Close(CloseReason::Refused(refusal)) => {
                    return Err(SocketEnd::Refused(refusal));
                }
                OutboxAction::Close(CloseReason::NotReading) => return Err(SocketEnd::NotReading),
                OutboxAction::Send(messages, since) => {
                    let messages = messages.into_iter().map(Message::Text).collect();
                    // Also when too much is queued behind it.
                    tokio::select! {
                        biased;
                        sent = socket.send(messages) => sent?,
                        () = self.outbox.closed() => return Err(SocketEnd::NotReading),
                    }
                    self.gateway.metrics().dispatch.observe(since.elapsed());
                }
            }
        }
    }
}

/// The review in progress, or never.
async fn pending<T>(future: Option<&mut BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Removes the Session from the registry however it ends.
struct SessionGuard<'a> {
    gateway: &'a Gateway,
    node: &'a NodeName,
    session: &'a SessionId,
}

impl Drop for SessionGuard<'_> {
    fn drop(&mut self) {
        self.gateway.on_session_end(self.node, self.session);
    }
}
