//! Dev mode in unusual environments: signals, limits and directories, other users, full disks, many nodes.
#![allow(clippy::unwrap_used, reason = "a test")]

#[cfg(test)]
mod kit;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use kit::{CliOutput, Dev, ProcessOutput, sentinel, task, write};

/// Starts dev mode through a program that executes its arguments.
fn start_through(wrapper: &[&str], arguments: &[&str]) -> Dev {
    let (program, own) = wrapper.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(own).arg(env!("CARGO_BIN_EXE_sentinel"));
    Dev::start_as(command, arguments)
}

/// Starts dev mode after these shell commands.
fn start_after(shell: &str, arguments: &[&str]) -> Dev {
    start_through(&["/bin/sh", "-c", &format!("{shell}\nexec \"$@\""), "sh"], arguments)
}

fn runs_and_stops(mut dev: Dev, context: &str) {
    let ran = dev.run(&["run", "--", "echo", "it runs"]);
    assert_eq!(ran.code, 0, "{context}: {ran:?}");
    dev.interrupt();
    assert!(dev.wait().success(), "{context}");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn works_with_ignored_or_blocked_signals() {
    let signals = ["INT", "TERM", "CHLD", "PIPE", "QUIT", "USR1", "ALRM", "XFSZ"];
    for how in ["ignore", "block"] {
        let all = signals.map(|signal| format!("--{how}-signal={signal}"));
        for one in &all[..3] {
            runs_and_stops(start_through(&["env", one], &[]), one);
        }
        let mut wrapper = vec!["env"];
        wrapper.extend(all.iter().map(String::as_str));
        runs_and_stops(start_through(&wrapper, &[]), how);
    }
}

#[test]
fn works_with_odd_limits_descriptors_and_directories() {
    for shell in [
        "ulimit -S -n 40",
        "ulimit -S -f 1",
        "ulimit -S -v 8000000",
        "exec <&-",
        "exec 3</dev/null 4>/dev/null 9</",
        "unset HOME PATH TMPDIR; umask 777",
        "mkdir -p /tmp/sentinel-dev-gone.$$ && cd /tmp/sentinel-dev-gone.$$ && rmdir ../sentinel-dev-gone.$$",
    ] {
        runs_and_stops(start_after(shell, &[]), shell);
    }
}

#[test]
fn state_in_a_readable_directory_is_private() {
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let dev = start_after("umask 022", &["--state", state.path().to_str().unwrap()]);
    let secret = task("secret", "{command: [\"true\"], env: [{name: S, value: confidential}]}");
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), &secret);
    dev.run(&["apply", "-f", file.path().to_str().unwrap()]).exited(0);
    dev.run(&["wait", "secret"]).exited(0);
    let mut seen = 0;
    walk(state.path(), &mut |path, mode| {
        seen += 1;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    });
    assert!(seen > 10, "{seen} files");
}

fn walk(path: &Path, visit: &mut impl FnMut(&Path, u32)) {
    for entry in fs::read_dir(path).unwrap().flatten() {
        // Files may disappear meanwhile.
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        visit(&entry.path(), metadata.mode());
        if metadata.is_dir() {
            walk(&entry.path(), visit);
        }
    }
}

#[test]
fn rejects_a_state_directory_that_others_can_write() {
    let outside = tempfile::tempdir().unwrap();
    let state = outside.path().join("state");
    fs::create_dir(&state).unwrap();
    write(&state.join("planted"), "");
    fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
    let refused = || {
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap()];
        CliOutput::of(&arguments, &sentinel().args(arguments).stdin(Stdio::null()).output().unwrap())
    };
    refused().exited(2).printed("mode 0777");
    if is_root() {
        std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
        refused().exited(2).printed("(uid 65534)");
    }
}

#[test]
fn simulated_nodes_use_no_inotify_instances() {
    let dev = Dev::start(&["--nodes", "130"]);
    let ran = dev.run(&["run", "--all", "--name", "all", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let uses_inotify = fs::read_dir(format!("/proc/{}/fd", dev.pid())).unwrap().flatten().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("inotify"))
    });
    assert!(!uses_inotify);
}

