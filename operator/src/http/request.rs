//! A request as handlers receive it.

use std::str::FromStr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use sentinel_api::path::unescape;

use super::error::{ApiError, Reason, shown};
use crate::identity::people::Caller;
use crate::server::Client;

/// Largest body of a request, bytes. A Task with the longest allowed script fits with room to spare.
pub const MAX_BODY: usize = 512 << 10;

/// Largest page of a list.
pub const MAX_PAGE: usize = 500;

/// Default page of a list.
const DEFAULT_PAGE: usize = 100;

/// A request with its whole body.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, still escaped, without the query and without the base path.
    pub path: String,
    /// Whether the path was below the base path.
    pub is_below_base: bool,
    /// The query, still escaped, without `?`.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The client whose connection it arrived on.
    pub client: Client,
    /// Who made it, where the listener asks for that.
    pub caller: Option<Caller>,
    /// The body, at most [`MAX_BODY`] bytes.
    pub body: Bytes,
}

impl Request {
    /// Refuses a body that is not declared as one of these media types.
    ///
    /// # Errors
    /// 415 naming the accepted media types.
    pub fn must_be(&self, allowed: &[&str]) -> Result<(), ApiError> {
        let declared = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media_type = declared.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        if allowed.contains(&media_type.as_str()) {
            return Ok(());
        }
        let allowed = allowed.join(", ");
        Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Reason::UnsupportedMediaType,
            format!("unsupported content-type {:?}; allowed: {allowed}", shown(declared)),
        )
        .at("content-type", declared, allowed))
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// 415 when it is not declared as JSON, 400 with line and column when it is invalid or repeats a field.
    pub fn json(&self) -> Result<serde_json::Value, ApiError> {
        self.must_be(&["application/json"])?;
        sentinel_protocol::unique::from_slice(&self.body).map_err(|error| {
            let text = if self.body.is_empty() {
                "the body is empty; a JSON object is expected".to_owned()
            } else {
                format!("the body cannot be read as JSON: {error}")
            };
            ApiError::new(StatusCode::BAD_REQUEST, Reason::InvalidJson, text).at(
                "body",
                &format!("line {}, column {}", error.line(), error.column()),
                "a JSON object",
            )
        })
    }
}

/// The query parameters of a request, each read once.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the query of a request.
    ///
    /// # Errors
    /// 400 when a parameter is unknown (the message lists the known ones), repeated, or has an invalid escape.
    pub fn parse(raw: &str, known: &[&str]) -> Result<Self, ApiError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |raw: &str| unescape(&raw.replace('+', " ")).filter(|text| !text.contains('\0'));
            let (Some(name), Some(value)) = (text(name), text(value)) else {
                return Err(ApiError::query(&shown(name), value, "UTF-8 text escaped as %XX"));
            };
            if !known.contains(&name.as_str()) {
                return Err(unknown(&name, known));
            }
            if pairs.iter().any(|(seen, _)| *seen == name) {
                return Err(ApiError::query(&name, &value, "one value; it is given twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The same with a default for a parameter.
    #[must_use]
    pub fn or(mut self, name: &str, value: &str) -> Self {
        if self.text(name).is_none() {
            self.0.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The text of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that parses as a `T`.
    ///
    /// # Errors
    /// 400 naming the parameter, its value and what is allowed.
    pub fn read<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, ApiError> {
        self.text(name)
            .map(|value| value.parse().map_err(|_| ApiError::query(name, value, allowed)))
            .transpose()
    }

    /// A parameter with a closed set of values.
    ///
    /// # Errors
    /// 400 naming the parameter, its value and the allowed ones.
    pub fn one_of<T: Copy>(&self, name: &str, values: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let found = values.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning);
        let names = || values.iter().map(|(name, _)| *name).filter(|name| !name.is_empty());
        let allowed = || names().collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| ApiError::query(name, value, allowed()))
    }

    /// Of these parameters, at most one is given.
    ///
    /// # Errors
    /// 400 naming two that are given.
    pub fn only_one(&self, names: &[&str]) -> Result<(), ApiError> {
        let mut given = names.iter().filter_map(|name| Some((*name, self.text(name)?)));
        match (given.next(), given.next()) {
            (Some((first, value)), Some((second, _))) => {
                let allowed = format!("only one of {}; {second} is given too", names.join(", "));
                Err(ApiError::query(first, value, allowed))
            }
            _ => Ok(()),
        }
    }

    /// A boolean parameter: `true` or `false`; without a value it is `true`.
    ///
    /// # Errors
    /// 400 for any other value.
    pub fn is_set(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self
            .one_of(name, &[("true", true), ("false", false), ("1", true), ("0", false), ("", true)])?
            .unwrap_or(false))
    }

    /// The size of a page.
    ///
    /// # Errors
    /// 400 outside of 1 to [`MAX_PAGE`].
    pub fn limit(&self) -> Result<usize, ApiError> {
        let allowed = format!("1 to {MAX_PAGE}");
        let limit = self.read::<usize>("limit", &allowed)?.unwrap_or(DEFAULT_PAGE);
        if (1..=MAX_PAGE).contains(&limit) {
            Ok(limit)
        } else {
            Err(ApiError::query("limit", &limit.to_string(), allowed))
        }
    }
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let allowed = if known.is_empty() { "none on this path".to_owned() } else { known.join(", ") };
    ApiError::new(
        StatusCode::BAD_REQUEST,
        Reason::InvalidQuery,
        format!("unknown query parameter {:?}; known: {allowed}", shown(name)),
    )
    .at(shown(name), "", allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_parameter_is_refused_with_the_known_ones() {
        let error = Query::parse("nod=a", &["node", "run"]).unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert!(error.body.message.contains("known: node, run"), "{}", error.body.message);
    }

    #[test]
    fn repeated_or_badly_escaped_parameter_is_refused() {
        for raw in ["node=a&node=b", "node=%f", "node=%ff", "node=%00"] {
            assert!(Query::parse(raw, &["node"]).is_err(), "{raw} was accepted");
        }
    }

    #[test]
    fn values_are_decoded_and_checked() {
        let query = Query::parse("node=a%2Eb&follow&limit=500&from=-1", &["node", "follow", "limit", "from"])
            .unwrap();
        assert_eq!(query.text("node"), Some("a.b"));
        assert!(query.is_set("follow").unwrap());
        assert_eq!(query.limit().unwrap(), 500);
        let error = query.read::<u64>("from", "a position, 0 or more").unwrap_err();
        assert_eq!(error.body.value.as_deref(), Some("-1"));
        for limit in ["0", "501", "x", "99999999999999999999999"] {
            let query = Query::parse(&format!("limit={limit}"), &["limit"]).unwrap();
            assert!(query.limit().is_err(), "{limit} was accepted");
        }
    }

    #[test]
    fn invalid_json_is_refused_with_its_position() {
        let mut request = Request { body: Bytes::from_static(b"{\n \"a\": }"), ..Request::default() };
        assert_eq!(request.json().unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        request.headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        let error = request.json().unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert_eq!(error.body.value.as_deref(), Some("line 2, column 7"));
        // A proxy that takes the first one would see another command than the one that is stored.
        request.body = Bytes::from_static(br#"{"run": {"command": ["true"], "command": ["reboot"]}}"#);
        let error = request.json().unwrap_err();
        assert!(error.body.message.contains("duplicate field `command`"), "{}", error.body.message);
        request.body = Bytes::from("[".repeat(10_000));
        assert_eq!(request.json().unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
