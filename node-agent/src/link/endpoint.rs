//! The operator's address.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// A text that is not an operator URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid operator URL {url:?}: {why}; expected ws://<host>[:<port>] or wss://<host>[:<port>]")]
pub struct InvalidUrl {
    /// The text.
    pub url: String,
    /// What is wrong with it.
    pub why: String,
}

/// The operator's gateway: `ws://host:port` or `wss://host:port`, with a path prefix if a proxy
/// needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    secure: bool,
    host: String,
    port: u16,
    prefix: String,
}

impl Endpoint {
    /// Whether TLS is used.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host's name or address, without brackets; TLS verifies it even when another address is dialled.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// `host:port`.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL of one of the gateway's paths.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}{path}", self.authority(), self.prefix)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let invalid = |why: String| InvalidUrl { url: text.to_owned(), why };
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| invalid(error.to_string()))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some(other) => return Err(invalid(format!("its scheme is {other}"))),
            None => return Err(invalid("it has no scheme".to_owned())),
        };
        let authority = uri.authority().ok_or_else(|| invalid("it has no host".to_owned()))?;
        if authority.as_str().contains('@') {
            return Err(invalid("it contains a user; the token belongs in a file".to_owned()));
        }
        if authority.host().is_empty() {
            return Err(invalid("it has no host".to_owned()));
        }
        if uri.query().is_some() {
            return Err(invalid("it has a query".to_owned()));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") | None => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(_) => match authority.port_u16() {
                Some(port) if port > 0 => port,
                _ => return Err(invalid("its port is not a number from 1 to 65535".to_owned())),
            },
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { secure, host: authority.host().to_owned(), port, prefix })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_host_port_and_path() {
        let check = |text: &str, authority: &str, host: &str, url: &str| {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.authority(), authority, "{text}");
            assert_eq!(endpoint.host(), host, "{text}");
            assert_eq!(endpoint.url("/x"), url, "{text}");
        };
        check("ws://op:7000", "op:7000", "op", "ws://op:7000/x");
        check("wss://op.svc", "op.svc:443", "op.svc", "wss://op.svc:443/x");
        check("ws://127.0.0.1/", "127.0.0.1:80", "127.0.0.1", "ws://127.0.0.1:80/x");
        check("wss://[::1]:7000/a/b/", "[::1]:7000", "::1", "wss://[::1]:7000/a/b/x");
    }

    #[test]
    fn rejects_an_invalid_operator_url_with_the_reason() {
        for (text, why) in [
            ("http://op:7000", "scheme"),
            ("op:7000", "scheme"),
            ("", ""),
            ("ws://", ""),
            ("ws://user:pw@op:7000", "token"),
            ("ws://op:0", "port"),
            ("ws://op:70000", ""),
            ("ws://op?x=1", "query"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(why) && error.contains("expected ws://"), "{text:?}: {error}");
        }
    }
}
