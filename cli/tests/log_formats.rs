//! `logs -o raw` and `logs -o json`, with the real binary against a real dev mode, and against a server that cuts
//! connections off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures of tests may panic")]

#[cfg(test)]
mod kit;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use kit::{CliOutput, Dev, ProcessOutput, wait, write};
use serde_json::{Value, json};

/// Each line of a JSON log, and its end.
fn objects(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"))).collect()
}

fn texts(objects: &[Value]) -> Vec<(&str, &str)> {
    let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned().leak() as &str;
    objects.iter().filter(|o| o["line"].is_u64()).map(|o| (text(o, "node"), text(o, "text"))).collect()
}

#[test]
fn json_has_the_lines_of_all_nodes_by_time() {
    let dev = Dev::start(&["--nodes", "3"]);
    let marks = tempfile::tempdir().unwrap();
    // Each node writes after the previous one, by the same clock.
    let script = format!(
        "n=${{SENTINEL_NODE#sim-}}; while [ $n != 3 ] && [ ! -e {0}/$((n+1)) ]; do sleep 0.05; done; \
         echo from $n; echo err $n >&2; printf last; touch {0}/$n",
        marks.path().display()
    );
    let nodes = ["--node", "sim-1", "--node", "sim-2", "--node", "sim-3"];
    dev.run(
        &[&["run", "--name", "merged", "--sandbox", "privileged"][..], &nodes, &["--", "sh", "-c", &script]]
            .concat(),
    )
    .exited(0);
    for flags in [&[][..], &["-f"], &["-f", "--since", "1h"], &["--since", "1h"], &["--run", "1"]] {
        let ran = dev.run(&[&["logs", "task/merged", "-o", "json"], flags].concat()).exited(0);
        let lines = objects(&ran.out);
        let firsts: Vec<_> = texts(&lines).into_iter().filter(|(_, text)| text.starts_with("from")).collect();
        let expected = [("sim-3", "from 3"), ("sim-2", "from 2"), ("sim-1", "from 1")];
        assert_eq!(firsts, expected, "{flags:?}: {}", ran.out);
        assert_eq!(texts(&lines).len(), 9, "{flags:?}: {}", ran.out);
        let last = lines.iter().filter(|line| line["text"] == "last").collect::<Vec<_>>();
        assert!(last.len() == 3 && last.iter().all(|line| line["open"] == true), "{flags:?}: {}", ran.out);
        assert_eq!(lines.last().unwrap(), &json!({"kind": "end", "ended": true}), "{flags:?}");
        assert!(lines[0]["attempt"] == 1 && lines[0]["atMicros"].as_i64() > Some(0), "{}", ran.out);
    }
    let two = ["logs", "merged", "-o", "json", "--node", "sim-1", "--node", "sim-3", "--stream", "stderr"];
    assert_eq!(
        texts(&objects(&dev.run(&two).exited(0).out)),
        [("sim-3", "err 3"), ("sim-1", "err 1")],
        "of two nodes, one stream"
    );
    let late = dev.run(&["logs", "merged", "-o", "json", "--since", "2100-01-01T00:00:00Z"]).exited(0);
    assert_eq!(texts(&objects(&late.out)), []);
    dev.run(&["logs", "merged", "-o", "json", "--node", "nope"])
        .exited(1)
        .printed("task default/merged has no execution of run 1 on node nope");
    dev.run(&["logs", "merged", "-o", "json", "--run", "9"]).exited(1).printed("no execution of run 9");
}

