//! Whether a request is answered at all, decided by its head.
//!
//! Each listener has a [`Door`]: which part of the API it serves, and to whom. In dev mode the TCP listener requires the
//! bearer token of its owner, and the Unix socket the owner's credentials. In a cluster callers are people whom the API server
//! knows (`callers`); without that the API listens on loopback and answers only requests that name this host.
//!
//! A browser on this machine would forward requests of foreign pages. The guard checks what such a page cannot forge:
//! `Host` (DNS rebinding), `Origin`, which must equal ours with its port, and on each write a header that no form of
//! another site can send.
//!
//! The web page has no data: it needs no token, and a link on any site may lead to it. What it loads comes from the page.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::error::{ApiError, Reason};
use super::table::Operation;
use crate::identity::credentials::bearer_of_person;
use crate::identity::people::People;

const HOSTS: &str = "localhost, 127.0.0.1 (any 127.x.y.z), [::1]";

pub use sentinel_api::OWN_HEADER;

/// The part of the API that a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// The whole API, and the web page.
    Everything,
    /// The aggregated API, for the API server.
    Aggregated,
    /// Liveness, readiness and metrics; for probes and scrapers.
    ProbesAndMetrics,
}

/// Who may use a listener.
#[derive(Debug, Clone)]
pub enum Access {
    /// Every process that can connect.
    Open,
    /// Processes that the Unix socket admits.
    Socket,
    /// Holders of this token.
    Bearer(Secret),
    /// People whom the API server knows, as far as it allows what they ask.
    People(Arc<People>),
}

/// What a listener serves, and to whom.
#[derive(Debug, Clone)]
pub struct Door {
    /// Which part of the API.
    pub surface: Surface,
    /// Who may use it.
    pub access: Access,
}

impl Door {
    /// To the whole API.
    pub fn of_api(access: Access) -> Self {
        Self { surface: Surface::Everything, access }
    }
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

/// The part of a request's head that the guard checks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    /// The authority of the request target, where it has one.
    pub(super) authority: Option<&'a Authority>,
    pub(super) headers: &'a HeaderMap,
}

/// Refuses a request that names another host, comes from a page of another site, or lacks the required credentials.
///
/// # Errors
/// 421 for a foreign host, 403 for a foreign origin, 401 without the token.
pub(super) fn check(access: &Access, operation: Operation, head: Head<'_>) -> Result<(), ApiError> {
    if let Access::People(people) = access {
        return origin_of_people(people, operation, head);
    }
    let host = host(head)?;
    let arrival = arrival_of(operation, head.headers);
    origin(&ours("http", host), head.headers, arrival)?;
    let is_public = operation.is_page() || matches!(operation, Operation::Health | Operation::Ready);
    match access {
        Access::Bearer(secret) if !is_public => token(secret, head.headers),
        Access::Open if is_write(head.method) => own_header(head.headers),
        _ => Ok(()),
    }
}

pub(super) fn is_write(method: &Method) -> bool {
    !(method == Method::GET || method == Method::HEAD || method == Method::OPTIONS)
}

/// The host that the request names, exactly once; `None` in HTTP/1.0, which browsers do not use.
fn host(head: Head<'_>) -> Result<Option<&str>, ApiError> {
    let foreign = |text: &str, message: String| {
        ApiError::new(StatusCode::MISDIRECTED_REQUEST, Reason::ForeignHost, message).at("host", text, HOSTS)
    };
    let mut values = head.headers.get_all(HOST).iter();
    let named = values.next().map(|value| value.to_str().unwrap_or(""));
    if values.next().is_some() {
        return Err(foreign("", "the header Host is given more than once".to_owned()));
    }
    for text in named.into_iter().chain(head.authority.map(Authority::as_str)) {
        if !is_loopback(text) {
            return Err(foreign(text, format!("unknown host; this API answers for {HOSTS}")));
        }
    }
    Ok(head.authority.map(Authority::as_str).or(named))
}

/// How a request of a browser came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// A person opened the web page, by a link or by its address.
    ByLink,
    /// A page asks, which must be ours.
    FromPage,
}

