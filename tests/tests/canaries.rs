//! 40 canary values of Secrets through environment, standard input and output of real commands; then every store, disk, log and
//! process list is searched for them, in plain, base64, hexadecimal, URL and JSON forms. Three controls, which are not Secrets, are found
//! in each place that they can reach: the search works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

#[path = "canaries/core_files.rs"]
mod core_files;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use mongodb::bson::{Document, doc};
use redis::AsyncCommands as _;
use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// How many canaries are variables; one more is standard input.
const IN_ENV: usize = 39;

/// What prints every variable in all forms, in pieces too, waits for a file, and prints the standard input.
const SCRIPT: &str = r#"env
echo "$HALF$OTHER_HALF"
url() { sed 's/%/%25/g; s/"/%22/g; s/\\/%5C/g; s/+/%2B/g; s/?/%3F/g; s/&/%26/g; s/é/%C3%A9/g' | sed "$1"; echo; }
json() { sed 's/\\/\\\\/g; s/"/\\"/g' | sed "$1"; echo; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
for name in $(env | sed -n 's/^\(CANARY_[0-9]*\)=.*/\1/p'); do
  eval "value=\$$name"
  plain() { printf '%s' "$value"; }
  for before in '' x xy; do
    printf '%s%s' "$before" "$value" | base64 -w 0; echo
    printf '%s%s' "$before" "$value" | base64 -w 20
    printf '%s%s' "$before" "$value" | base64 -w 20 | sed 's/$/\r/'
    printf '%050d%s%s' 0 "$before" "$value" | base64
  done
  plain | hex; echo
  plain | hex | tr a-f A-F; echo
  plain | hex | fold -w 30; echo
  plain | hex | sed 's/../%&/g'; echo
  plain | hex | tr a-f A-F | sed 's/../%&/g'; echo
  plain | url 's/ /%20/g; s,/,%2F,g'
  plain | url 's/ /+/g'
  plain | url 's/ /%20/g' | tr A-F a-f
  plain | json ''
  plain | json 's,/,\\/,g; s/é/\\u00e9/g; s/&/\\u0026/g'
  plain | json 's/é/\\u00E9/g; s/+/\\u002B/g'
  plain | cut -c 1-9 | tr -d '\n'; plain | cut -c 10-; echo
  printf '%s\n' "$value" >&2
done
cat
until [ -e "$RELEASE" ]; do sleep 0.1; done
echo ended"#;

/// How often [`SCRIPT`] prints each variable.
const PRINTED: usize = 26;

/// A value with characters that every encoding changes, around what no encoding of a text does.
struct Canary {
    core: String,
    value: String,
}

impl Canary {
    fn new() -> Self {
        // Letters whose hexadecimal digits are letters too, unlike those of the number.
        let core = format!("jkl{}mno", uuid::Uuid::new_v4().simple());
        let value = format!("k/\"\\ +{core}?&é");
        Self { core, value }
    }

    /// What is searched for. The core is in the plain form, and in those of URLs and JSON that escape no more than they have to.
    fn forms(&self) -> Vec<String> {
        let each = |before: &str| -> String {
            self.core.bytes().map(|byte| format!("{before}{byte:02x}")).collect()
        };
        let upper = |before: &str| each(before).to_uppercase().replace("\\U", "\\u");
        let mut forms = vec![self.core.clone()];
        for before in ["", "%", "\\u00"] {
            forms.extend([each(before), upper(before)]);
        }
        for (before, width) in [(0..3, usize::MAX), (0..3, 20), (50..53, 76)] {
            forms.extend(before.flat_map(|before| self.base64_lines(before, width)));
        }
        let hex: String = self.value.bytes().map(|byte| format!("{byte:02x}")).collect();
        let core = self.core_within(0);
        forms.extend(lines_within(&hex, core.start * 2..core.end * 2, 30));
        forms
    }

    /// Where the core is, behind so many bytes and what the value begins with.
    fn core_within(&self, before: usize) -> Range<usize> {
        let start = before + self.value.find(&self.core).unwrap();
        start..start + self.core.len()
    }

    /// Of lines of this width that have the value behind so many bytes: what depends on the core alone.
    fn base64_lines(&self, before: usize, width: usize) -> Vec<String> {
        let encoded = STANDARD.encode([&vec![b'x'; before], self.value.as_bytes()].concat());
        let core = self.core_within(before);
        lines_within(&encoded, (core.start * 8).div_ceil(6)..core.end * 8 / 6, width)
    }
}

/// The parts of a text's lines of this width that are in a range, without the short ones.
fn lines_within(text: &str, range: Range<usize>, width: usize) -> Vec<String> {
    let starts = (0..text.len()).step_by(width);
    let lines = starts.map(|start| start.max(range.start)..start.saturating_add(width).min(range.end));
    lines.filter(|line| line.len() >= 16).map(|line| text[line].to_owned()).collect()
}

/// Searches for some values at once.
struct Search {
    patterns: tempfile::NamedTempFile,
    forms: Vec<String>,
    hits: Vec<String>,
}

impl Search {
    fn of(canaries: &[Canary]) -> Self {
        let forms: Vec<String> = canaries.iter().flat_map(Canary::forms).collect();
        let patterns = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(patterns.path(), forms.join("\n")).unwrap();
        Self { patterns, forms, hits: Vec::new() }
    }

    fn text(&mut self, place: &str, text: &str) {
        let found = self.forms.iter().filter(|form| text.contains(form.as_str()));
        self.hits.extend(found.map(|form| format!("{place}: {form}")));
    }

    fn files(&mut self, place: &str, directory: &Path, without: &[&str]) {
        let mut grep = Command::new("grep");
        grep.args(["-rlaF", "-f"]).arg(self.patterns.path());
        grep.args(without.iter().map(|name| format!("--exclude-dir={name}")));
        let found = grep.arg(directory).output().unwrap();
        assert!(found.status.code().is_some_and(|code| code < 2), "grep: {found:?}");
        self.hits
            .extend(String::from_utf8_lossy(&found.stdout).lines().map(|file| format!("{place}: {file}")));
    }
}

/// What is searched for in every place.
struct Searches {
    secrets: Search,
    controls: [Control; 3],
    report: Vec<String>,
}

/// Not a Secret: it is found where it can be.
struct Control {
    about: &'static str,
    search: Search,
    reaches: &'static [&'static str],
}

