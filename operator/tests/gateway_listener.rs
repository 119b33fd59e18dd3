//! The accept loop: where it may listen, and how it treats slow, greedy and late clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sentinel_operator::metrics::Registry as Metrics;
use sentinel_operator::server::tls::{CertificateFiles, Clients, FileCertificate, Tls};
use sentinel_operator::server::{Exposure, Limits, Peer, Place, Server, ServerError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
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

fn short_timeouts() -> Limits {
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
async fn refuses_addresses_beyond_loopback_without_authentication() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let refused = bind_at(addr.parse().unwrap(), Exposure::NO_PEOPLE, Limits::default()).await;
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("only loopback addresses") && message.contains("no authentication of people"),
            "{message}"
        );
    }
    let anywhere = bind_at("0.0.0.0:0".parse().unwrap(), Exposure::Anywhere, Limits::default()).await;
    assert_ne!(anywhere.unwrap().local_addr().port(), 0);
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let first = bind(Limits::default()).await;
    let again = bind_at(first.local_addr(), Exposure::NO_PEOPLE, Limits::default()).await;
    assert!(again.unwrap_err().to_string().contains("failed to listen on 127.0.0.1"));
}

#[tokio::test]
async fn a_request_carries_its_peer_and_must_be_complete_in_time() {
    let server = bind(short_timeouts()).await;
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
async fn connections_over_the_limit_wait_for_a_slot() {
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
    read.expect("the second is served").unwrap();
    assert!(answer.ends_with("done"));
}

#[tokio::test]
async fn stopping_drains_open_requests_and_then_closes_the_rest() {
    for (finishes, expected) in [(true, "done"), (false, "")] {
        let server = bind(short_timeouts()).await;
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
        assert!(TcpStream::connect(addr).await.is_err(), "the port is still open");
    }
}

/// Two certificates for `localhost`, made once with openssl; their dates are not checked.
const PAIRS: [(&str, &str); 2] = [
    (include_str!("gateway/tls/first.crt"), include_str!("gateway/tls/first.key")),
    (include_str!("gateway/tls/second.crt"), include_str!("gateway/tls/second.key")),
];

fn write_pair(directory: &Path, certificate: &str, key: &str) -> CertificateFiles {
    let files = CertificateFiles { certificate: directory.join("tls.crt"), key: directory.join("tls.key") };
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    files
}

/// Whether the server presents this certificate, and responds.
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
async fn reloads_a_new_certificate_and_keeps_the_current_one_when_it_is_invalid() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = PAIRS;
    let files = write_pair(directory.path(), first.0, first.1);
    let source = FileCertificate::open(files, &Metrics::new()).unwrap();
    let server =
        bind(short_timeouts()).await.with_tls(Tls::new(source.certificate(), Clients::Unasked).unwrap());
    let addr = server.local_addr();
    tokio::spawn(server.serve(warp::service(warp::any().map(|| "safe")), CancellationToken::new()));
    assert!(trusts(addr, first.0).await && !trusts(addr, second.0).await);
    assert!(!source.reload().unwrap());
    for (certificate, key, text) in [
        ("", first.1, "no usable certificate"),
        (second.0, "x", "no usable private key"),
        (second.0, first.1, "cannot be used with its certificate"),
    ] {
        write_pair(directory.path(), certificate, key);
        let message = source.reload().unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
        assert!(trusts(addr, first.0).await, "the current certificate is gone");
    }
    write_pair(directory.path(), second.0, second.1);
    assert!(source.reload().unwrap());
    assert!(trusts(addr, second.0).await && !trusts(addr, first.0).await);
    // The handshake has a deadline.
    let mut silent = TcpStream::connect(addr).await.unwrap();
    assert_eq!(exchange(&mut silent, "").await, "");
}

/// Waits until the metrics contain this line.
async fn expect_metric(metrics: &Metrics, line: &str) {
    expect(metrics, line, |text| text.contains(line)).await;
}

/// Waits until the metrics are so.
async fn expect(metrics: &Metrics, what: &str, is_so: impl Fn(&str) -> bool) {
    let rendered = async {
        while !is_so(&metrics.render()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(20), rendered).await;
    assert!(within.is_ok(), "not so: {what:?} in\n{}", metrics.render());
}

#[tokio::test]
async fn closes_a_client_that_does_not_read_and_keeps_a_slow_one() {
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
    let mut stalled = TcpStream::connect(addr).await.unwrap();
    stalled.write_all(GET.as_bytes()).await.unwrap();
    let mut slow = TcpStream::connect(addr).await.unwrap();
    slow.write_all(GET.as_bytes()).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 256 << 10];
        while slow.read(&mut buffer).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    expect_metric(&metrics, "sentinel_server_stalled_total{listener=\"api\"} 1").await;
    expect_metric(&metrics, "sentinel_server_connections{listener=\"api\"} 1").await;
    assert!(!reading.is_finished(), "the client that reads was closed too");
    reading.abort();
}

