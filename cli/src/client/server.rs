//! Where a server is.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

/// Where the server is by default.
pub(crate) const DEFAULT: &str = "http://127.0.0.1:7980";

/// The address of a server: `http://HOST[:PORT]` or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// Over TCP; when it is a dev mode of this user on this machine, over its socket.
    Http {
        /// What every request's URL begins with; no slash at its end.
        base: String,
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// Over a Unix socket.
    Unix(PathBuf),
}

impl Server {
    /// What every request's URL begins with; no slash at its end.
    pub(crate) fn base(&self) -> &str {
        match self {
            Self::Http { base, .. } => base,
            Self::Unix(_) => "http://localhost",
        }
    }

    /// Whether it is the default one.
    pub(crate) fn is_default(&self) -> bool {
        matches!(self, Self::Http { base, .. } if base == DEFAULT)
    }

    /// Whether its host is this machine's loopback, by its name.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Http { host, .. } => {
                let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("{what}; expected http://HOST[:PORT] or unix:/PATH, for example {DEFAULT}");
        // A variable that is set to nothing is not set.
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
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("https is not spoken yet, the API answers on loopback only")),
            _ => return Err(wrong("unknown scheme")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host"))?.to_owned();
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("a path or query"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a user; a token belongs into a file, see --token-file"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().ends_with(':')) {
            return Err(wrong("no port behind the colon"));
        }
        let port = uri.port_u16().unwrap_or(80);
        Ok(Self::Http { base, host, port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { base, .. } => f.write_str(base),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_and_without_scheme_and_slash() {
        for text in ["http://127.0.0.1:7980", "127.0.0.1:7980", "http://127.0.0.1:7980/", "localhost:7980"] {
            let server: Server = text.parse().unwrap();
            assert!(server.base().starts_with("http://") && server.base().ends_with(":7980"), "{server}");
            assert!(server.is_local());
        }
        assert!(!"http://127.0.0.1.evil.test".parse::<Server>().unwrap().is_local());
        assert!("http://[::1]:80".parse::<Server>().unwrap().is_local());
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_is_not_set() {
        assert!("".parse::<Server>().unwrap().is_default());
    }

    #[test]
    fn a_socket_is_taken_by_its_absolute_path() {
        for text in ["unix:/run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(text.parse::<Server>().unwrap(), Server::Unix("/run/x.sock".into()));
        }
        assert!("unix:x.sock".parse::<Server>().unwrap_err().contains("not absolute"));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_expected() {
        for text in ["https://a", "ftp://a", "http://", "http://a/b", "http://a?b", "http://u:p@a", "a b"] {
            let error = text.parse::<Server>().unwrap_err();
            assert!(error.contains("expected http://HOST[:PORT]"), "{text:?}: {error}");
        }
    }
}
