//! Whether a request may be answered at all, decided by its head alone.
//!
//! Each listener has a [`Door`]: what it offers, and to whom. In dev mode the TCP listener asks for the owner's bearer
//! token and the Unix socket is the owner's by its peer credentials. In a cluster people are not authenticated yet, so that
//! the API listens on loopback and only answers requests that name this host.
//!
//! A browser on this machine would carry the requests of a foreign page in. What such a page cannot forge is checked:
//! `Host` (DNS rebinding), `Origin`, which must be ours exactly, port included, and on each write a header that no form
//! of another site can send.

use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::error::{ApiError, Reason};
use super::table::Operation;
use crate::gateway::auth::bearer;

const HOSTS: &str = "localhost, 127.0.0.1 (any 127.x.y.z), [::1]";

/// The header by which a program says that it, and no form in a browser, makes a request.
pub const OWN_HEADER: &str = "sentinel-request";

/// Which part of the API a listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// All of it.
    Everything,
    /// Liveness, readiness and metrics; for a listener that probes and scrapers reach.
    ProbesAndMetrics,
}

/// To whom a listener offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// To everyone who can connect.
    Open,
    /// To those whom the Unix socket lets in.
    Socket,
    /// To those who hold this token.
    Bearer(Secret),
}

/// What a listener offers, and to whom.
#[derive(Debug, Clone)]
pub struct Door {
    /// Which part of the API.
    pub surface: Surface,
    /// To whom.
    pub access: Access,
}

/// A token, kept as its digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The head of a request, as far as the guard reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    /// The authority of the request's target, where it has one.
    pub(super) authority: Option<&'a Authority>,
    pub(super) headers: &'a HeaderMap,
}

/// Refuses what names another host, comes from a page of another site, or lacks what this door asks for.
///
/// # Errors
/// 421 for a foreign host, 403 for a foreign origin, 401 without the token.
pub(super) fn check(access: &Access, operation: Operation, head: Head<'_>) -> Result<(), ApiError> {
    let host = host(head)?;
    origin(host, head.headers)?;
    let is_probe = matches!(operation, Operation::Health | Operation::Ready);
    match access {
        Access::Bearer(secret) if !is_probe => token(secret, head.headers),
        Access::Open if is_write(head.method) => own_header(head.headers),
        _ => Ok(()),
    }
}

fn is_write(method: &Method) -> bool {
    !(method == Method::GET || method == Method::HEAD || method == Method::OPTIONS)
}

/// The host that the request names, once; none for HTTP/1.0, where nothing was rebound.
fn host(head: Head<'_>) -> Result<Option<&str>, ApiError> {
    let foreign = |text: &str, message: String| {
        ApiError::new(StatusCode::MISDIRECTED_REQUEST, Reason::ForeignHost, message).at("host", text, HOSTS)
    };
    let mut values = head.headers.get_all(HOST).iter();
    let named = values.next().map(|value| value.to_str().unwrap_or(""));
    if values.next().is_some() {
        return Err(foreign("", "the header Host is there more than once".to_owned()));
    }
    for text in named.into_iter().chain(head.authority.map(Authority::as_str)) {
        if !is_loopback(text) {
            return Err(foreign(text, format!("this API answers only as {HOSTS}")));
        }
    }
    Ok(head.authority.map(Authority::as_str).or(named))
}

fn origin(host: Option<&str>, headers: &HeaderMap) -> Result<(), ApiError> {
    let ours = host.map_or_else(|| "none".to_owned(), |host| format!("http://{host}"));
    let foreign = |value: &str, message: &str| {
        ApiError::new(StatusCode::FORBIDDEN, Reason::ForeignOrigin, message).at("origin", value, ours.clone())
    };
    let mut values = headers.get_all(ORIGIN).iter();
    let given = values.next().map(|value| value.to_str().unwrap_or(""));
    if values.next().is_some() {
        return Err(foreign("", "the header Origin is there more than once"));
    }
    if let Some(given) = given
        && !given.eq_ignore_ascii_case(&ours)
    {
        return Err(foreign(given, "requests from pages of other sites, and of other ports, are refused"));
    }
    // Browsers send this too, also where they send no Origin.
    for value in headers.get_all("sec-fetch-site") {
        let value = value.to_str().unwrap_or("");
        if value != "same-origin" && value != "none" {
            return Err(foreign(
                value,
                "requests from pages of other sites, and of other ports, are refused",
            ));
        }
    }
    Ok(())
}

/// A form can send neither our header nor a body that is JSON.
fn own_header(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|declared| {
        let media_type = declared.split(';').next().unwrap_or("").trim();
        media_type.eq_ignore_ascii_case("application/json")
    });
    if is_json || headers.contains_key(OWN_HEADER) {
        return Ok(());
    }
    let message = "a request that changes something needs the header Sentinel-Request: 1, which no form of a web page can send";
    Err(ApiError::new(StatusCode::FORBIDDEN, Reason::ForeignOrigin, message).at(OWN_HEADER, "", "1"))
}

