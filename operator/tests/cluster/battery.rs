//! Nearly valid Tasks: every field of two full Tasks, with every kind of value in its place. What is allowed is not written
//! here; the tests compare the validators with each other.

use serde_json::{Value, json};

/// A Task, and how it was changed.
pub(crate) struct Odd {
    /// The field and its new value, in short.
    pub(crate) what: String,
    /// The whole Task.
    pub(crate) task: Value,
}

/// Everything that a text, a number or a list might be.
#[allow(clippy::too_many_lines, reason = "a table")]
fn values() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "a",
        "A",
        "0",
        "1",
        "7",
        "022",
        "0022",
        "00022",
        "099",
        "+22",
        "-1",
        "-5m",
        "5",
        "5m",
        "5M",
        "5 m",
        "1h30m",
        "30m1h",
        "5m5m",
        "500ms",
        "1s",
        "0s",
        "0ms",
        "99999h",
        "100000h",
        "720h",
        "721h",
        "8760h",
        "8761h",
        "000001s",
        "0000001s",
        "1d",
        "1.5h",
        "5µs",
        "10m",
        "9m",
        "1024",
        "1025",
        "1024000m",
        "1024001m",
        "0500m",
        "0.5",
        "1%",
        "0%",
        "01%",
        "100%",
        "101%",
        "1.5%",
        "%",
        "64Mi",
        "4Mi",
        "4194303",
        "16Ti",
        "17Ti",
        "1Ki",
        "1G",
        "1K",
        "1e3",
        "10Ei",
        "999999999999",
        "9999999999999",
        "000000000064Mi",
        "/",
        "//",
        "/a b",
        "a/b",
        "a/b/c",
        "/a",
        "a/",
        "A/b",
        "é",
        "a b",
        "a\u{0}b",
        "/a\u{0}b",
        "a\n",
        "a\r\nb",
        "\u{feff}a",
        "a.b",
        "a..b",
        "-a",
        "a-",
        "_a",
        "a_b",
        "a$",
        "$a",
        "a=b",
        ".",
        "a@b",
        "4294967294",
        "4294967295",
        "4294967296",
        "00000000001",
        "Host",
        "host",
        "In",
        "Exists",
        "Failed",
        "Cancel",
        "true",
        "null",
        "worker-1",
        "Worker_1",
        "topology.kubernetes.io/zone",
    ];
    let long = [
        "x".repeat(63),
        "x".repeat(64),
        "x".repeat(128),
        "x".repeat(129),
        "x".repeat(253),
        "x".repeat(254),
        "x".repeat(256),
        "x".repeat(257),
        format!("/{}", "x".repeat(4095)),
        format!("/{}", "é".repeat(2048)),
        "é".repeat(32_769),
        "x".repeat(65_537),
        "é".repeat(65_537),
        "1".repeat(33),
        format!("{}.{}", "x".repeat(63), "y".repeat(64)),
        format!("{}/{}", subdomain(61), "y".repeat(63)),
        format!("{}/{}", subdomain(62), "y".repeat(63)),
    ];
    let numbers = [
        -1_i64,
        0,
        1,
        2,
        9,
        10,
        20,
        21,
        255,
        256,
        1024,
        1025,
        100_000,
        100_001,
        4_194_304,
        4_194_305,
        i64::MAX,
    ];
    let mut all: Vec<Value> = texts.into_iter().map(|text| json!(text)).collect();
    all.extend(long.into_iter().map(Value::from));
    all.extend(numbers.map(Value::from));
    all.extend([
        json!(true),
        json!(false),
        json!(1.5),
        json!([]),
        json!({}),
        json!(["a"]),
        json!({"a": "b"}),
    ]);
    all
}

/// Three labels of the greatest length, and one of this length: 253 bytes with 61.
fn subdomain(last: usize) -> String {
    let label = "x".repeat(63);
    format!("{label}.{label}.{label}.{}", "x".repeat(last))
}

