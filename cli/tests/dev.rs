//! Dev mode with the real binary: agents, supervisors and commands, and the command line against it.

#[cfg(test)]
mod kit;

use std::path::Path;
use std::process::{Command, Stdio};

use kit::{
    CliOutput, Dev, ProcessOutput, is_running, sentinel, sentinel_with_signals, signal, task, wait, write,
};

#[test]
fn a_command_joins_the_trace_that_its_task_names() {
    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("traced.yaml");
    let named = format!("{{name: traced, annotations: {{sentinelnode.dev/traceparent: {TRACEPARENT}}}}}");
    let text = task("traced", "{command: [printenv, TRACEPARENT]}");
    write(&file, &text.replace("{name: traced}", &named));
    let dev = Dev::start(&[file.to_str().unwrap()]);
    // Dev mode records no spans, so the trace is passed on as it is.
    dev.out.wait_for(&format!("traced | {TRACEPARENT}\n"));
    dev.err.wait_for("default/traced run 1: Complete");
    // Another trace begins no other Run.
    write(&file, &text.replace("{name: traced}", &named.replace("-01}", "-00}")));
    dev.err.wait_for("default/traced");
    let task = dev.wait_until(&["get", "task", "traced", "-o", "json"], |got| {
        got.json()["metadata"]["annotations"]["sentinelnode.dev/traceparent"]
            .as_str()
            .is_some_and(|value| value.ends_with("-00"))
    });
    assert_eq!(task.json()["status"]["run"]["number"], 1, "{}", task.out);
}

/// Everything in dev mode is asked for by who runs it: the files, and what comes in by its socket or with its token.
#[test]
fn who_runs_dev_mode_is_who_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.yaml");
    write(&file, &task("mine", "{command: [echo, hello]}"));
    let name = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let (state, name) = (directory.path().join("state"), name.trim());
    let begun = Dev::start(&["--state", state.to_str().unwrap(), file.to_str().unwrap()]);
    begun.err.wait_for("default/mine run 1: Complete");
    let author = |run: &serde_json::Value| run["requestedBy"]["author"]["user"] == name;
    let got = begun.run(&["get", "task", "mine", "-o", "json"]).exited(0);
    assert!(author(&got.json()["status"]["run"]), "{}", got.out);
    // A stamp that is written by hand is replaced.
    let forged = "{name: mine, annotations: {sentinelnode.dev/requested-by: '{}'}}";
    write(&file, &task("mine", "{command: [echo, forged]}").replace("{name: mine}", forged));
    begun.err.wait_for("default/mine run 2: Complete");
    drop(begun);
    // The key is kept with the Tasks.
    let dev = Dev::start(&["--state", state.to_str().unwrap()]);
    dev.run(&["rerun", "mine"]).exited(0);
    dev.err.wait_for("default/mine run 3: Complete");
    dev.run(&["get", "tasks", "-o", "wide"]).exited(0).printed(&format!("{name} (spec of {name})"));
    let listed = dev.wait_until(&["get", "runs", "-o", "json"], |got| {
        got.json()["items"].as_array().is_some_and(|runs| runs.len() == 3 && runs.iter().all(author))
    });
    assert_eq!(listed.json()["items"][0]["requestedBy"]["rerun"]["user"], name, "{}", listed.out);
}

