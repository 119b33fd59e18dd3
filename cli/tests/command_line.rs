//! The command line, with the real binary against a real dev mode.

#[cfg(test)]
mod kit;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use kit::{CliOutput, Dev, sentinel, task, wait, write};
use serde_json::Value;

const WARNING: &str = "standard input is not passed to the command; use --stdin";

#[test]
fn input_is_passed_with_stdin_and_warned_about_without() {
    let dev = Dev::start(&[]);
    let cat = dev.run_with(&["run", "--stdin", "--", "cat"], "zeile\näöü".as_bytes()).exited(0);
    assert_eq!(cat.out, "zeile\näöü");
    assert!(!cat.err.contains(WARNING), "{}", cat.err);
    let without = dev.run_with(&["run", "--", "cat"], b"data\n").exited(0).printed(WARNING);
    assert_eq!(without.out, "");
    let long = vec![b'x'; 65_537];
    dev.run_with(&["run", "--stdin", "--", "cat"], &long).exited(2).printed("exceeds the limit of 64 KiB");
    dev.run_with(&["run", "--stdin", "--", "cat"], b"\xff\xfe")
        .exited(2)
        .printed("not UTF-8 text")
        .printed("base64");
    let script = dev.run_with(&["run", "--script", "-"], b"echo from a script\n").exited(0);
    assert_eq!(script.out, "from a script\n");
    assert!(!script.err.contains(WARNING), "{}", script.err);
}

#[test]
fn inherited_input_causes_no_warning() {
    let dev = Dev::start(&[]);
    // An empty pipe, and /dev/null.
    let empty = dev.run_with(&["run", "--", "true"], b"").exited(0);
    assert!(!empty.err.contains(WARNING), "{}", empty.err);
    let null = dev.run(&["run", "--", "true"]).exited(0);
    assert!(!null.err.contains(WARNING), "{}", null.err);
    // The body of a loop inherits its input.
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    write(&list, "one\ntwo\nthree\n");
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.env("SENTINEL_SERVER", &dev.server).env("S", env!("CARGO_BIN_EXE_sentinel")).env("L", &list);
        let output = command.args(["-c", script]).stdin(Stdio::null()).output().unwrap();
        CliOutput::of(&[script], &output)
    };
    for script in [
        "while read word; do \"$S\" run -- echo \"$word\"; done < \"$L\"",
        "cat \"$L\" | while read word; do \"$S\" run -- echo \"$word\"; done",
    ] {
        let ran = shell(script).exited(0);
        assert_eq!(ran.out, "one\ntwo\nthree\n", "{script}");
        assert!(!ran.err.contains(WARNING), "{script}: {}", ran.err);
    }
    // These redirect input to `sentinel`.
    shell("\"$S\" run -- cat < \"$L\"; true").exited(0).printed(WARNING);
    shell("echo data | \"$S\" run -- cat; true").exited(0).printed(WARNING);
}

