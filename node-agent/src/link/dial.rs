//! Dials the gateway: TCP, TLS, token, WebSocket upgrade.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{AUTHORIZATION, USER_AGENT};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sentinel_protocol::product::user_agent;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};
use tokio_util::either::Either;

use super::endpoint::Endpoint;
use crate::error_category::ErrorCategory;

/// Time for all of TCP, TLS and upgrade.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// Bytes unacknowledged for this long end the connection in the kernel, even when nothing more is written.
const TCP_USER_TIMEOUT_MS: u32 = 20_000;

/// A token is a few kilobytes; a file much larger is not one.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// A connection to the gateway.
pub(super) type WebSocket = WebSocketStream<Either<TcpStream, TlsStream<TcpStream>>>;

/// The agent's identity.
#[derive(Clone)]
pub enum Token {
    /// In a file that is read for each connection, since it is renewed while the agent runs.
    File(PathBuf),
    /// Given once; for agents in the operator's own process.
    Fixed(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Fixed(_) => f.write_str("Fixed(…)"),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The token cannot be read, or is not one.
    #[error("unable to read the token in {path}: {why}")]
    Token {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The certificates to trust cannot be read, or are not certificates.
    #[error("unable to read certificates from {path}: {why}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// No certificates to trust were named.
    #[error("wss:// needs the certificates to trust; give them with --ca-file")]
    NoCaFile,
    /// The host's name cannot be the subject of a certificate.
    #[error("invalid TLS server name {host:?}")]
    ServerName {
        /// The host.
        host: String,
        /// What is wrong.
        source: InvalidDnsNameError,
    },
    /// The TCP connection failed.
    #[error("unable to connect to {address}")]
    Connect {
        /// The address.
        address: String,
        /// The system error.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address} failed")]
    Tls {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// It took too long.
    #[error("unable to reach {address} within {} s", DIAL_WITHIN.as_secs())]
    TimedOut {
        /// The address.
        address: String,
    },
    /// The other end is not a gateway, or declined.
    #[error("{address} declined: {why}")]
    Declined {
        /// The address.
        address: String,
        /// Status and body of its response.
        why: String,
    },
    /// The upgrade failed otherwise.
    #[error("WebSocket upgrade with {address} failed")]
    Upgrade {
        /// The address.
        address: String,
        /// The cause.
        source: Box<tungstenite::Error>,
    },
}

impl DialError {
    /// The label of this error in logs and metrics.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Token { .. } | Self::CaFile { .. } => ErrorCategory::Credentials,
            Self::NoCaFile | Self::ServerName { .. } => ErrorCategory::Configuration,
            Self::Connect { .. } | Self::Tls { .. } | Self::Upgrade { .. } => ErrorCategory::Network,
            Self::TimedOut { .. } => ErrorCategory::Timeout,
            Self::Declined { .. } => ErrorCategory::Refused,
        }
    }

    /// Whether dialling again may succeed though nothing on this node was changed. A token is renewed on disk.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::CaFile { .. } | Self::NoCaFile | Self::ServerName { .. })
    }
}

/// Dials the operator.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) endpoint: Endpoint,
    pub(crate) token: Token,
    /// PEM file with the certificates to trust, read for each connection.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Dialer {
    /// Checks that what is needed to dial can be read; called once at the agent's start.
    pub(crate) fn check(&self) -> Result<(), DialError> {
        self.authorization()?;
        if self.endpoint.is_secure() {
            self.trust()?;
            self.server_name()?;
        }
        Ok(())
    }

    /// Connects to one of the gateway's paths, at the configured address or at that of another replica.
    pub(crate) async fn dial(
        &self,
        path: &str,
        at: Option<&str>,
        config: WebSocketConfig,
    ) -> Result<WebSocket, DialError> {
        let address = at.map_or_else(|| self.endpoint.authority(), str::to_owned);
        match timeout(DIAL_WITHIN, self.dial_without_deadline(path, &address, config)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(DialError::TimedOut { address }),
        }
    }

