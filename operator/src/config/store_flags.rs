//! The flags of the stores.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::error::ConfigError;
use super::values::{Redis, Storage, parse_duration};
use crate::credentials::{ClientFiles, CredentialFiles, Store};

/// Where Runs, results, output and presence are kept.
#[derive(Debug, Args)]
pub(super) struct StoreFlags {
    /// Store of Runs, results and output.
    #[arg(long, env = "SENTINEL_STORAGE", value_enum, default_value = "mongodb")]
    storage: StorageKind,

    /// Directory of the embedded History (with --storage embedded).
    #[arg(long, env = "SENTINEL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// File with the MongoDB URL (with --storage mongodb); read again when it changes, like the files below.
    #[arg(long, env = "SENTINEL_MONGODB_URL_FILE", value_name = "FILE")]
    mongodb_url_file: Option<PathBuf>,

    /// MongoDB database.
    #[arg(long, env = "SENTINEL_MONGODB_DATABASE", default_value = "sentinel", value_name = "NAME")]
    mongodb_database: String,

    /// CA certificates that MongoDB's certificate is verified by, PEM. Without it, the public CAs that Mozilla trusts.
    #[arg(long, env = "SENTINEL_MONGODB_TLS_CA_FILE", requires = "mongodb_url_file", value_name = "FILE")]
    mongodb_tls_ca_file: Option<PathBuf>,

    /// Client certificate for MongoDB, with its chain and its private key in one file, PEM.
    #[arg(
        long,
        env = "SENTINEL_MONGODB_TLS_CERT_KEY_FILE",
        requires = "mongodb_url_file",
        value_name = "FILE"
    )]
    mongodb_tls_cert_key_file: Option<PathBuf>,

    /// File with the Redis URL; read again when it changes, like the files below. Without it, presence is kept in memory
    /// only.
    #[arg(long, env = "SENTINEL_REDIS_URL_FILE", value_name = "FILE")]
    redis_url_file: Option<PathBuf>,

    /// Prefix of every key in Redis.
    #[arg(long, env = "SENTINEL_REDIS_PREFIX", default_value = "sentinel:", value_name = "TEXT")]
    redis_prefix: String,

    /// CA certificates that Redis's certificate is verified by, PEM. Without it, the public CAs that Mozilla trusts.
    #[arg(long, env = "SENTINEL_REDIS_TLS_CA_FILE", requires = "redis_url_file", value_name = "FILE")]
    redis_tls_ca_file: Option<PathBuf>,

    /// Client certificate for Redis, with its chain, PEM.
    #[arg(
        long,
        env = "SENTINEL_REDIS_TLS_CERT_FILE",
        requires_all = ["redis_url_file", "redis_tls_key_file"],
        value_name = "FILE"
    )]
    redis_tls_cert_file: Option<PathBuf>,

    /// Private key of the client certificate for Redis, PEM.
    #[arg(long, env = "SENTINEL_REDIS_TLS_KEY_FILE", requires = "redis_tls_cert_file", value_name = "FILE")]
    redis_tls_key_file: Option<PathBuf>,

    /// How long History keeps what has ended. Example: 30d.
    #[arg(long, env = "SENTINEL_RETENTION", default_value = "30d", value_parser = parse_duration, value_name = "TIME")]
    pub(super) retention: Duration,
}

/// Store of Runs, results and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StorageKind {
    /// One SQLite file.
    Embedded,
    /// MongoDB.
    Mongodb,
}

impl StoreFlags {
    pub(super) fn storage(&self) -> Result<Storage, ConfigError> {
        match self.storage {
            StorageKind::Embedded => {
                let directory = self.data_dir.clone();
                let missing = ConfigError::Missing { flag: "storage embedded", needed: "data-dir" };
                Ok(Storage::Embedded { directory: directory.ok_or(missing)? })
            }
            StorageKind::Mongodb => {
                let missing = ConfigError::Missing { flag: "storage mongodb", needed: "mongodb-url-file" };
                let pem = self.mongodb_tls_cert_key_file.clone();
                let files = CredentialFiles {
                    store: Store::Mongodb,
                    url: self.mongodb_url_file.clone().ok_or(missing)?,
                    ca: self.mongodb_tls_ca_file.clone(),
                    client: pem.map(|pem| ClientFiles { certificate: pem.clone(), key: pem }),
                };
                let database = self.mongodb_database.clone();
                Ok(Storage::Mongodb { credentials: Box::new(files.read()?), database })
            }
        }
    }

    pub(super) fn redis(&self) -> Result<Option<Redis>, ConfigError> {
        let Some(url) = self.redis_url_file.clone() else { return Ok(None) };
        let pair = self.redis_tls_cert_file.clone().zip(self.redis_tls_key_file.clone());
        let files = CredentialFiles {
            store: Store::Redis,
            url,
            ca: self.redis_tls_ca_file.clone(),
            client: pair.map(|(certificate, key)| ClientFiles { certificate, key }),
        };
        Ok(Some(Redis { credentials: files.read()?, prefix: self.redis_prefix.clone() }))
    }
}
