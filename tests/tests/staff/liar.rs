//! A webhook in the wrong hands: it answers each AdmissionReview with a patch of its own.

use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sentinel_tests::certificates::Ca;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The operations of a JSON Patch that the next reviews are answered with.
type Patch = Arc<Mutex<Value>>;

/// See the module. It ends when it is dropped.
pub struct Liar {
    /// The `clientConfig` of a webhook that calls it.
    pub client: Value,
    patch: Patch,
    serving: JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Liar {
    pub async fn start(directory: &Path) -> Self {
        let ca = Ca::new(directory, "liars");
        let files = ca.issue(directory, "liar", "localhost");
        let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let bundle =
            base64::engine::general_purpose::STANDARD.encode(std::fs::read(&ca.certificate).unwrap());
        let patch = Patch::default();
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), patch.clone()));
        Self { client: json!({"url": url, "caBundle": bundle}), patch, serving }
    }

    /// What it answers from now on.
    pub fn answer(&self, operations: Value) {
        *self.patch.lock().unwrap() = operations;
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, patch: Patch) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, patch) = (acceptor.clone(), patch.clone());
        tokio::spawn(async move {
            // The API server may end a connection at any time.
            let _ = converse(acceptor, stream, patch).await;
        });
    }
}

async fn converse(acceptor: TlsAcceptor, stream: TcpStream, patch: Patch) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    while let Some(body) = request(&mut stream).await? {
        let review: Value = serde_json::from_slice(&body).unwrap();
        let operations = patch.lock().unwrap().to_string();
        let answer = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {
                "uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
                "patch": base64::engine::general_purpose::STANDARD.encode(operations),
            },
        })
        .to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The body of the next request, if there is one more.
async fn request(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(Some(body))
}
