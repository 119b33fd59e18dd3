//! Real commands under real supervisors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

#[path = "../fixtures/mod.rs"]
mod fixtures;
mod handover;
mod output;

use fixtures::{Node, can_run_as_root, finish, is_alive, running, sha256, shell, start, variable, wait_for};
use sentinel_node_agent::spool::Reader;
use sentinel_node_agent::supervisor::{HostNamespaces, Prefork, check_environment};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::request::{Environment, Program};
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_agent::Start;
use sentinel_protocol::trace::TraceContext;

#[test]
fn success_exit_codes_decide_success() {
    let mut node = Node::new();
    let mut three = shell(1, "exit 3");
    assert_eq!(node.outcome(&three), Outcome::Failed { exit_code: 3 });
    three.attempt = "0b6c-1/2/node-1/1".parse().unwrap();
    three.request.success_exit_codes = vec![0, 3];
    assert_eq!(node.outcome(&three), Outcome::Succeeded { exit_code: 3 });
    assert_eq!(node.outcome(&start(3, &["true"])), Outcome::Succeeded { exit_code: 0 });
    assert_eq!(node.outcome(&shell(4, "exit 255")), Outcome::Failed { exit_code: 255 });
}

#[test]
fn a_signal_from_elsewhere_is_reported() {
    let mut node = Node::new();
    assert_eq!(node.outcome(&shell(1, "kill -9 $$")), Outcome::Signaled { signal: 9 });
    assert_eq!(node.outcome(&shell(2, "kill -TERM $$")), Outcome::Signaled { signal: 15 });
    // A signal that has no name.
    assert_eq!(node.outcome(&shell(3, "kill -40 $$")), Outcome::Signaled { signal: 40 });
}

fn start_failure(start: &Start) -> (StartFailure, String) {
    let mut node = Node::new();
    let run = node.run(start);
    assert_eq!(run.ended.started_at, None, "nothing was started");
    match run.ended.outcome {
        Outcome::StartFailed { reason, message } => (reason, message.into()),
        other => panic!("expected StartFailed, got {other:?}"),
    }
}

#[test]
fn a_failed_start_has_a_reason_and_no_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: &str| {
        let (written, path) = (dir.path().join("text"), dir.path().join(name));
        std::fs::write(&written, text).unwrap();
        // Written by another process: a fork of another test would keep a file that is open here, and it would be busy.
        let installed =
            std::process::Command::new("install").args(["-m", mode]).args([&written, &path]).status();
        assert!(installed.unwrap().success());
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "echo no\n", "644");
    let no_format = file("no-format", "echo no\n", "755");
    let no_interpreter = file("no-interpreter", "#!/nosuch/interpreter\n", "755");
    let directory = dir.path().to_str().unwrap();
    let check = |argv: &[&str], reason, expected: &str| {
        let (found, message) = start_failure(&start(1, argv));
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
    };
    check(&["/bin/nosuch"], StartFailure::ProgramNotFound, "program \"/bin/nosuch\" does not exist");
    check(
        &["nosuch-program"],
        StartFailure::ProgramNotFound,
        "program \"nosuch-program\" is not in PATH (/usr/local",
    );
    check(&["/etc/passwd/x"], StartFailure::ProgramNotFound, "not a directory");
    check(&[""], StartFailure::ProgramNotFound, "program is empty");
    check(&[], StartFailure::ProgramNotFound, "program is empty");
    check(&[directory], StartFailure::NotAFile, "is a directory");
    check(&["/dev/null"], StartFailure::NotAFile, "not a regular file");
    check(&[&plain], StartFailure::NotExecutable, "is not executable (mode 0644)");
    check(&[&no_format], StartFailure::BadFormat, "unknown executable format");
    check(&[&no_interpreter], StartFailure::ProgramNotFound, "#! line");
    check(&["true", &"x".repeat(200 << 10)], StartFailure::TooLong, "longer than the kernel allows");
    check(&["true", "a\0b"], StartFailure::Other, "argument 1 contains a NUL byte");
}

