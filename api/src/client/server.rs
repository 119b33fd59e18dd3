//! The address of a server.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

/// The default address.
const DEFAULT: &str = "http://127.0.0.1:7980";

/// The address of a server: `https://HOST[:PORT][/PATH]`, `http://HOST[:PORT]` or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Over TCP; a dev mode of this user is reached over its socket instead.
    Http {
        /// Prefix of every request's URL, without a trailing slash.
        base: String,
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// Over TLS.
    Https {
        /// Prefix of every request's URL, without a trailing slash.
        base: String,
        /// The host, which its certificate must name.
        host: String,
        /// The port.
        port: u16,
        /// The file with the authorities of its certificate, for people; without one those of the system.
        authority: Option<PathBuf>,
    },
    /// Over a Unix socket.
    Unix(PathBuf),
    /// The operator of a Kubernetes cluster, through its API server.
    Cluster(ClusterName),
}

/// How a cluster is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName {
    /// The address of its API server.
    pub address: String,
    /// Where the address and the credentials are from, for people: `context prod`.
    pub source: String,
    /// The flags with which another command line finds it, each with a space before it.
    pub flags: String,
}

impl Server {
    /// Prefix of every request's URL, without a trailing slash.
    pub fn base(&self) -> &str {
        match self {
            Self::Http { base, .. } | Self::Https { base, .. } => base,
            Self::Unix(_) | Self::Cluster(_) => "http://localhost",
        }
    }

    /// Whether it is the default address.
    pub fn is_default(&self) -> bool {
        matches!(self, Self::Http { base, .. } if base == DEFAULT)
    }

    /// The flags with which another command line finds it, each with a space before it; none for the default.
    pub fn flags(&self) -> String {
        match self {
            Self::Cluster(name) => name.flags.clone(),
            Self::Https { authority: Some(file), .. } => {
                format!(" --server {self} --certificate-authority {}", file.display())
            }
            _ if self.is_default() => String::new(),
            _ => format!(" --server {self}"),
        }
    }

    /// Whether its host names the loopback interface of this machine, and nothing but that identifies it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Cluster(_) | Self::Https { .. } => false,
            Self::Http { host, .. } => {
                let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

/// A text that is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected https://HOST[:PORT][/PATH], http://HOST[:PORT] or unix:/PATH, for example {DEFAULT}")]
pub struct InvalidServer(String);

impl Default for Server {
    /// Where dev mode listens unless it is given another address.
    fn default() -> Self {
        Self::Http { base: DEFAULT.to_owned(), host: "127.0.0.1".to_owned(), port: 7980 }
    }
}

impl FromStr for Server {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let wrong = |what: &str| InvalidServer(what.to_owned());
        // An empty environment variable counts as unset.
        let text = if text.is_empty() { DEFAULT } else { text };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(wrong("the path is not absolute"))
            };
        }
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let base = with_scheme.strip_suffix('/').unwrap_or(&with_scheme).to_owned();
        let uri: Uri = base.parse().map_err(|error| wrong(&format!("not a URL ({error})")))?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("unknown scheme")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host"))?.to_owned();
        if uri.query().is_some() || base.contains('#') {
            return Err(wrong("a query or fragment"));
        }
        if uri.path() != "/" && !is_https {
            return Err(wrong("a path, which only an address with https:// can have"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a user; put a token into a file and name it with --token-file"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().ends_with(':')) {
            return Err(wrong("no port after the colon"));
        }
        Ok(if is_https {
            let base = base.trim_end_matches('/').to_owned();
            Self::Https { base, host, port: uri.port_u16().unwrap_or(443), authority: None }
        } else {
            Self::Http { base, host, port: uri.port_u16().unwrap_or(80) }
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { base, .. } | Self::Https { base, .. } => f.write_str(base),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Cluster(name) => write!(f, "{} ({})", name.address, name.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_address_with_and_without_scheme_and_slash() {
        for text in ["http://127.0.0.1:7980", "127.0.0.1:7980", "http://127.0.0.1:7980/", "localhost:7980"] {
            let server: Server = text.parse().unwrap();
            assert!(server.base().starts_with("http://") && server.base().ends_with(":7980"), "{server}");
            assert!(server.is_local());
        }
        assert!(!"http://127.0.0.1.evil.test".parse::<Server>().unwrap().is_local());
        assert!("http://[::1]:80".parse::<Server>().unwrap().is_local());
    }

    #[test]
    fn empty_text_is_the_default_address() {
        assert!("".parse::<Server>().unwrap().is_default());
    }

    #[test]
    fn accepts_absolute_path_of_a_socket() {
        for text in ["unix:/run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(text.parse::<Server>().unwrap(), Server::Unix("/run/x.sock".into()));
        }
        assert!("unix:x.sock".parse::<Server>().unwrap_err().to_string().contains("not absolute"));
    }

    #[test]
    fn rejects_anything_else_with_the_expected_form() {
        for text in [
            "ftp://a",
            "http://",
            "https://",
            "http://a/b",
            "http://a?b",
            "https://a/b?c",
            "https://a/#b",
            "http://u:p@a",
            "https://u@a/b",
            "https://a:/b",
            "a b",
        ] {
            let error = text.parse::<Server>().unwrap_err().to_string();
            assert!(error.contains("expected https://HOST[:PORT][/PATH], http://HOST"), "{text:?}: {error}");
        }
    }

    #[test]
    fn accepts_https_with_a_path() {
        for (text, expected, at) in [
            ("https://ops.example.com", "https://ops.example.com", 443),
            ("https://ops.example.com:8443/", "https://ops.example.com:8443", 8443),
            ("https://ops.example.com/sentinel/", "https://ops.example.com/sentinel", 443),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!(server.base(), expected);
            assert_eq!(server.flags(), format!(" --server {expected}"));
            let Server::Https { host, port, .. } = &server else { panic!("{server:?}") };
            assert_eq!((host.as_str(), *port), ("ops.example.com", at));
        }
        // Who it is is proven by its certificate, not by the owner of a local port.
        assert!(!"https://127.0.0.1:1".parse::<Server>().unwrap().is_local());
    }
}
