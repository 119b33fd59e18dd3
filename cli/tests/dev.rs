//! Dev mode with the real binary: real agents, supervisors and commands, and the command line against it.

#[cfg(test)]
mod kit;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kit::{Dev, PATIENCE, Ran, is_running, sentinel, signal, task, wait, write};

#[test]
fn a_task_from_a_file_runs_is_seen_live_and_is_listed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hello.yaml");
    let gate = directory.path().join("gate");
    // The second line comes only after this test has seen the first.
    let script = format!(
        "echo first; while [ ! -e {} ]; do sleep 0.05; done; echo second; echo oops >&2",
        gate.display()
    );
    write(&file, &task("hello", &format!("{{command: [sh, -c, {script:?}]}}")));

    let dev = Dev::start(&[file.to_str().unwrap()]);
    dev.err.wait_for("default/hello created");
    dev.out.wait_for("hello | first\n");
    assert!(!dev.out.text().contains("second"));
    dev.run(&["get", "tasks"]).ended(0).said("hello");

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

    dev.run(&["wait", "hello", "--for", "complete", "--timeout", "30s"]).ended(0).said("task/hello complete");
    let tasks = dev.run(&["get", "tasks"]).ended(0);
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
    dev.run(&["logs", "hello"]).ended(0).said("first\nsecond\n").said("oops");
    let stdout_alone = dev.run(&["logs", "hello", "--stream", "stdout"]).ended(0);
    assert_eq!((stdout_alone.out.as_str(), stdout_alone.err.as_str()), ("first\nsecond\n", ""));
    let executions = dev
        .until(&["get", "executions", "-o", "json"], |ran| ran.json()["items"][0]["outcome"] == "Succeeded");
    assert_eq!(executions.json()["items"][0]["exitCode"], 0);
    let id = executions.json()["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(dev.run(&["logs", &id, "--from", "6", "--stream", "stdout"]).ended(0).out, "second\n");
    dev.run(&["logs", "hello", "--timestamps"]).ended(0).said("Z first\n");
    dev.run(&["get", "runs"]).ended(0).said("Complete");
    let nodes = dev.until(&["nodes"], |ran| ran.out.contains("GiB"));
    assert!(nodes.out.contains("REACHABLE") && nodes.out.contains(" yes "), "{}", nodes.out);
    dev.run(&["get", "task", "hello", "-o", "name"]).ended(0).said("task/hello\n");
    dev.run(&["get", "task", "hello", "-o", "yaml"]).ended(0).said("kind: Task\n");
}

#[test]
fn commands_end_with_the_exit_code_that_tells_what_happened() {
    let dev = Dev::start(&[]);
    let succeeded = dev.run(&["run", "--", "sh", "-c", "echo out; echo err >&2"]).ended(0);
    assert_eq!(succeeded.out, "out\n");
    assert!(succeeded.err.starts_with("err\n"), "{}", succeeded.err);
    dev.run(&["run", "--", "sh", "-c", "exit 3"]).ended(3).said("Failed: exited with code 3");
    dev.run(&["run", "--", "no-such-program"]).ended(127).said("no-such-program");
    dev.run(&["run", "--", "/etc/passwd"]).ended(126).said("StartFailed");
    dev.run(&["run", "--", "/etc"]).ended(126).said("StartFailed");
    dev.run(&["run", "--", "sh", "-c", "kill -9 $$"]).ended(137).said("ended by signal 9");
    dev.run(&["run", "--timeout", "1s", "--", "sleep", "60"]).ended(124).said("TimedOut");
    dev.run(&["run", "--user", "nobody-of-that-name", "--", "true"]).ended(126).said("nobody-of-that-name");
    dev.run(&["run", "--workdir", "/no/such/directory", "--", "true"]).ended(126).said("/no/such/directory");
    dev.run(&["run", "--env", "A=b c", "--", "sh", "-c", "echo $A"]).ended(0).said("b c\n");
    dev.run(&["run", "-l", "pool=none", "--", "true"]).ended(125).said("no node matches spec.targets");
    // Refused before anything is made.
    dev.run(&["run", "--env", "=b", "--", "true"]).ended(2).said("--env \"=b\" is not NAME=VALUE");
    dev.run(&["run", "-l", "a b", "--", "true"]).ended(2).said("\"a b\" is not part of a label selector");
    dev.run(&["run", "--max-concurrent", "0%", "--", "true"]).ended(2).said("spec.rollout.maxConcurrent");
    dev.run(&["run", "--timeout", "-5s", "--", "true"]).ended(2);
    dev.run(&["run", "--", ""]).ended(2).said("spec.run.command[0]");
    dev.run(&["run", "--name", "A_B", "--", "true"]).ended(2).said("metadata.name");
}

