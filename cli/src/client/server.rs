//! Where a server is.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// Where the server is unless said otherwise.
pub(crate) const DEFAULT: &str = "http://127.0.0.1:7980";

/// The address of a server: `http://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server(String);

impl Server {
    /// What every request's URL begins with; no slash at its end.
    pub(crate) fn base(&self) -> &str {
        &self.0
    }

    /// The server that listens on this address.
    pub(crate) fn at(address: std::net::SocketAddr) -> Self {
        Self(format!("http://{address}"))
    }

    /// Whether it is where one looks unless told otherwise.
    pub(crate) fn is_default(&self) -> bool {
        self.0 == DEFAULT
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what}; expected http://HOST[:PORT], for example {DEFAULT}");
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let with_scheme = with_scheme.strip_suffix('/').unwrap_or(&with_scheme).to_owned();
        let uri: Uri = with_scheme.parse().map_err(|error| wrong(&format!("not a URL ({error})")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("https is not spoken yet, the API answers on loopback only")),
            _ => return Err(wrong("unknown scheme")),
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(wrong("no host"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("a path or query"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().ends_with(':')) {
            return Err(wrong("no port behind the colon"));
        }
        Ok(Self(with_scheme))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_expected() {
        for text in ["https://a", "ftp://a", "http://", "http://a/b", "http://a?b", "", "a b"] {
            let error = text.parse::<Server>().unwrap_err();
            assert!(error.contains("expected http://HOST[:PORT]"), "{text:?}: {error}");
        }
    }
}