#[test]
fn a_task_from_a_file_runs_and_is_followed_and_listed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hello.yaml");
    let gate = directory.path().join("gate");
    // The second line is written after this test has read the first.
    let script = format!(
        "echo first; while [ ! -e {} ]; do sleep 0.05; done; echo second; echo oops >&2",
        gate.display()
    );
    write(&file, &task("hello", &format!("{{command: [sh, -c, {script:?}], sandbox: Privileged}}")));

    let dev = Dev::start(&[file.to_str().unwrap()]);
    dev.err.wait_for("default/hello created");
    dev.out.wait_for("hello | first\n");
    assert!(!dev.out.text().contains("second"));
    dev.run(&["get", "tasks"]).exited(0).printed("hello");

    let mut follow =
        dev.cli(&["logs", "-f", "hello"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    write(&gate, "");
    dev.out.wait_for("hello | second\n");
    dev.err.wait_for("default/hello run 1: Complete, 1 node, succeeded");
    dev.err.wait_for("hello | oops");
    assert!(wait(&mut follow).success());
    let mut followed = String::new();
    std::io::Read::read_to_string(&mut follow.stdout.take().unwrap(), &mut followed).unwrap();
    assert_eq!(followed, "first\nsecond\n");

    dev.run(&["wait", "hello", "--for", "complete", "--timeout", "30s"])
        .exited(0)
        .printed("task/hello complete");
    let tasks = dev.run(&["get", "tasks"]).exited(0);
    assert!(
        tasks
            .out
            .starts_with("NAME    PHASE       NODES   OK   FAILED   UNREACHABLE   RUNNING   WAITING   AGE\n"),
        "{}",
        tasks.out
    );
    assert!(
        tasks.out.contains("hello   Succeeded   1       1    0        0             0         0 "),
        "{}",
        tasks.out
    );
    dev.run(&["logs", "hello"]).exited(0).printed("first\nsecond\n").printed("oops");
    let stdout_alone = dev.run(&["logs", "hello", "--stream", "stdout"]).exited(0);
    assert_eq!((stdout_alone.out.as_str(), stdout_alone.err.as_str()), ("first\nsecond\n", ""));
    let executions = dev.wait_until(&["get", "executions", "-o", "json"], |ran| {
        ran.json()["items"][0]["outcome"] == "Succeeded"
    });
    assert_eq!(executions.json()["items"][0]["exitCode"], 0);
    let id = executions.json()["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(dev.run(&["logs", &id, "--from", "6", "--stream", "stdout"]).exited(0).out, "second\n");
    dev.run(&["logs", "hello", "--timestamps"]).exited(0).printed("Z first\n");
    dev.run(&["get", "runs"]).exited(0).printed("Complete");
    let nodes = dev.wait_until(&["nodes"], |ran| ran.out.contains("GiB"));
    assert!(nodes.out.contains("REACHABLE") && nodes.out.contains(" yes "), "{}", nodes.out);
    dev.run(&["get", "task", "hello", "-o", "name"]).exited(0).printed("task/hello\n");
    dev.run(&["get", "task", "hello", "-o", "yaml"]).exited(0).printed("kind: Task\n");
}

#[test]
fn run_exits_with_the_code_of_the_command() {
    let dev = Dev::start(&[]);
    let succeeded = dev.run(&["run", "--", "sh", "-c", "echo out; echo err >&2"]).exited(0);
    assert_eq!(succeeded.out, "out\n");
    assert!(succeeded.err.starts_with("err\n"), "{}", succeeded.err);
    dev.run(&["run", "--", "sh", "-c", "exit 3"]).exited(3).printed("Failed: exited with code 3");
    dev.run(&["run", "--", "no-such-program"]).exited(127).printed("no-such-program");
    dev.run(&["run", "--", "/etc/passwd"]).exited(126).printed("StartFailed");
    dev.run(&["run", "--", "/etc"]).exited(126).printed("StartFailed");
    dev.run(&["run", "--", "sh", "-c", "kill -9 $$"]).exited(137).printed("ended by signal 9");
    dev.run(&["run", "--timeout", "1s", "--", "sleep", "60"]).exited(124).printed("TimedOut");
    dev.run(&["run", "--user", "no-such-user", "--", "true"]).exited(126).printed("no-such-user");
    dev.run(&["run", "--workdir", "/no/such/directory", "--", "true"])
        .exited(126)
        .printed("/no/such/directory");
    dev.run(&["run", "--env", "A=b c", "--", "sh", "-c", "echo $A"]).exited(0).printed("b c\n");
    dev.run(&["run", "-l", "pool=none", "--", "true"]).exited(125).printed("no node matches spec.targets");
    // Rejected before anything is created.
    dev.run(&["run", "--env", "=b", "--", "true"])
        .exited(2)
        .printed("invalid --env \"=b\": expected NAME=VALUE");
    dev.run(&["run", "-l", "a b", "--", "true"]).exited(2).printed("invalid label selector \"a b\"");
    dev.run(&["run", "--max-concurrent", "0%", "--", "true"]).exited(2).printed("spec.rollout.maxConcurrent");
    dev.run(&["run", "--timeout", "-5s", "--", "true"]).exited(2);
    dev.run(&["run", "--", ""]).exited(2).printed("spec.run.command[0]");
    dev.run(&["run", "--name", "A_B", "--", "true"]).exited(2).printed("metadata.name");
}

#[test]
fn output_of_many_nodes_is_prefixed() {
    let dev = Dev::start(&["--nodes", "4"]);
    dev.wait_until(&["get", "nodes", "-o", "json"], |ran| {
        let nodes = ran.json();
        nodes["items"].as_array().unwrap().iter().filter(|node| node["reachable"] == true).count() == 5
    });
    dev.run(&["run", "--", "true"])
        .exited(2)
        .printed("there are 5 nodes: choose with --node NAME, -l SELECTOR or --all");
    let all = dev
        .run(&["run", "--all", "--", "sh", "-c", "echo one; echo two"])
        .exited(0)
        .printed("5 of 5 nodes succeeded");
    assert_eq!(all.out.lines().count(), 10, "{}", all.out);
    assert!(all.out.lines().all(|line| line.ends_with("| one") || line.ends_with("| two")), "{}", all.out);
    let web = dev.run(&["run", "-l", "pool=web", "--", "echo", "hi"]).exited(0);
    let mut lines: Vec<&str> = web.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["sim-1 | hi", "sim-3 | hi"]);
    let mixed = dev.run(&[
        "run",
        "--node",
        "sim-1",
        "--node",
        "sim-2",
        "--",
        "sh",
        "-c",
        "case $SENTINEL_NODE in sim-1) exit 7;; esac",
    ]);
    mixed.exited(7).printed("1 of 2 nodes succeeded");
}

#[test]
fn lists_every_problem_of_every_file_before_starting() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    write(&path("good.yaml"), &task("good", "{command: [\"true\"]}"));
    write(&path("empty.yaml"), "# nothing\n");
    write(&path("pod.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n");
    write(&path("newer.yaml"), &task("a", "{command: [\"true\"]}").replace("v1alpha1", "v9"));
    write(&path("both.yaml"), &task("b", "{command: [\"true\"], script: {text: x}}"));
    write(&path("none.yaml"), &task("c", "{command: []}"));
    write(&path("typo.yaml"), &task("d", "{comand: [\"true\"]}"));
    write(&path("broken.yaml"), "a: [1,\nb: }\n");
    let ran = CliOutput::of(&["dev"], &sentinel().arg("dev").arg(directory.path()).output().unwrap());
    let ran = ran.exited(2);
    for (file, words) in [
        ("empty.yaml", "holds no Task"),
        ("pod.yaml", "2 problems"),
        ("newer.yaml", "apiVersion is \"sentinelnode.dev/v9\""),
        ("both.yaml", "command"),
        ("none.yaml", "spec.run.command"),
        ("typo.yaml", "comand"),
        ("broken.yaml", "line "),
    ] {
        let line = ran.err.lines().find(|line| line.contains(file));
        assert!(line.is_some_and(|line| line.contains(words)), "{file}: {words:?} is not in\n{}", ran.err);
    }
    assert!(!ran.err.contains("good.yaml"), "{}", ran.err);
    assert!(!ran.err.contains("API"), "it was started:\n{}", ran.err);
    let missing = sentinel().args(["dev", "/no/such/file.yaml"]).output().unwrap();
    CliOutput::of(&["dev"], &missing).exited(2).printed("/no/such/file.yaml: no such file");
}

#[test]
fn a_changed_file_is_applied_and_an_invalid_one_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    write(&file, &task("a", "{command: [echo, before]}"));
    let dev = Dev::start(&[directory.path().to_str().unwrap()]);
    dev.out.wait_for("| before\n");
    dev.err.wait_for("default/a run 1: Complete");
    write(&file, "kind: [");
    dev.err.wait_for("its applied Tasks are unchanged");
    write(&file, &task("a", "{command: [echo, after]}"));
    dev.out.wait_for("| after\n");
    dev.err.wait_for("default/a run 2: Complete");
    write(&directory.path().join("b.yaml"), &task("b", "{command: [echo, another]}"));
    dev.out.wait_for("| another\n");
    std::fs::remove_file(&file).unwrap();
    dev.err.wait_for("its Tasks are kept (delete them with: sentinel delete a)");
    dev.run(&["get", "task", "a"]).exited(0).printed("Succeeded");
}