    async fn dial_without_deadline(
        &self,
        path: &str,
        address: &str,
        config: WebSocketConfig,
    ) -> Result<WebSocket, DialError> {
        let owned = || address.to_owned();
        let refused = |source| DialError::Upgrade { address: owned(), source: Box::new(source) };
        let mut request = self.endpoint.url(path).into_client_request().map_err(refused)?;
        request.headers_mut().insert(AUTHORIZATION, self.authorization()?);
        if let Ok(agent) = HeaderValue::try_from(user_agent("sentinel-node-agent")) {
            request.headers_mut().insert(USER_AGENT, agent);
        }

        let failed = |source| DialError::Connect { address: owned(), source };
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        // A finer deadline than the ones above; where the kernel lacks it, those apply.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&tcp, TCP_USER_TIMEOUT_MS);

        let stream = if self.endpoint.is_secure() {
            let connector = TlsConnector::from(Arc::new(self.trust()?));
            let tls = connector.connect(self.server_name()?, tcp).await;
            Either::Right(tls.map_err(|source| DialError::Tls { address: owned(), source })?)
        } else {
            Either::Left(tcp)
        };
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => {
                let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let body: String = body.chars().filter(|c| !c.is_control()).take(300).collect();
                let why = format!("{} {body}", answer.status()).trim_end().to_owned();
                Err(DialError::Declined { address: owned(), why })
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn authorization(&self) -> Result<HeaderValue, DialError> {
        let (token, path) = match &self.token {
            Token::Fixed(token) => (token.clone(), "memory".to_owned()),
            Token::File(path) => (read_token(path)?, path.display().to_string()),
        };
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| DialError::Token {
            path,
            why: "it contains characters that are not allowed in a token".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn server_name(&self) -> Result<ServerName<'static>, DialError> {
        let host = self.endpoint.host().to_owned();
        ServerName::try_from(host.clone()).map_err(|source| DialError::ServerName { host, source })
    }

    fn trust(&self) -> Result<ClientConfig, DialError> {
        let file = self.ca_file.as_ref().ok_or(DialError::NoCaFile)?;
        let unusable = |why: String| DialError::CaFile { path: file.display().to_string(), why };
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("it contains no certificate".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| unusable(error.to_string()))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn read_token(path: &Path) -> Result<String, DialError> {
    let bad = |why: String| DialError::Token { path: path.display().to_string(), why };
    let mut file = fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    let mode = file.metadata().map_err(|error| bad(error.to_string()))?.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(bad(format!(
            "it is open to every user of this machine (mode {mode:04o}), and its holder can act as this agent; chmod 0400 \
             it, or set defaultMode: 0400 in the pod's volume"
        )));
    }
    let mut text = String::new();
    let limit = MAX_TOKEN_BYTES as u64 + 1024;
    file.by_ref().take(limit).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(bad("the file is empty".to_owned()));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(bad(format!("it is {} bytes long; the limit is {MAX_TOKEN_BYTES}", token.len())));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn dialer(url: &str, token: Token, ca_file: Option<PathBuf>) -> Dialer {
        Dialer { endpoint: url.parse().unwrap(), token, ca_file }
    }

    #[test]
    fn check_rejects_a_missing_empty_or_malformed_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let check = || dialer("ws://op:1", Token::File(path.clone()), None).check().unwrap_err().to_string();
        assert!(check().contains("No such file"));
        fs::write(&path, " \n").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).unwrap();
        assert!(check().contains("mode 0604") && check().contains("chmod 0400"), "{}", check());
        fs::set_permissions(&path, PermissionsExt::from_mode(0o440)).unwrap();
        assert!(check().contains("empty"));
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&path, "a\nb").unwrap();
        assert!(check().contains("characters"));
        fs::write(&path, "abc\n").unwrap();
        assert!(dialer("ws://op:1", Token::File(path.clone()), None).check().is_ok());
    }

    #[test]
    fn check_rejects_tls_without_usable_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let token = || Token::Fixed("t".into());
        let check = |ca| dialer("wss://op:1", token(), ca).check().unwrap_err().to_string();
        assert!(check(None).contains("--ca-file"));
        assert!(check(Some(path.clone())).contains("ca.crt"));
        fs::write(&path, "not a certificate").unwrap();
        assert!(check(Some(path.clone())).contains("no certificate"));
    }

    #[test]
    fn debug_output_does_not_contain_the_token() {
        assert!(
            !format!("{:?}", dialer("ws://op:1", Token::Fixed("s3cret".into()), None)).contains("s3cret")
        );
    }
}
