//! The environment of a command: script, output, limits, groups. Real processes under real supervisors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;

use fixtures::{Node, can_run_as_root, cannot_run, sha256, shell, start};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::request::Program;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::to_operator::StreamSummary;

fn script(number: u32, interpreter: &str, argument: Option<&str>, text: &str) -> Start {
    let mut start = start(number, &[]);
    start.request.program = Program::Script {
        interpreter: interpreter.to_owned(),
        argument: argument.map(str::to_owned),
        text: text.to_owned(),
    };
    start
}

/// No shell is between a request and its program.
#[test]
fn arguments_reach_the_program_as_they_are_written() {
    let mut node = Node::new();
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("marker");
    let touch = format!("touch {}", marker.display());
    let arguments = [
        format!("; {touch}"),
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("&& {touch}"),
        format!("| {touch}"),
        format!("\n{touch}\n"),
        "$HOME ${PATH} %n *".to_owned(),
        "a\tb  'c' \"d\" \\e".to_owned(),
        "-- -e".to_owned(),
        String::new(),
    ];
    let mut argv = vec!["/usr/bin/printf", "%s\\0"];
    argv.extend(arguments.iter().map(String::as_str));
    let run = node.run(&start(1, &argv));
    assert_eq!(run.ended.outcome, Outcome::Succeeded { exit_code: 0 });
    let stdout = run.stdout();
    let mut seen: Vec<&[u8]> = stdout.split(|byte| *byte == 0).collect();
    assert_eq!(seen.pop(), Some(&b""[..]));
    let expected: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
    assert_eq!(seen, expected);
    assert!(!marker.exists());
}