#[test]
fn ctrl_c_cancels_commands_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = sentinel();
    command.env("TMPDIR", directory.path());
    let mut dev = Dev::start_as(command, &[]);
    let mark = format!("{}", 86_400 + std::process::id());
    dev.run(&["run", "--detach", "--name", "long", "--", "sleep", &mark]).exited(0).printed("long\n");
    dev.wait_until(&["get", "executions"], |ran| ran.out.contains("Running"));
    assert!(is_running(&mark));
    dev.interrupt();
    assert_eq!(dev.wait().code(), Some(0));
    dev.err.wait_for("cancelling running commands: default/long");
    assert!(!is_running(&mark), "the command outlived dev mode");
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "the temporary directory still exists"
    );
}

#[test]
fn the_first_ctrl_c_detaches_and_the_second_cancels() {
    let dev = Dev::start(&[]);
    let run = |name: &str| {
        let mut child = dev
            .cli(&["run", "--name", name, "--", "sh", "-c", "echo begun; exec sleep 600"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // From its own output: before it shows any it may not handle the signal.
        let shown = ProcessOutput::read(child.stdout.take().unwrap());
        shown.wait_for("begun\n");
        child
    };
    let mut detached = run("detached");
    signal(&detached, "INT");
    assert_eq!(wait(&mut detached).code(), Some(130));
    let mut err = String::new();
    std::io::Read::read_to_string(&mut detached.stderr.take().unwrap(), &mut err).unwrap();
    assert!(err.contains("sentinel logs -f detached") && err.contains("sentinel cancel detached"), "{err}");
    dev.run(&["get", "task", "detached"]).exited(0).printed("Running");

    let mut cancelled = run("cancelled");
    let stderr = cancelled.stderr.take().unwrap();
    signal(&cancelled, "INT");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
    assert!(lines.any(|line| line.unwrap().contains("cancel it:")));
    signal(&cancelled, "INT");
    assert_eq!(wait(&mut cancelled).code(), Some(130));
    dev.wait_until(&["get", "task", "cancelled"], |ran| ran.out.contains("Cancelled"));
    dev.run(&["cancel", "detached", "--wait"]).exited(0).printed("cancel requested");
    dev.run(&["cancel", "detached"]).exited(1).printed("is over already");
}

#[test]
fn a_task_is_rerun_and_deleted_and_its_output_kept() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("again.yaml");
    write(&file, &task("again", "{command: [echo, again]}"));
    let dev = Dev::start(&[]);
    let path = file.to_str().unwrap();
    dev.run(&["apply", "-f", path]).exited(0).printed("task/again created");
    dev.run(&["apply", "-f", path]).exited(0).printed("task/again unchanged");
    dev.run(&["wait", "again", "--timeout", "60s"]).exited(0);
    let rerun = dev.run(&["rerun", "again", "--token", "t1", "-f"]).exited(0).printed("run 2: Complete");
    assert_eq!(rerun.out, "again\n");
    dev.run(&["rerun", "again", "--token", "t1"]).exited(1).printed("was requested with this token");
    dev.run(&["logs", "again", "--run", "1"]).exited(0).printed("again\n");
    dev.run(&["delete", "again", "--wait"]).exited(0).printed("task/again deleted");
    dev.run(&["get", "task", "again"]).exited(1).printed("no Task default/again");
    dev.run(&["delete", "again"]).exited(1).printed("no Task default/again");
    dev.run(&["wait", "again", "--for", "deleted"]).exited(0);
    // Its output stays in History.
    dev.run(&["logs", "again"]).exited(0).printed("again\n");
    dev.run(&["get", "executions", "--task", "again"]).exited(0).printed("Succeeded");
}

#[test]
fn a_state_directory_keeps_results_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let file = directory.path().join("once.yaml");
    let count = directory.path().join("count");
    let script = format!("echo ran >> {}", count.display());
    write(&file, &task("once", &format!("{{command: [sh, -c, {script:?}], sandbox: Privileged}}")));
    let arguments = [file.to_str().unwrap(), "--state", state.to_str().unwrap()];
    let mut dev = Dev::start(&arguments);
    dev.err.wait_for("default/once run 1: Complete");
    dev.interrupt();
    assert_eq!(dev.wait().code(), Some(0));
    let mut dev = Dev::start(&arguments);
    dev.wait_until(&["get", "executions"], |ran| ran.out.contains("Succeeded"));
    dev.run(&["get", "task", "once"]).exited(0).printed("Succeeded");
    dev.interrupt();
    dev.wait();
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "ran\n");
}

