//! Single requests over TCP or TLS, with client certificates and headers that clients of ours never send.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client certificate and its key.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// The status of an answer and the beginning of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The HTTP status; 0 when the connection was closed without an answer.
    pub status: u16,
    /// What arrived of headers and body in the first read.
    pub text: String,
}

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers, beside `Host`, `Connection` and `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Request {
    /// A request without headers of its own and without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), ..Self::default() }
    }

    /// With another header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Sends a request to a loopback port in plain text, and reads the beginning of the answer.
pub async fn plain(port: u16, request: &Request) -> Answered {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    exchange(stream, request, "close").await.0
}

/// The same over TLS, where the server is called `localhost`.
///
/// # Errors
/// Why there is no TLS connection.
pub async fn encrypted(
    port: u16,
    ca: &Path,
    client: Option<&ClientIdentity>,
    request: &Request,
) -> Result<Answered, String> {
    let answered = exchange(connect(port, ca, client).await?, request, "close").await.0;
    // In TLS 1.3 a server refuses a client's certificate after the client's handshake is over.
    if answered.status == 0 { Err(answered.text) } else { Ok(answered) }
}

async fn connect(
    port: u16,
    ca: &Path,
    client: Option<&ClientIdentity>,
) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config(ca, client)?));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

/// An answer that has begun, over TLS.
pub struct Stream {
    connection: TlsStream<TcpStream>,
    /// All that has arrived.
    pub text: String,
}

impl Stream {
    /// Sends a request, and stays connected.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn open(
        port: u16,
        ca: &Path,
        client: Option<&ClientIdentity>,
        request: &Request,
    ) -> Result<Self, String> {
        let connection = connect(port, ca, client).await?;
        let (answered, connection) = exchange(connection, request, "keep-alive").await;
        if answered.status == 200 { Ok(Self { connection, text: answered.text }) } else { Err(answered.text) }
    }

    /// Reads what has arrived since.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn read(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 << 10];
        match self.connection.read(&mut buffer).await {
            Ok(0) => Err("closed".to_owned()),
            Ok(count) => {
                self.text += &String::from_utf8_lossy(&buffer[..count]);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

fn config(ca: &Path, client: Option<&ClientIdentity>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some(client) = client else { return Ok(config.with_no_client_auth()) };
    let chain = CertificateDer::pem_file_iter(&client.certificate).map_err(|error| error.to_string())?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_file(&client.key).map_err(|error| error.to_string())?;
    config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &Request,
    connection: &str,
) -> (Answered, S) {
    use std::fmt::Write as _;
    let Request { method, path, headers, body } = request;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
    if let Err(error) = stream.write_all(text.as_bytes()).await {
        return (Answered { status: 0, text: error.to_string() }, stream);
    }
    let mut read = Vec::new();
    let mut buffer = [0; 16 << 10];
    // The head is enough: some answers never end.
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) if read.is_empty() => {
                return (Answered { status: 0, text: error.to_string() }, stream);
            }
            Err(_) => break,
        }
        if is_enough(&read) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&read).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (Answered { status, text }, stream)
}

/// The head of a success, or all of an error, which is short.
fn is_enough(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains(" 200 ") || head.contains(" 201 ") {
        return true;
    }
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse::<usize>().ok()
    });
    length.is_some_and(|length| body.len() >= length)
}