#[test]
fn flags_of_run_become_fields_of_the_task() {
    let dev = Dev::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("check.sh");
    write(&script, "#!/bin/sh\necho checked >&2; echo out\n");
    let ran = dev
        .run(&[
            "run",
            "--name",
            "flags",
            "--script",
            script.to_str().unwrap(),
            "--retry",
            "2",
            "--grace",
            "3s",
            "--idle",
            "2m",
            "--timeout",
            "5m",
            "--ttl",
            "10m",
            "--merge",
            "--leftovers",
            "end",
            "--sandbox",
            "baseline",
            "--nofile",
            "512",
        ])
        .exited(0);
    assert_eq!(ran.out, "checked\nout\n", "merged, in the order of writing");
    let spec = dev.run(&["get", "task", "flags", "-o", "json"]).exited(0).json()["spec"].clone();
    for (path, expected) in [
        ("/retry/limit", Value::from(2)),
        ("/timeouts/grace", Value::from("3s")),
        ("/timeouts/idle", Value::from("120s")),
        ("/timeouts/run", Value::from("300s")),
        ("/ttlAfterFinished", Value::from("600s")),
        ("/run/output/merge", Value::from(true)),
        ("/run/leftovers", Value::from("End")),
        ("/run/sandbox", Value::from("Baseline")),
        ("/run/limits/nofile", Value::from(512)),
    ] {
        assert_eq!(spec.pointer(path), Some(&expected), "{path} of {spec}");
    }
    // Spelled as in the CRD.
    dev.run(&["run", "--leftovers", "Keep", "--", "true"]).exited(0);
    for endless in ["/dev/zero", "/dev/urandom"] {
        dev.run(&["run", "--script", endless])
            .exited(2)
            .printed(&format!("script {endless} exceeds the limit of 128 KiB"));
    }
    dev.run(&["run", "--timeout", "0s", "--", "true"]).exited(2).printed("must be longer than 0");
    dev.run(&["run", "--group", "no-such-group", "--", "true"]).exited(126).printed("no-such-group");
    dev.run(&["run", "--cpu", "lots", "--", "true"]).exited(2).printed("spec.run.limits.cpu");
    dev.run(&["run", "--timestamps", "--", "echo", "hi"]).exited(0).printed("Z hi\n");
    // The Task is deleted immediately, and its result is reported all the same.
    dev.run(&["run", "--ttl", "0s", "--name", "brief", "--", "echo", "hi"])
        .exited(0)
        .printed("hi\n")
        .printed("succeeded");
    dev.run(&["wait", "brief", "--for", "deleted", "--timeout", "60s"]).exited(0);
}

#[test]
fn run_writes_one_json_object_per_line() {
    let dev = Dev::start(&[]);
    let script = "printf 'a\\377b'; echo ä; echo oops >&2; exit 3";
    let ran = dev.run(&["run", "-o", "json", "--", "sh", "-c", script]).exited(3);
    let objects: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| objects.iter().filter(|object| object["type"] == kind).collect::<Vec<_>>();
    assert_eq!(objects[0]["type"], "started");
    let (started, ended, result) = (of("started"), of("ended"), of("result"));
    assert_eq!((started[0]["run"].clone(), started[0]["targets"].clone()), (1.into(), 1.into()));
    assert_eq!((ended[0]["state"].clone(), ended[0]["exitCode"].clone()), ("Failed".into(), 3.into()));
    assert_eq!(objects.last().unwrap(), result[0]);
    assert_eq!((result[0]["verdict"].clone(), result[0]["exitCode"].clone()), ("Failed".into(), 3.into()));
    assert_eq!(result[0]["counts"]["failed"], 1);
    let output = of("output");
    assert!(output.iter().all(|object| object["node"] == ended[0]["node"] && object["time"].is_string()));
    let errors: String = output
        .iter()
        .filter(|object| object["stream"] == "stderr")
        .map(|object| object["text"].as_str().unwrap())
        .collect();
    assert_eq!(errors, "oops\n");
    assert!(output.iter().any(|object| object["base64"].is_string()), "bytes that are not text: {}", ran.out);
    let run = &["run", "-o", "json", "--name", "long", "--", "sh", "-c", "echo begun; exec sleep 600"];
    let mut child = dev.cli(run).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = kit::ProcessOutput::read(child.stdout.take().unwrap());
    out.wait_for("begun");
    dev.run(&["cancel", "long"]).exited(0);
    assert_eq!(wait(&mut child).code(), Some(130));
    let text = out.wait_for("\"type\":\"result\"");
    assert!(text.contains("\"verdict\":\"Cancelled\""), "{text}");
    let invalid = dev.run(&["run", "-o", "json", "--", ""]).exited(2);
    assert_eq!(invalid.out, "");
    let detached = dev.run(&["run", "-d", "-o", "json", "--", "true"]).exited(0);
    assert_eq!(detached.json()["type"], "created");
}

