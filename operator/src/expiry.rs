//! When the certificates in use expire, as metrics. A certificate that is renewed on disk but not in use shows its old time.

use x509_parser::pem::Pem;

use crate::metrics::{Gauge, Registry};

/// A point in time, seconds since 1970.
pub type Seconds = i64;

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub not_before: Seconds,
    /// Its last second.
    pub not_after: Seconds,
}

/// What a certificate is for: metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The certificate of the listeners.
    Server,
    /// The authority that signs it, where the operator makes both.
    ServerAuthority,
    /// The authorities of a trusted proxy.
    TrustedProxyAuthority,
    /// The authorities of the API server's front proxy.
    FrontProxyAuthority,
    /// The client certificate for MongoDB.
    MongodbClient,
    /// The authorities of MongoDB's certificate.
    MongodbAuthority,
    /// The client certificate for Redis.
    RedisClient,
    /// The authorities of the certificate of Redis.
    RedisAuthority,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Server,
        Self::ServerAuthority,
        Self::TrustedProxyAuthority,
        Self::FrontProxyAuthority,
        Self::MongodbClient,
        Self::MongodbAuthority,
        Self::RedisClient,
        Self::RedisAuthority,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ServerAuthority => "server-authority",
            Self::TrustedProxyAuthority => "trusted-proxy-authority",
            Self::FrontProxyAuthority => "front-proxy-authority",
            Self::MongodbClient => "mongodb-client",
            Self::MongodbAuthority => "mongodb-authority",
            Self::RedisClient => "redis-client",
            Self::RedisAuthority => "redis-authority",
        }
    }
}

/// The metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Expiries(Registry);

impl Expiries {
    /// Registers them, with all purposes.
    pub fn new(registry: &Registry) -> Self {
        let expiries = Self(registry.clone());
        for purpose in Purpose::ALL {
            let _ = expiries.gauges(purpose);
        }
        expiries
    }

    /// A certificate is in use from now on; `None` when there is none, or when its time cannot be read.
    pub fn set(&self, purpose: Purpose, validity: Option<Validity>) {
        let (begins, ends) = self.gauges(purpose);
        begins.set(validity.map_or(0, |validity| validity.not_before));
        ends.set(validity.map_or(0, |validity| validity.not_after));
    }

    fn gauges(&self, purpose: Purpose) -> (Gauge, Gauge) {
        let labels = [("certificate", purpose.label())];
        let begins =
            "When the certificate in use begins to be valid, seconds since 1970; 0 when there is none.";
        let ends = "When the certificate in use expires, seconds since 1970; 0 when there is none. Of a chain the first to expire, of \
             authorities the last.";
        (
            self.0.gauge_with("sentinel_certificate_not_before_timestamp_seconds", begins, &labels),
            self.0.gauge_with("sentinel_certificate_not_after_timestamp_seconds", ends, &labels),
        )
    }
}

/// The certificate of a chain that expires first: from then on no client accepts the chain.
pub fn of_chain(pem: &[u8]) -> Option<Validity> {
    certificates(pem).min_by_key(|validity| validity.not_after)
}

/// The authority that expires last: until then there is one to trust. An old one may stay beside its successor for years.
pub fn of_authorities(pem: &[u8]) -> Option<Validity> {
    certificates(pem).max_by_key(|validity| validity.not_after)
}

fn certificates(pem: &[u8]) -> impl Iterator<Item = Validity> {
    let all = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    all.filter(|pem| pem.label == "CERTIFICATE").filter_map(|pem| {
        let validity = pem.parse_x509().ok()?.validity().clone();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Validity { not_before, not_after })
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use std::time::Duration;

    use super::*;

    fn certificate(not_before: i64, not_after: i64) -> String {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |seconds: i64| epoch + Duration::from_secs(seconds.unsigned_abs());
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (at(not_before), at(not_after));
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
    }

    #[test]
    fn a_chain_expires_with_its_first_certificate_and_authorities_with_their_last() {
        let both = [certificate(1_000, 9_000), certificate(2_000, 5_000)].concat();
        let valid = |not_before, not_after| Some(Validity { not_before, not_after });
        assert_eq!(of_chain(both.as_bytes()), valid(2_000, 5_000));
        assert_eq!(of_authorities(both.as_bytes()), valid(1_000, 9_000));
        assert_eq!(of_chain(b"no certificate"), None);
        assert_eq!(of_chain(b""), None);
    }

    #[test]
    fn every_purpose_is_shown_from_the_start_and_follows_what_is_in_use() {
        let registry = Registry::new();
        let expiries = Expiries::new(&registry);
        let shown = |value: i64| {
            format!(
                "sentinel_certificate_not_after_timestamp_seconds{{certificate=\"redis-client\"}} {value}\n"
            )
        };
        let text = registry.render();
        let series =
            text.lines().filter(|line| line.starts_with("sentinel_certificate_not_after_timestamp_seconds{"));
        assert_eq!(series.count(), Purpose::ALL.len());
        assert!(text.contains(&shown(0)), "{text}");
        expiries.set(Purpose::RedisClient, Some(Validity { not_before: 1, not_after: 7 }));
        assert!(registry.render().contains(&shown(7)));
        expiries.set(Purpose::RedisClient, None);
        assert!(registry.render().contains(&shown(0)));
    }
}
