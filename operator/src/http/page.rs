//! The web page: files of the crate `sentinel-viewer`, which are a part of this program. They have no data, so they need no
//! token. What the page shows, it reads from the API, with the token of its reader.

use http::header::{ACCEPT, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use sentinel_viewer::{ASSETS_FOLDER, BasePath, PLACES, POLICY};

use super::answer::{Answer, Body};
use super::encoding::accepts_gzip;
use super::error::{ApiError, Reason};
use super::request::Request;
use super::table::{Found, PAGE};

/// An ingress that strips its path names it here.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The media type of the page.
const HTML: &str = "text/html; charset=utf-8";

/// Asked again each time: a new release has other assets.
const REVALIDATED: &str = "no-cache";

/// The name of an asset changes with its content.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The page for an unknown path that a person opened in a browser; programs get the error. Below `/api` everyone does.
///
/// # Errors
/// The same error, where it is for a program.
pub(super) fn instead_of(error: ApiError, request: &Request) -> Result<Found, ApiError> {
    let place = request.path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let is_of_programs = place == "api" || place == ASSETS_FOLDER;
    let is_read = request.method == Method::GET || request.method == Method::HEAD;
    let accept = request.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if error.body.reason == Reason::UnknownPath && is_read && !is_of_programs && accept.contains("text/html")
    {
        return Ok(Found { route: &PAGE, parts: vec![place.to_owned()] });
    }
    Err(error)
}

/// The page: 200 at its addresses, 404 elsewhere, 304 where the reader has it.
pub(super) fn page(found: &Found, base: &BasePath, request: &Request) -> Answer {
    let root = BasePath::default();
    // Addresses of the page are below the path that the browser asked for, which an ingress may have stripped.
    let is_forwarded = || {
        request
            .headers
            .get(FORWARDED_PREFIX)
            .is_some_and(|value| value.as_bytes() == base.to_string().as_bytes())
    };
    let base = if request.is_below_base || is_forwarded() { base } else { &root };
    let page = sentinel_viewer::page(base);
    let is_known = found.parts.first().is_some_and(|place| PLACES.contains(&place.as_str()));
    let tag = format!("\"{}\"", page.tag);
    let answer = if !is_known {
        Answer::whole(StatusCode::NOT_FOUND, HTML, page.html)
    } else if is_held(&request.headers, &tag) {
        Answer::whole(StatusCode::NOT_MODIFIED, HTML, "")
    } else {
        Answer::whole(StatusCode::OK, HTML, page.html)
    };
    // An answer that depends on a header is one that caches must tell apart.
    guarded(answer).with("etag", tag).with("cache-control", REVALIDATED).with("vary", FORWARDED_PREFIX)
}

/// A file that the page loads.
///
/// # Errors
/// 404 for a name that no file has, such as one of an earlier release.
pub(super) fn asset(name: &str, request: &Request) -> Result<Answer, ApiError> {
    let Some(asset) = sentinel_viewer::find(name) else {
        return Err(ApiError::not_found("no file of this page has that name; reload the page"));
    };
    let is_gzip = accepts_gzip(&request.headers);
    // The same file in another encoding is another entity.
    let tag = |is_gzip| format!("\"{}{}\"", asset.hash, if is_gzip { "-gzip" } else { "" });
    let is_held = is_held(&request.headers, &tag(true)) || is_held(&request.headers, &tag(false));
    let mut answer = Answer::whole(StatusCode::OK, asset.media_type, "");
    if is_held {
        answer.status = StatusCode::NOT_MODIFIED;
    } else if is_gzip {
        answer.body = Body::Static(asset.gzip);
        answer = answer.with("content-encoding", "gzip");
    } else {
        answer.body = Body::Static(asset.bytes);
    }
    Ok(guarded(answer)
        .with("etag", tag(is_gzip))
        .with("cache-control", IMMUTABLE)
        .with("vary", "accept-encoding"))
}

/// The headers of every answer of the page.
fn guarded(answer: Answer) -> Answer {
    answer
        .with("content-security-policy", POLICY)
        .with("referrer-policy", "no-referrer")
        .with("cross-origin-opener-policy", "same-origin")
        .with("cross-origin-resource-policy", "same-origin")
        .with("x-frame-options", "DENY")
}

/// Whether the reader has the entity with this tag.
fn is_held(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|held| held == "*" || held.trim_start_matches("W/") == tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&'static str, &str)]) -> Request {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Request { path: path.to_owned(), headers: headers.collect(), ..Request::default() }
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        answer.headers.iter().find(|(has, _)| has == name).map(|(_, value)| value.to_str().unwrap())
    }

    fn text(answer: &Answer) -> &str {
        match &answer.body {
            Body::Whole(bytes) => std::str::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn found(place: &str) -> Found {
        Found { route: &PAGE, parts: vec![place.to_owned()] }
    }

    #[test]
    fn gzip_is_sent_only_to_readers_that_take_it() {
        let asset_of = |accept: &str| {
            let name = sentinel_viewer::assets()[0].name;
            asset(name, &request("", &[("accept-encoding", accept)])).unwrap()
        };
        for accept in ["gzip", "br, GZIP;q=0.1", "deflate, *", "x-gzip"] {
            assert_eq!(header(&asset_of(accept), "content-encoding"), Some("gzip"), "{accept}");
        }
        for accept in ["", "identity", "gzip;q=0", "gzip; q=0, *", "br", "*;q=0", "gzip;q=x"] {
            assert_eq!(header(&asset_of(accept), "content-encoding"), None, "{accept}");
        }
    }

    #[test]
    fn what_a_reader_has_is_not_sent_again() {
        let known = sentinel_viewer::assets()[0];
        for held in
            [format!("\"{}\"", known.hash), format!("\"x\", W/\"{}-gzip\"", known.hash), "*".to_owned()]
        {
            let answer = asset(known.name, &request("", &[("if-none-match", &held)])).unwrap();
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{held}");
            assert_eq!(header(&answer, "content-encoding"), None);
        }
        let page_of = |headers: &[(&'static str, &str)]| {
            page(&found("tasks"), &BasePath::default(), &request("/tasks", headers))
        };
        let tag = header(&page_of(&[]), "etag").unwrap().to_owned();
        assert_eq!(page_of(&[("if-none-match", &tag)]).status, StatusCode::NOT_MODIFIED);
        assert_eq!(page_of(&[("if-none-match", "\"other\"")]).status, StatusCode::OK);
    }

    #[test]
    fn addresses_are_below_the_path_that_the_browser_asked_for() {
        let base: BasePath = "/ops/sentinel".parse().unwrap();
        let below = Request { is_below_base: true, ..request("/tasks", &[]) };
        let forwarded = request("/tasks", &[("x-forwarded-prefix", "/ops/sentinel")]);
        for request in [below, forwarded] {
            let answer = page(&found("tasks"), &base, &request);
            assert!(text(&answer).contains("<base href=\"/ops/sentinel/\">"), "{answer:?}");
        }
        for headers in [&[][..], &[("x-forwarded-prefix", "/evil")]] {
            let answer = page(&found("tasks"), &base, &request("/tasks", headers));
            assert!(text(&answer).contains("<base href=\"/\">"), "{answer:?}");
        }
    }

    #[test]
    fn people_see_a_page_for_an_unknown_path_and_programs_an_error() {
        let unknown = || ApiError::new(StatusCode::NOT_FOUND, Reason::UnknownPath, "unknown");
        let html = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
        let instead = instead_of(unknown(), &request("/task", &html)).unwrap();
        let answer = page(&instead, &BasePath::default(), &request("/task", &html));
        assert_eq!((answer.status, answer.content_type), (StatusCode::NOT_FOUND, HTML));
        for (path, headers) in [
            ("/task", &[("accept", "*/*")][..]),
            ("/task", &[]),
            ("/api/v2/x", &html),
            ("/assets/a/b", &html),
        ] {
            assert!(instead_of(unknown(), &request(path, headers)).is_err(), "{path} {headers:?}");
        }
        let other = ApiError::not_found("no Task");
        assert!(instead_of(other, &request("/task", &html)).is_err());
    }
}
