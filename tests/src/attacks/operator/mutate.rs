//! Over 500 lines: most are the lists that mutations are taken from.
//!
//! Mutations. Those of form know nothing of what a message means; those of meaning change one part of a `Start` to something that is
//! near to what is allowed, or that got past other programs of this kind.

use serde_json::{Map, Value, json};

use super::policy::Policy;

/// Mutations of form, by name.
pub const FORM: &[&str] = &[
    "delete a field",
    "repeat a field",
    "another type",
    "a boundary number",
    "another word",
    "another Unicode form",
    "a long text",
    "a deep value",
    "exchange two values",
    "an unknown field",
    "flip a byte",
    "cut off",
    "insert bytes",
];

/// Mutations of meaning, by the part of the `Start`.
pub const MEANING: &[&str] = &[
    "arguments",
    "program",
    "script",
    "env",
    "user",
    "group",
    "environment",
    "sandbox",
    "limits",
    "leftovers",
    "umask",
    "workingDir",
    "stdin",
    "deadlines",
    "requester",
    "namespace",
    "signed",
    "secrets",
    "epoch",
    "spec hash",
    "node",
    "attempt",
    "output",
    "trace",
];

/// Takes one at random; of texts that a message may have, for any of its fields.
pub struct Mutator<'a> {
    /// Randomness.
    pub rng: &'a mut fastrand::Rng,
    /// The node's policy.
    pub policy: &'a Policy,
    /// An earlier `Start` that ran, for parts of it.
    pub earlier: Option<&'a Value>,
}

