//! Bearer tokens in requests.

use http::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest as _, Sha256};

use super::error::AuthError;

/// Longest accepted token, bytes. A bound service account's token has about 1 KiB.
pub const MAX_TOKEN: usize = 8 << 10;

/// Has the token where a proxy between client and operator takes `Authorization` for itself, as the API server does when
/// it forwards to a Service. A page of another site cannot send it without our consent, which no site gets.
pub const OWN_AUTHORIZATION: HeaderName = HeaderName::from_static("sentinel-authorization");

/// The bearer token of a request, from its `Authorization` header.
///
/// # Errors
/// [`AuthError::Missing`] without a header, [`AuthError::Malformed`] for anything but exactly one bearer token.
pub fn bearer(headers: &http::HeaderMap) -> Result<&str, AuthError> {
    bearer_in(headers, &AUTHORIZATION)
}

/// The bearer token of a person's request, from [`OWN_AUTHORIZATION`] or else from `Authorization`.
///
/// # Errors
/// As [`bearer`].
pub fn bearer_of_person(headers: &http::HeaderMap) -> Result<&str, AuthError> {
    let name = if headers.contains_key(OWN_AUTHORIZATION) { OWN_AUTHORIZATION } else { AUTHORIZATION };
    bearer_in(headers, &name)
}

fn bearer_in<'a>(headers: &'a http::HeaderMap, name: &HeaderName) -> Result<&'a str, AuthError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed("the header occurs more than once"));
    }
    let value = value.to_str().map_err(|_| AuthError::Malformed("it is not plain text"))?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthError::Malformed("the token is missing"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Malformed("its scheme is not Bearer"));
    }
    let token = token.trim();
    if token.is_empty() {
        return Err(AuthError::Malformed("the token is empty"));
    }
    if token.len() > MAX_TOKEN {
        return Err(AuthError::Malformed("the token is longer than 8 KiB"));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(AuthError::Malformed("the token contains characters that are not allowed in one"));
    }
    Ok(token)
}

pub(crate) type TokenHash = [u8; 32];

/// Tokens are kept only as digests.
pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> http::HeaderMap {
        values.iter().map(|v| (AUTHORIZATION, v.parse().unwrap())).collect()
    }

    #[test]
    fn accepts_exactly_one_bearer_token() {
        assert_eq!(bearer(&headers(&["Bearer abc"])).unwrap(), "abc");
        assert_eq!(bearer(&headers(&["bearer  abc "])).unwrap(), "abc");
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for bad in [
            &[][..],
            &["Bearer "],
            &["Bearer"],
            &[""],
            &["Basic abc"],
            &["Bearer a b"],
            &["Bearer a", "Bearer a"],
            &[long.as_str()],
        ] {
            let error = bearer(&headers(bad)).unwrap_err();
            assert_eq!(error.status(), http::StatusCode::UNAUTHORIZED, "{bad:?}: {error}");
            assert!(!error.is_retryable(), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_proxys_authorization_is_not_taken_for_the_persons() {
        let mut both = headers(&["Bearer proxy"]);
        both.insert(OWN_AUTHORIZATION, "Bearer mine".parse().unwrap());
        assert_eq!(bearer_of_person(&both).unwrap(), "mine");
        assert_eq!(bearer_of_person(&headers(&["Bearer abc"])).unwrap(), "abc");
        both.insert(OWN_AUTHORIZATION, "".parse().unwrap());
        assert_eq!(bearer_of_person(&both).unwrap_err().category(), "Malformed");
        assert_eq!(bearer(&both).unwrap(), "proxy");
    }
}