#[test]
fn dev_mode_needs_no_root() {
    use std::os::unix::process::CommandExt as _;
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let directory = tempfile::tempdir().unwrap();
    // In a directory that every user can read, unlike that of the build.
    let binary = directory.path().join("sentinel");
    kit::install(Path::new(env!("CARGO_BIN_EXE_sentinel")), &binary);
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let mut command = Command::new(&binary);
    command.env("TMPDIR", directory.path()).env_remove("SENTINEL_SERVER");
    if is_root {
        command.uid(65_534).gid(65_534);
    }
    let mut dev = Dev::start_as(command, &[]);
    let of = |uid: u32, arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.env("SENTINEL_SERVER", &dev.server).env_remove("SENTINEL_TOKEN_FILE").args(arguments);
        if is_root {
            command.uid(uid).gid(uid);
        }
        CliOutput::of(arguments, &command.stdin(Stdio::null()).output().unwrap())
    };
    let ran = of(65_534, &["run", "--", "id", "-u"]).exited(0);
    if is_root {
        assert_eq!(ran.out, "65534\n");
        // Other users cannot use it, and root sends no Task to a server of another user.
        of(65_533, &["get", "tasks"]).exited(1).printed("the server belongs to user 65534");
        of(0, &["run", "--", "id"]).exited(125).printed("the server belongs to user 65534");
        let listed = dev.get("/api/v1/tasks").json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    }
    dev.interrupt();
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn dev_mode_is_open_to_its_user_only() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    let dev = Dev::start(&[]);
    let me = std::fs::metadata("/proc/self").unwrap().uid();
    let directory = dev.socket.parent().unwrap().metadata().unwrap();
    assert_eq!((directory.uid(), directory.permissions().mode() & 0o777), (me, 0o700));
    for file in [&dev.socket, &dev.token_file] {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let socket = format!("unix:{}", dev.socket.display());
    dev.run(&["get", "tasks", "--server", &socket]).exited(0);
    // The port requires the token.
    let forwarded = kit::forward(dev.server.strip_prefix("http://").unwrap());
    dev.run(&["get", "tasks", "--server", &forwarded])
        .exited(1)
        .printed("failed to authenticate")
        .printed("--token-file");
    let token = dev.token_file.to_str().unwrap();
    dev.run(&["get", "tasks", "--server", &forwarded, "--token-file", token]).exited(0);
    if me != 0 {
        return;
    }
    dev.err.wait_for("Running as root");
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10"]).args(arguments).uid(65_534).gid(65_534);
        CliOutput::of(arguments, &command.output().unwrap())
    };
    let tasks = format!("{}/api/v1/tasks", dev.server);
    assert!(curl(&[&tasks]).out.contains("Unauthorized"));
    let path = dev.socket.to_str().unwrap();
    let refused = curl(&["--unix-socket", path, "http://localhost/api/v1/tasks"]);
    assert!(refused.code != 0 && refused.out.is_empty(), "{refused:?}");
    assert_eq!(dev.get("/api/v1/tasks").json()["items"], serde_json::json!([]));
}