#[test]
fn common_mistakes_are_answered_with_a_correction() {
    let dev = Dev::start(&[]);
    dev.run(&["run", "--", "echo hi there"]).exited(127).printed("sh -c 'echo hi there'");
    dev.run(&["run", "--", "cd", "/tmp"]).exited(127).printed("sh -c 'cd /tmp'").printed("--workdir /tmp");
    let plain = dev.run(&["run", "--", "no-such-program"]).exited(127);
    assert!(!plain.err.contains("sh -c"), "{}", plain.err);
    dev.run(&["run", "uname", "-a"]).exited(2).printed("sentinel run -- uname -a");
    dev.run(&["run", "--name", "taken", "--", "true"]).exited(0);
    let taken = dev.run(&["run", "--name", "taken", "--", "true"]).exited(125);
    taken.printed("sentinel rerun taken").printed("sentinel delete taken");
    dev.run(&["get", "executions", "--outcome", "succeeded"]).exited(0).printed("Succeeded");
    dev.run(&["get", "executions", "--outcome", "great"]).exited(2).printed("OomKilled");
    let empty =
        dev.cli(&["get", "tasks"]).env("SENTINEL_SERVER", "").env("SENTINEL_NAMESPACE", "").output().unwrap();
    let empty = CliOutput::of(&["get", "tasks"], &empty);
    assert_ne!(empty.code, 2, "{empty:?}");
    let bad = tempfile::tempdir().unwrap();
    let file = bad.path().join("bad.yaml");
    write(&file, &task("bad", "\n    command: [echo]\n    comand: [echo]"));
    dev.run(&["apply", file.to_str().unwrap()])
        .exited(2)
        .printed("bad.yaml: line 8, column 5: spec.run.comand is an unknown field");
    write(&file, &task("bad", "{script: {interpreter: \"/bin/bash -eu\", text: \"true\"}}"));
    dev.run(&["apply", file.to_str().unwrap()]).exited(2).printed("takes no arguments").printed("line 6");
    write(
        &file,
        &task(
            "bad",
            "{command: [echo], workingDir: tmp, umask: \"9\", script: {text: x, interpreter: \"\"}}",
        ),
    );
    let refused = dev.run(&["apply", file.to_str().unwrap()]).exited(2);
    assert!(!refused.err.contains("must match") && !refused.err.contains('^'), "{}", refused.err);
    write(&file, &task("good", "{command: [echo]}"));
    dev.run(&["apply", file.to_str().unwrap(), "-f", "/nowhere.yaml"]).exited(2).printed("/nowhere.yaml");
    dev.run(&["apply", file.to_str().unwrap()]).exited(0).printed("task/good created");
}

#[test]
fn a_successful_run_reports_processes_left_behind() {
    let dev = Dev::start(&[]);
    let left = dev.run(&["run", "--grace", "0s", "--", "sh", "-c", "sleep 600 & true"]).exited(0);
    left.printed("left 1 process").printed("1 node, succeeded");
    let nothing = dev.run(&["run", "--", "true"]).exited(0);
    assert_eq!(nothing.err.lines().count(), 1, "{}", nothing.err);
}

