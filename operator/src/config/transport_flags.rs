//! Flags of certificates, and of who may use the HTTP API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::HeaderName;

use super::error::ConfigError;
use super::values::{
    ApiAuth, Certificate, GeneratedCertificate, PublishedAuthorities, TlsFiles, TrustedProxy, parse_duration,
};
use crate::http::guard::Secret;

/// Flags of certificates.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("tls_ca").args(["tls_secret", "tls_ca_file"]))]
pub(super) struct TlsFlags {
    /// Certificate chain of every listener, PEM; reloaded when it changes.
    #[arg(
        long,
        env = "SENTINEL_TLS_CERT_FILE",
        requires = "tls_key_file",
        value_name = "FILE",
        conflicts_with = "tls_secret"
    )]
    pub(super) tls_cert_file: Option<PathBuf>,

    /// Private key of that certificate, PEM.
    #[arg(long, env = "SENTINEL_TLS_KEY_FILE", requires = "tls_cert_file", value_name = "FILE")]
    pub(super) tls_key_file: Option<PathBuf>,

    /// Secret in the operator's namespace in which the operator keeps a certificate and an authority that it makes itself,
    /// and renews in time.
    #[arg(long, env = "SENTINEL_TLS_SECRET", value_name = "NAME", requires = "tls_names")]
    pub(super) tls_secret: Option<String>,

    /// DNS names and IP addresses of that certificate.
    #[arg(
        long,
        env = "SENTINEL_TLS_NAMES",
        value_name = "NAME,…",
        value_delimiter = ',',
        requires = "tls_secret"
    )]
    pub(super) tls_names: Vec<String>,

    /// Authorities of the certificate of --tls-cert-file, PEM, to publish in --tls-ca-config-map; read again when it changes.
    #[arg(
        long,
        env = "SENTINEL_TLS_CA_FILE",
        value_name = "FILE",
        requires_all = ["tls_cert_file", "tls_ca_config_map"],
        conflicts_with = "tls_secret"
    )]
    pub(super) tls_ca_file: Option<PathBuf>,

    /// `ConfigMap` in which the operator publishes the authorities to trust, as `ca.crt`: its own, or those of --tls-ca-file.
    #[arg(long, env = "SENTINEL_TLS_CA_CONFIG_MAP", value_name = "NAME", requires = "tls_ca")]
    pub(super) tls_ca_config_map: Option<String>,

    /// `APIService` whose `caBundle` the operator keeps current.
    #[arg(long = "apiservice", env = "SENTINEL_APISERVICE", value_name = "NAME", requires = "tls_secret")]
    pub(super) api_service: Option<String>,

    /// How long a certificate that the operator makes is valid. It is renewed after two thirds of that. Example: 90d.
    #[arg(long, env = "SENTINEL_TLS_LIFETIME", default_value = "90d", value_parser = parse_duration, value_name = "TIME")]
    pub(super) tls_lifetime: Duration,

    /// How long an authority that the operator makes is valid. Example: 1825d.
    #[arg(long, env = "SENTINEL_TLS_CA_LIFETIME", default_value = "1825d", value_parser = parse_duration, value_name = "TIME")]
    pub(super) tls_ca_lifetime: Duration,

    /// Serve without TLS beyond loopback too. A host on the way can read tokens and output.
    #[arg(long, env = "SENTINEL_ALLOW_PLAINTEXT", conflicts_with_all = ["tls_secret", "tls_cert_file"])]
    pub(super) allow_plaintext: bool,
}

/// Flags of who may use the HTTP API.
#[derive(Debug, Args)]
pub(super) struct PeopleFlags {
    /// Who may use the HTTP API: `none` asks no client, and listens on loopback only; `token` has the token of
    /// --api-token-file; `kubernetes` has whom the API server knows, as far as it allows what they ask. Without it `token`
    /// with --api-token-file, else `none`.
    #[arg(long, env = "SENTINEL_API_AUTH", value_enum, value_name = "WHO")]
    pub(super) api_auth: Option<ApiAuthKind>,

    /// Audience of people's tokens (with --api-auth kubernetes); without it that of the API server, so that a token for
    /// kubectl is one for the operator too.
    #[arg(long, env = "SENTINEL_API_AUDIENCE", value_name = "NAME")]
    pub(super) api_audience: Option<String>,

    /// Address of the aggregated API, for the API server alone. Requires a certificate.
    #[arg(long, env = "SENTINEL_AGGREGATED_LISTEN", value_name = "ADDRESS")]
    pub(super) aggregated_listen: Option<SocketAddr>,

    /// URL at which an ingress has the web page: its pages may use the API. Repeatable.
    #[arg(long, env = "SENTINEL_PUBLIC_URL", value_name = "URL", value_delimiter = ',', value_parser = parse_origin)]
    pub(super) public_url: Vec<String>,