#[test]
fn sends_nothing_to_a_server_of_another_user() {
    use std::os::unix::process::CommandExt as _;
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        return;
    }
    let token_file = tempfile::NamedTempFile::new().unwrap();
    let script = "import socket,sys\ns=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); print(s.getsockname()[1],flush=True)\nc,_=s.accept(); d=c.recv(65536); print(repr(d),flush=True)";
    let mut impostor = Command::new("python3");
    impostor.args(["-c", script]).uid(65_534).gid(65_534).stdout(Stdio::piped());
    let mut impostor = impostor.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(impostor.stdout.take().unwrap()));
    let port = lines.next().unwrap().unwrap();
    std::fs::write(token_file.path(), "a-token-that-stays-here").unwrap();
    let server = format!("http://127.0.0.1:{port}");
    let token = token_file.path().to_str().unwrap();
    let arguments = ["run", "--server", &server, "--token-file", token, "--all", "--", "true"];
    let ran = CliOutput::of(&arguments, &sentinel().args(arguments).output().unwrap());
    let ran = ran.exited(125).printed("refused to use http://").printed("the server belongs to user 65534");
    assert!(!ran.err.contains("no server answers"), "{ran:?}");
    assert_eq!(lines.next().unwrap().unwrap(), "b''", "something was sent");
    impostor.wait().unwrap();
}

#[test]
fn every_stop_signal_cleans_up_and_so_does_a_second_one() {
    for (name, twice) in [("TERM", false), ("HUP", false), ("QUIT", false), ("TERM", true), ("HUP", true)] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = sentinel_with_signals();
        command.env("TMPDIR", directory.path());
        let mut dev = Dev::start_as(command, &[]);
        let mark = format!("{}", 100_000 + std::process::id());
        dev.run(&["run", "--detach", "--name", "long", "--", "sleep", &mark]).exited(0);
        dev.wait_until(&["get", "executions"], |ran| ran.out.contains("Running"));
        assert!(is_running(&mark));
        dev.signal(name);
        if twice {
            dev.signal(name);
            dev.signal("INT");
        }
        assert_eq!(dev.wait().code(), Some(0), "SIG{name}: {}", dev.err.text());
        assert!(!is_running(&mark), "SIG{name}: the command outlived dev mode");
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "SIG{name}: {left:?}");
        assert!(!dev.socket.exists() && !dev.token_file.exists(), "SIG{name}");
    }
}

