//! Lines of the log, and the file with its filter.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sentinel_telemetry::{FilterFile, FilterHandle, LogFormat, MAX_FILTER, steers, subscriber};
use serde_json::Value;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What `act` logs.
fn logged(format: LogFormat, filter: &str, act: impl FnOnce(FilterHandle)) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let (subscriber, handle) = subscriber(format, filter, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || act(handle));
    sink.text()
}

#[test]
fn untrusted_text_cannot_forge_a_line_or_control_a_terminal() {
    let bad = "x\n2026-01-01T00:00:00Z ERROR all is lost\r\x1b[31m\x07\u{9b}31m\u{202e}";
    for format in [LogFormat::Text, LogFormat::Json] {
        let text = logged(format, "info", |_| tracing::warn!(name = %bad, "refused {bad}"));
        assert_eq!(text.lines().count(), 1, "{text:?}");
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(steers), "{text:?}");
        assert!(line.contains("all is lost") && line.contains("\\u009b31m\\u202e"), "{text:?}");
        assert!(format == LogFormat::Text || serde_json::from_str::<Value>(line).is_ok(), "{text:?}");
    }
}

#[test]
fn a_line_of_json_has_time_level_target_message_fields_and_spans() {
    let text = logged(LogFormat::Json, "info", |_| {
        let _outer = tracing::info_span!("reconcile", task = "ops/disk", run = 7).entered();
        let _inner = tracing::info_span!("dispatch", node = "n-1").entered();
        tracing::error!(target: "sentinel::test", retry_in = ?std::time::Duration::from_secs(3), "it failed");
    });
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    let mut names: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["level", "message", "retry_in", "span", "spans", "target", "timestamp"]);
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["target"], "sentinel::test");
    assert_eq!(line["message"], "it failed");
    assert_eq!(line["retry_in"], "3s");
    assert_eq!(line["span"], serde_json::json!({"name": "dispatch", "node": "n-1"}));
    assert_eq!(line["spans"][0], serde_json::json!({"name": "reconcile", "task": "ops/disk", "run": 7}));
    let at = line["timestamp"].as_str().unwrap();
    assert!(at.ends_with('Z') && at.as_bytes()[10] == b'T', "RFC 3339 in UTC: {at}");
}

#[test]
fn an_invalid_format_or_filter_is_refused_with_what_is_allowed() {
    assert_eq!("json".parse(), Ok(LogFormat::Json));
    let error = "xml".parse::<LogFormat>().unwrap_err();
    assert_eq!(error, "invalid log format \"xml\": expected text or json");
    let error = subscriber(LogFormat::Text, "info,x=loud", io::sink).err().unwrap();
    assert_eq!(error.to_string(), "invalid log filter \"info,x=loud\"");
}

/// A file, what is done to it, and which of two events are logged after each step.
fn events(file: &mut FilterFile) {
    file.check();
    tracing::info!(target: "one", "info of one");
    tracing::debug!(target: "two", "debug of two");
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
}

#[test]
fn the_file_replaces_the_filter_while_it_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("filter");
    let mut shown = Vec::new();
    let text = logged(LogFormat::Text, "warn,one=info", |handle| {
        let mut file = FilterFile::new(path.clone(), handle);
        events(&mut file);
        write(&path, "# for an hour\nwarn\n\ntwo=debug\n");
        events(&mut file);
        write(&path, "");
        events(&mut file);
        write(&path, "two=debug");
        events(&mut file);
        fs::remove_file(&path).unwrap();
        events(&mut file);
    });
    for line in text.lines() {
        shown.extend(["info of one", "debug of two"].into_iter().find(|event| line.ends_with(event)));
    }
    assert_eq!(
        shown,
        ["info of one", "debug of two", "info of one", "debug of two", "info of one"],
        "{text}"
    );
}

#[test]
fn a_file_that_cannot_be_used_keeps_the_filter_and_is_logged_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("filter");
    let bad: [(&str, Vec<u8>); 3] = [
        ("invalid log filter", b"two=loud".to_vec()),
        ("larger than", vec![b'x'; MAX_FILTER as usize + 1]),
        ("not UTF-8", vec![0xff]),
    ];
    for (why, content) in bad {
        let text = logged(LogFormat::Text, "warn", |handle| {
            let mut file = FilterFile::new(path.clone(), handle);
            write(&path, "warn,two=debug");
            events(&mut file);
            write(&path, &content);
            events(&mut file);
            events(&mut file);
        });
        assert_eq!(text.matches("debug of two").count(), 3, "{why}: {text}");
        assert_eq!(text.matches("the current one stays in use").count(), 1, "{why}: {text}");
        assert!(text.contains(why), "{why}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_noticed_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("filter");
    let sink = Sink::default();
    let writer = sink.clone();
    let (subscriber, handle) = subscriber(LogFormat::Text, "info", move || writer.clone()).unwrap();
    let _logging = tracing::subscriber::set_default(subscriber);
    tokio::spawn(FilterFile::new(path.clone(), handle).keep_current());
    tokio::time::sleep(sentinel_telemetry::CHECK_EVERY / 2).await;
    tracing::debug!("not shown");
    write(&path, "debug");
    tokio::time::sleep(sentinel_telemetry::CHECK_EVERY).await;
    tracing::debug!("shown");
    let text = sink.text();
    assert!(text.contains("DEBUG") && !text.contains("not shown"), "{text}");
}
