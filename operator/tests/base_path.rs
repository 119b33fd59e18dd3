//! An operator behind an ingress: page and API below its base path, and at the root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[allow(dead_code, reason = "each test program uses its own part of it")]
mod running;

use running::{Running, exchange};

/// The status and the text of an answer of the API.
fn get(operator: &Running, path: &str, headers: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", operator.api);
    let answer = exchange(operator.api, request.as_bytes()).unwrap();
    (answer.split(' ').nth(1).unwrap().to_owned(), answer)
}

#[test]
fn page_and_api_are_below_the_base_path_and_at_the_root() {
    let operator = Running::start_in(&[], &[("SENTINEL_BASE_PATH", "/ops/sentinel/")]);
    for path in ["/ops/sentinel", "/ops/sentinel/", "/ops/sentinel/tasks?phase=Failed"] {
        let (status, page) = get(&operator, path, "");
        assert_eq!(status, "200", "{path}: {page}");
        assert!(page.contains("<base href=\"/ops/sentinel/\">"), "{path}: {page}");
        let asset = page.split('"').find(|part| part.starts_with("assets/main.")).unwrap();
        assert_eq!(get(&operator, &format!("/ops/sentinel/{asset}"), "").0, "200");
        assert_eq!(get(&operator, &format!("/{asset}"), "").0, "200");
    }
    let (_, page) = get(&operator, "/tasks", "");
    assert!(page.contains("<base href=\"/\">"), "{page}");
    let (_, page) = get(&operator, "/tasks", "X-Forwarded-Prefix: /ops/sentinel\r\n");
    assert!(page.contains("<base href=\"/ops/sentinel/\">"), "{page}");
    for path in ["/ops/sentinel/api/v1/openapi.json", "/api/v1/openapi.json", "/ops/sentinel/healthz"] {
        assert_eq!(get(&operator, path, "").0, "200", "{path}");
    }
    for path in ["/ops", "/ops/sentinels/tasks", "/ops/sentinel/ops/sentinel/tasks"] {
        assert_eq!(get(&operator, path, "").0, "404", "{path}");
    }
}
