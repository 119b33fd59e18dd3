//! A quota in total and per client, so that one client cannot take what all share: connections, bytes, requests.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// The client that a connection or request counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// A process on this machine, over TCP. It chooses freely among 127.0.0.0/8, so all of loopback is one client.
    #[default]
    Local,
    /// An IPv4 address, or the /64 network of an IPv6 address.
    Address(IpAddr),
    /// A user of this machine, by uid, over a Unix socket.
    User(u32),
    /// An authenticated person or program, by a digest of its name: many share an address behind a proxy.
    Principal(u64),
}

impl From<SocketAddr> for Client {
    fn from(addr: SocketAddr) -> Self {
        let ip = addr.ip().to_canonical();
        if ip.is_loopback() {
            return Self::Local;
        }
        Self::Address(network(ip))
    }
}

/// The address that counts for limits: of IPv6 the /64 network, since a host with one address of it has all.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A quota. Clones share it.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Quota>);

#[derive(Debug)]
struct Quota {
    all: usize,
    each: usize,
    usage: Mutex<ClientUsage>,
}

#[derive(Debug, Default)]
struct ClientUsage {
    all: usize,
    by_client: HashMap<Client, usize>,
}

/// A part of [`Shares`], returned on drop.
#[derive(Debug)]
pub struct Share {
    from: Shares,
    client: Client,
    amount: usize,
}

impl Shares {
    /// A quota of `all` in total and `each` per client.
    pub fn new(all: usize, each: usize) -> Self {
        Self(Arc::new(Quota { all, each, usage: Mutex::default() }))
    }

    /// Takes `amount` for a client; `None` when that exceeds its quota or the total.
    pub fn take(&self, client: Client, amount: usize) -> Option<Share> {
        let mut usage = self.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = usage.by_client.get(&client).copied().unwrap_or(0).checked_add(amount)?;
        let all = usage.all.checked_add(amount)?;
        if mine > self.0.each || all > self.0.all {
            return None;
        }
        usage.all = all;
        usage.by_client.insert(client, mine);
        Some(Share { from: self.clone(), client, amount })
    }

    /// The quota of each client.
    pub fn each(&self) -> usize {
        self.0.each
    }

    /// The amount taken by all clients.
    pub fn taken(&self) -> usize {
        self.0.usage.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut usage = self.from.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.all = usage.all.saturating_sub(self.amount);
        if let Some(mine) = usage.by_client.get_mut(&self.client) {
            *mine = mine.saturating_sub(self.amount);
            if *mine == 0 {
                usage.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_exhaust_the_quota() {
        let shares = Shares::new(10, 6);
        let (greedy, other) = (Client::User(1), Client::User(2));
        let first = shares.take(greedy, 6).unwrap();
        assert!(shares.take(greedy, 1).is_none(), "more than its own quota");
        let _second = shares.take(other, 4).unwrap();
        assert!(shares.take(other, 1).is_none(), "more than the total");
        assert!(shares.take(other, usize::MAX).is_none());
        drop(first);
        assert_eq!(shares.taken(), 4);
        assert!(shares.take(greedy, 6).is_some());
        assert_eq!(
            shares.0.usage.lock().unwrap().by_client.len(),
            1,
            "a client without shares stays in the map"
        );
    }

    #[test]
    fn loopback_is_one_client_and_so_is_each_ipv6_network() {
        let client = |text: &str| Client::from(text.parse::<SocketAddr>().unwrap());
        assert_eq!(client("127.0.0.1:1"), client("127.3.2.1:2"));
        assert_eq!(client("[::1]:1"), client("[::ffff:127.0.0.1]:1"));
        assert_eq!(client("[2001:db8:1:2::1]:1"), client("[2001:db8:1:2:ffff::9]:1"));
        assert_ne!(client("[2001:db8:1:2::1]:1"), client("[2001:db8:1:3::1]:1"));
        assert_ne!(client("192.0.2.1:1"), client("192.0.2.2:1"));
        assert_eq!(client("192.0.2.1:1"), client("[::ffff:192.0.2.1]:7"));
    }
}
