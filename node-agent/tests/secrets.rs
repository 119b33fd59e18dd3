//! Values of Secrets, from the agent to real commands: handed over, on no disk, and masked in the output.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod fixtures;

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use fixtures::{Finished, Node, finish, running, sha256, shell, wait_for};
use sentinel_node_agent::supervisor::{Prefork, StartRecord};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::request::EnvVar;
use sentinel_protocol::secret::SecretKeyRef;
use sentinel_protocol::to_agent::Start;
use sentinel_secrets::values::{SecretValue, SecretValues};

const SECRET: &str = "k7#Qz/\"pw\\Ö correct";

fn reference(key: &str) -> SecretKeyRef {
    SecretKeyRef { name: "db".into(), key: key.into(), optional: false }
}

fn values(pairs: &[(&str, &[u8])]) -> SecretValues {
    let mut values = SecretValues::default();
    for (key, value) in pairs {
        values.insert(&reference(key), SecretValue::new(value.to_vec()));
    }
    values
}

/// A script with the Secret's key `env` as `$S`, and `stdin` as its input.
fn script(number: u32, text: &str) -> Start {
    let mut start = shell(number, text);
    start.request.env =
        vec![EnvVar { name: "S".into(), value: String::new(), value_from: Some(reference("env")) }];
    start.request.stdin_from = Some(reference("stdin"));
    start
}

fn run(node: &mut Node, start: &Start, values: &SecretValues) -> Finished {
    let attempt = node.accept(start);
    node.launcher.launch_with(&attempt, Some(values), |_| StartRecord::BySupervisor).map(drop).unwrap();
    node.launcher.prefork();
    finish(attempt)
}

#[test]
fn a_command_has_its_secrets_and_its_output_has_none_of_them() {
    for prefork in [Prefork::On, Prefork::Off] {
        let mut node = Node::with(prefork);
        let all = values(&[("env", SECRET.as_bytes()), ("stdin", b"input-of-stdin\n")]);
        // What it writes of the value is compared where the value is known: in the command itself.
        let start = script(
            1,
            "read line; test \"$line\" = input-of-stdin && test ${#S} -gt 15 && echo \"got <$S> and <$line>\"; printf '%s' \"$S\" >&2",
        );
        let run = run(&mut node, &start, &all);
        assert_eq!(run.ended.outcome, Outcome::Succeeded { exit_code: 0 });
        assert_eq!(run.text(), "got <***> and <***>\n");
        assert_eq!(run.stderr(), b"***");
        assert_eq!(run.ended.exit.masked, 3);
        assert_eq!(run.ended.output.stdout.sha256, sha256(run.text().as_bytes()), "of what is stored");
        assert_eq!(run.ended.output.stdout.bytes, 20);
    }
}

#[test]
fn what_a_task_asks_not_to_mask_is_not_and_what_is_not_a_secret_stays() {
    let mut node = Node::new();
    let mut start = script(1, "echo \"<$S>\"");
    start.request.output.mask = false;
    let run = run(&mut node, &start, &values(&[("env", b"plain-secret"), ("stdin", b"")]));
    assert_eq!((run.text().as_str(), run.ended.exit.masked), ("<plain-secret>\n", 0));
}

#[test]
fn encodings_in_pieces_are_masked_and_a_prompt_is_live() {
    let mut node = Node::new();
    let text = "printf 'a plain-'; sleep 0.3; printf 'secret-1 b '; printf 'plain-secret-1' | base64; printf 'plain-secret-1' | od -An -tx1 | tr -d ' \\n'; printf ' plain'; sleep 1; echo";
    let mut start = script(1, text);
    start.request.stdin_from = None;
    let attempt = node.accept(&start);
    let all = values(&[("env", b"plain-secret-1")]);
    node.launcher.launch_with(&attempt, Some(&all), |_| StartRecord::BySupervisor).map(drop).unwrap();
    running(&attempt);
    let run = finish(attempt);
    // The first piece is six of fourteen bytes: they could be a prompt, and so they are seen after a while.
    assert_eq!(run.text(), "a plain-*** b ***\n*** plain\n");
    assert_eq!(run.ended.exit.masked, 3);
}

/// Where all parts of a value began alike, masking was so slow that two thirds of this were not stored.
#[test]
fn no_output_is_lost_whatever_the_values_are() {
    let mut node = Node::new();
    let value: Vec<u8> =
        (0..65_536_u32).map(|n| if n % 32 < 3 { 0 } else { (n * 7919 % 255) as u8 | 1 }).collect();
    let mut start = script(1, "head -c 1000000 /dev/zero | tr '\\0' 0; echo the end");
    start.request.env.clear();
    let run = run(&mut node, &start, &values(&[("stdin", &value)]));
    assert_eq!((run.ended.output.stdout.bytes, run.ended.output.stdout.dropped), (1_000_008, 0));
    assert!(run.text().ends_with("0the end\n"));
    assert!(!run.ended.output.held_open && run.ended.exit.output_held_ms.is_none());
}

