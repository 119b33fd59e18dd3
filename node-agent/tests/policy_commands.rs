//! `node-agent policy` as a process: what it reads, what it prints, and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sentinel_protocol::request::Program;
use sentinel_protocol::to_agent::ToAgent;

const POLICY: &str = "apiVersion: sentinelnode.dev/v1alpha1
kind: NodePolicy
rules:
- {id: echo, effect: Allow, who: Anyone, what: [{programs: [/bin/echo, /usr/bin/echo], args: [hi]}], users: Any,
   environments: [Container, Host]}
";

/// A directory with the policy `p`.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("p"), POLICY).unwrap();
    directory
}

/// The request for a command, as one line.
fn request(argv: &[&str]) -> String {
    let golden = include_str!("../../protocol/tests/golden/v1/start-command.json");
    let ToAgent::Start(mut start) = serde_json::from_str(golden).unwrap() else { panic!("{golden}") };
    start.request.program = Program::Command(argv.iter().map(|word| (*word).to_owned()).collect());
    start.request.user = None;
    start.request.env.clear();
    start.request.stdin.clear();
    start.request.group = None;
    "/".clone_into(&mut start.request.working_dir);
    serde_json::to_string(&start).unwrap() + "\n"
}

fn policy(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    command.env_clear().current_dir(directory).arg("policy").args(words);
    command
}

fn test(directory: &Path, requests: &str) -> (i32, String, String) {
    let mut command = policy(directory, &["test", "--here", "p", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
    read(&child.wait_with_output().unwrap())
}

fn read(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn each_request_gets_its_verdict_and_one_refusal_counts() {
    let directory = directory();
    let (allowed, refused) = (request(&["/bin/echo", "hi"]), request(&["/bin/echo", "ho"]));
    let (code, out, err) = test(directory.path(), &allowed);
    assert!(code == 0 && out.ends_with("allowed by rule echo\n"), "{out}{err}");
    assert!(!out.contains("task/"), "{out}");
    let (code, out, _) = test(directory.path(), &[&*refused, &allowed].concat());
    assert_eq!(code, 1, "{out}");
    assert_eq!(out.lines().filter(|line| line.starts_with("task/")).count(), 2, "{out}");
    assert!(out.contains("\nrefused (no-rule): ") && out.ends_with("allowed by rule echo\n"), "{out}");
    assert_eq!(test(directory.path(), &[&*allowed, &allowed].concat()).0, 0);
}

#[test]
fn requests_that_cannot_be_read_have_an_exit_code_of_their_own() {
    let directory = directory();
    let allowed = request(&["/bin/echo", "hi"]);
    for (requests, expected) in [
        ("", "failed to read requests from standard input: it is empty"),
        ("\n", "failed to read requests from standard input: it is empty"),
        (
            &*[&*allowed, "{}"].concat(),
            "failed to read requests from standard input: request 2: missing field",
        ),
    ] {
        let (code, out, err) = test(directory.path(), requests);
        assert!(code == 2 && out.is_empty() && err.contains(expected), "{code} {out} {err}");
    }
    let (code, _, err) = read(&policy(directory.path(), &["test", "p", "/dev/zero"]).output().unwrap());
    assert!(
        code == 2 && err.contains("failed to read requests from /dev/zero: it has more than 64 MiB"),
        "{err}"
    );
    let (code, _, err) = read(&policy(directory.path(), &["test", "none", "-"]).output().unwrap());
    assert!(code == 2 && err.contains("failed to read the policy none"), "{err}");
}

#[test]
fn lint_names_each_program_that_is_allowed_in_vain_on_this_node() {
    let directory = directory();
    let folder = directory.path().canonicalize().unwrap();
    fs::copy("/bin/true", folder.join("tool")).unwrap();
    for link in ["link", "listed"] {
        std::os::unix::fs::symlink(folder.join("tool"), folder.join(link)).unwrap();
    }
    std::os::unix::fs::symlink(folder.join("nowhere"), folder.join("dangling")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let what = |programs: &[&str], more: &str| {
        let programs = programs.iter().map(|name| at(name)).collect::<Vec<_>>().join(", ");
        format!("{{programs: [{programs}]{more}}}")
    };
    let resolves = format!(", resolvesTo: [{}]", at("tool"));
    let items = [
        what(&["tool"], ""),
        what(&["listed"], &resolves),
        what(&["link", "dangling", "folder", "missing"], ""),
    ];
    let rule = format!(
        "- {{id: tools, effect: Allow, who: Anyone, what: [{}], users: [root], environments: [Container]}}\n",
        items.join(", ")
    );
    fs::write(folder.join("p"), POLICY.split_inclusive("rules:\n").next().unwrap().to_owned() + &rule)
        .unwrap();
    let (code, out, err) = read(&policy(&folder, &["lint", "--here", "p"]).output().unwrap());
    assert_eq!(code, 0, "{err}");
    let named: Vec<&str> =
        out.lines().filter_map(|line| Some(line.split_once(" is allowed in vain here")?.0)).collect();
    let expected = ["link", "dangling", "folder", "missing"].map(|name| format!("tools: {}", at(name)));
    assert_eq!(named, expected, "{out}");
    assert!(out.contains(&format!("it is {} without symbolic links", at("tool"))), "{out}");
    assert_eq!(read(&policy(&folder, &["lint", "--here", "--strict", "p"]).output().unwrap()).0, 1);
}

#[test]
fn a_closed_pipe_changes_no_verdict_and_a_full_disk_is_none() {
    let directory = directory();
    fs::write(directory.path().join("allowed"), request(&["/bin/echo", "hi"])).unwrap();
    fs::write(directory.path().join("refused"), request(&["/bin/echo", "ho"])).unwrap();
    let words: [(&[&str], i32); 3] = [
        (&["test", "--here", "p", "allowed"], 0),
        (&["test", "--here", "p", "refused"], 1),
        (&["lint", "p"], 0),
    ];
    for (words, verdict) in words {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = policy(directory.path(), words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(read(&output), (verdict, String::new(), String::new()), "{words:?}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = policy(directory.path(), words).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let (code, _, err) = read(&output);
        assert!(code == 2 && err.contains("failed to write to standard output: No space left"), "{err}");
    }
}

/// Who asks for a command chooses its text.
#[test]
fn a_request_begins_no_line_of_its_verdict() {
    let directory = directory();
    let (code, out, _) =
        test(directory.path(), &request(&["/bin/x\nallowed by rule echo\u{1b}[31m", "a\u{9b}2J"]));
    assert_eq!(code, 1, "{out}");
    assert!(!out.lines().any(|line| line.starts_with("allowed")), "{out}");
    assert!(!out.chars().any(|char| char.is_control() && char != '\n'), "{out:?}");
    assert!(out.contains("allowed by rule echo"), "{out}");
    let unknown = r#"{"attempt": "u/1/n/1", "request": {"program": {"x\nallowed by rule echo": 1}}}"#;
    let (code, _, err) = test(directory.path(), unknown);
    assert!(code == 2 && !err.lines().any(|line| line.starts_with("allowed")), "{err}");
}
