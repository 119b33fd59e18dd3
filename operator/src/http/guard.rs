//! Whether a request may be looked at at all.
//!
//! Nobody is authenticated yet; what protects the API is that it listens on loopback. A browser on this machine
//! would carry a foreign page's requests in, so the two headers that a page cannot forge are checked: `Host` (DNS
//! rebinding) and `Origin` (cross-site requests).

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, StatusCode};

use super::error::{ApiError, Reason};

const HOSTS: &str = "localhost, 127.0.0.1 (any 127.x.y.z), [::1]";

/// Refuses what names another host, or comes from a page of another site.
///
/// # Errors
/// 421 for a foreign host, 403 for a foreign origin.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    // Without a Host (HTTP/1.0) nothing was rebound.
    if let Some(host) = headers.get(HOST) {
        let text = host.to_str().unwrap_or("");
        if !is_loopback(text) {
            let message = format!("this API answers only as {HOSTS}");
            return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, Reason::ForeignHost, message)
                .at("host", text, HOSTS));
        }
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let text = origin.to_str().unwrap_or("");
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        if !host.is_some_and(is_loopback) {
            let message = "requests from pages of other sites are refused";
            return Err(ApiError::new(StatusCode::FORBIDDEN, Reason::ForeignOrigin, message)
                .at("origin", text, HOSTS));
        }
    }
    Ok(())
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

    fn status(host: &str, origin: Option<&str>) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(&headers).err().map(|error| error.status)
    }

    #[test]
    fn this_host_is_answered() {
        for host in
            ["localhost", "localhost:7980", "127.0.0.1:7980", "127.1.2.3", "[::1]:7980", "[::1]", "LOCALHOST"]
        {
            assert_eq!(status(host, None), None, "{host}");
        }
        assert_eq!(status("localhost", Some("http://localhost:3000")), None);
    }

    #[test]
    fn a_foreign_host_or_origin_is_refused() {
        for host in [
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test:80",
            "10.0.0.1",
            "[::2]",
            "localhost:x",
            "",
        ] {
            assert_eq!(status(host, None), Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        for origin in [
            "null",
            "http://evil.test",
            "http://localhost.evil.test",
            "file://",
            "https://localhost@evil.test",
        ] {
            assert_eq!(status("localhost", Some(origin)), Some(StatusCode::FORBIDDEN), "{origin}");
        }
    }
}