#[test]
fn rejects_more_nodes_than_the_machine_can_hold() {
    let script = "ulimit -n 400; exec \"$@\"";
    let output = Command::new("/bin/sh")
        .args([
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_sentinel"),
            "dev",
            "--listen",
            "127.0.0.1:0",
            "--nodes",
            "300",
        ])
        .output()
        .unwrap();
    let ran = CliOutput::of(&["dev"], &output).exited(1);
    ran.printed("--nodes 300 exceeds what this machine can hold")
        .printed("file descriptors")
        .printed("of its 400");
}

#[test]
fn the_host_environment_is_this_machine_for_every_user() {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(
        file.path(),
        &task("host", "{command: [readlink, /proc/self/ns/mnt], environment: Host, sandbox: Privileged}"),
    );
    fs::set_permissions(file.path(), PermissionsExt::from_mode(0o644)).unwrap();
    let user: &[&str] =
        if is_root() { &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] } else { &["env"] };
    for wrapper in [&["env"][..], user] {
        // From a file, since dev mode accepts no Task from another user.
        let dev = start_through(wrapper, &[file.path().to_str().unwrap()]);
        dev.err.wait_for("default/host run 1: Complete");
        dev.out.wait_for(&fs::read_link("/proc/self/ns/mnt").unwrap().to_string_lossy());
    }
}

#[test]
fn a_busy_node_is_waited_for_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let dev = Dev::start(&["--max-attempts", "1"]);
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    dev.run(&["run", "--detach", "--name", "first", "--", "sh", "-c", &wait]).exited(0);
    dev.wait_until(&["get", "executions", "--task", "first"], |ran| ran.out.contains("Running"));
    let busy = "the node is busy: 1 of 1 commands";
    let followed = |arguments: &[&str]| {
        dev.cli(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut second = followed(&["run", "--name", "second", "--", "true"]);
    let mut third = followed(&["run", "--name", "third", "-o", "json", "--", "true"]);
    // As a file names it: on a command line, such a name is refused.
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), &task("fourth", "{command: [\"true\"]}").replace("all: true", "nodeNames: [nope]"));
    dev.run(&["apply", "-f", file.path().to_str().unwrap()]).exited(0);
    let mut nope = followed(&["logs", "-f", "fourth"]);
    let (out, err) = (
        ProcessOutput::read(third.stdout.take().unwrap()),
        ProcessOutput::read(second.stderr.take().unwrap()),
    );
    err.wait_for(&format!(": waiting: {busy} (--max-attempts"));
    out.wait_for("\"type\":\"waiting\"");
    assert!(out.text().contains(busy), "{}", out.text());
    let unreached = ProcessOutput::read(nope.stderr.take().unwrap());
    unreached.wait_for("sentinel: nope: waiting: no agent of this node is connected\n");
    dev.run(&["cancel", "fourth"]).exited(0);
    assert_eq!(kit::wait(&mut nope).code(), Some(0), "{}", unreached.text());
    dev.wait_until(&["get", "task", "second", "-o", "json"], |ran| ran.out.contains(busy));
    write(&gate, "");
    for child in [&mut second, &mut third] {
        assert!(kit::wait(child).success());
    }
    err.wait_for("run 1: Complete");
    assert_eq!(err.text().matches("waiting:").count(), 1, "{}", err.text());
}

#[test]
fn a_low_disk_is_reported_and_small_commands_still_run() {
    let state = tempfile::tempdir().unwrap();
    let dev = Dev::start(&["--min-free", "900Ti", "--state", state.path().to_str().unwrap()]);
    let ran = dev.run(&["run", "--name", "large", "--", "true"]);
    let status = dev.run(&["get", "task", "large", "-o", "json"]);
    let directory = fs::canonicalize(state.path()).unwrap();
    for words in [directory.to_str().unwrap(), "iB free", "900 TiB are needed", "--min-free"] {
        assert!(status.out.contains(words), "{words:?} is not in {status:?}; {ran:?}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), &task("small", "{command: [\"true\"], output: {limit: 1Mi}}"));
    dev.run(&["apply", "-f", file.path().to_str().unwrap()]).exited(0);
    dev.run(&["wait", "small"]).exited(0);
}