#[test]
fn an_invalid_user_group_or_directory_is_named() {
    let check = |change: fn(&mut Start), reason, expected: &str| {
        let mut start = start(1, &["true"]);
        change(&mut start);
        let (found, message) = start_failure(&start);
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
    };
    check(
        |s| s.request.user = Some("nosuch".into()),
        StartFailure::UnknownUser,
        "user \"nosuch\" does not exist",
    );
    check(|s| s.request.user = Some("4294967295".into()), StartFailure::UnknownUser, "does not exist");
    check(
        |s| s.request.group = Some("nosuch".into()),
        StartFailure::UnknownGroup,
        "group \"nosuch\" does not exist",
    );
    check(|s| s.request.user = Some("54321".into()), StartFailure::UnknownGroup, "set run.group");
    check(
        |s| s.request.working_dir = "/nosuch".into(),
        StartFailure::WorkingDirectory,
        "\"/nosuch\" does not exist",
    );
    check(
        |s| s.request.working_dir = "/etc/passwd".into(),
        StartFailure::WorkingDirectory,
        "is not a directory",
    );
    check(|s| s.request.working_dir = "tmp".into(), StartFailure::WorkingDirectory, "not an absolute path");
    check(|s| s.request.working_dir = String::new(), StartFailure::WorkingDirectory, "not an absolute path");
    if can_run_as_root() {
        let closed = |s: &mut Start| {
            s.request.user = Some("nobody".into());
            s.request.working_dir = "/root".into();
        };
        if std::fs::metadata("/root")
            .is_ok_and(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 1 == 0)
        {
            check(closed, StartFailure::WorkingDirectory, "cannot be entered");
        }
    }
}

#[test]
fn a_script_is_passed_as_a_sealed_file() {
    let mut node = Node::new();
    let mut script = start(1, &[]);
    let text = "read -r line; echo \"$0 $line\"; cat /dev/fd/3 | wc -c; { echo x > /dev/fd/3; } 2>/dev/null || echo sealed\n";
    script.request.program = Program::Script { interpreter: "sh".into(), argument: None, text: text.into() };
    script.request.stdin = "from stdin\n".into();
    let run = node.run(&script);
    assert_eq!(run.text(), format!("/dev/fd/3 from stdin\n{}\nsealed\n", text.len()), "{:?}", run.ended);
    let mut missing = start(2, &[]);
    missing.request.program =
        Program::Script { interpreter: "/bin/nosuch".into(), argument: None, text: String::new() };
    let (reason, message) = start_failure(&missing);
    assert_eq!(
        (reason, message.as_str()),
        (StartFailure::ProgramNotFound, "interpreter \"/bin/nosuch\" does not exist")
    );
}

#[test]
fn stdin_is_the_tasks_text_and_then_end_of_file() {
    let mut node = Node::new();
    assert_eq!(node.run(&start(1, &["cat"])).text(), "");
    let mut long = start(2, &["sh", "-c", "sleep 0.2; cat"]);
    long.request.stdin = "0123456789abcdef".repeat(4096 * 4);
    let run = node.run(&long);
    assert_eq!(run.stdout().len(), 4096 * 64);
    assert_eq!(run.ended.output.stdout.sha256, sha256(long.request.stdin.as_bytes()));
    // A command that does not read it is not blocked by it, and blocks nothing.
    let mut unread = start(3, &["true"]);
    unread.request.stdin = "x".repeat(3 << 20);
    assert_eq!(node.outcome(&unread), Outcome::Succeeded { exit_code: 0 });
}

#[test]
fn the_environment_is_clean_and_names_the_attempt() {
    let mut node = Node::new();
    let mut env = start(1, &["env"]);
    env.request.env = vec![variable("A", "b=c"), variable("LANG", "de_DE.UTF-8")];
    let run = node.run(&env);
    let mut lines: Vec<String> = run.text().lines().map(str::to_owned).collect();
    lines.retain(|line| !["HOME=", "USER=", "LOGNAME=", "SHELL="].iter().any(|name| line.starts_with(name)));
    lines.sort();
    assert_eq!(
        lines,
        [
            "A=b=c",
            "LANG=de_DE.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SENTINEL_ATTEMPT=0b6c-1/1/node-1/1",
            "SENTINEL_NAMESPACE=ops",
            "SENTINEL_NODE=node-1",
            "SENTINEL_RUN=1",
            "SENTINEL_TASK=disk-report",
        ]
    );
}