#[test]
fn many_nodes_are_one_run_with_each_line_told_apart() {
    let dev = Dev::start(&["--nodes", "4"]);
    dev.until(&["get", "nodes", "-o", "json"], |ran| {
        let nodes = ran.json();
        nodes["items"].as_array().unwrap().iter().filter(|node| node["reachable"] == true).count() == 5
    });
    dev.run(&["run", "--", "true"]).ended(2).said("on which of 5 nodes?").said("--all");
    let all = dev
        .run(&["run", "--all", "--", "sh", "-c", "echo one; echo two"])
        .ended(0)
        .said("5 of 5 nodes succeeded");
    assert_eq!(all.out.lines().count(), 10, "{}", all.out);
    assert!(all.out.lines().all(|line| line.ends_with("| one") || line.ends_with("| two")), "{}", all.out);
    let web = dev.run(&["run", "-l", "pool=web", "--", "echo", "hi"]).ended(0);
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
    mixed.ended(7).said("1 of 2 nodes succeeded");
}

#[test]
fn every_problem_of_every_file_is_listed_and_nothing_is_started() {
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
    let ran = Ran::of(&["dev"], &sentinel().arg("dev").arg(directory.path()).output().unwrap());
    let ran = ran.ended(2);
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
    Ran::of(&["dev"], &missing).ended(2).said("/no/such/file.yaml: there is no such file");
}

#[test]
fn a_watched_file_is_applied_when_it_changes_and_may_become_bad_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    write(&file, &task("a", "{command: [echo, before]}"));
    let dev = Dev::start(&[directory.path().to_str().unwrap()]);
    dev.out.wait_for("| before\n");
    dev.err.wait_for("default/a run 1: Complete");
    write(&file, "kind: [");
    dev.err.wait_for("what was applied before stays");
    write(&file, &task("a", "{command: [echo, after]}"));
    dev.out.wait_for("| after\n");
    dev.err.wait_for("default/a run 2: Complete");
    write(&directory.path().join("b.yaml"), &task("b", "{command: [echo, another]}"));
    dev.out.wait_for("| another\n");
    std::fs::remove_file(&file).unwrap();
    dev.err.wait_for("its Tasks stay (sentinel delete a)");
    dev.run(&["get", "task", "a"]).ended(0).said("Succeeded");
}

#[test]
fn ctrl_c_ends_the_commands_says_so_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = sentinel();
    command.env("TMPDIR", directory.path());
    let mut dev = Dev::start_as(command, &[]);
    let mark = format!("{}", 86_400 + std::process::id());
    dev.run(&["run", "--detach", "--name", "long", "--", "sleep", &mark]).ended(0).said("long\n");
    dev.until(&["get", "executions"], |ran| ran.out.contains("Running"));
    assert!(is_running(&mark));
    dev.interrupt();
    assert_eq!(dev.wait().code(), Some(0));
    dev.err.wait_for("what still runs is cancelled: default/long");
    assert!(!is_running(&mark), "the command outlived dev mode");
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "the temporary directory is still there"
    );
}