/// Whether a person followed a link, or typed the address: the answer is shown in a window of its own, and the page with the
/// link cannot read it.
fn is_navigation(headers: &HeaderMap) -> bool {
    let is = |name, expected| headers.get(name).is_some_and(|value: &HeaderValue| value == expected);
    is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

/// People prove themselves in each request, so the name by which they reach this host does not matter; a page of another site
/// may still not make them ask. A browser that calls a request same-origin is believed, since proxies on the way may each have
/// named the host anew, and no page can send that header itself. Otherwise the origin is that of the host that the request names,
/// of the one that a proxy was asked for, or one that the administrator named.
fn origin_of_people(people: &People, operation: Operation, head: Head<'_>) -> Result<(), ApiError> {
    let mut sites = head.headers.get_all("sec-fetch-site").iter();
    if sites.next().is_some_and(|site| site == "same-origin") && sites.next().is_none() {
        return Ok(());
    }
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = head.authority.map(Authority::as_str).or_else(|| text(HOST.as_str()));
    let mut allowed = people.origins().to_vec();
    for host in host.into_iter().chain(text("x-forwarded-host")) {
        allowed.extend(ours("https", Some(host)));
        allowed.extend(ours("http", Some(host)));
    }
    origin(&allowed, head.headers, arrival_of(operation, head.headers))
}

fn arrival_of(operation: Operation, headers: &HeaderMap) -> Arrival {
    if operation == Operation::Page && is_navigation(headers) { Arrival::ByLink } else { Arrival::FromPage }
}

fn ours(scheme: &str, host: Option<&str>) -> Vec<String> {
    host.map(|host| format!("{scheme}://{host}")).into_iter().collect()
}

fn origin(allowed: &[String], headers: &HeaderMap, arrival: Arrival) -> Result<(), ApiError> {
    let foreign = |value: &str, message: &str| {
        let ours = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        ApiError::new(StatusCode::FORBIDDEN, Reason::ForeignOrigin, message).at("origin", value, ours)
    };
    let mut values = headers.get_all(ORIGIN).iter();
    let given = values.next().map(|value| value.to_str().unwrap_or(""));
    if values.next().is_some() {
        return Err(foreign("", "the header Origin is given more than once"));
    }
    if let Some(given) = given
        && !allowed.iter().any(|ours| given.eq_ignore_ascii_case(ours))
    {
        return Err(foreign(given, "requests from pages of other sites, and of other ports, are refused"));
    }
    // Browsers send this even where they send no Origin.
    for value in headers.get_all("sec-fetch-site") {
        let value = value.to_str().unwrap_or("");
        if value != "same-origin" && value != "none" && arrival == Arrival::FromPage {
            return Err(foreign(
                value,
                "requests from pages of other sites, and of other ports, are refused",
            ));
        }
    }
    Ok(())
}

/// A form can send neither this header nor a JSON body.
pub(super) fn own_header(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|declared| {
        let media_type = declared.split(';').next().unwrap_or("").trim();
        media_type.eq_ignore_ascii_case("application/json")
    });
    if is_json || headers.contains_key(OWN_HEADER) {
        return Ok(());
    }
    let message = "a request that changes something requires the header Sentinel-Request: 1, which a form of a web page cannot send";
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
    let given = bearer_of_person(headers).map_err(|error| refused(error.to_string()))?;
    // Comparing digests takes a time that reveals nothing about the token.
    if Secret::of(given) == *secret { Ok(()) } else { Err(refused("wrong token".to_owned())) }
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
    fn requests_for_this_host_pass() {
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
    fn foreign_host_is_refused() {
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
    fn foreign_origin_is_refused() {
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
    fn write_requires_what_a_form_cannot_send() {
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
    fn a_link_on_another_site_leads_to_the_page_and_to_nothing_else() {
        let visit = |operation, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())]);
            map.insert("sec-fetch-site", "cross-site".parse().unwrap());
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            let head = Head { method: &Method::GET, authority: None, headers: &map };
            check(&Access::Bearer(Secret::of("s3cret")), operation, head).err().map(|error| error.status)
        };
        let link = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert_eq!(visit(Operation::Page, &link), None);
        assert_eq!(visit(Operation::ListTasks, &link), FORBIDDEN);
        assert_eq!(visit(Operation::PageAsset, &link), FORBIDDEN);
        for inside in ["iframe", "script", "embed", "empty"] {
            let headers = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", inside)];
            assert_eq!(visit(Operation::Page, &headers), FORBIDDEN, "{inside}");
        }
        assert_eq!(visit(Operation::Page, &[("sec-fetch-mode", "no-cors")]), FORBIDDEN);
        let foreign = [link[0], link[1], ("origin", "http://evil.test")];
        assert_eq!(visit(Operation::Page, &foreign), FORBIDDEN);
    }

    #[test]
    fn the_page_needs_no_token() {
        let headers = HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())]);
        let head = Head { method: &Method::GET, authority: None, headers: &headers };
        let door = Access::Bearer(Secret::of("s3cret"));
        assert!(check(&door, Operation::Page, head).is_ok());
        assert!(check(&door, Operation::PageAsset, head).is_ok());
        assert_eq!(check(&door, Operation::OpenApi, head).unwrap_err().status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn wrong_or_missing_token_is_refused() {
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
