//! The command line as people and programs use it, with the real binary against a real dev mode.

#[cfg(test)]
mod kit;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kit::{Dev, Ran, sentinel, signal, task, wait, write};
use serde_json::Value;

const REMARK: &str = "standard input is not handed to the command; --stdin does that";

#[test]
fn input_is_handed_over_with_stdin_and_remarked_on_without() {
    let dev = Dev::start(&[]);
    let cat = dev.run_with(&["run", "--stdin", "--", "cat"], "zeile\näöü".as_bytes()).ended(0);
    assert_eq!(cat.out, "zeile\näöü");
    assert!(!cat.err.contains(REMARK), "{}", cat.err);
    let without = dev.run_with(&["run", "--", "cat"], b"data\n").ended(0).said(REMARK);
    assert_eq!(without.out, "");
    let long = vec![b'x'; 65_537];
    dev.run_with(&["run", "--stdin", "--", "cat"], &long).ended(2).said("longer than 64 KiB");
    dev.run_with(&["run", "--stdin", "--", "cat"], b"\xff\xfe")
        .ended(2)
        .said("not UTF-8 text")
        .said("base64");
    let script = dev.run_with(&["run", "--script", "-"], b"echo from a script\n").ended(0);
    assert_eq!(script.out, "from a script\n");
    assert!(!script.err.contains(REMARK), "{}", script.err);
}

#[test]
fn nothing_is_remarked_where_input_is_not_meant_for_us() {
    let dev = Dev::start(&[]);
    // Nothing in it, or nothing there.
    let empty = dev.run_with(&["run", "--", "true"], b"").ended(0);
    assert!(!empty.err.contains(REMARK), "{}", empty.err);
    let null = dev.run(&["run", "--", "true"]).ended(0);
    assert!(!null.err.contains(REMARK), "{}", null.err);
    // Loops share their own input with us.
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    write(&list, "one\ntwo\nthree\n");
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.env("SENTINEL_SERVER", &dev.server).env("S", env!("CARGO_BIN_EXE_sentinel")).env("L", &list);
        let output = command.args(["-c", script]).stdin(Stdio::null()).output().unwrap();
        Ran::of(&[script], &output)
    };
    for script in [
        "while read word; do \"$S\" run -- echo \"$word\"; done < \"$L\"",
        "cat \"$L\" | while read word; do \"$S\" run -- echo \"$word\"; done",
    ] {
        let ran = shell(script).ended(0);
        assert_eq!(ran.out, "one\ntwo\nthree\n", "{script}");
        assert!(!ran.err.contains(REMARK), "{script}: {}", ran.err);
    }
    // And these give us ours.
    shell("\"$S\" run -- cat < \"$L\"; true").ended(0).said(REMARK);
    shell("echo data | \"$S\" run -- cat; true").ended(0).said(REMARK);
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
            "--nofile",
            "512",
        ])
        .ended(0);
    assert_eq!(ran.out, "checked\nout\n", "merged, in the order of writing");
    let spec = dev.run(&["get", "task", "flags", "-o", "json"]).ended(0).json()["spec"].clone();
    for (path, expected) in [
        ("/retry/limit", Value::from(2)),
        ("/timeouts/grace", Value::from("3s")),
        ("/timeouts/idle", Value::from("120s")),
        ("/timeouts/run", Value::from("300s")),
        ("/ttlAfterFinished", Value::from("600s")),
        ("/run/output/merge", Value::from(true)),
        ("/run/leftovers", Value::from("End")),
        ("/run/limits/nofile", Value::from(512)),
    ] {
        assert_eq!(spec.pointer(path), Some(&expected), "{path} of {spec}");
    }
    // As the definition writes it.
    dev.run(&["run", "--leftovers", "Keep", "--", "true"]).ended(0);
    for endless in ["/dev/zero", "/dev/urandom"] {
        dev.run(&["run", "--script", endless])
            .ended(2)
            .said(&format!("the script {endless} is longer than 128 KiB, the most that a Task carries"));
    }
    dev.run(&["run", "--timeout", "0s", "--", "true"]).ended(2).said("must be longer than 0");
    dev.run(&["run", "--group", "no-such-group", "--", "true"]).ended(126).said("no-such-group");
    dev.run(&["run", "--cpu", "lots", "--", "true"]).ended(2).said("spec.run.limits.cpu");
    dev.run(&["run", "--timestamps", "--", "echo", "hi"]).ended(0).said("Z hi\n");
    // As soon as it has ended, and its verdict is known all the same.
    dev.run(&["run", "--ttl", "0s", "--name", "brief", "--", "echo", "hi"])
        .ended(0)
        .said("hi\n")
        .said("succeeded");
    dev.run(&["wait", "brief", "--for", "deleted", "--timeout", "60s"]).ended(0);
}