#[test]
fn the_next_dev_mode_cleans_up_after_a_killed_one() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = sentinel();
        // Also its socket is where no other test's dev mode cleans up.
        command.env("TMPDIR", directory.path()).env("XDG_RUNTIME_DIR", runtime.path());
        Dev::start_as(command, &[])
    };
    // One is killed while a command is running, and one while idle.
    let mut busy = start();
    let mark = format!("{}", 200_000 + std::process::id());
    busy.run(&["run", "--detach", "--name", "long", "--", "sleep", &mark]).exited(0);
    busy.wait_until(&["get", "executions"], |ran| ran.out.contains("Running"));
    busy.signal("KILL");
    busy.wait();
    let mut idle = start();
    idle.err.wait_for("left commands running");
    idle.signal("KILL");
    idle.wait();
    assert!(idle.socket.exists(), "nothing was left behind");
    let next = start();
    let text = next.err.text();
    assert!(text.contains(&format!("removed {}", idle.socket.display())), "{text}");
    assert!(text.contains("left commands running"), "{text}");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(directory.path()).unwrap().flatten();
        let paths = entries.map(|entry| entry.path().display().to_string());
        paths.filter(|path| path.contains("sentinel-dev-")).collect()
    };
    // Those of the busy one and of the running one; that of the idle one goes.
    next.wait_until(&["get", "nodes"], |_| names().len() <= 2);
    assert_eq!(names().len(), 2, "{:?}", names());
    assert!(is_running(&mark), "it was ended silently");
    // Taken over as suggested, it ends with the new dev mode.
    let state = text.split("sentinel dev --state ").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    let mut taken = Dev::start(&["--state", &state]);
    taken.interrupt();
    assert_eq!(taken.wait().code(), Some(0));
    assert!(!is_running(&mark), "{}", taken.err.text());
}

#[test]
fn a_named_state_directory_is_kept_whatever_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let start = |arguments: &[&str]| {
        let mut command = sentinel();
        command.env("TMPDIR", directory.path());
        Dev::start_as(command, arguments)
    };
    let end = |mut dev: Dev| {
        dev.signal("TERM");
        assert_eq!(dev.wait().code(), Some(0));
        dev.err.text()
    };
    let mine = directory.path().join("sentinel-dev-mine");
    let _ = end(start(&["--state", mine.to_str().unwrap()]));
    // The temporary directory of a killed dev mode is kept once it is named.
    let mut killed = start(&[]);
    killed.signal("KILL");
    killed.wait();
    let temporary = |path: &std::path::Path| path.join("temporary").exists();
    let left = std::fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.path());
    let left: Vec<_> = left.filter(|path| temporary(path)).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let taken = end(start(&["--state", left[0].to_str().unwrap()]));
    let next = end(start(&[]));
    for path in [&mine, &left[0]] {
        assert!(path.join("history.db").exists(), "{} is gone: {taken}\n{next}", path.display());
    }
}

