//! A minimal gateway: one Session, one command after the other.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use sentinel_protocol::codec::{decode_record, decode_text, encode_text};
use sentinel_protocol::ids::{AttemptId, Epoch, SessionId};
use sentinel_protocol::log::LogControl;
use sentinel_protocol::stage::Stage;
use sentinel_protocol::to_agent::{Ack, Forget, Start, ToAgent, Welcome};
use sentinel_protocol::to_operator::{ReportedState, ToOperator};
use sentinel_protocol::version::Version;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

type Socket = WebSocketStream<TcpStream>;

/// Listens for one agent.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    control: mpsc::Receiver<Socket>,
    output: mpsc::Receiver<(AttemptId, Vec<u8>)>,
}

impl Gateway {
    pub(super) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (control_in, control) = mpsc::channel(1);
        let (output_in, output) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).expect("no delay");
                let mut path = String::new();
                #[allow(clippy::result_large_err, reason = "the signature is the library's")]
                let seen = |request: &Request, response: Response| {
                    request.uri().path().clone_into(&mut path);
                    Ok(response)
                };
                let Ok(socket) = accept_hdr_async(tcp, seen).await else { continue };
                if path == "/agent/v1/control" {
                    control_in.send(socket).await.expect("the receiver exists");
                } else {
                    tokio::spawn(collect(socket, output_in.clone()));
                }
            }
        });
        Self { address, control, output }
    }

    /// The agent's Session, once it is established.
    pub(super) async fn session(mut self) -> Session {
        let mut socket = self.control.recv().await.expect("an agent");
        loop {
            match receive(&mut socket).await {
                ToOperator::Hello(_) => {
                    let welcome = Welcome {
                        version: Version(1),
                        session: SessionId::new("bench").expect("an id"),
                        epoch: Epoch::from(1),
                        heartbeat_ms: 5_000,
                        dead_after_ms: 60_000,
                    };
                    send(&mut socket, &ToAgent::Welcome(welcome)).await;
                }
                ToOperator::Inventory(_) => return Session { socket, output: self.output },
                _ => {}
            }
        }
    }
}

/// An agent that is connected.
pub(super) struct Session {
    socket: Socket,
    output: mpsc::Receiver<(AttemptId, Vec<u8>)>,
}

impl Session {
    /// Has it run a command, and returns what that printed, when the agent has reported its end.
    pub(super) async fn run(&mut self, start: Start) -> String {
        let attempt = start.attempt.clone();
        send(&mut self.socket, &ToAgent::Start(Box::new(start))).await;
        loop {
            if let ToOperator::Report(report) = receive(&mut self.socket).await
                && let ReportedState::Ended(_) = report.state
                && report.attempt == attempt
            {
                break;
            }
        }
        let printed = loop {
            let (of, bytes) = self.output.recv().await.expect("output");
            if of == attempt {
                break bytes;
            }
        };
        send(&mut self.socket, &ToAgent::Ack(Ack { attempt: attempt.clone(), stage: Stage::Ended })).await;
        send(&mut self.socket, &ToAgent::Forget(Forget { attempt, epoch: Epoch::from(1) })).await;
        String::from_utf8_lossy(&printed).into_owned()
    }
}

/// Takes output as fast as it comes, and grants credit as if it were archived at once.
async fn collect(mut socket: Socket, output: mpsc::Sender<(AttemptId, Vec<u8>)>) {
    while let Some(Ok(message)) = socket.next().await {
        let credit = match message {
            Message::Binary(frame) => {
                let (attempt, record) = decode_record(&frame).expect("a record");
                let end = record.end();
                if output.send((attempt.clone(), record.data.to_vec())).await.is_err() {
                    return;
                }
                LogControl::Credit { attempt, granted: end + (1 << 20), archived: end }
            }
            Message::Text(text) => match decode_text(&text) {
                Ok(LogControl::Open { attempt, oldest }) => {
                    LogControl::Credit { attempt, granted: oldest + (1 << 20), archived: oldest }
                }
                _ => continue,
            },
            _ => continue,
        };
        let text = encode_text(&credit).expect("a message");
        if socket.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}

async fn send(socket: &mut Socket, message: &ToAgent) {
    socket.send(Message::text(encode_text(message).expect("a message"))).await.expect("sent");
}

async fn receive(socket: &mut Socket) -> ToOperator {
    loop {
        if let Message::Text(text) = socket.next().await.expect("the agent is connected").expect("a frame") {
            return decode_text(&text).expect("a message");
        }
    }
}