#[test]
fn for_programs_run_writes_one_object_a_line() {
    let dev = Dev::start(&[]);
    let script = "printf 'a\\377b'; echo ä; echo oops >&2; exit 3";
    let ran = dev.run(&["run", "-o", "json", "--", "sh", "-c", script]).ended(3);
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
    let out = kit::Heard::of(child.stdout.take().unwrap());
    out.wait_for("begun");
    dev.run(&["cancel", "long"]).ended(0);
    assert_eq!(wait(&mut child).code(), Some(130));
    let text = out.wait_for("\"type\":\"result\"");
    assert!(text.contains("\"verdict\":\"Cancelled\""), "{text}");
    let invalid = dev.run(&["run", "-o", "json", "--", ""]).ended(2);
    assert_eq!(invalid.out, "");
    let detached = dev.run(&["run", "-d", "-o", "json", "--", "true"]).ended(0);
    assert_eq!(detached.json()["type"], "created");
}

#[test]
fn mistakes_that_people_make_are_answered_with_what_to_write() {
    let dev = Dev::start(&[]);
    dev.run(&["run", "--", "echo hi there"]).ended(127).said("sh -c 'echo hi there'");
    dev.run(&["run", "--", "cd", "/tmp"]).ended(127).said("sh -c 'cd /tmp'").said("--workdir /tmp");
    let plain = dev.run(&["run", "--", "no-such-program"]).ended(127);
    assert!(!plain.err.contains("sh -c"), "{}", plain.err);
    dev.run(&["run", "uname", "-a"]).ended(2).said("sentinel run -- uname -a");
    dev.run(&["run", "--name", "taken", "--", "true"]).ended(0);
    let taken = dev.run(&["run", "--name", "taken", "--", "true"]).ended(125);
    taken.said("sentinel rerun taken").said("sentinel delete taken");
    dev.run(&["get", "executions", "--outcome", "succeeded"]).ended(0).said("Succeeded");
    dev.run(&["get", "executions", "--outcome", "great"]).ended(2).said("OomKilled");
    let empty =
        dev.cli(&["get", "tasks"]).env("SENTINEL_SERVER", "").env("SENTINEL_NAMESPACE", "").output().unwrap();
    let empty = Ran::of(&["get", "tasks"], &empty);
    assert_ne!(empty.code, 2, "{empty:?}");
    let bad = tempfile::tempdir().unwrap();
    let file = bad.path().join("bad.yaml");
    write(&file, &task("bad", "\n    command: [echo]\n    comand: [echo]"));
    dev.run(&["apply", file.to_str().unwrap()])
        .ended(2)
        .said("bad.yaml: line 8, column 5: spec.run.comand is an unknown field");
    write(&file, &task("bad", "{script: {interpreter: \"/bin/bash -eu\", text: \"true\"}}"));
    dev.run(&["apply", file.to_str().unwrap()]).ended(2).said("takes no arguments").said("line 6");
    write(
        &file,
        &task(
            "bad",
            "{command: [echo], workingDir: tmp, umask: \"9\", script: {text: x, interpreter: \"\"}}",
        ),
    );
    let refused = dev.run(&["apply", file.to_str().unwrap()]).ended(2);
    assert!(!refused.err.contains("must match") && !refused.err.contains('^'), "{}", refused.err);
    write(&file, &task("good", "{command: [echo]}"));
    dev.run(&["apply", file.to_str().unwrap(), "-f", "/nowhere.yaml"]).ended(2).said("/nowhere.yaml");
    dev.run(&["apply", file.to_str().unwrap()]).ended(0).said("task/good created");
}

