//! An API server that serves `TokenReviews` and nothing else, over real HTTP. It answers as the real one does in
//! `gateway_token_review.rs`: a known token is authenticated for the requested audience, an unknown one is not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// See the module.
pub(crate) struct ApiServer {
    addr: SocketAddr,
    known: Arc<Mutex<HashMap<String, String>>>,
    reviews: Arc<AtomicUsize>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let known: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let reviews: Arc<AtomicUsize> = Arc::default();
        let (tokens, count) = (known.clone(), reviews.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tokens.clone(), count.clone()));
            }
        });
        Self { addr, known, reviews }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `TokenReviews` received.
    pub(crate) fn reviews(&self) -> usize {
        self.reviews.load(Ordering::Relaxed)
    }

    /// The token of an agent on this node.
    pub(crate) fn agent(&self, node: &str) -> String {
        let token = claims_of("agent", "sentinel-operator", &format!("good-{node}"));
        self.known.lock().unwrap().insert(token.clone(), node.to_owned());
        token
    }
}

/// An unsigned token with these claims.
pub(crate) fn forged(account: &str, audience: &str, number: usize) -> String {
    claims_of(account, audience, &number.to_string())
}

fn claims_of(account: &str, audience: &str, id: &str) -> String {
    let claims = json!({
        "sub": format!("system:serviceaccount:sentinel:{account}"),
        "aud": [audience], "exp": 99_999_999_999_u64, "jti": id,
    });
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

async fn serve(mut stream: TcpStream, known: Arc<Mutex<HashMap<String, String>>>, reviews: Arc<AtomicUsize>) {
    let mut buffer = Vec::new();
    loop {
        let Some(body) = request(&mut stream, &mut buffer).await else { return };
        reviews.fetch_add(1, Ordering::Relaxed);
        let review: Value = serde_json::from_slice(&body).unwrap();
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let node = known.lock().unwrap().get(token).cloned();
        let status = match node {
            Some(node) => json!({
                "authenticated": true, "audiences": review["spec"]["audiences"],
                "user": {"username": "system:serviceaccount:sentinel:agent",
                         "extra": {"authentication.kubernetes.io/node-name": [node]}},
            }),
            None => json!({"authenticated": false, "error": "invalid bearer token"}),
        };
        let answer = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {}, "status": status,
        });
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if stream.write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The body of the next request.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some(body);
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