impl Searches {
    fn new(canaries: &[Canary], [in_spec, in_output, in_names]: &[Canary; 3]) -> Self {
        let control = |about, canary: &Canary, reaches| Control {
            about,
            search: Search::of(std::slice::from_ref(canary)),
            reaches,
        };
        let controls = [
            control(
                "a value of the spec",
                in_spec,
                &[COMMAND_LINES, RUNNING, LOG_AND_API, ETCD, HISTORY, AT_THE_END],
            ),
            control("a line of the output", in_output, &[RUNNING, LOG_AND_API, HISTORY]),
            // They get where no value does. Long values are compressed in the files of PostgreSQL: these are searched in History.
            control("a name", in_names, &[RUNNING, LOG_AND_API, ETCD, HISTORY, REDIS, EVENTS, STORES]),
        ];
        Self { secrets: Search::of(canaries), controls, report: Vec::new() }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Search> {
        std::iter::once(&mut self.secrets).chain(self.controls.iter_mut().map(|control| &mut control.search))
    }

    fn text(&mut self, place: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.report.push(format!("{place}: {} bytes", bytes.len()));
        self.all().for_each(|search| search.text(place, &text));
    }

    /// All files below, without those directories.
    fn files(&mut self, place: &str, directory: &Path, without: &[&str]) {
        let all = Command::new("find").arg(directory).args(["-type", "f"]).output().unwrap().stdout;
        self.report.push(format!("{place}: {} files", all.iter().filter(|byte| **byte == b'\n').count()));
        self.all().for_each(|search| search.files(place, directory, without));
    }

    /// Nothing of the Secrets anywhere, and the controls where they can be.
    fn conclude(&self) {
        println!("searched for {} forms of {} canaries in:", self.secrets.forms.len(), IN_ENV + 1);
        self.report.iter().for_each(|place| println!("  {place}"));
        assert_eq!(self.secrets.hits, Vec::<String>::new());
        for Control { about, search, reaches } in &self.controls {
            for place in *reaches {
                let is_found = search.hits.iter().any(|hit| hit.starts_with(&format!("{place}: ")));
                assert!(is_found, "{about} is not found in {place}: {:?}", search.hits);
            }
        }
    }
}

const COMMAND_LINES: &str = "command lines";
const RUNNING: &str = "agent and logs, while it runs";
const LOG_AND_API: &str = "log and API";
const ETCD: &str = "etcd, without Secrets";
const HISTORY: &str = "History";
const REDIS: &str = "Redis";
const METRICS: &str = "metrics";
const EVENTS: &str = "events";
const AT_THE_END: &str = "agent and logs, at the end";
const STORES: &str = "files of API server, Redis and PostgreSQL";

/// The places, as text, where something is searched for.
struct Places<'a> {
    testbed: &'a Testbed,
    parts: Value,
}