fn token(secret: &Secret, headers: &HeaderMap) -> Result<(), ApiError> {
    let refused = |why: String| {
        let message = format!("failed to authenticate: {why}");
        let allowed = "Authorization: Bearer TOKEN, with the token that the operator was started with";
        ApiError::new(StatusCode::UNAUTHORIZED, Reason::Unauthorized, message).at(
            "authorization",
            "",
            allowed,
        )
    };
    let given = bearer(headers).map_err(|error| refused(error.to_string()))?;
    // Digests are compared, so that the time this takes says nothing about the token.
    if Secret::of(given) == *secret {
        Ok(())
    } else {
        Err(refused("the token is not the one of this API".to_owned()))
    }
}

fn is_loopback(host: &str) -> bool {
    let name = if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| address == "::1" && is_port(port));
    } else {
        host.split_once(':').map_or(host, |(name, port)| if is_port_digits(port) { name } else { "" })
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(is_port_digits)
}

fn is_port_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(access: &Access, method: &Method, headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let head = Head { method, authority: None, headers: &map };
        check(access, Operation::ListTasks, head).err().map(|error| error.status)
    }

    fn get(headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        status(&Access::Open, &Method::GET, headers)
    }

    const FORBIDDEN: Option<StatusCode> = Some(StatusCode::FORBIDDEN);

    #[test]
    fn this_host_is_answered() {
        for host in
            ["localhost", "localhost:7980", "127.0.0.1:7980", "127.1.2.3", "[::1]:7980", "[::1]", "LOCALHOST"]
        {
            assert_eq!(get(&[("host", host)]), None, "{host}");
            let origin = format!("http://{host}");
            assert_eq!(get(&[("host", host), ("origin", &origin)]), None, "{origin}");
        }
        assert_eq!(get(&[("host", "localhost"), ("sec-fetch-site", "same-origin")]), None);
    }

    #[test]
    fn a_foreign_host_is_refused() {
        for host in [
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test:80",
            "10.0.0.1",
            "[::2]",
            "localhost:x",
            "",
        ] {
            assert_eq!(get(&[("host", host)]), Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(get(&twice), Some(StatusCode::MISDIRECTED_REQUEST));
        let headers = HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())]);
        let authority: Authority = "evil.test".parse().unwrap();
        let head = Head { method: &Method::GET, authority: Some(&authority), headers: &headers };
        let refused = check(&Access::Open, Operation::ListTasks, head).unwrap_err();
        assert_eq!(refused.status, StatusCode::MISDIRECTED_REQUEST);
    }

    #[test]
    fn an_origin_is_ours_exactly_or_refused() {
        for origin in [
            "null",
            "",
            "http://evil.test",
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:7980",
            "http://127.0.0.1:7980",
            "http://localhost:7980/",
            "http://localhost.evil.test:7980",
            "file://",
            "https://localhost@evil.test",
        ] {
            assert_eq!(get(&[("host", "localhost:7980"), ("origin", origin)]), FORBIDDEN, "{origin}");
        }
        let ours = ("origin", "http://localhost:7980");
        assert_eq!(get(&[("host", "localhost:7980"), ours, ours]), FORBIDDEN);
        assert_eq!(get(&[ours]), FORBIDDEN, "an origin and no host");
        for site in ["cross-site", "same-site", "x"] {
            assert_eq!(get(&[("host", "localhost"), ("sec-fetch-site", site)]), FORBIDDEN, "{site}");
        }
    }

    #[test]
    fn a_write_needs_what_no_form_can_send() {
        let post = |header: (&'static str, &str)| {
            status(&Access::Open, &Method::POST, &[("host", "localhost"), header])
        };
        for header in [
            ("accept", "*/*"),
            ("content-type", "text/plain"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("content-type", "multipart/form-data; application/json"),
        ] {
            assert_eq!(post(header), FORBIDDEN, "{header:?}");
        }
        assert_eq!(post(("sentinel-request", "1")), None);
        assert_eq!(post(("content-type", "application/json; charset=utf-8")), None);
        assert_eq!(status(&Access::Socket, &Method::DELETE, &[]), None, "no browser opens a Unix socket");
    }

    #[test]
    fn a_token_is_asked_for_and_compared() {
        let door = Access::Bearer(Secret::of("s3cret"));
        let with = |headers: &[(&'static str, &str)]| status(&door, &Method::GET, headers);
        let refused = Some(StatusCode::UNAUTHORIZED);
        assert_eq!(with(&[("authorization", "Bearer s3cret")]), None);
        assert_eq!(with(&[]), refused);
        for value in ["Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer", "s3cret"] {
            assert_eq!(with(&[("authorization", value)]), refused, "{value}");
        }
        let twice = [("authorization", "Bearer s3cret"), ("authorization", "Bearer s3cret")];
        assert_eq!(with(&twice), refused);
        assert_eq!(with(&[("sentinel-request", "1"), ("cookie", "s3cret")]), refused);
        assert!(!format!("{door:?}").contains("s3cret"));
    }
}