    /// Authorities of the client certificate of a proxy that signs people in and names them in headers, PEM; reloaded when
    /// it changes.
    #[arg(
        long,
        env = "SENTINEL_TRUSTED_PROXY_CA_FILE",
        value_name = "FILE",
        requires = "trusted_proxy_names"
    )]
    pub(super) trusted_proxy_ca_file: Option<PathBuf>,

    /// Common names of that certificate.
    #[arg(
        long,
        env = "SENTINEL_TRUSTED_PROXY_NAMES",
        value_name = "NAME,…",
        value_delimiter = ',',
        requires = "trusted_proxy_ca_file"
    )]
    pub(super) trusted_proxy_names: Vec<String>,

    /// Header with the user name.
    #[arg(
        long,
        env = "SENTINEL_TRUSTED_PROXY_USER_HEADER",
        default_value = "x-forwarded-user",
        value_name = "HEADER"
    )]
    pub(super) trusted_proxy_user_header: HeaderName,

    /// Header with a group, once for each.
    #[arg(
        long,
        env = "SENTINEL_TRUSTED_PROXY_GROUP_HEADER",
        default_value = "x-forwarded-groups",
        value_name = "HEADER"
    )]
    pub(super) trusted_proxy_group_header: HeaderName,

    /// What separates groups in one such header, for example `,` with oauth2-proxy; without it each header has one group.
    #[arg(long, env = "SENTINEL_TRUSTED_PROXY_GROUP_SEPARATOR", value_name = "CHARACTER")]
    pub(super) trusted_proxy_group_separator: Option<char>,

    /// Who may read /metrics: `none` asks no client, `kubernetes` has whom the API server allows to get that path.
    #[arg(long, env = "SENTINEL_METRICS_AUTH", value_enum, default_value = "none", value_name = "WHO")]
    pub(super) metrics_auth: MetricsAuth,
}

/// Who may use the HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ApiAuthKind {
    /// Everybody who can connect.
    None,
    /// Holders of one token.
    Token,
    /// Whom the API server knows.
    Kubernetes,
}

/// Who may read metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricsAuth {
    /// Everybody who can connect.
    None,
    /// Whom the API server allows to.
    Kubernetes,
}

impl TlsFlags {
    /// Which certificate the listeners have; `webhook` is the configuration that needs its authority.
    pub(super) fn certificate(&self, webhook: Option<&str>) -> Certificate {
        if let Some((cert, key)) = self.tls_cert_file.clone().zip(self.tls_key_file.clone()) {
            let published = self.tls_ca_file.clone().zip(self.tls_ca_config_map.clone());
            let published = published.map(|(file, config_map)| {
                let webhook = webhook.map(str::to_owned);
                PublishedAuthorities { file, config_map, webhook }
            });
            return Certificate::Files(TlsFiles { cert, key, published });
        }
        match &self.tls_secret {
            Some(secret) => Certificate::Generated(GeneratedCertificate {
                secret: secret.clone(),
                names: self.tls_names.clone(),
                config_map: self.tls_ca_config_map.clone(),
                api_service: self.api_service.clone(),
                webhook: webhook.map(str::to_owned),
                lifetime: self.tls_lifetime,
                authority_lifetime: self.tls_ca_lifetime,
            }),
            None if self.allow_plaintext => Certificate::Plaintext,
            None => Certificate::None,
        }
    }
}

impl PeopleFlags {
    /// Who may use the API; `token` is that of --api-token-file.
    pub(super) fn api_auth(&self, token: Option<Secret>) -> Result<ApiAuth, ConfigError> {
        let missing = |flag, needed| ConfigError::Missing { flag, needed };
        if self.trusted_proxy_ca_file.is_some() && self.api_auth != Some(ApiAuthKind::Kubernetes) {
            return Err(missing("trusted-proxy-ca-file", "api-auth kubernetes"));
        }
        match (self.api_auth, token) {
            (Some(ApiAuthKind::Kubernetes), None) => Ok(ApiAuth::Kubernetes {
                audience: self.api_audience.clone(),
                origins: self.public_url.clone(),
                proxy: self.proxy(),
            }),
            (Some(ApiAuthKind::Token), None) => Err(missing("api-auth token", "api-token-file")),
            (Some(ApiAuthKind::Token) | None, Some(token)) => Ok(ApiAuth::Token(token)),
            (Some(ApiAuthKind::None) | None, None) => Ok(ApiAuth::Open),
            (Some(_), Some(_)) => Err(missing("api-token-file", "api-auth token")),
        }
    }

    fn proxy(&self) -> Option<TrustedProxy> {
        Some(TrustedProxy {
            ca_file: self.trusted_proxy_ca_file.as_deref().map(Path::to_owned)?,
            names: self.trusted_proxy_names.clone(),
            user: self.trusted_proxy_user_header.clone(),
            group: self.trusted_proxy_group_header.clone(),
            separator: self.trusted_proxy_group_separator,
        })
    }
}

/// The origin of a URL: its scheme, host and port.
fn parse_origin(text: &str) -> Result<String, String> {
    let allowed = "expected a URL such as https://sentinel.example.com";
    let url: http::Uri = text.parse().map_err(|_| allowed.to_owned())?;
    match (url.scheme_str(), url.authority()) {
        (Some(scheme @ ("https" | "http")), Some(authority)) if !authority.as_str().contains('@') => {
            Ok(format!("{scheme}://{authority}"))
        }
        _ => Err(allowed.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_a_url_is_its_scheme_host_and_port() {
        assert_eq!(parse_origin("https://s.example.com/x/"), Ok("https://s.example.com".to_owned()));
        assert_eq!(parse_origin("http://127.0.0.1:80"), Ok("http://127.0.0.1:80".to_owned()));
        for bad in ["", "s.example.com", "ftp://x", "https://a@b", "https://"] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
    }
}