/// What a command prints is output, whatever it is like.
#[test]
fn output_that_is_like_a_result_stays_output() {
    let mut node = Node::new();
    let attempt = start(1, &[]).attempt;
    let ended = r#"{"state":"Ended","outcome":{"kind":"Succeeded","exitCode":0}}"#;
    let lines = [
        format!(r#"{{"kind":"Report","attempt":"{attempt}","state":{ended}}}"#),
        format!(r#"{{"v":1,"attempt":"{attempt}","outcome":{{"kind":"Succeeded","exitCode":0}}}}"#),
        "\u{1b}]0;Succeeded\u{7}::set-output name=outcome::Succeeded".to_owned(),
        "exit status 0".to_owned(),
    ];
    let text = lines.join("\n") + "\n";
    // Also on each descriptor that it may have been left.
    let script = "cat >&2; for fd in 3 4 5 6 7 8 9; do printf '%s' \"$0\" >&$fd; done 2>/dev/null; printf '%s' \"$0\"; exit 7";
    let mut request = start(1, &["/bin/sh", "-c", script, &text]);
    request.request.stdin.clone_from(&text);
    let run = node.run(&request);
    assert_eq!(run.ended.outcome, Outcome::Failed { exit_code: 7 });
    assert_eq!((run.text(), String::from_utf8(run.stderr()).unwrap()), (text.clone(), text));
}

#[test]
fn an_interpreter_gets_its_argument_before_the_script() {
    let mut node = Node::new();
    let run =
        node.run(&script(1, "/bin/sh", Some("-eu"), "#!/bin/sh -eu\necho $-; false; echo not reached\n"));
    assert_eq!(run.ended.outcome, Outcome::Failed { exit_code: 1 });
    assert!(
        run.text().contains('e') && run.text().contains('u') && run.text().lines().count() == 1,
        "{}",
        run.text()
    );
    // One argument, as the kernel passes it; `env -S` splits it.
    let text = "#!/usr/bin/env -S sh -e -u\necho \"$0\"; case $- in *u*) echo strict;; esac\n";
    assert_eq!(node.run(&script(2, "/usr/bin/env", Some("-S sh -e -u"), text)).text(), "/dev/fd/3\nstrict\n");
    let run = node.run(&script(3, "/usr/bin/env", Some("sh -e"), "echo no\n"));
    assert_eq!(run.ended.outcome, Outcome::Failed { exit_code: 127 });
}

#[test]
fn a_script_without_final_newline_or_of_maximum_length_runs() {
    let mut node = Node::new();
    assert_eq!(node.run(&script(1, "/bin/sh", None, "echo first\necho last")).text(), "first\nlast\n");
    let mut long = "# 0123456789012345678901234567890123456789012345678901234567890\n".repeat(3_000);
    long.truncate((128 << 10) - 10);
    long.push_str("\necho end\n");
    assert_eq!(long.len(), 128 << 10);
    assert_eq!(node.run(&script(2, "/bin/sh", None, &long)).text(), "end\n");
}

#[test]
fn a_script_can_read_and_run_itself_by_its_path() {
    let mut node = Node::new();
    let text = "#!/bin/sh\n[ $# -gt 0 ] && { echo \"again $1\"; exit; }\nsed -n '/^DATA$/,$p' \"$0\"\n\
        readlink \"$0\" | cut -c1-19\n\"$0\" once\nexec \"$0\" twice\nDATA\nkept here\n";
    let expected = "DATA\nkept here\n/memfd:disk-report \nagain once\nagain twice\n";
    let run = node.run(&script(1, "/bin/sh", None, text));
    assert_eq!(run.text(), expected, "{:?}", String::from_utf8_lossy(&run.stderr()));
    if can_run_as_root() {
        let mut nobody = script(2, "/bin/sh", None, text);
        nobody.request.user = Some("nobody".into());
        let run = node.run(&nobody);
        assert_eq!(run.text(), expected, "{:?}", String::from_utf8_lossy(&run.stderr()));
    }
}

#[test]
fn merged_output_keeps_the_order_of_writing() {
    let mut node = Node::new();
    let text = "i=0; while [ $i -lt 300 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let lines: Vec<String> = (0..300).map(|i| format!("o{i}\ne{i}\n")).collect();
    let expected = lines.concat();
    let mut merged = shell(1, text);
    merged.request.output.merge = true;
    let run = node.run(&merged);
    assert_eq!(run.text(), expected);
    let output = &run.ended.output;
    assert_eq!(
        (output.stdout.bytes, output.stdout.sha256.as_str()),
        (expected.len() as u64, sha256(expected.as_bytes()).as_str())
    );
    assert_eq!(output.stderr, StreamSummary::default());
    assert_eq!(run.stderr(), b"");
    // Children share it, and limit and counts are those of one stream.
    let mut children = shell(2, "(echo a; ls /nosuch 2>&1 >/dev/null | wc -l; sh -c 'echo b >&2'; echo c)");
    children.request.output.merge = true;
    children.request.output.limit = 4;
    let run = node.run(&children);
    assert_eq!((run.text().as_str(), run.missing()), ("a\n1\n", 4));
    assert_eq!((run.ended.output.stdout.bytes, run.ended.output.stdout.dropped), (8, 4));
}

#[test]
fn merged_output_ends_when_both_streams_are_closed() {
    let mut merged = shell(1, "exec 2>&-; echo out; exec >&-; sleep 0.2; exit 7");
    merged.request.output.merge = true;
    let run = Node::new().run(&merged);
    assert_eq!((run.ended.outcome.clone(), run.text().as_str()), (Outcome::Failed { exit_code: 7 }, "out\n"));
    assert!(!run.ended.output.held_open);
}

/// A line of `/proc/self/limits`: name, soft and hard.
fn limit(text: &str, name: &str) -> (String, String) {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn open_files_and_core_dumps_are_limited_as_requested() {
    let mut node = Node::new();
    let plain = node.run(&start(1, &["cat", "/proc/self/limits"])).text();
    // With 0, a program in `core_pattern` would get a dump.
    let none = || ("1".to_owned(), "1".to_owned());
    assert_eq!(limit(&plain, "Max core file size"), none());
    let mut limited = start(2, &["cat", "/proc/self/limits"]);
    limited.request.limits.nofile = Some(64);
    limited.request.limits.core = Some(0);
    let text = node.run(&limited).text();
    assert_eq!(limit(&text, "Max open files"), ("64".into(), "64".into()));
    assert_eq!(limit(&text, "Max core file size"), none());
    if !can_run_as_root() {
        return;
    }
    // For a command without the privilege to raise them too, and with fewer descriptors than the supervisor has open.
    limited.request.user = Some("nobody".into());
    limited.request.limits.nofile = Some(16);
    limited.request.limits.core = Some(1 << 20);
    limited.attempt = "0b6c-1/3/node-1/1".parse().unwrap();
    let text = node.run(&limited).text();
    assert_eq!(limit(&text, "Max open files"), ("16".into(), "16".into()));
    assert_eq!(limit(&text, "Max core file size"), ("1048576".into(), "1048576".into()));
}

#[test]
fn an_impossible_limit_of_open_files_fails_the_start() {
    let most: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    let more = u32::try_from(most + 8).unwrap();
    let mut many = start(1, &["true"]);
    many.request.limits.nofile = Some(more);
    let run = Node::new().run(&many);
    let Outcome::StartFailed { reason, message } = run.ended.outcome else {
        panic!("{:?}", run.ended.outcome)
    };
    assert_eq!((reason, run.ended.started_at), (StartFailure::Other, None));
    assert!(
        message
            .starts_with(&format!("run.limits.nofile cannot be held on this node: {more} cannot be set: ")),
        "{message}"
    );
    assert!(
        message.contains("LimitNOFILE=") && message.contains(&format!("{most} (fs.nr_open)")),
        "{message}"
    );
}

#[test]
fn a_requested_group_is_added_to_the_users_groups() {
    if !can_run_as_root() {
        return;
    }
    let mut node = Node::new();
    let mut groups = |number: u32, user: Option<&str>, group: Option<&str>| {
        let mut probe = shell(number, "id -g; id -G");
        probe.request.user = user.map(str::to_owned);
        probe.request.group = group.map(str::to_owned);
        let text = node.run(&probe).text();
        let (primary, all) = text.split_once('\n').unwrap();
        let mut all: Vec<u32> = all.split_whitespace().map(|word| word.parse().unwrap()).collect();
        all.sort_unstable();
        (primary.to_owned(), all)
    };
    assert_eq!(groups(1, Some("nobody"), Some("1234")), ("1234".to_owned(), vec![1234, 65534]));
    assert_eq!(groups(2, None, Some("1234")).0, "1234");
    assert!(groups(3, None, Some("1234")).1.contains(&0), "the agent's own group stays too");
    // The same as setpriv, for every user of the machine.
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let users: Vec<&str> = users.lines().filter_map(|line| line.split(':').next()).collect();
    for (number, user) in (10..).zip(users) {
        let tool = std::process::Command::new("setpriv")
            .args(["--reuid", user, "--regid", "1234", "--init-groups", "id", "-G"])
            .output();
        let Ok(tool) = tool else {
            return cannot_run("it needs setpriv (util-linux)");
        };
        assert!(tool.status.success(), "{tool:?}");
        let mut theirs: Vec<u32> = String::from_utf8(tool.stdout)
            .unwrap()
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        theirs.sort_unstable();
        assert_eq!(groups(number, Some(user), Some("1234")).1, theirs, "{user}");
    }
}

#[test]
fn a_user_without_passwd_entry_has_home_root_and_no_name() {
    if !can_run_as_root() {
        return;
    }
    let mut number = start(1, &["env"]);
    number.request.user = Some("4321".into());
    number.request.group = Some("1234".into());
    let text = Node::new().run(&number).text();
    assert!(text.lines().any(|line| line == "HOME=/"), "{text}");
    let names = ["USER=", "LOGNAME=", "SHELL="];
    assert!(!text.lines().any(|line| names.iter().any(|name| line.starts_with(name))), "{text}");
}