/// In lines, the end of base64 and what followed a line that ended within the value were visible.
#[test]
fn base64_of_real_programs_is_masked_in_lines() {
    let mut node = Node::new();
    let mut start = script(
        1,
        "printf 'machine artifacts.example.com login deploy password %s\\n' \"$S\" | base64; cat | base64",
    );
    start.request.stdin_from = None;
    start.request.stdin = "no secret".into();
    let run = run(&mut node, &start, &values(&[("env", b"correct-horse-battery1")]));
    let visible = "bWFjaGluZSBhcnRpZmFjdHMuZXhhbXBsZS5jb20gbG9naW4gZGVwbG95IHBhc3N3b3JkI";
    assert_eq!(run.text(), format!("{visible}***K\nbm8gc2VjcmV0\n"));
}

#[test]
fn large_values_fit_through_the_pipe() {
    let mut node = Node::new();
    let large: Vec<u8> = (0..65_536_u32).map(|n| b'a' + (n * 7919 % 26) as u8).collect();
    let all = values(&[("env", &large), ("stdin", &large)]);
    let start = script(1, "test ${#S} -eq 65536 && wc -c");
    let run = run(&mut node, &start, &all);
    assert_eq!((run.text().trim(), run.ended.outcome), ("65536", Outcome::Succeeded { exit_code: 0 }));
}

#[test]
fn an_optional_secret_without_a_value_is_not_set() {
    let mut node = Node::new();
    let mut start = script(1, "echo \"${S-unset}\"; wc -c");
    let optional = |key: &str| Some(SecretKeyRef { optional: true, ..reference(key) });
    start.request.env[0].value_from = optional("env");
    start.request.stdin_from = optional("stdin");
    assert_eq!(run(&mut node, &start, &SecretValues::default()).text(), "unset\n0\n");
}

#[test]
fn nothing_is_started_without_its_secrets() {
    let mut node = Node::new();
    for (number, given) in [(1, None), (2, Some(values(&[("env", b"plain-secret")])))] {
        let attempt = node.accept(&script(number, "echo started"));
        let launched = node.launcher.launch_with(&attempt, given.as_ref(), |_| StartRecord::BySupervisor);
        launched.map(drop).unwrap();
        let run = finish(attempt);
        let Outcome::StartFailed { reason: StartFailure::Other, message } = &run.ended.outcome else {
            panic!("{:?}", run.ended.outcome)
        };
        assert!(
            message.contains("secrets were not handed over") || message.contains("no value of key"),
            "{message}"
        );
        assert_eq!((run.ended.started_at, run.text().as_str()), (None, ""));
    }
}

fn hex(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Files below a directory that hold one of these forms.
fn holding(directory: &Path, forms: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for form in forms {
        let grep = Command::new("grep").args(["-rlaF", "-e", form]).arg(directory).output().unwrap();
        found.extend(String::from_utf8(grep.stdout).unwrap().lines().map(|file| format!("{file}: {form}")));
    }
    found
}

#[test]
fn no_value_is_on_the_disk_or_in_a_command_line_while_the_command_runs() {
    let mut node = Node::new();
    let text = "plain-secret-on-disk";
    let all = values(&[("env", text.as_bytes()), ("stdin", b"another-secret")]);
    let mut start = script(1, "cat; echo \"$S\"; while ! test -e \"$GO\"; do sleep 0.05; done");
    let release = node.path().join("go");
    start.request.env.push(fixtures::variable("GO", release.to_str().unwrap()));
    let attempt = node.accept(&start);
    node.launcher.launch_with(&attempt, Some(&all), |_| StartRecord::BySupervisor).map(drop).unwrap();
    let (supervisor, command) = running(&attempt);
    wait_for("output", || attempt.path().join("log").read_dir().unwrap().next().map(drop));
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let forms = vec![text.to_owned(), "another-secret".to_owned(), engine.encode(text), hex(text)];
    assert_eq!(holding(node.path(), &forms), Vec::<String>::new());
    for pid in [supervisor.pid, command.pid] {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!forms.iter().any(|form| line.contains(form)), "{line}");
    }
    // The search finds what exists.
    std::fs::write(node.path().join("control"), text).unwrap();
    assert_eq!(holding(node.path(), &forms).len(), 1);
    std::fs::remove_file(node.path().join("control")).unwrap();
    std::fs::write(&release, "").unwrap();
    let run = finish(attempt);
    assert_eq!(run.text(), "***\n", "two values without anything between them");
    assert_eq!(holding(node.path(), &forms), Vec::<String>::new());
}
