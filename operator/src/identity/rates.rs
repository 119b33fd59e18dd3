//! The rate of reviews of unknown tokens, in total and per address: token buckets.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::time::Instant;

use crate::server::network;

/// Rates of reviews of unknown tokens.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// In total.
    pub all: Rate,
    /// Per address; of IPv6, per /64.
    pub address: Rate,
}

/// A rate and its burst.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Reviews per second.
    pub per_second: f64,
    /// Reviews at once after a pause.
    pub burst: f64,
}

impl Default for Rates {
    /// A fleet of 15,000 that dials a new leader at once is reviewed within 15 seconds; one address gets a tenth, and
    /// 2,000 agents behind a single one are reviewed at once.
    fn default() -> Self {
        Self {
            all: Rate { per_second: 1_000.0, burst: 4_000.0 },
            address: Rate { per_second: 100.0, burst: 2_000.0 },
        }
    }
}

/// Addresses with a bucket of their own; further ones share one.
const MAX_ADDRESSES: usize = 10_000;

/// Token buckets.
#[derive(Debug)]
pub(crate) struct Buckets {
    rates: Rates,
    all: Bucket,
    others: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { left: rate.burst, at: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * rate.per_second).min(rate.burst);
        self.at = now;
    }
}

impl Buckets {
    pub(crate) fn new(rates: Rates, now: Instant) -> Self {
        let all = Bucket::full(rates.all, now);
        let others = Bucket::full(rates.address, now);
        Self { rates, all, others, addresses: HashMap::new() }
    }

    /// Takes one review, if the rates allow it now. A caller without an address counts in the total alone.
    pub(crate) fn take(&mut self, from: Option<IpAddr>, now: Instant) -> bool {
        let rates = self.rates;
        self.all.fill(rates.all, now);
        // From both buckets or neither: an exhausted total must not drain the bucket of an address.
        if self.all.left < 1.0 {
            return false;
        }
        if let Some(from) = from {
            let bucket = self.address(network(from), now);
            if bucket.left < 1.0 {
                return false;
            }
            bucket.left -= 1.0;
        }
        self.all.left -= 1.0;
        true
    }

    fn address(&mut self, from: IpAddr, now: Instant) -> &mut Bucket {
        let rate = self.rates.address;
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&from) {
            self.addresses.retain(|_, bucket| {
                bucket.fill(rate, now);
                bucket.left < rate.burst
            });
        }
        let bucket = if self.addresses.len() < MAX_ADDRESSES || self.addresses.contains_key(&from) {
            self.addresses.entry(from).or_insert_with(|| Bucket::full(rate, now))
        } else {
            &mut self.others
        };
        bucket.fill(rate, now);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATES: Rates =
        Rates { all: Rate { per_second: 10.0, burst: 20.0 }, address: Rate { per_second: 1.0, burst: 5.0 } };

    fn taken(buckets: &mut Buckets, from: &str, now: Instant) -> usize {
        (0..100).filter(|_| buckets.take(Some(from.parse().unwrap()), now)).count()
    }

    #[test]
    fn one_address_cannot_use_the_share_of_others() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RATES, now);
        assert_eq!(taken(&mut buckets, "10.0.0.1", now), 5);
        assert_eq!(taken(&mut buckets, "10.0.0.2", now), 5);
        assert_eq!(taken(&mut buckets, "2001:db8::1", now), 5);
        assert_eq!(taken(&mut buckets, "2001:db8::2", now), 0, "the same network");
        let later = now + Duration::from_secs(3);
        assert_eq!(taken(&mut buckets, "10.0.0.1", later), 3);
    }

    #[test]
    fn all_addresses_share_the_total() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RATES, now);
        let all: usize = (0..100).map(|n| taken(&mut buckets, &format!("10.0.1.{n}"), now)).sum();
        assert_eq!(all, 20);
    }

    #[test]
    fn an_exhausted_total_does_not_drain_the_bucket_of_an_address() {
        let now = Instant::now();
        let rates = Rates { address: Rate { per_second: 0.001, burst: 5.0 }, ..RATES };
        let mut buckets = Buckets::new(rates, now);
        assert_eq!(taken(&mut buckets, "10.0.0.1", now), 5);
        for n in 0..10 {
            taken(&mut buckets, &format!("10.0.1.{n}"), now);
        }
        assert_eq!(taken(&mut buckets, "10.0.0.2", now), 0, "the total is exhausted");
        assert_eq!(taken(&mut buckets, "10.0.0.2", now + Duration::from_secs(2)), 5);
    }

    #[test]
    fn drops_full_buckets_when_there_are_too_many_addresses() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RATES, now);
        for n in 0..MAX_ADDRESSES + 10 {
            let at = now + Duration::from_millis(n as u64 * 200);
            let address = IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
            assert!(buckets.take(Some(address), at));
        }
        assert!(buckets.addresses.len() <= MAX_ADDRESSES);
    }
}
