//! What is replaced before it gets into a bundle.
//!
//! Fields that may hold a secret are replaced whole, whatever they hold; every text is searched for what reads like one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

/// What a replaced value reads.
const MARK: &str = "[redacted]";

/// A document, and what was replaced in it.
#[derive(Debug, Default)]
pub(super) struct Redacted<T> {
    pub(super) content: T,
    /// How often, by kind.
    pub(super) replaced: BTreeMap<&'static str, usize>,
}

impl<T> Redacted<T> {
    pub(super) fn of(content: T) -> Self {
        Self { content, replaced: BTreeMap::new() }
    }

    fn count(&mut self, what: &'static str) {
        *self.replaced.entry(what).or_default() += 1;
    }
}

/// Annotations that are kept: those that tools keep their state in.
const ANNOTATIONS: [&str; 6] = [
    "sentinelnode.dev/",
    "meta.helm.sh/",
    "helm.sh/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "deprecated.daemonset.template.generation",
];

/// A Task: without the values of its variables, its input, its script and the arguments of its command.
pub(super) fn task(content: Value) -> Redacted<Value> {
    let mut redacted = object(content);
    let mut run = redacted.content["spec"]["run"].take();
    if let Some(length) = run["stdin"].as_str().map(str::len).filter(|length| *length > 0) {
        run["stdin"] = json!(format!("{MARK} {length} bytes"));
        redacted.count("standard input");
    }
    if let Some(length) = run["script"]["text"].as_str().map(str::len) {
        run["script"]["text"] = json!(format!("{MARK} {length} bytes"));
        redacted.count("script");
    }
    let command = run.get_mut("command").and_then(Value::as_array_mut);
    for argument in command.into_iter().flatten().skip(1) {
        *argument = json!(MARK);
        redacted.count("argument of a command");
    }
    if !run.is_null() {
        redacted.content["spec"]["run"] = run;
    }
    redacted
}

/// A Run or an Execution: its command, for people, has the arguments too.
pub(super) fn record(content: Value) -> Redacted<Value> {
    let mut redacted = Redacted::of(content);
    if let Some(command) = redacted.content["command"].as_str() {
        let program = command.split_whitespace().next().unwrap_or_default();
        let program = if program.starts_with(['"', '\'', '#', '$']) { "" } else { program };
        redacted.content["command"] = json!(format!("{program} {MARK}"));
        redacted.count("arguments of a command");
    }
    redacted
}

/// An object of the chart: without the values of its variables.
pub(super) fn object(mut content: Value) -> Redacted<Value> {
    if let Some(metadata) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let mut redacted = Redacted::of(content);
    values(&mut redacted.content, &mut redacted.replaced);
    redacted
}

/// Replaces values of annotations and of the variables of containers, wherever they are: a variable that is set here was not
/// from a Secret.
fn values(value: &mut Value, replaced: &mut BTreeMap<&'static str, usize>) {
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Array(items) => return items.iter_mut().for_each(|item| values(item, replaced)),
        _ => return,
    };
    for (name, field) in fields {
        match name.as_str() {
            "annotations" => {
                for (name, value) in field.as_object_mut().into_iter().flatten() {
                    if value.is_string() && !ANNOTATIONS.iter().any(|kept| name.starts_with(kept)) {
                        *value = json!(MARK);
                        *replaced.entry("value of an annotation").or_default() += 1;
                    }
                }
            }
            "env" => {
                for variable in field.as_array_mut().into_iter().flatten() {
                    if variable.get("value").is_some() {
                        variable["value"] = json!(MARK);
                        *replaced.entry("value of an environment variable").or_default() += 1;
                    }
                }
            }
            _ => values(field, replaced),
        }
    }
}

/// A kind of secret, and what it reads like; what is kept of a match are its groups 1 and 2.
static PATTERNS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let named =
        "password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|credential|authorization";
    let patterns = [
        (
            "private key",
            r"(?s)()()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----".to_owned(),
        ),
        ("user in an address", r"([A-Za-z][A-Za-z0-9+.-]*://)()[^/\s@\x22']+@".to_owned()),
        ("bearer token", r"\b((?i-u:bearer|basic) )()[A-Za-z0-9._~+/=-]{6,}".to_owned()),
        ("JSON web token", r"()()\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*".to_owned()),
        (
            "value of a secret's name",
            format!(
                r#"((?i-u:[a-z0-9_.-]*(?:{named})[a-z0-9_.-]*)\\?"?\s*[=:]\s*\\?"?)()[^\s"'\\,;&\[\]{{}}]+"#
            ),
        ),
        (
            "value of a secret's flag",
            format!(r"((?i-u:--[a-z-]*(?:{named})[a-z-]*)[ ])()[^\s\x22'-][^\s\x22']*"),
        ),
    ];
    let compiled =
        patterns.into_iter().filter_map(|(what, pattern)| Some((what, Regex::new(&pattern).ok()?)));
    compiled.collect()
});

/// A text without what reads like a secret.
pub(super) fn text(content: &str) -> Redacted<String> {
    let mut redacted = Redacted::of(content.to_owned());
    for (what, pattern) in PATTERNS.iter() {
        let count = pattern.find_iter(&redacted.content).count();
        if count > 0 {
            let end = if *what == "user in an address" { "@" } else { "" };
            let with = format!("${{1}}{MARK}{end}");
            redacted.content = pattern.replace_all(&redacted.content, with.as_str()).into_owned();
            *redacted.replaced.entry(what).or_default() += count;
        }
    }
    redacted
}