#[test]
fn json_of_an_execution_has_its_node_and_its_last_lines() {
    let dev = Dev::start(&[]);
    let run = ["run", "--name", "one", "--", "sh", "-c", "seq 1 3000; echo 'a\u{1b}b' >&2"];
    dev.run(&run).exited(0);
    let node = dev.run(&["get", "nodes", "-o", "name"]).exited(0).out.trim().replace("node/", "");
    for flags in [&[][..], &["-f"]] {
        let ran = dev
            .run(&[&["logs", "execution/one/1", "-o", "json", "--tail", "2000"], flags].concat())
            .exited(0);
        let lines = objects(&ran.out);
        assert_eq!(texts(&lines).len(), 2000, "{flags:?}");
        assert!(texts(&lines).iter().all(|(of, _)| *of == node), "{flags:?}");
        assert_eq!(lines.last().unwrap()["ended"], true, "{flags:?}");
        assert!(!ran.out.contains('\u{1b}'), "control characters are escaped");
    }
    let all = dev.run(&["logs", &format!("one/1/{node}"), "-o", "json", "--attempt", "1"]).exited(0);
    assert_eq!(texts(&objects(&all.out)).len(), 3001);
    // Of one stream, since two have no order.
    dev.run(&["run", "--name", "few", "--", "seq", "1", "3"]).exited(0);
    let from = dev.run(&["logs", "execution/few/1", "-o", "json", "--from", "2"]).exited(0);
    assert_eq!(texts(&objects(&from.out))[0], (node.as_str(), "2"));
}

#[test]
fn a_follower_gets_lines_in_json_as_they_end() {
    let dev = Dev::start(&["--nodes", "2"]);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    // It follows before there is a Run.
    let file = directory.path().join("task.yaml");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done; echo done", gate.display());
    let targets = json!({"nodeNames": ["sim-1", "sim-2"]});
    let mut body: Value = serde_json::from_slice(&kit::body("gated", &["sh", "-c", &script])).unwrap();
    body["spec"]["targets"] = targets;
    body["spec"]["suspend"] = json!(true);
    write(&file, &body.to_string());
    dev.run(&["apply", file.to_str().unwrap()]).exited(0);
    dev.run(&["logs", "gated", "-o", "json"]).exited(0).printed("has not run yet");
    let follow = |of: &[&str]| {
        let mut child = dev.cli(&[&["logs", "-f", "-o", "json"], of].concat());
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = ProcessOutput::read(child.stdout.take().unwrap());
        (kit::KillOnDrop(child), out)
    };
    let (mut all, all_out) = follow(&["gated"]);
    body["spec"]["suspend"] = json!(false);
    write(&file, &body.to_string());
    dev.run(&["apply", file.to_str().unwrap()]).exited(0);
    all_out.wait_for("begun");
    dev.wait_until(&["logs", "gated/1/sim-2"], |ran| ran.out.contains("begun"));
    let (mut one, one_out) = follow(&["gated/1/sim-2"]);
    one_out.wait_for("begun");
    write(&gate, "");
    for (child, out, count) in [(&mut all.0, all_out, 4), (&mut one.0, one_out, 2)] {
        assert!(wait(child).success());
        let lines = objects(&out.wait_for("\"kind\":\"end\""));
        assert_eq!(texts(&lines).len(), count, "{lines:?}");
    }
}

fn bytes(output: &Output) -> &[u8] {
    assert!(output.status.success(), "{output:?}");
    &output.stdout
}