#[test]
fn an_execution_is_described_by_name() {
    let dev = Dev::start(&[]);
    dev.run(&[
        "run",
        "--name",
        "slow",
        "--timeout",
        "1s",
        "--grace",
        "0s",
        "--",
        "sh",
        "-c",
        "trap '' TERM; sleep 60",
    ])
    .exited(124);
    let described = dev.run(&["get", "execution", "slow"]).exited(0);
    let node = described.out.lines().next().unwrap().rsplit('/').next().unwrap().to_owned();
    for expected in ["TimedOut", "timeouts.run, after 1", "SIGKILL (9)", "sentinel logs slow/1/"] {
        assert!(described.out.contains(expected), "{expected:?} is not in {}", described.out);
    }
    for name in [format!("slow/1/{node}"), "slow/1".to_owned(), format!("execution/slow/1/{node}")] {
        assert_eq!(
            dev.run(&["get", "execution", &name]).exited(0).out.lines().count(),
            described.out.lines().count()
        );
    }
    let id = dev.run(&["get", "executions", "-o", "name"]).exited(0).out.trim().to_owned();
    dev.run(&["get", "execution", &id]).exited(0).printed("TimedOut");
    dev.run(&["get", "execution", "slow/x"]).exited(2).printed("expected TASK/RUN/NODE");
    dev.run(&["get", "execution", "slow/9"]).exited(1).printed("no execution slow/9");
    dev.run(&["run", "--name", "later", "--", "true"]).exited(0);
    let sorted = dev.run(&["get", "executions", "--sort-by", "duration", "-o", "json"]).exited(0).json();
    let tasks: Vec<&str> =
        sorted["items"].as_array().unwrap().iter().map(|i| i["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["later", "slow"]);
    dev.run(&["get", "tasks", "--sort-by", "color"]).exited(2).printed("Columns: name,");
}

#[test]
fn logs_with_tail_or_since_show_the_end_only() {
    let dev = Dev::start(&[]);
    let script = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; echo err >&2; printf last";
    dev.run(&["run", "--name", "lines", "--", "sh", "-c", script]).exited(0);
    let out = |arguments: &[&str]| dev.run(&[&["logs", "lines"], arguments].concat()).exited(0);
    assert_eq!(out(&["--tail", "2", "--stream", "stdout"]).out, "line 29999\nlast");
    let all = out(&["--tail", "20000", "--stream", "stdout"]).out;
    assert_eq!((all.lines().count(), all.lines().next()), (20_000, Some("line 10001")));
    assert_eq!(out(&["--tail", "0"]).out, "");
    assert_eq!(out(&["--tail", "100000"]).out.lines().count(), 30_001);
    assert_eq!(out(&["--since", "1h"]).out.lines().count(), 30_001);
    assert_eq!(out(&["--since", "2100-01-01T00:00:00Z"]).out, "");
    dev.run(&["logs", "lines", "--since", "noon"]).exited(2).printed("such as 5m");
    dev.get("/api/v1/executions/u/1/n/log?tail=-1").is_error(400, "InvalidQuery", &["tail", "100000"]);
    dev.get("/api/v1/executions/u/1/n/log?since=noon").is_error(400, "InvalidQuery", &["since", "RFC 3339"]);

    // Output after the timestamp is included.
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let script = format!("echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after", gate.display());
    dev.run(&["run", "-d", "--name", "gated", "--", "sh", "-c", &script]).exited(0);
    dev.wait_until(&["logs", "gated", "--timestamps"], |ran| ran.out.contains("before"));
    let first = dev.run(&["logs", "gated", "--timestamps"]).out;
    let time = first.split(' ').next().unwrap().trim_end_matches('Z');
    let mut follow = dev.cli(&["logs", "-f", "gated", "--tail", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    // Half a microsecond after the first line.
    let since = format!("{time}5Z");
    write(&gate, "");
    dev.run(&["wait", "gated", "--timeout", "60s"]).exited(0);
    assert_eq!(dev.run(&["logs", "gated", "--since", &since]).exited(0).out, "after\n");
    assert!(wait(&mut follow).success());
    let mut followed = String::new();
    follow.stdout.take().unwrap().read_to_string(&mut followed).unwrap();
    assert!(!followed.contains("before"), "{followed}");
}

#[test]
fn prompts_are_shown_and_long_lines_split_between_characters() {
    let dev = Dev::start(&["--nodes", "1"]);
    dev.wait_until(&["get", "nodes", "-o", "json"], |ran| {
        ran.json()["items"].as_array().unwrap().iter().filter(|node| node["reachable"] == true).count() == 2
    });
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let script = format!(
        "case $SENTINEL_NODE in sim-1) printf 'Password: '; while [ ! -e {} ]; do sleep 0.05; done; echo thanks;; esac",
        gate.display()
    );
    let mut child = dev
        .cli(&["run", "--all", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    let mut out = child.stdout.take().unwrap();
    // Reads until the prompt, whose line is not complete.
    while !String::from_utf8_lossy(&shown).contains("| Password: ") {
        let mut piece = [0; 1024];
        let read = out.read(&mut piece).unwrap();
        assert!(read > 0, "no prompt: {}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&piece[..read]);
    }
    write(&gate, "");
    out.read_to_end(&mut shown).unwrap();
    assert!(wait(&mut child).success());
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.ends_with("| Password: thanks\n"), "{shown:?}");

    // 300 KiB of characters of three bytes in one line, on both nodes.
    let long = "i=0; s=; while [ $i -lt 1024 ]; do s=$s'日'; i=$((i+1)); done; i=0; while [ $i -lt 100 ]; do printf %s $s; i=$((i+1)); done; echo";
    let ran = dev.run(&["run", "--all", "--", "sh", "-c", long]).exited(0);
    assert!(!ran.out.contains('\u{fffd}'), "a character was split");
    let nodes: BTreeSet<&str> = ran.out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    for node in nodes {
        let parts: Vec<&str> = ran.out.lines().filter(|line| line.split(' ').next() == Some(node)).collect();
        let text = |line: &str, separator: &str| line.split_once(separator).unwrap().1.to_owned();
        assert_eq!(parts.len(), 2, "a part of 256 KiB and the rest");
        let (first, rest) = (text(parts[0], " | "), text(parts[1], " + "));
        assert_eq!(first.len(), (256 << 10) / 3 * 3);
        assert_eq!(first.chars().count() + rest.chars().count(), 102_400);
    }
}

#[test]
fn the_summary_of_a_deleted_task_is_consistent() {
    let dev = Dev::start(&[]);
    let mut child = dev
        .cli(&["run", "--name", "doomed", "--", "sh", "-c", "echo begun; exec sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    dev.wait_until(&["logs", "doomed"], |ran| ran.out.contains("begun"));
    dev.run(&["delete", "doomed", "--wait"]).exited(0);
    assert_eq!(wait(&mut child).code(), Some(130));
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains(": Cancelled"), "{err}");
    assert!(err.contains("0 of 1 node succeeded, 1 Cancelled"), "{err}");
    assert!(!err.contains("Running"), "{err}");
}

#[test]
fn a_follower_reports_a_silent_server_and_resumes() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let mut dev = Dev::start_at(&listen, &["--state", state.to_str().unwrap()]);
    let child = dev
        .cli(&["run", "--name", "long", "--", "sh", "-c", "echo begun; exec sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = kit::KillOnDrop(child);
    let err = kit::ProcessOutput::read(child.0.stderr.take().unwrap());
    kit::ProcessOutput::read(child.0.stdout.take().unwrap()).wait_for("begun\n");
    dev.suspend();
    err.wait_for("waiting for it to come back");
    dev.resume();
    err.wait_for("the server answers again");
    dev.run(&["cancel", "long"]).exited(0);
    assert_eq!(wait(&mut child.0).code(), Some(130));
    dev.interrupt();
    dev.wait();
}

/// What a hostile server could put into every string.
const HOSTILE: &str = "x\\u001b]0;title\\u0007\\u009b2J\\u202e\\n";

#[test]
fn text_of_a_hostile_server_is_escaped() {
    let named = format!(
        "{{\"name\": \"{HOSTILE}\", \"task\": \"{HOSTILE}\", \"id\": \"{HOSTILE}\", \"node\": \"{HOSTILE}\", \"message\": \"{HOSTILE}\", \"run\": 1, \"state\": \"{HOSTILE}\", \"taskUid\": \"{HOSTILE}\", \"metadata\": {{\"name\": \"{HOSTILE}\"}}}}"
    );
    let lists = kit::serve_json("200 OK", format!("{{\"items\": [{named}], \"name\": \"{HOSTILE}\"}}"));
    let single = kit::serve_json("200 OK", named);
    let error = format!(
        "{{\"reason\": \"{HOSTILE}\", \"message\": \"{HOSTILE}\", \"problems\": [{{\"field\": \"{HOSTILE}\", \"value\": \"{HOSTILE}\", \"allowed\": \"{HOSTILE}\"}}]}}"
    );
    let errors = kit::serve_json("422 Unprocessable Entity", error);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    write(&file, &task("a", "{command: [\"true\"]}"));
    let file = file.to_str().unwrap();
    let mut tried = 0;
    let mut check = |server: &str, arguments: &[&str]| {
        let output =
            sentinel().args(arguments).args(["--server", server]).stdin(Stdio::null()).output().unwrap();
        for (stream, bytes) in [("out", &output.stdout), ("err", &output.stderr)] {
            let text = String::from_utf8_lossy(bytes);
            let controls = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(controls), "{arguments:?} {stream}: {text:?}");
        }
        assert!(!output.stdout.is_empty() || !output.stderr.is_empty(), "{arguments:?} printed nothing");
        tried += 1;
    };
    for form in ["table", "wide", "name", "json", "yaml"] {
        for noun in ["tasks", "runs", "executions", "nodes"] {
            check(&lists, &["get", noun, "-o", form]);
        }
        check(&lists, &["nodes", "-o", form]);
        check(&single, &["nodes", "n", "-o", form]);
        check(&single, &["get", "task", "a", "-o", form]);
        check(&single, &["get", "execution", "0b6c8a1e-5b1c-4b0e-9f3b-3f0b8f1c2d3e/1/n", "-o", form]);
        check(&single, &["apply", file, "-o", form]);
        check(&errors, &["apply", file, "-o", form]);
    }
    for arguments in [
        &["delete", "a"][..],
        &["cancel", "a"],
        &["rerun", "a"],
        &["wait", "a"],
        &["logs", "a"],
        &["get", "tasks"],
        &["run", "--all", "--", "true"],
    ] {
        check(&errors, arguments);
    }
    check(&single, &["delete", "a"]);
    check(&lists, &["logs", "a"]);
    assert!(tried > 50);
}

#[test]
fn a_closed_pipe_does_not_fail_a_follower() {
    let dev = Dev::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let script = format!(
        "echo y; while [ ! -e {} ]; do sleep 0.05; done; i=0; while [ $i -lt 20000 ]; do echo y; i=$((i+1)); done; exit 3",
        gate.display()
    );
    let mut child = dev
        .cli(&["run", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 2];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    drop(stdout);
    write(&gate, "");
    assert_eq!(wait(&mut child).code(), Some(3), "the exit code is that of the command");
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(!err.to_lowercase().contains("pipe") && !err.contains("failed to"), "{err}");
}

#[test]
fn a_run_that_is_cancelled_before_it_starts_exits_with_130() {
    let dev = Dev::start(&["--max-attempts", "1"]);
    dev.run(&["run", "--detach", "--name", "first", "--", "sleep", "600"]).exited(0);
    dev.wait_until(&["get", "executions", "--task", "first"], |ran| ran.out.contains("Running"));
    for (name, stop) in [("cancelled", "cancel"), ("deleted", "delete")] {
        let mut child = dev
            .cli(&["run", "--name", name, "-o", "json", "--", "true"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = kit::ProcessOutput::read(child.stdout.take().unwrap());
        out.wait_for("\"type\":\"started\"");
        dev.run(&[stop, name]).exited(0);
        assert_eq!(wait(&mut child).code(), Some(130), "{stop}: {}", out.text());
        let text = out.wait_for("\"type\":\"result\"");
        let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((&result["verdict"], &result["exitCode"]), (&"Cancelled".into(), &130.into()), "{text}");
    }
}

/// It was read until no memory was left.
#[test]
fn a_device_in_the_place_of_a_kubeconfig_is_not_read() {
    let output = sentinel().args(["--kubeconfig", "/dev/zero", "get", "tasks"]).output().unwrap();
    let expected = "failed to read the kubeconfig /dev/zero: it is not a regular file";
    CliOutput::of(&["--kubeconfig"], &output).exited(1).printed(expected);
}