impl<'a> Places<'a> {
    fn of(testbed: &'a Testbed) -> Self {
        let file = std::env::var_os("SENTINEL_PARTS").expect("run through tests/parts/with-parts");
        let parts = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        Self { testbed, parts }
    }

    /// Every key of etcd with its value, but the Secrets themselves.
    async fn etcd(&self) -> Vec<u8> {
        let all = self.parts["processes"].as_array().unwrap();
        let port = &all.iter().find(|process| process["name"] == "etcd").unwrap()["port"];
        let range = json!({"key": STANDARD.encode([0]), "range_end": STANDARD.encode([0])});
        let url = format!("http://127.0.0.1:{port}/v3/kv/range");
        let answer: Value =
            self.testbed.http.post(url).json(&range).send().await.unwrap().json().await.unwrap();
        let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
        let pairs =
            answer["kvs"].as_array().unwrap().iter().map(|pair| (bytes(&pair["key"]), bytes(&pair["value"])));
        let others = pairs.filter(|(key, _)| !key.starts_with(b"/registry/secrets/"));
        others.flat_map(|(key, value)| [key, value].concat()).collect()
    }

    /// Every document of the test's database.
    async fn history(&self) -> Vec<u8> {
        let client = mongodb::Client::with_uri_str(&self.testbed.namespace.parts.mongodb_uri).await.unwrap();
        let database = client.database(&self.testbed.database);
        let mut text = Vec::new();
        for name in database.list_collection_names().await.unwrap() {
            let mut cursor = database.collection::<Document>(&name).find(doc! {}).await.unwrap();
            while cursor.advance().await.unwrap() {
                // The bytes of binary fields too.
                let bytes = cursor.current().as_bytes();
                text.extend_from_slice(bytes);
                text.extend(unpacked(bytes));
            }
        }
        text
    }

    /// Every key of Redis with its value.
    async fn redis(&self) -> Vec<u8> {
        let client = redis::Client::open(self.testbed.namespace.parts.redis_url.as_str()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = redis.keys("*").await.unwrap();
        let mut text = Vec::new();
        for key in keys {
            let value: Vec<u8> = redis.get(&key).await.unwrap();
            text.extend([key.into_bytes(), value].concat());
        }
        text
    }

    /// The log of an Execution, and all that the API has of it.
    async fn api(&self, uid: &str, node: &str) -> String {
        let mut text = String::new();
        for path in [
            format!("/api/v1/executions/{uid}/1/{node}/log"),
            format!("/api/v1/executions/{uid}/1/{node}"),
            format!("/api/v1/runs/{uid}/1"),
        ] {
            let url = format!("{}{path}", self.testbed.api);
            text += &self.testbed.http.get(url).send().await.unwrap().text().await.unwrap();
        }
        text
    }

    async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.testbed.metrics);
        self.testbed.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The command lines of all processes.
    fn command_lines() -> Vec<u8> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok()).flatten().collect()
    }
}

/// The contents of all zstd frames in these bytes: so History keeps output.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let begins = |at: &usize| bytes[*at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let frames = (0..bytes.len()).filter(begins).map(|at| {
        let mut content = Vec::new();
        let decoder = zstd::stream::Decoder::with_buffer(&bytes[at..]).unwrap().single_frame();
        std::io::copy(&mut { decoder }, &mut content).unwrap();
        content
    });
    frames.flatten().collect()
}

async fn create_secret(testbed: &Testbed, canaries: &[Canary]) {
    let data: BTreeMap<String, ByteString> = canaries
        .iter()
        .enumerate()
        .map(|(at, canary)| (format!("c{at}"), ByteString(canary.value.clone().into_bytes())))
        .collect();
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.metadata.name = Some("canaries".into());
    let api: Api<Secret> = Api::namespaced(testbed.namespace.client.clone(), &testbed.namespace.name);
    api.create(&PostParams::default(), &secret).await.unwrap();
}

/// A Task with all canaries, and controls as what no canary may be: a value in the spec, and two halves that the command joins.
async fn apply(testbed: &Testbed, (name, node): (&str, &str), controls: &[Canary; 3], release: &Path) {
    let reference = |at: usize| json!({"secretKeyRef": {"name": "canaries", "key": format!("c{at}")}});
    let mut env: Vec<Value> =
        (0..IN_ENV).map(|at| json!({"name": format!("CANARY_{at}"), "valueFrom": reference(at)})).collect();
    let (control, (half, other)) = (&controls[0].core, controls[1].core.split_at(16));
    for (name, value) in [("CONTROL", control.as_str()), ("HALF", half), ("OTHER_HALF", other)] {
        env.push(json!({"name": name, "value": value}));
    }
    env.push(json!({"name": "RELEASE", "value": release}));
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": name},
        "spec": {
            "targets": {"nodeNames": [node]},
            "run": {"command": ["sh", "-c", SCRIPT, control], "env": env, "stdinFrom": reference(IN_ENV)},
        },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
}

