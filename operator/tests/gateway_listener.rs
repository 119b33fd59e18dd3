//! The accept loop: who may be listened to, and what a slow, greedy or late client gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sentinel_operator::metrics::Registry as Metrics;
use sentinel_operator::server::tls::{TlsFiles, TlsSource};
use sentinel_operator::server::{Exposure, Limits, Peer, Server, ServerError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use warp::Filter;

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn bind_at(addr: SocketAddr, exposure: Exposure, limits: Limits) -> Result<Server, ServerError> {
    Server::bind("api", addr, exposure, limits, &Metrics::new()).await
}

async fn bind(limits: Limits) -> Server {
    bind_at(any(), Exposure::NO_PEOPLE, limits).await.unwrap()
}

fn hurried() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(300),
        drain: Duration::from_millis(300),
        ..Limits::default()
    }
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused_while_nobody_is_authenticated() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let refused = bind_at(addr.parse().unwrap(), Exposure::NO_PEOPLE, Limits::default()).await;
        let said = refused.unwrap_err().to_string();
        assert!(
            said.contains("only loopback addresses") && said.contains("no authentication of people"),
            "{said}"
        );
    }
    let anywhere = bind_at("0.0.0.0:0".parse().unwrap(), Exposure::Anywhere, Limits::default()).await;
    assert_ne!(anywhere.unwrap().local_addr().port(), 0);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_and_not_a_panic() {
    let first = bind(Limits::default()).await;
    let again = bind_at(first.local_addr(), Exposure::NO_PEOPLE, Limits::default()).await;
    assert!(again.unwrap_err().to_string().contains("failed to listen on 127.0.0.1"));
}

#[tokio::test]
async fn a_request_knows_its_peer_and_half_a_request_is_cut_in_time() {
    let server = bind(hurried()).await;
    let addr = server.local_addr();
    let routes = warp::any().and(warp::ext::get::<Peer>()).map(|peer: Peer| peer.addr.to_string());
    tokio::spawn(server.serve(warp::service(routes), CancellationToken::new()));
    let mut good = TcpStream::connect(addr).await.unwrap();
    let me = good.local_addr().unwrap().to_string();
    assert!(exchange(&mut good, GET).await.ends_with(&me));
    for begun in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut slow = TcpStream::connect(addr).await.unwrap();
        let answer = exchange(&mut slow, begun).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let mut large = TcpStream::connect(addr).await.unwrap();
    let header = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(64 << 10));
    assert!(exchange(&mut large, &header).await.starts_with("HTTP/1.1 431 "));
    let mut many = TcpStream::connect(addr).await.unwrap();
    let headers = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert!(exchange(&mut many, &headers).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let server = bind(Limits { connections: 1, ..Limits::default() }).await;
    let addr = server.local_addr();
    let release = Arc::new(Notify::new());
    let held = release.clone();
    let routes = warp::any().then(move || {
        let held = held.clone();
        async move {
            held.notified().await;
            "done"
        }
    });
    tokio::spawn(server.serve(warp::service(routes), CancellationToken::new()));
    let mut first = TcpStream::connect(addr).await.unwrap();
    let mut second = TcpStream::connect(addr).await.unwrap();
    first.write_all(GET.as_bytes()).await.unwrap();
    second.write_all(GET.as_bytes()).await.unwrap();
    release.notify_one();
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"));
    drop(first);
    release.notify_one();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), second.read_to_string(&mut answer)).await;
    read.expect("the second has its turn").unwrap();
    assert!(answer.ends_with("done"));
}

#[tokio::test]
async fn stopping_lets_a_request_finish_and_cuts_what_takes_too_long() {
    for (finishes, expected) in [(true, "done"), (false, "")] {
        let server = bind(hurried()).await;
        let addr = server.local_addr();
        let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (is_begun, held) = (begun.clone(), release.clone());
        let routes = warp::any().then(move || {
            let (is_begun, held) = (is_begun.clone(), held.clone());
            async move {
                is_begun.notify_one();
                held.notified().await;
                "done"
            }
        });
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(warp::service(routes), stop.clone()));
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(GET.as_bytes()).await.unwrap();
        begun.notified().await;
        stop.cancel();
        if finishes {
            release.notify_one();
        }
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer).await;
        assert!(answer.ends_with(expected), "{answer}");
        tokio::time::timeout(Duration::from_secs(5), serving).await.expect("it stops").unwrap();
        assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
    }
}

/// Two certificates for `localhost`, made once with openssl; nothing checks their dates.
const PAIRS: [(&str, &str); 2] = [
    (include_str!("gateway/tls/first.crt"), include_str!("gateway/tls/first.key")),
    (include_str!("gateway/tls/second.crt"), include_str!("gateway/tls/second.key")),
];

