//! Client certificates: whose authority counts while its file changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sentinel_operator::expiry::of_authorities;
use sentinel_operator::metrics::Registry as Metrics;
use sentinel_operator::server::tls::{Clients, FileAuthorities, ServerCertificate, Tls};
use sentinel_operator::server::{Exposure, Limits, Peer, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use warp::Filter as _;

/// An authority that signs itself.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = named(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key, PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = named(name, vec!["localhost".to_owned()]).signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A client with a certificate of this authority, which keeps tickets to resume with.
    fn client(&self, server: &Self) -> Client {
        let (certificate, key) = self.issue("proxy");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(server.pem.as_bytes()).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        Client(TlsConnector::from(Arc::new(config)))
    }
}

fn named(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

struct Client(TlsConnector);

/// A connection that stays.
struct Open(TlsStream<TcpStream>);

impl Client {
    async fn open(&self, at: SocketAddr) -> Result<Open, String> {
        let stream = TcpStream::connect(at).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = self.0.connect(name, stream).await.map_err(|error| error.to_string())?;
        let mut open = Open(stream);
        // In TLS 1.3 the client's handshake is over before its certificate is refused.
        open.ask().await?;
        Ok(open)
    }
}

impl Open {
    /// Whom the server takes the client for.
    async fn ask(&mut self) -> Result<String, String> {
        let failed = |error: std::io::Error| error.to_string();
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.map_err(failed)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"!") {
            let mut buffer = [0; 1024];
            match self.0.read(&mut buffer).await.map_err(failed)? {
                0 => return Err("closed".to_owned()),
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        let text = String::from_utf8(answer).unwrap();
        Ok(text.rsplit("\r\n").next().unwrap().trim_end_matches('!').to_owned())
    }
}

/// A server whose clients may have a certificate, and the file with their authorities.
struct Piece {
    at: SocketAddr,
    authority: Authority,
    metrics: Metrics,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Piece {
    async fn new(clients: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, metrics, stop) = (Authority::new("server"), Metrics::new(), CancellationToken::new());
        let (chain, key) = authority.issue("localhost");
        let certificate = ServerCertificate::from_pem("the test", chain.as_bytes(), key.as_bytes()).unwrap();
        let file = put(folder.path(), &clients.pem);
        let source = FileAuthorities::open(file, &metrics).unwrap();
        let tls = Tls::new(certificate, Clients::Optional(source.authorities())).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let server =
            Server::bind("api", any, Exposure::NO_PEOPLE, Limits::default(), &metrics).await.unwrap();
        let server = server.with_tls(tls);
        let at = server.local_addr();
        let who = warp::any().and(warp::ext::get::<Peer>()).map(|peer: Peer| {
            let name = peer.certificate.and_then(|certificate| certificate.common_name.clone());
            format!("{}!", name.unwrap_or_default())
        });
        tokio::spawn(server.serve(warp::service(who), stop.clone()));
        tokio::spawn(source.keep_current(Duration::from_millis(10), stop.clone()));
        Self { at, authority, metrics, folder, _stop: stop.drop_guard() }
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let so = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(20), so).await;
        assert!(within.is_ok(), "not so: {what}\n{}", self.metrics.render());
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|rendered| rendered == line)
    }
}

/// Replaces the file by a rename, as a mount does.
fn put(folder: &Path, text: &str) -> PathBuf {
    let (fresh, file) = (folder.join("new"), folder.join("ca.crt"));
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, &file).unwrap();
    file
}

#[tokio::test]
async fn a_changed_file_of_authorities_counts_at_the_next_handshake_and_drops_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let piece = Piece::new(&old).await;
    let (before, after) = (old.client(&piece.authority), new.client(&piece.authority));
    let mut open = before.open(piece.at).await.unwrap();
    assert_eq!(open.ask().await.unwrap(), "proxy");
    assert!(after.open(piece.at).await.is_err(), "of an authority that is not in the file");

    // What cannot be used changes nothing, and is counted.
    put(piece.folder.path(), "no certificate");
    let failed = "sentinel_proxy_authorities_reloads_total{proxy=\"trusted\",result=\"Authorities\"} 0";
    piece.until("the failure is counted", async || !piece.shows(failed)).await;
    before.open(piece.at).await.unwrap();

    put(piece.folder.path(), &new.pem);
    let reloaded = "sentinel_proxy_authorities_reloads_total{proxy=\"trusted\",result=\"Reloaded\"} 1";
    piece.until("it is reloaded", async || piece.shows(reloaded)).await;
    after.open(piece.at).await.unwrap();
    // Also not by a ticket from before: a resumed session presents no certificate again.
    let refused = before.open(piece.at).await;
    assert!(refused.is_err(), "a client of the old authority is accepted");
    assert_eq!(open.ask().await.unwrap(), "proxy", "the connection that was open");
    let ends = of_authorities(new.pem.as_bytes()).unwrap().not_after;
    let gauge = "sentinel_certificate_not_after_timestamp_seconds{certificate=\"trusted-proxy-authority\"}";
    assert!(piece.shows(&format!("{gauge} {ends}")), "{}", piece.metrics.render());
}