#[test]
fn raw_has_the_bytes_of_the_command_also_on_a_terminal() {
    let dev = Dev::start(&["--nodes", "2"]);
    let script = r"printf '\377\000\033[1m\r\nend'; printf err >&2";
    dev.run(&["run", "--name", "bin", "--node", "sim-1", "--", "sh", "-c", script]).exited(0);
    let out = |arguments: &[&str]| dev.cli(arguments).output().unwrap();
    let stdout = b"\xff\x00\x1b[1m\r\nend";
    assert_eq!(bytes(&out(&["logs", "bin", "-o", "raw", "--stream", "stdout"])), stdout);
    for arguments in [
        &["logs", "bin", "-o", "raw"][..],
        &["logs", "bin/1/sim-1", "-o", "raw"],
        &["logs", "-f", "bin", "-o", "raw"],
    ] {
        let both = out(arguments);
        assert_eq!(bytes(&both).len(), stdout.len() + 3, "{arguments:?}");
        assert_eq!(both.stderr, b"", "{arguments:?}");
    }
    assert_eq!(
        bytes(&out(&["logs", "execution/bin/1", "-o", "raw", "--from", "3", "--stream", "stdout"])),
        &stdout[3..]
    );
    let line = format!("{} logs bin -o raw --stream stdout", env!("CARGO_BIN_EXE_sentinel"));
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).env("SENTINEL_SERVER", &dev.server).stdin(Stdio::null());
    let shown = terminal.output().expect("script of util-linux is installed");
    assert!(shown.stdout.windows(5).any(|window| window == b"\x00\x1b[1m"), "{shown:?}");

    // Of several nodes one after the other, but not while they write.
    let nodes = ["--node", "sim-1", "--node", "sim-2"];
    let script = "echo $SENTINEL_NODE";
    dev.run(&[&["run", "--name", "two"][..], &nodes, &["--", "sh", "-c", script]].concat()).exited(0);
    let mut both: Vec<String> =
        dev.run(&["logs", "two", "-o", "raw"]).exited(0).out.lines().map(str::to_owned).collect();
    both.sort();
    assert_eq!(both, ["sim-1", "sim-2"]);
    let refused = dev.run(&["logs", "-f", "two", "-o", "raw"]).exited(2);
    assert!(
        refused.err.contains("this Run has 2 nodes") && refused.err.contains("--node NAME"),
        "{refused:?}"
    );
    assert_eq!(dev.run(&["logs", "-f", "two", "-o", "raw", "--node", "sim-2"]).exited(0).out, "sim-2\n");
}

#[test]
fn flags_without_use_for_a_format_are_refused() {
    let refused = |arguments: &[&str], parts: &[&str]| {
        let output = kit::sentinel().args(["--server", "unix:/nowhere", "logs"]).args(arguments).output();
        let mut ran = CliOutput::of(arguments, &output.unwrap()).exited(2);
        for part in parts {
            ran = ran.printed(part);
        }
    };
    refused(&["a", "-o", "json", "--timestamps"], &["--timestamps cannot be used with -o json", "atMicros"]);
    refused(&["a", "-o", "raw", "--timestamps"], &["--timestamps cannot be used with -o raw"]);
    refused(&["a", "-o", "json", "--no-prefix"], &["--no-prefix cannot be used with -o json"]);
    refused(&["a", "-o", "json", "--tail", "5"], &["--tail cannot be used with -o json", "TASK/RUN/NODE"]);
    refused(&["a", "-o", "json", "--from", "5", "--node", "n"], &["--from cannot be used", "TASK/RUN/NODE"]);
    for format in ["raw", "json"] {
        refused(&["a", "-o", format, "--fold"], &["--fold cannot be used with -o"]);
        refused(&["a", "-o", format, "--grep", "x"], &["--grep cannot be used with -o"]);
    }
    refused(&["a", "-o", "yaml"], &["text, raw, json"]);
}

/// Answers the requests for lines one after the other, and cuts each connection off; keeps what was requested.
fn cutting_server(answers: Vec<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (requests, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answers.into_iter())));
    let kept = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept, answers) = (stream.unwrap(), Arc::clone(&kept), Arc::clone(&seen));
            std::thread::spawn(move || {
                let head = head_of(&stream);
                let (kind, body) = if head.contains("/lines/events") {
                    let answer = answers.lock().unwrap().next().unwrap();
                    kept.lock().unwrap().push(head);
                    ("text/event-stream", answer)
                } else if head.contains("/events") {
                    let task =
                        json!({"metadata": {"name": "a", "uid": "u"}, "status": {"run": {"number": 1}}});
                    ("text/event-stream", format!("event: task\ndata: {task}\n\n"))
                } else {
                    (
                        "application/json",
                        "{\"metadata\": {\"name\": \"a\"}, \"status\": {\"run\": {\"number\": 1}}}"
                            .to_owned(),
                    )
                };
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 1000000\r\n\r\n");
                let length = head.replace("1000000", &body.len().to_string());
                // What is cut off is shorter than announced.
                let head = if kind == "application/json" { length } else { head };
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            });
        }
    });
    (url, requests)
}