fn write_pair(directory: &Path, certificate: &str, key: &str) -> TlsFiles {
    let files = TlsFiles { certificate: directory.join("tls.crt"), key: directory.join("tls.key") };
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    files
}

/// Whether the server shows this certificate, and answers.
async fn trusts(addr: SocketAddr, certificate: &str) -> bool {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    match connector.connect("localhost".try_into().unwrap(), stream).await {
        Ok(mut stream) => exchange(&mut stream, GET).await.ends_with("safe"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn another_certificate_is_taken_up_and_a_bad_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = PAIRS;
    let files = write_pair(directory.path(), first.0, first.1);
    let source = TlsSource::open(files).unwrap();
    let server = bind(hurried()).await.with_tls(source.clone());
    let addr = server.local_addr();
    tokio::spawn(server.serve(warp::service(warp::any().map(|| "safe")), CancellationToken::new()));
    assert!(trusts(addr, first.0).await && !trusts(addr, second.0).await);
    assert!(!source.reload().unwrap());
    for (certificate, key, words) in [
        ("", first.1, "no usable certificate"),
        (second.0, "x", "no usable private key"),
        (second.0, first.1, "cannot be used with the certificate"),
    ] {
        write_pair(directory.path(), certificate, key);
        let said = source.reload().unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
        assert!(trusts(addr, first.0).await, "the one before stays");
    }
    write_pair(directory.path(), second.0, second.1);
    assert!(source.reload().unwrap());
    assert!(trusts(addr, second.0).await && !trusts(addr, first.0).await);
    // A client that says nothing is let go of.
    let mut mute = TcpStream::connect(addr).await.unwrap();
    assert_eq!(exchange(&mut mute, "").await, "");
}

/// Waits until the metrics have this line.
async fn metrics_say(metrics: &Metrics, line: &str) {
    let said = async {
        while !metrics.render().contains(line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(20), said).await;
    assert!(within.is_ok(), "no {line:?} in\n{}", metrics.render());
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_ended_and_counted_and_a_slow_one_is_not() {
    let metrics = Metrics::new();
    let limits = Limits {
        write_stall: Some(Duration::from_millis(500)),
        send_buffer: Some(4 << 10),
        ..Limits::default()
    };
    let server = Server::bind("api", any(), Exposure::NO_PEOPLE, limits, &metrics).await.unwrap();
    let addr = server.local_addr();
    let routes = warp::any().map(|| {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 16 << 10]));
        warp::reply::stream(endless)
    });
    tokio::spawn(server.serve(warp::service(routes), CancellationToken::new()));
    let mut deaf = TcpStream::connect(addr).await.unwrap();
    deaf.write_all(GET.as_bytes()).await.unwrap();
    let mut slow = TcpStream::connect(addr).await.unwrap();
    slow.write_all(GET.as_bytes()).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 256 << 10];
        while slow.read(&mut buffer).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    metrics_say(&metrics, "sentinel_server_stalled_total{listener=\"api\"} 1").await;
    metrics_say(&metrics, "sentinel_server_connections{listener=\"api\"} 1").await;
    assert!(!reading.is_finished(), "the one that reads was ended too");
    reading.abort();
}

#[tokio::test]
async fn one_client_cannot_have_every_connection() {
    let metrics = Metrics::new();
    let limits = Limits { per_client: 2, ..Limits::default() };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let server = Server::bind_socket("api", &socket, limits, &metrics).await.unwrap();
    let routes = warp::any().and(warp::ext::get::<Peer>()).map(|peer: Peer| format!("{:?}", peer.client));
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(warp::service(routes), stop.clone()));
    let connect = || tokio::net::UnixStream::connect(&socket);
    let (mut first, second) = (connect().await.unwrap(), connect().await.unwrap());
    let mut third = connect().await.unwrap();
    assert_eq!(third.read(&mut [0; 1]).await.unwrap(), 0, "the third is closed at once");
    metrics_say(&metrics, "sentinel_server_refused_total{listener=\"api\"} 1").await;
    let answer = exchange(&mut first, GET).await;
    assert!(answer.ends_with(&format!("User({})", rustix::process::geteuid().as_raw())), "{answer}");
    drop((first, second));
    metrics_say(&metrics, "sentinel_server_connections{listener=\"api\"} 0").await;
    assert!(exchange(&mut connect().await.unwrap(), GET).await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    serving.await.unwrap();
    assert!(!socket.exists(), "the socket stays behind");
}

#[tokio::test]
async fn a_socket_that_a_process_left_is_replaced_and_one_that_is_served_is_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let bind = || async { Server::bind_socket("api", &socket, Limits::default(), &Metrics::new()).await };
    let server = bind().await.unwrap();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(bind().await.unwrap_err().to_string().contains("failed to listen on"));
    drop(server);
    std::fs::write(&socket, "a file").unwrap();
    assert!(bind().await.is_err());
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a file", "a file that is no socket is left alone");
}