#[test]
fn dev_mode_under_nohup_survives_a_hangup() {
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_sentinel"));
    let mut dev = Dev::start_as(command, &[]);
    dev.signal("HUP");
    let status = std::fs::read_to_string(format!("/proc/{}/status", dev.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(mask.trim(), 16).unwrap() & 1, 1, "SIGHUP is not ignored:\n{status}");
    dev.run(&["run", "--", "true"]).exited(0);
    dev.signal("TERM");
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn rejects_a_second_dev_mode_on_the_same_state() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().to_str().unwrap();
    let dev = Dev::start(&["--state", state]);
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--state", state];
    let second = CliOutput::of(&arguments, &sentinel().args(arguments).output().unwrap());
    let second = second.exited(1).printed("is in use by another dev mode");
    assert!(!second.err.contains("API"), "{second:?}");
    dev.run(&["run", "--", "true"]).exited(0);
}

#[test]
fn without_a_server_the_hint_names_dev_mode() {
    let ran = sentinel().args(["get", "tasks", "--server", "127.0.0.1:9"]).output().unwrap();
    CliOutput::of(&["get"], &ran)
        .exited(1)
        .printed("no server answers at http://127.0.0.1:9")
        .printed("sentinel dev");
    let ran = sentinel().args(["get", "tasks", "--server", "ftp://a"]).output().unwrap();
    CliOutput::of(&["get"], &ran).exited(2).printed("expected https://HOST[:PORT][/PATH]");
    // An empty variable counts as unset.
    let empty = sentinel().env("SENTINEL_SERVER", "").args(["version"]).output().unwrap();
    CliOutput::of(&["version"], &empty).exited(0);
    let ran = sentinel().args(["run", "--server", "127.0.0.1:9", "--all", "--", "true"]).output().unwrap();
    CliOutput::of(&["run"], &ran).exited(125);
}

#[test]
fn rejects_a_port_that_is_in_use_or_not_loopback() {
    let dev = Dev::start(&[]);
    let address = dev.server.strip_prefix("http://").unwrap();
    let taken = sentinel().args(["dev", "--listen", address]).output().unwrap();
    CliOutput::of(&["dev"], &taken).exited(1).printed("is in use").printed("--listen 127.0.0.1:0");
    let open = sentinel().args(["dev", "--listen", "0.0.0.0:0"]).output().unwrap();
    CliOutput::of(&["dev"], &open).exited(2).printed("only loopback addresses");
}

#[test]
fn output_is_raw_in_a_pipe_and_complete() {
    let dev = Dev::start(&[]);
    let output = dev
        .cli(&[
            "run",
            "--",
            "sh",
            "-c",
            "printf '\\033[31mred\\000\\377'; head -c 20000000 /dev/zero | tr '\\0' x",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}", output = String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.starts_with(b"\x1b[31mred\0\xff"));
    assert_eq!(output.stdout.len(), 20_000_010);
    assert!(output.stdout[10..].iter().all(|byte| *byte == b'x'));
}

/// The examples are the first thing that people try; a comment in each states its result.
#[test]
fn every_example_ends_as_its_comment_states() {
    let examples = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"));
    let mut expected = Vec::new();
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        // A comment belongs to the document after it.
        let ends = text.lines().filter_map(|line| line.strip_prefix("# Ends: "));
        let names = text.lines().filter_map(|line| line.strip_prefix("  name: "));
        let pairs: Vec<(String, String)> = names.map(str::to_owned).zip(ends.map(str::to_owned)).collect();
        assert!(!pairs.is_empty(), "{} does not state how it ends", path.display());
        // This one would wait until nodes count as unreachable.
        if !pairs.iter().any(|(_, end)| end.ends_with("NodesUnreachable")) {
            expected.push((path, pairs));
        }
    }
    assert!(expected.len() >= 8, "only {} examples", expected.len());
    let files: Vec<&str> = expected.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    let dev = Dev::start(&[&["--nodes", "4"], &files[..]].concat());
    for (name, end) in expected.iter().flat_map(|(_, pairs)| pairs) {
        let (condition, reason) = end.split_once(' ').unwrap_or((end, ""));
        dev.wait_until(&["get", "task", name, "-o", "json"], |ran| {
            // Its file has not been read yet.
            if ran.out.is_empty() {
                return false;
            }
            let task = ran.json();
            let conditions = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|found| {
                found["type"] == condition
                    && found["status"] == "True"
                    && (reason.is_empty() || found["reason"] == reason)
            })
        });
    }
}

#[test]
fn attempts_of_a_retried_command_are_shown_in_order_and_kept() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/retry.yaml");
    let dev = Dev::start(&[example]);
    dev.err.wait_for("default/retry run 1: Complete, 1 node, succeeded");
    dev.out.wait_for("retry | done\n");
    let err = dev.err.text();
    let (first, second) = (err.find("| not yet\n"), err.find("| [sentinel: attempt 2]\n"));
    assert!(first.is_some() && first < second, "{err}");
    let executions = dev.wait_until(&["get", "executions", "-o", "json"], |ran| {
        ran.json()["items"][0]["attempt"] == 2 && ran.json()["items"][0]["outcome"] == "Succeeded"
    });
    let id = executions.json()["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(dev.run(&["logs", &id]).exited(0).out, "done\n");
    assert_eq!(dev.run(&["logs", &id, "--attempt", "1"]).exited(0).err, "not yet\n");
    dev.run(&["logs", "retry", "--attempt", "1"]).exited(2).printed("--attempt requires an execution");
}

/// The sample lacked the page and `sentinel ui`.
#[test]
fn the_sample_in_the_readme_is_what_dev_mode_prints() {
    // A label, or what an example does: the rest differs from machine to machine.
    let shape = |line: &str| {
        let line = line.trim();
        match line.rsplit_once("   ") {
            Some((_, meaning)) if line.starts_with(char::is_lowercase) => meaning.trim().to_owned(),
            _ => line.split(' ').next().unwrap().to_owned(),
        }
    };
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let sample = readme.lines().skip_while(|line| !line.contains("Sentinel Node, dev mode."));
    let sample: Vec<String> = sample.take_while(|line| !line.is_empty()).map(shape).collect();
    let dev = Dev::start(&[]);
    let printed = dev.err.wait_for("the same over HTTP");
    let printed = printed.lines().skip_while(|line| !line.contains("Sentinel Node, dev mode."));
    let printed = printed.filter(|line| !line.contains("Running as root"));
    let printed: Vec<String> = printed.take_while(|line| !line.is_empty()).map(shape).collect();
    assert_eq!(sample, printed);
    assert!(printed.len() > 10, "{printed:?}");
}

/// Such as on a full disk. It was tried once, and then not before its file changed.
#[test]
fn a_task_that_could_not_be_stored_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (files, state) = (directory.path().join("files"), directory.path().join("state"));
    std::fs::create_dir(&files).unwrap();
    write(&files.join("first.yaml"), &task("first", "{command: [\"true\"]}"));
    let dev = Dev::start(&["--state", state.to_str().unwrap(), files.to_str().unwrap()]);
    dev.err.wait_for("default/first run 1: Complete");
    let full = state.join("cluster/no-room");
    std::fs::write(&full, "").unwrap();
    write(&files.join("later.yaml"), &task("later", "{command: [\"true\"]}"));
    dev.err.wait_for("default/later: ");
    // Reported by a poll that has tried the other again.
    write(&files.join("third.yaml"), &task("third", "{command: [\"true\"]}"));
    dev.err.wait_for("default/third: ");
    let log = dev.err.text();
    assert_eq!(log.matches("default/later: ").count(), 1, "reported once: {log}");
    // Once it is edited, its author expects an answer.
    write(&files.join("later.yaml"), &task("later", "{command: [echo]}"));
    // Tried behind it, since files are read in the order of their names.
    write(&files.join("the-last.yaml"), &task("the-last", "{command: [\"true\"]}"));
    dev.err.wait_for("default/the-last: ");
    std::fs::remove_file(&full).unwrap();
    let log = dev.err.wait_for("default/later created");
    assert_eq!(log.matches("default/later: ").count(), 2, "reported once for each text: {log}");
    dev.err.wait_for("default/later run 1: Complete");
}