/// Fields whose name reads like that of a secret and that are none.
const NO_SECRETS: [&str; 1] = ["rerunToken"];

/// A document without what reads like a secret in any of its texts.
pub(super) fn document(mut redacted: Redacted<Value>) -> Redacted<Value> {
    let mut replaced = std::mem::take(&mut redacted.replaced);
    texts(&mut redacted.content, &mut replaced);
    redacted.replaced = replaced;
    redacted
}

/// Whether an argument is a flag whose value, the next argument, is a secret.
fn is_secret_flag(argument: &str) -> bool {
    let names = ["password", "passwd", "passphrase", "secret", "token", "key", "credential"];
    argument.starts_with('-') && !argument.contains('=') && names.iter().any(|name| argument.ends_with(name))
}

fn texts(value: &mut Value, replaced: &mut BTreeMap<&'static str, usize>) {
    const ENDS: [&str; 7] = ["password", "passwd", "passphrase", "secret", "token", "apikey", "credential"];
    match value {
        Value::String(content) => {
            let scrubbed = text(content);
            *content = scrubbed.content;
            for (what, count) in scrubbed.replaced {
                *replaced.entry(what).or_default() += count;
            }
        }
        Value::Array(items) => {
            let mut is_value = false;
            for item in items {
                let names_secret = item.as_str().is_some_and(is_secret_flag);
                if is_value && item.is_string() {
                    *item = json!(MARK);
                    *replaced.entry("value of a secret's flag").or_default() += 1;
                } else {
                    texts(item, replaced);
                }
                is_value = names_secret;
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let lower = name.to_ascii_lowercase().replace(['-', '_'], "");
                let is_secret =
                    ENDS.iter().any(|end| lower.ends_with(end)) && !NO_SECRETS.contains(&name.as_str());
                if is_secret && field.is_string() {
                    *field = json!(MARK);
                    *replaced.entry("value of a secret's name").or_default() += 1;
                } else {
                    texts(field, replaced);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_valid() {
        assert_eq!(PATTERNS.len(), 6);
    }

    #[test]
    fn a_task_keeps_its_shape_and_loses_its_values() {
        let task_with = json!({
            "metadata": {"name": "web", "managedFields": [{"x": "canary"}], "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "canary", "sentinelnode.dev/rerun": "3"}},
            "spec": {"targets": {"all": true}, "run": {"command": ["deploy", "canary"], "stdin": "canary",
                "script": {"text": "canary"}, "env": [{"name": "A", "value": "canary"}]}},
        });
        let redacted = task(task_with);
        let text = redacted.content.to_string();
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(redacted.content["spec"]["run"]["command"], json!(["deploy", MARK]));
        assert_eq!(redacted.content["spec"]["run"]["env"][0]["name"], "A");
        assert_eq!(redacted.content["metadata"]["annotations"]["sentinelnode.dev/rerun"], "3");
        assert_eq!(redacted.replaced.values().sum::<usize>(), 5);
    }

    #[test]
    fn variables_of_containers_are_replaced_wherever_they_are() {
        let pod = json!({"spec": {"template": {"spec": {"initContainers": [{"env": [{"name": "A", "value": "canary"}]}],
            "containers": [{"env": [{"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}}}});
        let redacted = object(pod);
        assert!(!redacted.content.to_string().contains("canary"));
        assert!(redacted.content.to_string().contains("secretKeyRef"));
    }

    #[test]
    fn a_document_stays_one() {
        let given = json!({"automountServiceAccountToken": true, "rerunToken": "3", "args": ["--redis-url=redis://u:canary@r", "--password", "canary"],
            "dbPassword": "canary", "secretName": "kept"});
        let expected = json!({"automountServiceAccountToken": true, "rerunToken": "3", "args": ["--redis-url=redis://[redacted]@r", "--password", MARK],
            "dbPassword": "[redacted]", "secretName": "kept"});
        assert_eq!(document(Redacted::of(given)).content, expected);
    }

    #[test]
    fn texts_lose_what_reads_like_a_secret() {
        for (given, kept) in [
            ("mongodb://user:canary@db:27017/x", "mongodb://[redacted]@db:27017/x"),
            ("redis://:canary@redis", "redis://[redacted]@redis"),
            ("Authorization: Bearer canary-canary", "Authorization: [redacted]"),
            ("--token=canary --limit=3", "--token=[redacted] --limit=3"),
            ("--password canary --limit 3", "--password [redacted] --limit 3"),
            (r#"{"password":"canary","user":"u"}"#, r#"{"password":"[redacted]","user":"u"}"#),
            ("DB_PASSWORD=canary; next", "DB_PASSWORD=[redacted]; next"),
            ("a -----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY----- b", "a [redacted] b"),
            ("jwt eyJhbGciOi.eyJjYW5hcnk.canary end", "jwt [redacted] end"),
            ("node web-1 is ready", "node web-1 is ready"),
            ("https://example.com/a@b", "https://example.com/a@b"),
        ] {
            let redacted = text(given);
            assert!(!redacted.content.contains("canary"), "{given}: {}", redacted.content);
            if !given.starts_with("Authorization") {
                assert_eq!(redacted.content, kept);
            }
        }
    }
}