/// From the gateway to the agent: the operator once sent nothing where all was missing, which the agent takes for an operator without
/// the values.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_without_secrets_that_may_all_be_missing() {
    let testbed = Testbed::new("optional").await;
    let agent = testbed.agent("a", &[]).await;
    let missing = json!({"secretKeyRef": {"name": "nothere", "key": "k", "optional": true}});
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "optional"},
        "spec": {
            "targets": {"nodeNames": [testbed.namespace.node_name("a")]},
            "run": {
                "command": ["sh", "-c", "[ -z \"${PASSWORD+set}\" ] && [ -z \"$(cat)\" ]"],
                "env": [{"name": "PASSWORD", "valueFrom": missing.clone()}],
                "stdinFrom": missing,
            },
        },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
    let wait = ["wait", "--for=condition=Complete", "--timeout=60s", "tasks.sentinelnode.dev", "optional"];
    testbed.namespace.kubectl(&wait).await.unwrap();
    drop(agent);
    testbed.close().await;
}

async fn wait_until_running(testbed: &Testbed, name: &str) -> String {
    until("the command runs", PATIENCE, || async {
        let path = "jsonpath={.status.run.counts.running}";
        let running = testbed.namespace.kubectl(&["get", "stask", name, "-o", path]).await?;
        if running == "1" { Ok(()) } else { Err(running) }
    })
    .await;
    testbed.namespace.kubectl(&["get", "stask", name, "-o", "jsonpath={.metadata.uid}"]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_secrets_are_in_no_store_log_or_command_line() {
    let testbed = Testbed::new("canaries").await;
    let canaries: Vec<Canary> = (0..=IN_ENV).map(|_| Canary::new()).collect();
    let controls = [Canary::new(), Canary::new(), Canary::new()];
    create_secret(&testbed, &canaries).await;
    let (short, name) = (format!("n-{}", controls[2].core), format!("leaky-{}", controls[2].core));
    let node = testbed.namespace.node_name(&short);
    let agent = testbed.agent(&short, &[]).await;
    let release = testbed.path().join("release");
    apply(&testbed, (&name, &node), &controls, &release).await;
    let uid = wait_until_running(&testbed, &name).await;

    let mut searches = Searches::new(&canaries, &controls);
    let places = Places::of(&testbed);
    searches.text(COMMAND_LINES, &Places::command_lines());
    searches.files(RUNNING, testbed.path(), &[]);
    std::fs::write(&release, "").unwrap();
    let wait = ["wait", "--for=condition=Complete", "--timeout=60s", "tasks.sentinelnode.dev", &name];
    testbed.namespace.kubectl(&wait).await.unwrap();
    let shown = until("the output is archived", PATIENCE, || async {
        let shown = places.api(&uid, &node).await;
        if shown.contains("ended\n") { Ok(shown) } else { Err(shown) }
    })
    .await;

    searches.text(LOG_AND_API, shown.as_bytes());
    // Each form of each variable, and standard input.
    let marks = shown.matches("***").count();
    assert!(marks > IN_ENV * PRINTED, "{marks} marks in:\n{shown}");
    assert!(shown.contains("a secret was masked in the output"), "{shown}");
    searches.text(ETCD, &places.etcd().await);
    let history = until("History has the output", PATIENCE, || async {
        let history = places.history().await;
        if String::from_utf8_lossy(&history).contains("ended\n") { Ok(history) } else { Err(history.len()) }
    })
    .await;
    searches.text(HISTORY, &history);
    searches.text(REDIS, &places.redis().await);
    let metrics = places.metrics().await;
    // No name and no value of a Task is a label.
    assert!(metrics.contains("sentinel_gateway_sessions_begun_total 1"), "{metrics}");
    searches.text(METRICS, metrics.as_bytes());
    let events = testbed.namespace.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).await.unwrap();
    searches.text(EVENTS, events.as_bytes());
    searches.files(AT_THE_END, testbed.path(), &[]);
    let set = places.parts["directory"].as_str().unwrap().to_owned();
    // etcd has the Secrets themselves.
    searches.files(STORES, Path::new(&set), &["etcd"]);
    searches.conclude();
    drop(agent);
    testbed.close().await;
}
