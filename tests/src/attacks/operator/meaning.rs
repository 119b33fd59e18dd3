//! Mutations of meaning: each changes one part of a `Start` to something that is near to what is allowed, or that got past other
//! programs of this kind.

use serde_json::{Value, json};

use super::mutate::Mutator;
use super::policy;

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

impl Mutator<'_> {
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
            "daemon:root",
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
            1 => start["signed"] = policy::sign(&statement, "alice", 8).unwrap_or_default(),
            2 => {
                statement[self.one(&["notAfter", "nodes", "runs", "id", "namespace"])] = self.word().into();
                start["signed"]["statement"] = statement.to_string().into();
            }
            3 => match &mut start["request"]["program"]["command"] {
                Value::Array(argv) => {
                    argv.truncate(1);
                    argv.push("another".into());
                }
                _ => start["request"]["program"] = json!({"command": ["another"]}),
            },
            _ => start["signed"]["signature"] = Value::Null,
        }
    }
}
