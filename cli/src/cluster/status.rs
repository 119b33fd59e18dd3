//! Errors of the API server as errors of this API.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use sentinel_api::client::transport::{Body, boxed};
use sentinel_api::reason::{ErrorBody, Problem, Reason};
use sentinel_telemetry::causes;
use serde_json::Value;

/// Largest body of an error, bytes.
const MAX_ERROR: usize = 1 << 20;

/// An answer that is read whole.
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) is_json: bool,
    pub(super) body: Bytes,
}

/// Reads an answer that is expected to be short; what breaks or is longer counts as empty.
pub(super) async fn whole(response: Response<Body>) -> Whole {
    let (parts, body) = response.into_parts();
    let is_json = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.to_str().is_ok_and(|value| value.contains("json")));
    let body = Limited::new(body, MAX_ERROR).collect().await.map(http_body_util::Collected::to_bytes);
    Whole { status: parts.status, is_json, body: body.unwrap_or_default() }
}

/// The body of an answer as this API has errors: a `Status` of the API server is translated, an error of this API stays.
pub(super) fn error_of(status: StatusCode, body: &[u8]) -> ErrorBody {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    if value["kind"] == "Status" {
        return of_status(status, &value);
    }
    serde_json::from_value(value).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        let message = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
        error(reason_of(status, ""), message)
    })
}

fn of_status(status: StatusCode, value: &Value) -> ErrorBody {
    let reason = reason_of(status, value["reason"].as_str().unwrap_or_default());
    let message = value["message"].as_str().unwrap_or("no message").to_owned();
    let mut error = error(reason, message);
    if reason == Reason::InvalidTask {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let causes = value["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let problem = |cause: &Value| Problem {
            field: text(&cause["field"]),
            value: String::new(),
            allowed: format!("is refused: {}", text(&cause["message"])),
        };
        error.problems = causes.iter().filter(|cause| cause["field"].is_string()).map(problem).collect();
        if let [only] = &error.problems[..] {
            (error.field, error.allowed) = (Some(only.field.clone()), Some(only.allowed.clone()));
            error.message = only.to_string();
            error.problems.clear();
        }
    }
    error
}

fn reason_of(status: StatusCode, reason: &str) -> Reason {
    match (reason, status) {
        ("AlreadyExists", _) => Reason::AlreadyExists,
        ("Conflict", _) | (_, StatusCode::CONFLICT) => Reason::Conflict,
        ("Invalid", _) | (_, StatusCode::UNPROCESSABLE_ENTITY) => Reason::InvalidTask,
        (_, StatusCode::NOT_FOUND) => Reason::NotFound,
        (_, StatusCode::UNAUTHORIZED) => Reason::Unauthorized,
        (_, StatusCode::FORBIDDEN) => Reason::Forbidden,
        (_, StatusCode::BAD_REQUEST) => Reason::InvalidQuery,
        (_, StatusCode::TOO_MANY_REQUESTS) => Reason::TooManyStreams,
        (_, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT | StatusCode::BAD_GATEWAY) => {
            Reason::Unavailable
        }
        _ => Reason::Internal,
    }
}

pub(crate) fn error(reason: Reason, message: impl Into<String>) -> ErrorBody {
    let message = message.into();
    ErrorBody { reason, message, field: None, value: None, allowed: None, problems: Vec::new() }
}

/// An answer with an error of this API.
pub(crate) fn refusal(status: StatusCode, error: &ErrorBody) -> Response<Body> {
    json_answer(status, &serde_json::to_value(error).unwrap_or_default())
}

/// An answer with JSON.
pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(boxed(Full::new(Bytes::from(value.to_string()))));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// An error of kube, for people: of a refusal the API server's own message.
pub(crate) fn shown(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => causes(other),
    }
}

/// The same in a list of what was checked, where a refusal is one of many and its line names what is missing.
pub(crate) fn shown_briefly(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => "that is forbidden to you".to_owned(),
        other => shown(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: StatusCode, value: &Value) -> ErrorBody {
        error_of(status, value.to_string().as_bytes())
    }

    #[test]
    fn a_refusal_of_the_api_server_keeps_its_message() {
        let message = "tasks.ops.sentinelnode.dev \"web\" is forbidden: User \"jane\" cannot get resource \"tasks/log\"";
        let status = json!({"kind": "Status", "reason": "Forbidden", "message": message, "code": 403});
        let error = read(StatusCode::FORBIDDEN, &status);
        assert_eq!((error.reason, error.message.as_str()), (Reason::Forbidden, message));
    }

    #[test]
    fn problems_of_a_task_are_those_that_the_api_server_names() {
        let cause = |field: &str| json!({"reason": "FieldValueInvalid", "message": "no", "field": field});
        let status = |causes: Value| json!({"kind": "Status", "reason": "Invalid", "message": "m", "details": {"causes": causes}});
        let one = read(StatusCode::UNPROCESSABLE_ENTITY, &status(json!([cause("spec.run")])));
        assert_eq!((one.reason, one.message.as_str()), (Reason::InvalidTask, "spec.run is refused: no"));
        let two = read(StatusCode::UNPROCESSABLE_ENTITY, &status(json!([cause("spec.run"), cause("spec")])));
        assert_eq!(two.problems.len(), 2);
    }

    #[test]
    fn an_error_of_the_operator_passes_and_a_text_becomes_one() {
        let ours = json!({"reason": "PositionOutOfRange", "message": "m"});
        assert_eq!(read(StatusCode::BAD_REQUEST, &ours).reason, Reason::PositionOutOfRange);
        let text = error_of(StatusCode::SERVICE_UNAVAILABLE, b"service unavailable\n");
        assert_eq!(text.reason, Reason::Unavailable);
        assert_eq!(text.message, "503 Service Unavailable: service unavailable");
    }
}