fn head_of(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_follower_in_json_misses_and_repeats_no_line_when_it_is_cut_off() {
    let line = |number: u64, text: &str, open: bool| json!({"node": "n", "attempt": 1, "line": number, "position": number * 9, "stream": "stdout", "atMicros": 1, "text": text, "open": open});
    let event =
        |id: &str, lines: &[Value]| format!("id: {id}\nevent: lines\ndata: {}\n\n", json!({"lines": lines}));
    let answers = vec![
        // Cut off in the middle of an event, which does not count.
        [
            event("A", &[line(1, "one", false), line(2, "tw", true)]),
            "id: B\nevent: lines\ndata: {\"li".to_owned(),
        ]
        .concat(),
        // A line that had not ended is sent again; and one that the follower has written already.
        [
            event("B", &[line(1, "one", false), line(2, "two", false), line(3, "three", false)]),
            ": alive\n\n".to_owned(),
        ]
        .concat(),
        String::new(),
        [event("C", &[line(4, "four", true)]), "event: end\ndata: {}\n\n".to_owned()].concat(),
    ];
    let (server, requests) = cutting_server(answers);
    let arguments = ["--server", &server, "logs", "-f", "a", "-o", "json"];
    let output = kit::sentinel().args(arguments).stdin(Stdio::null()).output().unwrap();
    let ran = CliOutput::of(&arguments, &output).exited(0);
    let lines = objects(&ran.out);
    assert_eq!(texts(&lines), [("n", "one"), ("n", "two"), ("n", "three"), ("n", "four")]);
    let asked: Vec<Option<String>> = requests
        .lock()
        .unwrap()
        .iter()
        .map(|head| head.lines().find_map(|line| line.strip_prefix("last-event-id: ")).map(str::to_owned))
        .collect();
    let id = |text: &str| Some(text.to_owned());
    assert_eq!(asked, [None, id("A"), id("B"), id("B")]);
}

/// Forwards a port to an address, and cuts each connection off after so many bytes of answers; returns its URL, and how
/// often it has cut one off.
fn cutting_tunnel(to: String, after: u64) -> (String, Arc<Mutex<usize>>) {
    tunnel(to, after, |_| {})
}

/// The same; requests are changed on their way.
fn tunnel(to: String, after: u64, change: fn(&mut [u8])) -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cuts = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&cuts);
    std::thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let (to, counted) = (TcpStream::connect(&to).unwrap(), Arc::clone(&counted));
            let (mut requests, mut server) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            std::thread::spawn(move || {
                let mut piece = vec![0; 64 << 10];
                while let Ok(read @ 1..) = requests.read(&mut piece) {
                    change(&mut piece[..read]);
                    if server.write_all(&piece[..read]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let copied = std::io::copy(&mut to.try_clone().unwrap().take(after), &mut &from);
                *counted.lock().unwrap() += usize::from(copied.is_ok_and(|copied| copied == after));
                let _ = from.shutdown(std::net::Shutdown::Both);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (url, cuts)
}

#[test]
fn a_follower_of_a_real_run_misses_and_repeats_no_line_when_it_is_cut_off_often() {
    const LINES: u64 = 5000;
    let dev = Dev::start(&["--nodes", "3"]);
    let script = format!("seq -f 'line %g of many that are long enough to fill events' 1 {LINES}");
    dev.run(&["run", "-d", "--name", "many", "-l", "sentinelnode.dev/simulated", "--", "sh", "-c", &script])
        .exited(0);
    // More than the largest event, so that each connection brings at least one.
    let address = dev.server.strip_prefix("http://").unwrap().to_owned();
    let (tunnel, cuts) = cutting_tunnel(address, 640 << 10);
    let token = dev.token_file.to_str().unwrap();
    let arguments = ["--server", &tunnel, "--token-file", token, "logs", "-f", "many", "-o", "json"];
    let ran = CliOutput::of(&arguments, &kit::sentinel().args(arguments).output().unwrap()).exited(0);
    for node in ["sim-1", "sim-2", "sim-3"] {
        let of = |line: &Value| (line["node"] == node).then(|| line["line"].as_u64().unwrap());
        let numbers: Vec<u64> = objects(&ran.out).iter().filter_map(of).collect();
        assert!(numbers == (1..=LINES).collect::<Vec<u64>>(), "{node}: {} lines", numbers.len());
    }
    let cuts = *cuts.lock().unwrap();
    assert!(cuts >= 2, "it was cut off only {cuts} times");
}

/// An operator of an earlier release does not know this media type, and sends JSON.
fn unknown(request: &mut [u8]) {
    let name = b"vnd.sentinelnode.records";
    if let Some(at) = request.windows(name.len()).position(|window| window == name) {
        request[at..at + 3].copy_from_slice(b"x.y");
    }
}

#[test]
fn bytes_are_whole_and_in_order_however_often_a_reader_is_cut_off() {
    const LINES: u64 = 60_000;
    let dev = Dev::start(&[]);
    let script = format!("seq 1 {LINES}; printf '\\377\\000end'");
    dev.run(&["run", "-d", "--name", "many", "--", "sh", "-c", &script]).exited(0);
    dev.run(&["wait", "many"]).exited(0);
    let mut expected: Vec<u8> = (1..=LINES).flat_map(|line| format!("{line}\n").into_bytes()).collect();
    expected.extend_from_slice(b"\xff\0end");
    let address = dev.server.strip_prefix("http://").unwrap();
    let token = dev.token_file.to_str().unwrap();
    for (release, change) in [("this release", (|_| {}) as fn(&mut [u8])), ("an earlier release", unknown)] {
        // More than the largest record, so that each connection of JSON brings at least one.
        let (tunnel, cuts) = tunnel(address.to_owned(), 250 << 10, change);
        for format in ["raw", "text"] {
            let arguments = ["logs", "-f", "execution/many/1", "-o", format];
            let output = kit::sentinel()
                .args(["--server", &tunnel, "--token-file", token])
                .args(arguments)
                .output()
                .unwrap();
            let out = bytes(&output);
            assert!(out == expected, "{release}, {format}: {} of {} bytes", out.len(), expected.len());
        }
        let cuts = *cuts.lock().unwrap();
        assert!(cuts >= 2, "{release}: it was cut off only {cuts} times");
    }
}

#[test]
fn a_wrong_frame_ends_with_what_stands_before_it_and_a_message() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (kind, body) = if head_of(&stream).contains("/log?") {
                let head = br#"{"kind":"record","stream":"stdout","position":0,"len":3}"#;
                let frame = [&[0, head.len() as u8][..], head, b"ok\n", &[0xff; 99]].concat();
                ("application/vnd.sentinelnode.records", frame)
            } else {
                let item = json!({"id": "u/1/n", "namespace": "default", "task": "a", "taskUid": "u", "run": 1, "node": "n", "state": "Succeeded", "attempt": 1});
                ("application/json", json!({"items": [item]}).to_string().into_bytes())
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    let arguments = ["--server", &url, "logs", "a/1/n"];
    let output = kit::sentinel().args(arguments).stdin(Stdio::null()).output().unwrap();
    let ran = CliOutput::of(&arguments, &output).exited(1).printed("about a record of a log: field length");
    assert_eq!(ran.out, "ok\n");
}