#[test]
fn a_task_made_again_shows_the_run_of_the_earlier_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("once.yaml");
    let ran = directory.path().join("ran");
    let script = format!("echo ran >> {}; echo out", ran.display());
    let text = task("once", &format!("{{command: [sh, -c, {script:?}], sandbox: Privileged}}"));
    write(&file, &format!("{text}  onRecreate: OncePerSpec\n"));
    let file = file.to_str().unwrap();
    let dev = Dev::start(&[]);
    dev.run(&["apply", "-f", file]).exited(0);
    dev.run(&["wait", "once", "--for", "complete", "--timeout", "30s"]).exited(0);
    dev.run(&["delete", "once"]).exited(0);
    dev.run(&["wait", "once", "--for", "deleted", "--timeout", "30s"]).exited(0);
    dev.run(&["apply", "-f", file]).exited(0);
    dev.run(&["wait", "once", "--for", "complete", "--timeout", "30s"])
        .exited(0)
        .printed("task/once complete");
    let sentence = "AlreadyExecuted: an earlier Task of this name (uid ";
    let got = dev.run(&["get", "task", "once"]).exited(0).printed(sentence);
    assert!(got.out.contains("in its run 1 with the verdict Complete"), "{}", got.out);
    dev.run(&["get", "tasks", "-o", "wide"]).exited(0).printed("AlreadyExecuted");
    let follow = dev.run(&["logs", "-f", "once"]).exited(0);
    assert!(follow.err.contains("default/once runs nothing: an earlier Task"), "{}", follow.err);
    let logs = dev.run(&["logs", "once"]).exited(0);
    assert!(logs.err.contains("sentinel logs once --run NUMBER"), "{}", logs.err);
    dev.run(&["logs", "once", "--run", "1"]).exited(0).printed("out\n");
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "ran\n");
    dev.run(&["rerun", "once", "--follow"]).exited(0).printed("out\n");
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "ran\nran\n");
}