#[tokio::test]
async fn bounds_the_connections_of_one_client() {
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
    assert_eq!(third.read(&mut [0; 1]).await.unwrap(), 0, "the third is served");
    expect_metric(&metrics, "sentinel_server_refused_total{listener=\"api\"} 1").await;
    let answer = exchange(&mut first, GET).await;
    assert!(answer.ends_with(&format!("User({})", rustix::process::geteuid().as_raw())), "{answer}");
    drop((first, second));
    expect_metric(&metrics, "sentinel_server_connections{listener=\"api\"} 0").await;
    assert!(exchange(&mut connect().await.unwrap(), GET).await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    serving.await.unwrap();
    assert!(!socket.exists(), "the socket file is not removed");
}

#[tokio::test]
async fn replaces_a_stale_socket_and_nothing_else() {
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
    assert_eq!(
        std::fs::read_to_string(&socket).unwrap(),
        "a file",
        "a file that is not a socket is replaced"
    );
}

#[tokio::test]
async fn counts_certificate_reloads_by_result() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = PAIRS;
    let (metrics, stop) = (Metrics::new(), CancellationToken::new());
    let source = FileCertificate::open(write_pair(directory.path(), first.0, first.1), &metrics).unwrap();
    for result in ["Reloaded", "Read", "Pem", "Pair"] {
        let from_the_start = format!("sentinel_server_certificate_reloads_total{{result=\"{result}\"}} 0");
        expect_metric(&metrics, &from_the_start).await;
    }
    let every = Duration::from_millis(10);
    let reloading = tokio::spawn(source.keep_current(every, stop.clone()));
    write_pair(directory.path(), second.0, "x");
    expect(&metrics, "Pem is counted", |text| {
        !text.contains("sentinel_server_certificate_reloads_total{result=\"Pem\"} 0")
    })
    .await;
    write_pair(directory.path(), second.0, second.1);
    expect_metric(&metrics, "sentinel_server_certificate_reloads_total{result=\"Reloaded\"} 1").await;
    stop.cancel();
    reloading.await.unwrap();
}

#[tokio::test]
async fn a_panicking_handler_closes_its_connection_alone_and_is_counted() {
    let metrics = Metrics::new();
    let server = Server::bind("api", any(), Exposure::NO_PEOPLE, Limits::default(), &metrics).await.unwrap();
    let addr = server.local_addr();
    let panics = warp::path("panic").map(|| -> &'static str { panic!("on purpose") });
    let routes = panics.or(warp::any().map(|| "served"));
    tokio::spawn(server.serve(warp::service(routes), CancellationToken::new()));
    let mut broken = TcpStream::connect(addr).await.unwrap();
    assert_eq!(exchange(&mut broken, &GET.replace("GET /", "GET /panic")).await, "");
    expect_metric(&metrics, "sentinel_server_connection_panics_total{listener=\"api\"} 1").await;
    expect_metric(&metrics, "sentinel_server_connections{listener=\"api\"} 0").await;
    assert!(exchange(&mut TcpStream::connect(addr).await.unwrap(), GET).await.ends_with("served"));
}

/// A follower does not know what runs: people's connections are served by the leader, at the same port of another host.
#[tokio::test]
async fn a_follower_passes_connections_on_to_the_leader_and_never_back() {
    let leader = bind_at("127.0.0.2:0".parse().unwrap(), Exposure::NO_PEOPLE, Limits::default());
    let leader = leader.await.unwrap();
    let port = leader.local_addr().port();
    let follower = bind_at(SocketAddr::from(([127, 0, 0, 1], port)), Exposure::NO_PEOPLE, Limits::default());
    let follower = follower.await.unwrap();
    let (leading, places) = watch::channel(Place::Unknown);
    let stop = CancellationToken::new();
    let served_by = |name: &'static str| warp::service(warp::any().map(move || name));
    tokio::spawn(leader.serve(served_by("by the leader"), stop.clone()));
    tokio::spawn(follower.with_places(places).serve(served_by("by the follower"), stop.clone()));
    let ask = || async { exchange(&mut TcpStream::connect(("127.0.0.1", port)).await.unwrap(), GET).await };

    assert_eq!(ask().await, "", "no leader is known");
    leading.send_replace(Place::Elsewhere("127.0.0.2".to_owned()));
    assert!(ask().await.ends_with("by the leader"));
    leading.send_replace(Place::Here);
    assert!(ask().await.ends_with("by the follower"));
    // What comes from the leader is not passed back, or two operators would pass a connection to and fro.
    leading.send_replace(Place::Elsewhere("127.0.0.1".to_owned()));
    assert_eq!(ask().await, "");
    stop.cancel();
}
