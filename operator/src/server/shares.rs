//! Places and bytes of which there are so many, in all and for each client: one client cannot take what all share.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Who a connection belongs to, as far as limits go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// A process of this machine, over TCP. Which one of 127.0.0.0/8 it sends from is its own choice, so that they are
    /// all one.
    #[default]
    Local,
    /// An IPv4 address, or the /64 network of an IPv6 address.
    Address(IpAddr),
    /// A user of this machine, over a Unix socket.
    User(u32),
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

/// The address that counts for limits. Who has one address of an IPv6 /64 network has all of it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// So many of something. Clones share them.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Client, usize>,
}

/// A part of [`Shares`], given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    from: Shares,
    client: Client,
    amount: usize,
}

impl Shares {
    /// `all` of them, of which each client may have `each`.
    pub fn new(all: usize, each: usize) -> Self {
        Self(Arc::new(Inner { all, each, taken: Mutex::default() }))
    }

    /// Takes `amount` for a client; `None` when there are not so many left, for it or at all.
    pub fn take(&self, client: Client, amount: usize) -> Option<Share> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = taken.by.get(&client).copied().unwrap_or(0).checked_add(amount)?;
        let all = taken.all.checked_add(amount)?;
        if mine > self.0.each || all > self.0.all {
            return None;
        }
        taken.all = all;
        taken.by.insert(client, mine);
        Some(Share { from: self.clone(), client, amount })
    }

    /// How many each client may have.
    pub fn each(&self) -> usize {
        self.0.each
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.from.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(self.amount);
        if let Some(mine) = taken.by.get_mut(&self.client) {
            *mine = mine.saturating_sub(self.amount);
            if *mine == 0 {
                taken.by.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_what_all_share() {
        let shares = Shares::new(10, 6);
        let (greedy, other) = (Client::User(1), Client::User(2));
        let first = shares.take(greedy, 6).unwrap();
        assert!(shares.take(greedy, 1).is_none(), "more than its own");
        let _second = shares.take(other, 4).unwrap();
        assert!(shares.take(other, 1).is_none(), "more than there are");
        assert!(shares.take(other, usize::MAX).is_none());
        drop(first);
        assert_eq!(shares.taken(), 4);
        assert!(shares.take(greedy, 6).is_some());
        assert_eq!(shares.0.taken.lock().unwrap().by.len(), 1, "who has none is forgotten");
    }

    #[test]
    fn all_loopback_addresses_are_one_client_and_so_is_an_ipv6_network() {
        let client = |text: &str| Client::from(text.parse::<SocketAddr>().unwrap());
        assert_eq!(client("127.0.0.1:1"), client("127.3.2.1:2"));
        assert_eq!(client("[::1]:1"), client("[::ffff:127.0.0.1]:1"));
        assert_eq!(client("[2001:db8:1:2::1]:1"), client("[2001:db8:1:2:ffff::9]:1"));
        assert_ne!(client("[2001:db8:1:2::1]:1"), client("[2001:db8:1:3::1]:1"));
        assert_ne!(client("192.0.2.1:1"), client("192.0.2.2:1"));
        assert_eq!(client("192.0.2.1:1"), client("[::ffff:192.0.2.1]:7"));
    }
}
