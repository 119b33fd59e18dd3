//! Who may use the HTTP API and the aggregated API: every route for every kind of caller, against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

mod callers;
mod fixture;
mod front_proxy;
mod routes;
mod trusted_proxy;

use std::sync::atomic::{AtomicUsize, Ordering};

use callers::{Caller, Role, Way};
use fixture::Fixture;
use routes::{Case, Expected, cases};
use sentinel_tests::requests::{ClientIdentity, Request, encrypted, plain};

/// Each route × each caller, by the native API with a bearer token, and by the aggregated API as the API server's front proxy
/// forwards it.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_whom_the_table_allows_and_no_other_caller() {
    let fixture = Fixture::new("people").await;
    let wrong = std::sync::Mutex::new(Vec::new());
    let (checked, allowed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for case in cases(&fixture) {
        for caller in &fixture.callers {
            let Some(request) = caller.request(&case) else { continue };
            let answered = fixture.send(caller.way, &request).await;
            let expected = case.expected(caller);
            checked.fetch_add(1, Ordering::Relaxed);
            allowed.fetch_add(usize::from(expected == Expected::Answered), Ordering::Relaxed);
            if !expected.fits(&answered) {
                let (who, method, path) = (caller.name, &request.method, &request.path);
                let text: String = answered.text.chars().take(600).collect();
                wrong.lock().unwrap().push(format!("{who}: {method} {path}: {expected:?}, got {text}"));
            }
        }
    }
    // A handshake is a GET, and gives no right that the operation itself does not require.
    for case in cases(&fixture).iter().filter(|case| case.method != "GET") {
        for caller in fixture.callers.iter().filter(|caller| caller.is_known && reads_only(caller.role)) {
            for request in upgrades(caller, case) {
                let answered = fixture.send(caller.way, &request).await;
                checked.fetch_add(1, Ordering::Relaxed);
                let is_read = request.method == "GET" && answered.status == 200;
                if !is_read && !matches!(answered.status, 403..=405) {
                    let Request { method, path, .. } = &request;
                    let text = format!("{}: an upgrade of {method} {path}: got {answered:?}", caller.name);
                    wrong.lock().unwrap().push(text);
                }
            }
        }
    }
    let (checked, allowed) = (checked.into_inner(), allowed.into_inner());
    println!("{checked} requests, {allowed} of them allowed");
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked > 300 && allowed > 60, "{checked} requests, {allowed} allowed");
    fixture.close().await;
}

fn reads_only(role: Role) -> bool {
    matches!(role, Role::Viewer | Role::LogReader)
}

/// A case as a handshake of a WebSocket: by its own method, and by that of a handshake.
fn upgrades(caller: &Caller, case: &Case) -> Vec<Request> {
    let Some(request) = caller.request(case) else { return Vec::new() };
    let mut handshake = request
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let own = handshake.clone();
    handshake.method = "GET".to_owned();
    handshake.body.clear();
    vec![own, handshake]
}

/// What only the front proxy may do, and a Task of another name than the one of the uid.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_passes_for_the_front_proxy_or_reads_a_log_under_another_name() {
    let fixture = Fixture::new("proxy").await;
    let target = format!("{}/tasks", sentinel_api::aggregated::PREFIX);
    let named =
        |request: Request| request.with("X-Remote-User", "admin").with("X-Remote-Group", "system:masters");
    let (port, ca) = (fixture.aggregated, fixture.ca.certificate.as_path());
    let request = named(Request::new("GET", &target));

    let refused = encrypted(port, ca, None, &request).await.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "without a certificate: {refused}");
    // Of the authority that signs users, whose names are not a proxy's.
    let parts = &fixture.testbed.namespace.parts;
    let admin = ClientIdentity { certificate: parts.pki("admin.crt"), key: parts.pki("admin.key") };
    let refused = encrypted(port, ca, Some(&admin), &request).await.unwrap_err();
    assert!(refused.contains("alert"), "with a user's: {refused}");
    let answered = fixture.send(Way::FrontProxy, &request).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    // On the other listener no client is the front proxy.
    let answered = plain(fixture.api, &named(Request::new("GET", "/api/v1/tasks"))).await;
    assert_eq!(answered.status, 401, "{answered:?}");

    // The API server has allowed the log of the Task that the path names; the uid is of another one.
    let log = |task: &str, uid: &str| {
        let node = &fixture.node;
        let prefix = sentinel_api::aggregated::PREFIX;
        let namespace = &fixture.testbed.namespace.name;
        format!("{prefix}/namespaces/{namespace}/tasks/{task}/log/executions/{uid}/1/{node}/log")
    };
    for (task, uid, status) in [
        ("mine", &fixture.mine, 200),
        ("theirs", &fixture.theirs, 200),
        ("mine", &fixture.theirs, 404),
        ("theirs", &fixture.mine, 404),
    ] {
        let request = named(Request::new("GET", &log(task, uid)));
        let answered = fixture.send(Way::FrontProxy, &request).await;
        assert_eq!(answered.status, status, "{task} {uid}: {answered:?}");
    }
    fixture.close().await;
}