fn task(spec: &Value) -> Value {
    json!({"apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "odd"}, "spec": spec})
}

/// Two Tasks that together have every field.
fn full() -> [Value; 2] {
    let rest = |targets: Value, program: (&str, Value)| {
        let mut spec = json!({
            "targets": targets,
            "run": {
                "env": [{"name": "LANG", "value": "C"}], "workingDir": "/tmp", "user": "nobody", "group": "1000",
                "umask": "077", "stdin": "yes", "successExitCodes": [0, 3], "environment": "Container",
                "output": {"limit": "10Mi", "spool": "2Mi", "maxBlock": "0s"},
                "limits": {"cpu": "500m", "memory": "64Mi", "pids": 64},
            },
            "timeouts": {"start": "30s", "run": "10m", "idle": "2m", "total": "1h", "unreachable": "2m", "grace": "1m"},
            "retry": {"limit": 2, "backoff": {"initial": "5s", "factor": 3, "max": "5m"}, "causes": ["Failed", "Lost"]},
            "rollout": {"maxConcurrent": "25%"},
            "onChange": "Cancel", "onRecreate": "OncePerSpec", "suspend": false, "rerunToken": "one", "ttlAfterFinished": "1h",
        });
        spec["run"][program.0] = program.1;
        task(&spec)
    };
    [
        rest(
            json!({"nodeNames": ["worker-1", "worker-2"], "exclude": {"nodeNames": ["worker-3"]}, "controlPlane": "Include"}),
            ("command", json!(["df", "-h"])),
        ),
        rest(
            json!({"nodeSelector": {"matchLabels": {"pool": "web"}, "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "gpu", "operator": "DoesNotExist"}]}}),
            ("script", json!({"interpreter": "/bin/sh", "text": "echo a\n"})),
        ),
    ]
}

/// Paths of everything in a value, as JSON pointers.
fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                paths(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                paths(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// All of them; the two full Tasks, and those with only a name, come first.
pub(crate) fn all() -> Vec<Odd> {
    let mut odd = Vec::new();
    let [first, second] = full();
    for full in [&first, &second] {
        odd.push(Odd { what: "/spec as it is".to_owned(), task: full.clone() });
        let mut pointers = Vec::new();
        paths(&full["spec"], "/spec", &mut pointers);
        // What both hold is tried once.
        pointers.retain(|pointer| full == &first || first.pointer(pointer) != full.pointer(pointer));
        for pointer in &pointers {
            for value in values() {
                let mut task = full.clone();
                *task.pointer_mut(pointer).unwrap() = value.clone();
                odd.push(Odd { what: format!("{pointer} = {}", short(&value)), task });
            }
            without(full, pointer, &mut odd);
            around(full, pointer, &mut odd);
        }
    }
    odd
}

/// Without the field or item.
fn without(full: &Value, pointer: &str, odd: &mut Vec<Odd>) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let mut task = full.clone();
    match task.pointer_mut(parent) {
        Some(Value::Object(object)) => drop(object.remove(name)),
        Some(Value::Array(items)) => drop(items.remove(name.parse().unwrap())),
        _ => return,
    }
    odd.push(Odd { what: format!("no {pointer}"), task });
}

/// With other keys and items: another key for each string, the same item twice, very many items.
fn around(full: &Value, pointer: &str, odd: &mut Vec<Odd>) {
    let Some(there) = full.pointer(pointer) else { return };
    let mut push = |what: String, value: Value| {
        let mut task = full.clone();
        *task.pointer_mut(pointer).unwrap() = value;
        odd.push(Odd { what: format!("{pointer} {what}"), task });
    };
    match there {
        Value::Object(object) => {
            for key in values().iter().filter_map(Value::as_str) {
                let mut object = object.clone();
                object.insert(key.to_owned(), json!("a"));
                push(format!("with key {}", short(&json!(key))), Value::Object(object));
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let mut twice = items.clone();
            twice.push(items[0].clone());
            push("with its first item twice".to_owned(), Value::Array(twice));
            for count in [64, 65, 256, 257, 1000, 1001, 1024, 1025] {
                let many = (0..count).map(|n| match &items[0] {
                    Value::String(_) => json!(format!("n{n}")),
                    Value::Object(object) => {
                        let mut object = object.clone();
                        for key in ["name", "key"] {
                            if object.contains_key(key) {
                                object.insert(key.to_owned(), json!(format!("n{n}")));
                            }
                        }
                        Value::Object(object)
                    }
                    _ => json!(n),
                });
                push(format!("with {count} items"), many.collect());
            }
        }
        _ => {}
    }
}

/// A value for a message.
pub(crate) fn short(value: &Value) -> String {
    let text = value.to_string();
    let kept: String = text.chars().take(40).collect();
    if kept.len() < text.len() { format!("{kept}… ({} bytes)", text.len()) } else { kept }
}
