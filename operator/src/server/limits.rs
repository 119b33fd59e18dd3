//! The limits of one listener, and the presets for each kind of client.

use std::time::Duration;

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections, upgraded ones included; further ones stay in the kernel's accept queue.
    pub connections: usize,
    /// Open connections of one client; further ones are closed at once.
    pub per_client: usize,
    /// How long a write may make no progress before the connection is closed; `None` waits forever.
    pub write_stall: Option<Duration>,
    /// Size of the kernel's send buffer of a TCP connection, bytes; `None` keeps the kernel's default.
    pub send_buffer: Option<u32>,
    /// Unauthenticated connections among the open ones; further ones stay in the kernel's accept queue.
    pub unauthenticated: usize,
    /// Unauthenticated connections of one address (of IPv6, of one /64); further ones are closed at once.
    pub unauthenticated_per_address: usize,
    /// Time for the TLS handshake, and for the headers of a request.
    pub header_timeout: Duration,
    /// Bytes of all headers of a request.
    pub header_bytes: usize,
    /// Number of headers of a request.
    pub headers: usize,
    /// Time that open requests have to finish when the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            per_client: usize::MAX,
            write_stall: None,
            send_buffer: None,
            unauthenticated: 20_000,
            unauthenticated_per_address: usize::MAX,
            header_timeout: Duration::from_secs(5),
            header_bytes: 16 << 10,
            headers: 64,
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// For a listener that serves people and programs. One client can take half of the connections.
    pub fn of_people() -> Self {
        Self {
            connections: 2_048,
            per_client: 1_024,
            write_stall: Some(Duration::from_mins(2)),
            send_buffer: Some(256 << 10),
            ..Self::default()
        }
    }

    /// For a listener that serves people through a proxy of the cluster, whose connections all have its address. It names
    /// each group of a person in a header.
    pub fn of_proxy() -> Self {
        Self { per_client: usize::MAX, header_bytes: 64 << 10, headers: 512, ..Self::of_people() }
    }

    /// For a listener that serves probes and scrapers, whose responses are short.
    pub fn of_probes() -> Self {
        Self {
            connections: 256,
            per_client: 64,
            write_stall: Some(Duration::from_secs(10)),
            send_buffer: Some(256 << 10),
            ..Self::default()
        }
    }

    /// For the listener that serves agents. An agent authenticates with its first request, so few are unauthenticated
    /// at a time, and a whole fleet behind one address still gets in.
    pub fn of_agents() -> Self {
        Self { unauthenticated: 4_000, unauthenticated_per_address: 1_000, ..Self::default() }
    }
}