#[test]
fn the_first_ctrl_c_of_run_detaches_and_the_second_cancels() {
    let dev = Dev::start(&[]);
    let run = |name: &str| {
        let child = dev
            .cli(&["run", "--name", name, "--", "sh", "-c", "echo begun; exec sleep 600"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        dev.out.wait_for(&format!("{name} | begun\n"));
        child
    };
    let mut detached = run("detached");
    signal(&detached, "INT");
    assert_eq!(wait(&mut detached).code(), Some(130));
    let mut words = String::new();
    std::io::Read::read_to_string(&mut detached.stderr.take().unwrap(), &mut words).unwrap();
    assert!(
        words.contains("sentinel logs -f detached") && words.contains("sentinel cancel detached"),
        "{words}"
    );
    dev.run(&["get", "task", "detached"]).ended(0).said("Running");

    let mut cancelled = run("cancelled");
    let words = cancelled.stderr.take().unwrap();
    signal(&cancelled, "INT");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(words));
    assert!(lines.any(|line| line.unwrap().contains("cancel it:")));
    signal(&cancelled, "INT");
    assert_eq!(wait(&mut cancelled).code(), Some(130));
    dev.until(&["get", "task", "cancelled"], |ran| ran.out.contains("Cancelled"));
    dev.run(&["cancel", "detached", "--wait"]).ended(0).said("cancel requested");
    dev.run(&["cancel", "detached"]).ended(1).said("is over already");
}

#[test]
fn a_task_can_be_run_again_cancelled_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("again.yaml");
    write(&file, &task("again", "{command: [echo, again]}"));
    let dev = Dev::start(&[]);
    let path = file.to_str().unwrap();
    dev.run(&["apply", "-f", path]).ended(0).said("task/again created");
    dev.run(&["apply", "-f", path]).ended(0).said("task/again unchanged");
    dev.run(&["wait", "again", "--timeout", "60s"]).ended(0);
    let rerun = dev.run(&["rerun", "again", "--token", "t1", "-f"]).ended(0).said("run 2: Complete");
    assert_eq!(rerun.out, "again\n");
    dev.run(&["rerun", "again", "--token", "t1"])
        .ended(1)
        .said("has been asked to run again with this token before");
    dev.run(&["logs", "again", "--run", "1"]).ended(0).said("again\n");
    dev.run(&["delete", "again", "--wait"]).ended(0).said("task/again deleted");
    dev.run(&["get", "task", "again"]).ended(1).said("no Task default/again");
    dev.run(&["delete", "again"]).ended(1).said("no Task default/again");
    dev.run(&["wait", "again", "--for", "deleted"]).ended(0);
    // Its output is kept.
    dev.run(&["logs", "again"]).ended(0).said("again\n");
    dev.run(&["get", "executions", "--task", "again"]).ended(0).said("Succeeded");
}

#[test]
fn what_has_run_is_kept_in_a_state_directory_and_not_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let file = directory.path().join("once.yaml");
    let count = directory.path().join("count");
    let script = format!("echo ran >> {}", count.display());
    write(&file, &task("once", &format!("{{command: [sh, -c, {script:?}]}}")));
    let arguments = [file.to_str().unwrap(), "--state", state.to_str().unwrap()];
    let mut dev = Dev::start(&arguments);
    dev.err.wait_for("default/once run 1: Complete");
    dev.interrupt();
    assert_eq!(dev.wait().code(), Some(0));
    let mut dev = Dev::start(&arguments);
    dev.until(&["get", "executions"], |ran| ran.out.contains("Succeeded"));
    dev.run(&["get", "task", "once"]).ended(0).said("Succeeded");
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
    // Where anybody may read it, whatever the folders of the build allow.
    let binary = directory.path().join("sentinel");
    std::fs::copy(env!("CARGO_BIN_EXE_sentinel"), &binary).unwrap();
    let open = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(directory.path(), 0o1777);
    open(&binary, 0o755);
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
        Ran::of(arguments, &command.stdin(Stdio::null()).output().unwrap())
    };
    let ran = of(65_534, &["run", "--", "id", "-u"]).ended(0);
    if is_root {
        assert_eq!(ran.out, "65534\n");
        // Another user cannot use it, and root sends no Task to a server that is not root's.
        of(65_533, &["get", "tasks"]).ended(1).said("the server belongs to user 65534");
        of(0, &["run", "--", "id"]).ended(125).said("the server belongs to user 65534");
        let listed = dev.get("/api/v1/tasks").json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    }
    dev.interrupt();
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn dev_mode_is_its_users_alone() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    let dev = Dev::start(&[]);
    let me = std::fs::metadata("/proc/self").unwrap().uid();
    let place = dev.socket.parent().unwrap().metadata().unwrap();
    assert_eq!((place.uid(), place.permissions().mode() & 0o777), (me, 0o700));
    for file in [&dev.socket, &dev.token_file] {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let socket = format!("unix:{}", dev.socket.display());
    dev.run(&["get", "tasks", "--server", &socket]).ended(0);
    // The port alone opens nothing; the token does.
    let forwarded = kit::forward(dev.server.strip_prefix("http://").unwrap());
    dev.run(&["get", "tasks", "--server", &forwarded])
        .ended(1)
        .said("failed to authenticate")
        .said("--token-file");
    let token = dev.token_file.to_str().unwrap();
    dev.run(&["get", "tasks", "--server", &forwarded, "--token-file", token]).ended(0);
    if me != 0 {
        return;
    }
    dev.err.wait_for("It runs as root");
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10"]).args(arguments).uid(65_534).gid(65_534);
        Ran::of(arguments, &command.output().unwrap())
    };
    let tasks = format!("{}/api/v1/tasks", dev.server);
    assert!(curl(&[&tasks]).out.contains("Unauthorized"));
    let path = dev.socket.to_str().unwrap();
    let refused = curl(&["--unix-socket", path, "http://localhost/api/v1/tasks"]);
    assert!(refused.code != 0 && refused.out.is_empty(), "{refused:?}");
    assert_eq!(dev.get("/api/v1/tasks").json()["items"], serde_json::json!([]));
}

