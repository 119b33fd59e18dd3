//! The stores, and the names of their flags.

/// A store with credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The archive.
    Mongodb,
    /// The mirror of presence.
    Redis,
}

impl Store {
    /// Every store.
    pub const ALL: [Self; 2] = [Self::Mongodb, Self::Redis];

    /// Value of the metric label `store`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mongodb => "MongoDB",
            Self::Redis => "Redis",
        }
    }

    /// The flag of the file with its URL.
    pub fn url_flag(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb-url-file",
            Self::Redis => "redis-url-file",
        }
    }

    /// The flag of the file with the CA.
    pub fn ca_flag(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb-tls-ca-file",
            Self::Redis => "redis-tls-ca-file",
        }
    }

    /// The flag of the file with the client certificate.
    pub fn certificate_flag(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb-tls-cert-key-file",
            Self::Redis => "redis-tls-cert-file",
        }
    }

    /// The flag of the file with the key of the client certificate.
    pub fn key_flag(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb-tls-cert-key-file",
            Self::Redis => "redis-tls-key-file",
        }
    }

    /// What its URL begins with.
    pub(super) fn schemes(self) -> [&'static str; 2] {
        match self {
            Self::Mongodb => ["mongodb://", "mongodb+srv://"],
            Self::Redis => ["redis://", "rediss://"],
        }
    }

    /// The same as a text.
    pub(super) fn expected_url(self) -> &'static str {
        match self {
            Self::Mongodb => "a mongodb:// or mongodb+srv:// URL",
            Self::Redis => "a redis:// or rediss:// URL",
        }
    }

    /// How its URL asks for TLS.
    pub(super) fn how_to_use_tls(self) -> &'static str {
        match self {
            Self::Mongodb => "add tls=true to the options of the URL",
            Self::Redis => "begin the URL with rediss:// instead of redis://",
        }
    }
}