/// A proxy of a browser may add its identity to what a page of another site makes it send.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_cannot_make_a_proxys_client_change_anything() {
    let fixture = Fixture::new("foreign").await;
    let namespace = &fixture.testbed.namespace.name;
    let cancel = format!("{}/namespaces/{namespace}/tasks/mine/cancel", sentinel_api::aggregated::PREFIX);
    let request =
        Request::new("POST", &cancel).with("X-Remote-User", "admin").with("X-Remote-Group", "system:masters");
    let form = request.clone().with("Content-Type", "text/plain");
    assert_eq!(fixture.send(Way::FrontProxy, &form).await.status, 403);
    let foreign =
        request.clone().with("Content-Type", "application/json").with("Origin", "https://evil.test");
    assert_eq!(fixture.send(Way::FrontProxy, &foreign).await.status, 403);
    let ours = request.with("Content-Type", "application/json");
    let answered = fixture.send(Way::FrontProxy, &ours).await;
    assert_eq!(answered.status, 409, "its Run is over: {answered:?}");
    assert!(answered.text.contains("\"kind\":\"Status\""), "{answered:?}");

    let viewer = fixture.callers.iter().find(|caller| caller.name == "viewer").map(Caller::token).unwrap();
    let read = |origin: &str| {
        Request::new("GET", "/api/v1/tasks")
            .with("Authorization", &format!("Bearer {}", viewer.clone().unwrap()))
            .with("Origin", origin)
    };
    assert_eq!(plain(fixture.api, &read("https://evil.test")).await.status, 403);
    assert_eq!(plain(fixture.api, &read("https://localhost")).await.status, 200);
    assert_eq!(plain(fixture.api, &read("https://sentinel.example.com")).await.status, 200, "--public-url");
    // Behind two proxies, and both name the host anew: the browser knows, and no page can send this header.
    let from = |site: &str| read("http://127.0.0.1:8001").with("Sec-Fetch-Site", site);
    assert_eq!(plain(fixture.api, &from("same-origin")).await.status, 200);
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(plain(fixture.api, &from(site)).await.status, 403, "{site}");
    }
    fixture.close().await;
}

/// A stream that is open ends when its reader may not read any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_readers_role_is_taken_away() {
    let fixture = Fixture::new("revoked").await;
    let reader = fixture.callers.iter().find(|caller| caller.name == "viewer-here").unwrap();
    let namespace = fixture.testbed.namespace.name.clone();
    let url = format!("{}/api/v1/events?namespace={namespace}", fixture.testbed.api);
    let request = fixture.testbed.http.get(url).bearer_auth(reader.token().unwrap());
    let mut stream = request.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert!(stream.chunk().await.unwrap().is_some());
    let gone = ["delete", "rolebinding", &format!("{namespace}-viewer-here")];
    fixture.testbed.namespace.kubectl(&gone).await.unwrap();
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    let patience = std::time::Duration::from_secs(90);
    tokio::time::timeout(patience, ended).await.expect("the stream has ended");
    fixture.close().await;
}