#[test]
fn a_server_of_another_user_at_the_port_is_sent_nothing() {
    use std::os::unix::process::CommandExt as _;
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        return;
    }
    let heard = tempfile::NamedTempFile::new().unwrap();
    let script = "import socket,sys\ns=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); print(s.getsockname()[1],flush=True)\nc,_=s.accept(); d=c.recv(65536); print(repr(d),flush=True)";
    let mut thief = Command::new("python3");
    thief.args(["-c", script]).uid(65_534).gid(65_534).stdout(Stdio::piped());
    let mut thief = thief.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(thief.stdout.take().unwrap()));
    let port = lines.next().unwrap().unwrap();
    std::fs::write(heard.path(), "a-token-that-stays-here").unwrap();
    let server = format!("http://127.0.0.1:{port}");
    let token = heard.path().to_str().unwrap();
    let arguments = ["run", "--server", &server, "--token-file", token, "--all", "--", "true"];
    let ran = Ran::of(&arguments, &sentinel().args(arguments).output().unwrap());
    let ran = ran.ended(125).said("refused to use http://").said("the server belongs to user 65534");
    assert!(!ran.err.contains("no server answers"), "{ran:?}");
    assert_eq!(lines.next().unwrap().unwrap(), "b''", "something was sent");
    thief.wait().unwrap();
}

#[test]
fn any_signal_that_can_be_caught_ends_dev_mode_as_ctrl_c_does_and_a_second_one_too() {
    for (name, twice) in [("TERM", false), ("HUP", false), ("QUIT", false), ("TERM", true), ("HUP", true)] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = sentinel();
        command.env("TMPDIR", directory.path());
        let mut dev = Dev::start_as(command, &[]);
        let mark = format!("{}", 100_000 + std::process::id());
        dev.run(&["run", "--detach", "--name", "long", "--", "sleep", &mark]).ended(0);
        dev.until(&["get", "executions"], |ran| ran.out.contains("Running"));
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
fn what_a_killed_dev_mode_left_is_found_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = sentinel();
        command.env("TMPDIR", directory.path());
        Dev::start_as(command, &[])
    };
    // One that is killed while a command runs, and one while none does.
    let mut busy = start();
    let mark = format!("{}", 200_000 + std::process::id());
    busy.run(&["run", "--detach", "--name", "long", "--", "sleep", &mark]).ended(0);
    busy.until(&["get", "executions"], |ran| ran.out.contains("Running"));
    busy.signal("KILL");
    busy.wait();
    let mut idle = start();
    idle.err.wait_for("left commands running");
    idle.signal("KILL");
    idle.wait();
    assert!(idle.socket.exists(), "nothing was left to find");
    let next = start();
    let said = next.err.text();
    assert!(said.contains(&format!("removed {}", idle.socket.display())), "{said}");
    assert!(said.contains("left commands running"), "{said}");
    let mut names: Vec<String> = std::fs::read_dir(directory.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.contains("sentinel-dev-"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "that of the busy one and of the one that runs: {names:?}");
    assert!(is_running(&mark), "it was ended without a word");
    // As it says: taken over, and ended with it.
    let state = said.split("sentinel dev --state ").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    let mut taken = Dev::start(&["--state", &state]);
    taken.interrupt();
    assert_eq!(taken.wait().code(), Some(0));
    assert!(!is_running(&mark), "{}", taken.err.text());
}