#[test]
fn a_command_joins_the_trace_of_its_attempt_unless_its_task_sets_another() {
    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut node = Node::new();
    let mut env = start(1, &["env"]);
    let state = "vendor=value".to_owned().try_into().unwrap();
    env.trace = Some(TraceContext { parent: TRACEPARENT.parse().unwrap(), state: Some(state) });
    let text = node.run(&env).text();
    let has = |text: &str, line: &str| text.lines().any(|shown| shown == line);
    assert!(
        has(&text, &format!("TRACEPARENT={TRACEPARENT}")) && has(&text, "TRACESTATE=vendor=value"),
        "{text}"
    );
    let mut own = Start { trace: env.trace.clone(), ..start(2, &["env"]) };
    own.request.env = vec![variable("TRACEPARENT", "mine")];
    let text = node.run(&own).text();
    assert!(has(&text, "TRACEPARENT=mine") && !text.contains(TRACEPARENT), "{text}");
}

#[test]
fn directory_umask_and_core_limit_are_applied() {
    let mut node = Node::new();
    let mut probe = shell(1, "pwd; umask; ulimit -c; cat /proc/self/oom_score_adj");
    probe.request.working_dir = "/usr".into();
    probe.request.umask = 0o027;
    let text = node.run(&probe).text();
    assert_eq!(text, "/usr\n0027\n0\n500\n");
    let signals = node.run(&start(2, &["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])).text();
    assert_eq!(signals, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn the_command_has_its_own_session_and_process_group() {
    let mut node = Node::new();
    let run = node.run(&start(1, &["/bin/sh", "-c", "echo $$; cat /proc/$$/stat"]));
    let text = run.text();
    let (pid, stat) = text.split_once('\n').unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    assert_eq!((fields[2], fields[3]), (pid, pid), "process group and session are the command's own");
}

#[test]
fn the_command_inherits_no_descriptor() {
    let mut node = Node::with(Prefork::On);
    let run = node.run(&shell(1, "ls /proc/$$/fd; readlink /proc/$$/fd/0"));
    assert_eq!(run.text(), "0\n1\n2\n/dev/null\n");
}

#[test]
fn a_command_runs_with_exactly_its_users_groups() {
    if !can_run_as_root() {
        return;
    }
    let mut node = Node::new();
    let script_text = "id -u; id -g; id -G; echo $HOME $USER; kill -0 1 2>/dev/null || echo powerless";
    let mut nobody = shell(1, script_text);
    nobody.request.user = Some("nobody".into());
    assert_eq!(node.run(&nobody).text(), "65534\n65534\n65534\n/nonexistent nobody\npowerless\n");
    let mut number = shell(2, "id -u; id -g; id -G");
    number.request.user = Some("4321".into());
    number.request.group = Some("1234".into());
    assert_eq!(node.run(&number).text(), "4321\n1234\n1234\n");
    let mut script = start(3, &[]);
    script.request.user = Some("nobody".into());
    script.request.program =
        Program::Script { interpreter: "/bin/sh".into(), argument: None, text: "id -un\n".into() };
    assert_eq!(node.run(&script).text(), "nobody\n");
}

#[test]
fn the_hosts_namespaces_are_entered() {
    let mut node = Node::new();
    let mut probe = shell(1, "for n in mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done");
    probe.request.environment = Environment::Host;
    let run = node.run(&probe);
    if let Err(message) = check_environment(Environment::Host, HostNamespaces::OfInit) {
        // A machine that hides its process 1 even from root: the reason is reported, and nothing is started.
        let failed = Outcome::StartFailed { reason: StartFailure::Namespace, message: message.into() };
        assert_eq!(run.ended.outcome, failed);
        return;
    }
    let expected: Vec<String> = ["mnt", "uts", "ipc", "net", "cgroup"]
        .iter()
        .map(|n| std::fs::read_link(format!("/proc/1/ns/{n}")).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(run.text().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_command_that_ignores_term_is_killed_after_its_grace() {
    let mut node = Node::new();
    let mut stubborn = shell(1, "trap '' TERM; echo stubborn; while :; do sleep 0.05; done");
    stubborn.deadlines.run_ms = Some(300);
    stubborn.deadlines.grace_ms = 300;
    let run = node.run(&stubborn);
    assert_eq!(run.ended.outcome, Outcome::TimedOut);
    assert_eq!(run.text(), "stubborn\n");
    let took = run.ended.ended_at.since(run.ended.started_at.unwrap());
    assert!((600..6_000).contains(&took), "{took} ms");
}

#[test]
fn output_after_term_is_kept() {
    let mut node = Node::new();
    let mut polite = shell(1, "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.02; done");
    polite.deadlines.run_ms = Some(300);
    let run = node.run(&polite);
    assert_eq!((run.ended.outcome.clone(), run.text().as_str()), (Outcome::TimedOut, "hello\nbye\n"));
}

#[test]
fn a_cancelled_command_ends_with_its_whole_tree() {
    let mut node = Node::with(Prefork::On);
    // Children, a grandchild in a session of its own, and a daemon by double fork.
    let text = "sleep 1000 & setsid sleep 1001 & (setsid sh -c 'sleep 1002 & echo $!' &) ; echo $$; wait";
    let attempt = node.launch(&shell(1, text));
    running(&attempt);
    let mut reader = Reader::open(&attempt).unwrap();
    let pids: Vec<i32> = wait_for("both pids", || {
        let records = reader.read(0, 1 << 20).unwrap();
        let text: Vec<u8> = records.iter().flat_map(|r| r.data.to_vec()).collect();
        let pids: Vec<i32> = String::from_utf8(text).unwrap().lines().map(|l| l.parse().unwrap()).collect();
        (pids.len() == 2).then_some(pids)
    });
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    attempt.request_cancel(UnixMillis(0), None).unwrap();
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Cancelled);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "nothing of the tree may be left");
}

#[test]
fn a_stopped_command_can_be_cancelled() {
    let mut node = Node::new();
    let attempt = node.launch(&shell(1, "kill -STOP $$; echo awake; exec sleep 1000"));
    let (_, command) = running(&attempt);
    wait_for("the command to stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", command.pid)).unwrap();
        stat.contains(") T ").then_some(())
    });
    attempt.request_cancel(UnixMillis(0), None).unwrap();
    let run = finish(attempt);
    assert_eq!(run.ended.outcome, Outcome::Cancelled);
    let took = run.ended.ended_at.since(run.ended.started_at.unwrap());
    assert!(took < 9_000, "it received TERM and was not killed after the grace: {took} ms");
}

#[test]
fn a_daemon_is_ended_and_the_outcome_stands() {
    let mut node = Node::new();
    let mut daemon = shell(
        1,
        "(setsid sh -c 'trap \"\" TERM; exec >/dev/null 2>&1; while :; do sleep 0.02; done' & echo $!); exit 4",
    );
    daemon.deadlines.grace_ms = 200;
    let run = node.run(&daemon);
    assert_eq!(run.ended.outcome, Outcome::Failed { exit_code: 4 });
    assert!(!is_alive(run.text().trim().parse().unwrap()));
}

#[test]
fn a_grandchild_holding_stdout_is_ended_after_the_drain() {
    let mut node = Node::new();
    let run = node.run(&shell(1, "sleep 1000 & echo $!; exit 0"));
    assert_eq!(run.ended.outcome, Outcome::Succeeded { exit_code: 0 });
    assert!(run.ended.output.held_open);
    assert!(!is_alive(run.text().trim().parse().unwrap()));
    let took = run.ended.ended_at.since(run.ended.started_at.unwrap());
    assert!((5_000..9_000).contains(&took), "{took} ms");
}

#[test]
fn a_command_that_closed_its_output_is_waited_for() {
    let mut node = Node::new();
    let run = node.run(&shell(1, "echo last; exec >&- 2>&-; sleep 0.3; exit 7"));
    assert_eq!(
        (run.ended.outcome.clone(), run.text().as_str()),
        (Outcome::Failed { exit_code: 7 }, "last\n")
    );
    assert!(!run.ended.output.held_open);
}