#[test]
fn what_a_command_leaves_behind_is_in_the_summary_of_a_run_that_went_well() {
    let dev = Dev::start(&[]);
    let left = dev.run(&["run", "--grace", "0s", "--", "sh", "-c", "sleep 600 & true"]).ended(0);
    left.said("left 1 process").said("1 node, succeeded");
    let nothing = dev.run(&["run", "--", "true"]).ended(0);
    assert_eq!(nothing.err.lines().count(), 1, "{}", nothing.err);
}

#[test]
fn an_execution_is_described_by_its_name() {
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
    .ended(124);
    let described = dev.run(&["get", "execution", "slow"]).ended(0);
    let node = described.out.lines().next().unwrap().rsplit('/').next().unwrap().to_owned();
    for expected in ["TimedOut", "timeouts.run, after 1", "SIGKILL (9)", "sentinel logs slow/1/"] {
        assert!(described.out.contains(expected), "{expected:?} is not in {}", described.out);
    }
    for name in [format!("slow/1/{node}"), "slow/1".to_owned(), format!("execution/slow/1/{node}")] {
        assert_eq!(
            dev.run(&["get", "execution", &name]).ended(0).out.lines().count(),
            described.out.lines().count()
        );
    }
    let id = dev.run(&["get", "executions", "-o", "name"]).ended(0).out.trim().to_owned();
    dev.run(&["get", "execution", &id]).ended(0).said("TimedOut");
    dev.run(&["get", "execution", "slow/x"]).ended(2).said("expected TASK/RUN/NODE");
    dev.run(&["get", "execution", "slow/9"]).ended(1).said("there is no execution slow/9");
    dev.run(&["run", "--name", "later", "--", "true"]).ended(0);
    let sorted = dev.run(&["get", "executions", "--sort-by", "duration", "-o", "json"]).ended(0).json();
    let tasks: Vec<&str> =
        sorted["items"].as_array().unwrap().iter().map(|i| i["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["later", "slow"]);
    dev.run(&["get", "tasks", "--sort-by", "colour"]).ended(2).said("Columns: name,");
}

#[test]
fn only_the_last_lines_are_shown_or_what_was_written_since() {
    let dev = Dev::start(&[]);
    let script = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; echo err >&2; printf last";
    dev.run(&["run", "--name", "lines", "--", "sh", "-c", script]).ended(0);
    let out = |arguments: &[&str]| dev.run(&[&["logs", "lines"], arguments].concat()).ended(0);
    assert_eq!(out(&["--tail", "2", "--stream", "stdout"]).out, "line 29999\nlast");
    let all = out(&["--tail", "20000", "--stream", "stdout"]).out;
    assert_eq!((all.lines().count(), all.lines().next()), (20_000, Some("line 10001")));
    assert_eq!(out(&["--tail", "0"]).out, "");
    assert_eq!(out(&["--tail", "100000"]).out.lines().count(), 30_001);
    assert_eq!(out(&["--since", "1h"]).out.lines().count(), 30_001);
    assert_eq!(out(&["--since", "2100-01-01T00:00:00Z"]).out, "");
    dev.run(&["logs", "lines", "--since", "noon"]).ended(2).said("such as 5m");
    dev.get("/api/v1/executions/u/1/n/log?tail=-1").refused(400, "InvalidQuery", &["tail", "100000"]);
    dev.get("/api/v1/executions/u/1/n/log?since=noon").refused(400, "InvalidQuery", &["since", "RFC 3339"]);

    // What is written later is not before the moment.
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let script = format!("echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after", gate.display());
    dev.run(&["run", "-d", "--name", "gated", "--", "sh", "-c", &script]).ended(0);
    dev.until(&["logs", "gated", "--timestamps"], |ran| ran.out.contains("before"));
    let first = dev.run(&["logs", "gated", "--timestamps"]).out;
    let time = first.split(' ').next().unwrap().trim_end_matches('Z');
    let mut follow = dev.cli(&["logs", "-f", "gated", "--tail", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    // Half a microsecond behind the first line.
    let since = format!("{time}5Z");
    write(&gate, "");
    dev.run(&["wait", "gated", "--timeout", "60s"]).ended(0);
    assert_eq!(dev.run(&["logs", "gated", "--since", &since]).ended(0).out, "after\n");
    assert!(wait(&mut follow).success());
    let mut followed = String::new();
    follow.stdout.take().unwrap().read_to_string(&mut followed).unwrap();
    assert!(!followed.contains("before"), "{followed}");
}

#[test]
fn a_prompt_and_a_long_line_of_one_of_several_nodes_are_shown_and_nothing_is_cut_inside_a_character() {
    let dev = Dev::start(&["--nodes", "1"]);
    dev.until(&["get", "nodes", "-o", "json"], |ran| {
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
    // Reads until the prompt is there, though its line does not end.
    while !String::from_utf8_lossy(&shown).contains("| Password: ") {
        let mut piece = [0; 1024];
        let read = out.read(&mut piece).unwrap();
        assert!(read > 0, "it ended without the prompt: {}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&piece[..read]);
    }
    write(&gate, "");
    out.read_to_end(&mut shown).unwrap();
    assert!(wait(&mut child).success());
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.ends_with("| Password: thanks\n"), "{shown:?}");

    // 300 KiB of characters of three bytes in one line, on both nodes.
    let long = "i=0; s=; while [ $i -lt 1024 ]; do s=$s'日'; i=$((i+1)); done; i=0; while [ $i -lt 100 ]; do printf %s $s; i=$((i+1)); done; echo";
    let ran = dev.run(&["run", "--all", "--", "sh", "-c", long]).ended(0);
    assert!(!ran.out.contains('\u{fffd}'), "a character was cut");
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
fn a_task_that_is_deleted_while_it_runs_ends_with_states_and_numbers_that_add_up() {
    let dev = Dev::start(&[]);
    let mut child = dev
        .cli(&["run", "--name", "doomed", "--", "sh", "-c", "echo begun; exec sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    dev.until(&["logs", "doomed"], |ran| ran.out.contains("begun"));
    dev.run(&["delete", "doomed", "--wait"]).ended(0);
    assert_eq!(wait(&mut child).code(), Some(130));
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(words.contains(": Cancelled"), "{words}");
    assert!(words.contains("0 of 1 nodes succeeded, 1 Cancelled"), "{words}");
    assert!(!words.contains("Running"), "{words}");
}

#[test]
fn a_follower_reads_within_seconds_that_the_server_is_gone_and_goes_on_when_it_is_back() {
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
    let mut child = kit::Ending(child);
    let err = kit::Heard::of(child.0.stderr.take().unwrap());
    kit::Heard::of(child.0.stdout.take().unwrap()).wait_for("begun\n");
    let begun = Instant::now();
    dev.stop_answering();
    err.wait_for("waiting for it to come back");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    dev.answer_again();
    err.wait_for("the server answers again");
    dev.run(&["cancel", "long"]).ended(0);
    assert_eq!(wait(&mut child.0).code(), Some(130));
    dev.interrupt();
    dev.wait();
}

/// What a hostile server could put into every text.
const HOSTILE: &str = "x\\u001b]0;title\\u0007\\u009b2J\\u202e\\n";

#[test]
fn no_text_of_a_hostile_server_can_steer_the_terminal() {
    let named = format!(
        "{{\"name\": \"{HOSTILE}\", \"task\": \"{HOSTILE}\", \"id\": \"{HOSTILE}\", \"node\": \"{HOSTILE}\", \"message\": \"{HOSTILE}\", \"run\": 1, \"state\": \"{HOSTILE}\", \"taskUid\": \"{HOSTILE}\", \"metadata\": {{\"name\": \"{HOSTILE}\"}}}}"
    );
    let lists = kit::serving("200 OK", format!("{{\"items\": [{named}], \"name\": \"{HOSTILE}\"}}"));
    let single = kit::serving("200 OK", named);
    let error = format!(
        "{{\"reason\": \"{HOSTILE}\", \"message\": \"{HOSTILE}\", \"problems\": [{{\"field\": \"{HOSTILE}\", \"value\": \"{HOSTILE}\", \"allowed\": \"{HOSTILE}\"}}]}}"
    );
    let errors = kit::serving("422 Unprocessable Entity", error);
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
            let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(steers), "{arguments:?} {stream}: {text:?}");
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
fn a_pipe_of_ours_that_is_closed_ends_a_follower_quietly() {
    let dev = Dev::start(&[]);
    let mut child = dev
        .cli(&["run", "--", "sh", "-c", "while :; do echo y; done"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    signal(&child, "INT");
    assert_eq!(wait(&mut child).code(), Some(130));
}