impl Mutator<'_> {
    fn one<'b, T: ?Sized>(&mut self, of: &[&'b T]) -> &'b T {
        of[self.rng.usize(..of.len())]
    }

    /// Changes the form of a message, and returns its text, which need not be JSON any more.
    #[allow(clippy::too_many_lines, reason = "one arm for each kind")]
    pub fn form(&mut self, kind: &str, message: &Value) -> Vec<u8> {
        let mut message = message.clone();
        let mut places = Vec::new();
        collect(&message, String::new(), &mut places);
        let place = places[self.rng.usize(..places.len())].clone();
        let other = places[self.rng.usize(..places.len())].clone();
        let mut repeated = None;
        match kind {
            "delete a field" => drop(remove(&mut message, &place)),
            "another type" => *at(&mut message, &place) = self.any_value(),
            "a boundary number" => *at(&mut message, &place) = self.number(),
            "another word" => *at(&mut message, &place) = self.word().into(),
            "another Unicode form" => {
                let text = at(&mut message, &place).as_str().unwrap_or("/bin/sh").to_owned();
                *at(&mut message, &place) = self.unicode(&text).into();
            }
            "a long text" => *at(&mut message, &place) = "A".repeat(1 << self.rng.u32(8..17)).into(),
            "a deep value" => {
                let depth = self.rng.usize(100..400);
                *at(&mut message, &place) = (0..depth).fold(json!(1), |inner, _| json!([inner]));
            }
            "exchange two values" => {
                let (one, two) = (at(&mut message, &place).clone(), at(&mut message, &other).clone());
                *at(&mut message, &place) = two;
                if let Some(there) = message.pointer_mut(&other) {
                    *there = one;
                }
            }
            "an unknown field" => {
                let value = self.any_value();
                if let Value::Object(fields) = parent(&mut message, &place) {
                    fields.insert(
                        self.one(&["image", "hostPID", "runAsRoot", "policy", "force"]).to_owned(),
                        value,
                    );
                }
            }
            "repeat a field" => {
                let name = place.rsplit('/').next().unwrap_or_default().to_owned();
                let value = if self.rng.bool() { self.any_value() } else { self.word().into() };
                if let Value::Object(fields) = parent(&mut message, &place) {
                    // Sorted before or behind it, as the map of a JSON value is.
                    let mark = format!("{}@twice", if self.rng.bool() { "!" } else { "~" });
                    fields.insert(mark.clone(), value);
                    repeated = Some((mark, name));
                }
            }
            _ => {}
        }
        let mut text = message.to_string();
        if let Some((mark, name)) = repeated {
            text = text.replace(&mark, &name);
        }
        let mut bytes = text.into_bytes();
        let index = self.rng.usize(..bytes.len());
        match kind {
            "flip a byte" => bytes[index] ^= 1 << self.rng.u32(..8),
            "cut off" => bytes.truncate(index),
            "insert bytes" => {
                let inserted =
                    self.one(&["\0", "\\u0000", "\u{202e}", "\"", "{", "\\", "\u{feff}", "/../", " "]);
                bytes.splice(index..index, inserted.bytes());
            }
            _ => {}
        }
        bytes
    }

    /// Changes one part of a `Start`.
    pub fn meaning(&mut self, part: &str, start: &mut Value) {
        let request = &mut start["request"];
        match part {
            "arguments" => self.arguments(request),
            "program" => {
                let program = self.program();
                match &mut request["program"]["command"] {
                    Value::Array(argv) if !argv.is_empty() => argv[0] = program.into(),
                    _ => request["program"] = json!({"command": [program]}),
                }
            }
            "script" => request["program"] = self.script(),
            "env" => self.env(request),
            "user" => request["user"] = self.user(),
            "group" => request["group"] = self.user(),
            "environment" => request["environment"] = self.one(&["Host", "Container", "host", "Pod"]).into(),
            "sandbox" => {
                request["sandbox"] = self.one(&["Privileged", "Baseline", "Restricted", "None"]).into()
            }
            "limits" => {
                let name = self.one(&["nofile", "core", "memory", "pids", "cpuMillis"]);
                request["limits"] = json!({name: self.number()});
            }
            "leftovers" => request["leftovers"] = self.one(&["Keep", "End", "keep"]).into(),
            "umask" => {
                request["umask"] =
                    [0, 0o002, 0o020, 0o022, 0o077, 0o777, 0o1022, 0o100_022][self.rng.usize(..8)].into()
            }
            "workingDir" => {
                let bin = self.policy.program("");
                request["workingDir"] =
                    self.one(&[&*bin, "/tmp", "/.", "//", "/../", "/proc/self/cwd", "/root", "", "."]).into();
            }
            "stdin" => {
                let shell = format!("exec {}\n", self.policy.program("other"));
                request["stdin"] = self.one(&["43\n", "42", "42\n\n", "\u{feff}42\n", &*shell]).into();
                if self.rng.u8(..4) == 0 {
                    request["stdinFrom"] =
                        json!({"name": "database", "key": "password", "optional": self.rng.bool()});
                }
            }
            "output" => {
                let name = self.one(&["limit", "spool", "maxBlockMs", "merge", "mask"]);
                request["output"][name] =
                    if name.starts_with('m') && name != "maxBlockMs" { true.into() } else { self.number() };
                request["readOnlyRootFilesystem"] = self.rng.bool().into();
            }
            _ => self.around(part, start),
        }
    }

    /// Changes what is around the request.
    fn around(&mut self, part: &str, start: &mut Value) {
        match part {
            "deadlines" => {
                let name = self.one(&["startMs", "runMs", "idleMs", "totalMs", "graceMs"]);
                start["deadlines"][name] = if self.rng.bool() { Value::Null } else { self.number() };
            }
            "requester" => self.requester(start),
            "namespace" => {
                let namespaces = ["ops2", "op", "default", "kube-system", "Ops", "ops ", "dev"];
                start["task"]["namespace"] = self.one(&namespaces).into();
            }
            "signed" => self.signed(start),
            "secrets" => match self.rng.u8(..3) {
                0 => start["secrets"] = Value::Null,
                1 => {
                    start["secrets"] = self.earlier.map_or(Value::Null, |earlier| earlier["secrets"].clone())
                }
                _ => {
                    let mut text = start["secrets"].as_str().unwrap_or("AAAA").to_owned();
                    text.truncate(self.rng.usize(..=text.len()));
                    start["secrets"] = text.into();
                }
            },
            "epoch" => {
                // A high one that is accepted lets later ones pass only as high: seldom, and not the highest.
                let now = start["epoch"].as_u64().unwrap_or(1);
                let epochs =
                    [0, now.saturating_sub(1), now.saturating_add(1), now.saturating_add(1000), u64::MAX];
                start["epoch"] = epochs[self.rng.usize(..5)].into();
            }
            "spec hash" => start["specHash"] = format!("{:064x}", self.rng.u128(..)).into(),
            "node" | "attempt" => {
                let id = start["attempt"].as_str().unwrap_or_default().to_owned();
                let mut parts: Vec<&str> = id.split('/').collect();
                let earlier = self.earlier.and_then(|earlier| earlier["attempt"].as_str());
                if part == "node" {
                    parts[2] = self.one(&["node-x", "localhost", "node-1.", "Node-1", "..", "*"]);
                } else if let (Some(earlier), true) = (earlier, self.rng.bool()) {
                    parts = earlier.split('/').collect();
                } else {
                    parts[self.rng.usize(..4)] =
                        self.one(&["0", "1", "2", "-1", "4294967295", "99999", "../x", ""]);
                }
                start["attempt"] = parts.join("/").into();
            }
            "trace" => {
                start["trace"]["traceparent"] = self.one(&["", "00-0-0-00", "x\nLD_PRELOAD=/x"]).into();
                start["trace"]["tracestate"] = self.one(&["a=b", "a=b\nPATH=/x", "LD_PRELOAD=/x"]).into();
            }
            _ => {}
        }
    }

    fn arguments(&mut self, request: &mut Value) {
        let long = "host-".to_owned() + &"x".repeat(self.rng.usize(..4000));
        let argument = self.one(&[
            "hourly",
            "daily",
            "weekly",
            "Daily",
            "daily ",
            "",
            "host-",
            "host-a/b",
            "host-../x",
            "host-a\nb",
            "host-\0",
            "-x",
            "--exec=sh",
            "host-*",
            "daily host-1",
            "ho\u{200b}st-1",
            "host\u{2010}1",
            "ｈost-1",
            "x",
            ";sh",
            &*long,
        ]);
        let Value::Array(argv) = &mut request["program"]["command"] else { return };
        let index = self.rng.usize(..=argv.len());
        match self.rng.u8(..4) {
            0 if index < argv.len() => drop(argv.remove(index)),
            1 => argv.insert(index, argument.into()),
            2 => argv.extend(vec![Value::from(argument); self.rng.usize(1..2000)]),
            _ if index < argv.len() => argv[index] = argument.into(),
            _ => argv.push(argument.into()),
        }
    }

    fn program(&mut self) -> String {
        let names = [
            "report",
            "feed",
            "scripted",
            "signed",
            "Report",
            "report2",
            "repor",
            "report ",
            "r\u{e9}port",
            "re\u{301}port",
            "other",
            "sub/report",
            "hard",
            "link",
            "link-to-other",
            "link-to-sub/report",
            "sub/../report",
            "./report",
            "/report",
            "report/",
            "../bin/report",
            "report\0",
            "missing",
            "",
        ];
        let name = self.one(&names);
        match self.rng.u8(..8) {
            0 => name.to_owned(),
            1 => format!("/proc/self/root{}", self.policy.program(name)),
            2 => format!("/{}", self.policy.program(name)),
            3 => self
                .one(&[
                    "/bin/sh",
                    "sh",
                    "/usr/bin/env",
                    "/usr/bin/xargs",
                    "/bin/busybox",
                    "/proc/self/exe",
                    "/lib64/ld-linux-x86-64.so.2",
                ])
                .to_owned(),
            _ => self.policy.program(name),
        }
    }

    fn script(&mut self) -> Value {
        let text = match self.rng.u8(..4) {
            0 => format!("exec {} x\n", self.policy.program("other")),
            1 => format!("{}\n", self.policy.script()),
            2 => format!("{}exit\n", self.policy.script()),
            _ => self.policy.script(),
        };
        let interpreter =
            self.one(&["/bin/sh", "sh", "/bin/../bin/sh", "/usr/bin/env", "/bin/bash", "/bin/cat"]);
        let argument = format!("-c{}", self.policy.program("other"));
        match self.rng.u8(..3) {
            0 => json!({"script": {"interpreter": interpreter, "text": text, "argument": argument}}),
            1 => json!({"command": [interpreter, "-c", text]}),
            _ => json!({"script": {"interpreter": interpreter, "text": text}}),
        }
    }

    fn env(&mut self, request: &mut Value) {
        let bin = self.policy.program("");
        let names = [
            "LEVEL",
            "PATH",
            "LD_PRELOAD",
            "ENV",
            "BASH_ENV",
            "IFS",
            "SENTINEL_ATTEMPT",
            "HOME",
            "level",
            "LEVEL ",
            "TOKEN",
            "A=B",
            "",
        ];
        let values = ["low", "high", "LOW", "low\n", "", &*bin, "task-1/1/node-1/1", "lo\u{ff57}"];
        let variable = json!({"name": self.one(&names), "value": self.one(&values)});
        match &mut request["env"] {
            Value::Array(all) if self.rng.bool() => all.push(variable),
            all => *all = json!([variable]),
        }
    }

    fn user(&mut self) -> Value {
        self.one(&[
            "root",
            "0",
            "00",
            "-1",
            "4294967295",
            "4294967296",
            "nobody",
            "daemon",
            "1000",
            "Root",
            "",
            "nobody:root",
            "+0",
            "0x0",
        ])
        .into()
    }

    fn requester(&mut self, start: &mut Value) {
        let user = self.one(&[
            "mallory",
            "alice",
            "bob",
            "Alice",
            "alice ",
            "system:admin",
            "",
            "al\u{456}ce",
            "alice\0",
        ]);
        let group = self.one(&["admins", "Admins", "admin", "system:masters", "dev", ""]);
        let who = json!({"user": user, "groups": [group]});
        match self.rng.u8(..4) {
            0 => start["requestedBy"] = Value::Null,
            1 => start["requestedBy"]["rerun"] = who,
            2 => start["requestedBy"] = json!({"author": {"user": user}}),
            _ => start["requestedBy"] = json!({"author": who}),
        }
    }

    fn signed(&mut self, start: &mut Value) {
        let statement =
            start["signed"]["statement"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(mut statement) = statement else { return };
        let earlier = self.earlier.map(|earlier| earlier["signed"].clone());
        match self.rng.u8(..5) {
            0 => start["signed"] = earlier.unwrap_or_default(),
            // Another request, signed by an unknown key.
            1 => start["signed"] = super::policy::sign(&statement, "alice", 8).unwrap_or_default(),
            2 => {
                statement[self.one(&["notAfter", "nodes", "runs", "id", "namespace"])] = self.word().into();
                start["signed"]["statement"] = statement.to_string().into();
            }
            3 => start["request"]["program"]["command"][1] = "another".into(),
            _ => start["signed"]["signature"] = Value::Null,
        }
    }

    fn number(&mut self) -> Value {
        let numbers = [
            json!(0),
            json!(1),
            json!(-1),
            json!(255),
            json!(256),
            json!(65_536),
            json!(60_001),
            json!(u32::MAX),
            json!(1_u64 << 32),
            json!(1_u64 << 53),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(0.5),
            json!(1e300),
            json!(1025),
        ];
        numbers[self.rng.usize(..numbers.len())].clone()
    }

    fn word(&mut self) -> String {
        let program = self.policy.program("other");
        self.one(&[
            "Start",
            "Cancel",
            "Forget",
            "Host",
            "Container",
            "Privileged",
            "Baseline",
            "Keep",
            "End",
            "Any",
            "Anyone",
            "AnyCommand",
            "root",
            "0",
            "alice",
            "admins",
            "ops",
            "/bin/sh",
            "..",
            "true",
            "null",
            "",
            "Ended",
            &*program,
        ])
        .to_owned()
    }

    fn any_value(&mut self) -> Value {
        match self.rng.u8(..7) {
            0 => Value::Null,
            1 => true.into(),
            2 => json!([]),
            3 => json!({}),
            4 => json!([self.word(), self.number()]),
            5 => self.number(),
            _ => self.word().into(),
        }
    }

    fn unicode(&mut self, text: &str) -> String {
        match self.rng.u8(..7) {
            0 => text.chars().map(|char| if char == 'e' { '\u{435}' } else { char }).collect(),
            1 => format!("{text}\u{200b}"),
            2 => format!("\u{feff}{text}"),
            3 => text.to_uppercase(),
            4 => text
                .chars()
                .map(|char| {
                    char::from_u32(char as u32 + 0xfee0).filter(|_| char.is_ascii_lowercase()).unwrap_or(char)
                })
                .collect(),
            5 => format!("{text}\0x"),
            _ => format!("{text}\u{301}"),
        }
    }
}

/// The JSON pointers of all values but the whole.
fn collect(value: &Value, path: String, into: &mut Vec<String>) {
    if !path.is_empty() {
        into.push(path.clone());
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, format!("{path}/{name}"), into);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect(value, format!("{path}/{index}"), into);
            }
        }
        _ => {}
    }
}

fn at<'a>(message: &'a mut Value, place: &str) -> &'a mut Value {
    message.pointer_mut(place).unwrap_or_else(|| unreachable!("it was collected"))
}

fn parent<'a>(message: &'a mut Value, place: &str) -> &'a mut Value {
    at(message, place.rsplit_once('/').map_or("", |(parent, _)| parent))
}

fn remove(message: &mut Value, place: &str) -> Option<Value> {
    let name = place.rsplit('/').next().unwrap_or_default().to_owned();
    match parent(message, place) {
        Value::Object(fields) => Map::remove(fields, &name),
        Value::Array(items) => Some(items.remove(name.parse().ok()?)),
        _ => None,
    }
}