#[test]
fn a_state_that_was_asked_for_by_name_is_kept_whatever_its_name() {
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
    // One that a killed dev mode left becomes one that is kept when it is named.
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
fn a_dev_mode_under_nohup_goes_on_at_a_hangup() {
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_sentinel"));
    let mut dev = Dev::start_as(command, &[]);
    dev.signal("HUP");
    let status = std::fs::read_to_string(format!("/proc/{}/status", dev.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(mask.trim(), 16).unwrap() & 1, 1, "SIGHUP is not ignored:\n{status}");
    dev.run(&["run", "--", "true"]).ended(0);
    dev.signal("TERM");
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn a_second_dev_mode_on_the_same_state_serves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().to_str().unwrap();
    let dev = Dev::start(&["--state", state]);
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--state", state];
    let second = Ran::of(&arguments, &sentinel().args(arguments).output().unwrap());
    let second = second.ended(1).said("is in use by another dev mode");
    assert!(!second.err.contains("API"), "{second:?}");
    dev.run(&["run", "--", "true"]).ended(0);
}

#[test]
fn without_a_server_it_is_said_how_to_get_one() {
    let ran = sentinel().args(["get", "tasks", "--server", "127.0.0.1:9"]).output().unwrap();
    Ran::of(&["get"], &ran).ended(1).said("no server answers at http://127.0.0.1:9").said("sentinel dev");
    let ran = sentinel().args(["get", "tasks", "--server", "https://a"]).output().unwrap();
    Ran::of(&["get"], &ran).ended(2).said("expected http://HOST[:PORT]");
    // A variable that is set to nothing is not set.
    let empty = sentinel().env("SENTINEL_SERVER", "").args(["version"]).output().unwrap();
    Ran::of(&["version"], &empty).ended(0);
    let ran = sentinel().args(["run", "--server", "127.0.0.1:9", "--all", "--", "true"]).output().unwrap();
    Ran::of(&["run"], &ran).ended(125);
}

#[test]
fn a_port_that_is_taken_or_open_to_others_is_refused_with_a_way_out() {
    let dev = Dev::start(&[]);
    let address = dev.server.strip_prefix("http://").unwrap();
    let taken = sentinel().args(["dev", "--listen", address]).output().unwrap();
    Ran::of(&["dev"], &taken).ended(1).said("is taken").said("--listen 127.0.0.1:0");
    let open = sentinel().args(["dev", "--listen", "0.0.0.0:0"]).output().unwrap();
    Ran::of(&["dev"], &open).ended(2).said("only loopback addresses");
}

#[test]
fn output_is_raw_in_a_pipe_and_a_gigabyte_is_not_needed_to_see_that_it_is_whole() {
    let dev = Dev::start(&[]);
    let started = Instant::now();
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
    assert!(started.elapsed() < PATIENCE + Duration::from_mins(1));
}

/// The examples are the first thing that people try; each says how it ends.
#[test]
fn every_example_ends_as_it_says() {
    let examples = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"));
    let mut expected = Vec::new();
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        // A comment belongs to the document behind it.
        let ends = text.lines().filter_map(|line| line.strip_prefix("# Ends: "));
        let names = text.lines().filter_map(|line| line.strip_prefix("  name: "));
        let pairs: Vec<(String, String)> = names.map(str::to_owned).zip(ends.map(str::to_owned)).collect();
        assert!(!pairs.is_empty(), "{} does not say how it ends", path.display());
        // It waits for as long as nodes may be away.
        if !pairs.iter().any(|(_, end)| end.ends_with("NodesUnreachable")) {
            expected.push((path, pairs));
        }
    }
    assert!(expected.len() >= 8, "only {} examples", expected.len());
    let files: Vec<&str> = expected.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    let dev = Dev::start(&[&["--nodes", "4"], &files[..]].concat());
    for (name, end) in expected.iter().flat_map(|(_, pairs)| pairs) {
        let (condition, reason) = end.split_once(' ').unwrap_or((end, ""));
        dev.until(&["get", "task", name, "-o", "json"], |ran| {
            // Not read from its file yet.
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
fn each_attempt_of_a_retried_command_is_shown_in_its_order_and_kept_by_its_number() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/retry.yaml");
    let dev = Dev::start(&[example]);
    dev.err.wait_for("default/retry run 1: Complete, 1 node, succeeded");
    dev.out.wait_for("retry | done\n");
    let err = dev.err.text();
    let (first, second) = (err.find("| not yet\n"), err.find("| [sentinel: attempt 2]\n"));
    assert!(first.is_some() && first < second, "{err}");
    let executions = dev.until(&["get", "executions", "-o", "json"], |ran| {
        ran.json()["items"][0]["attempt"] == 2 && ran.json()["items"][0]["outcome"] == "Succeeded"
    });
    let id = executions.json()["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(dev.run(&["logs", &id]).ended(0).out, "done\n");
    assert_eq!(dev.run(&["logs", &id, "--attempt", "1"]).ended(0).err, "not yet\n");
    dev.run(&["logs", "retry", "--attempt", "1"]).ended(2).said("--attempt is of one execution");
}
