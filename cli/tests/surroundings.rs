//! Dev mode on machines that are not as one would wish: odd surroundings, other people, little room, many nodes.
#![allow(clippy::unwrap_used, reason = "a test")]

#[cfg(test)]
mod kit;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use kit::{Dev, Heard, Ran, sentinel, task, write};

/// Dev mode behind a program that ends in executing its arguments.
fn behind(wrapper: &[&str], arguments: &[&str]) -> Dev {
    let (program, own) = wrapper.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(own).arg(env!("CARGO_BIN_EXE_sentinel"));
    Dev::start_as(command, arguments)
}

/// The same behind a shell that does this first.
fn after(shell: &str, arguments: &[&str]) -> Dev {
    behind(&["/bin/sh", "-c", &format!("{shell}\nexec \"$@\""), "sh"], arguments)
}

fn runs_and_ends(mut dev: Dev, what: &str) {
    let ran = dev.run(&["run", "--", "echo", "it runs"]);
    assert_eq!(ran.code, 0, "{what}: {ran:?}");
    dev.interrupt();
    assert!(dev.wait().success(), "{what}");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn ctrl_c_ends_it_and_commands_end_whatever_signals_are_ignored_or_blocked() {
    let signals = ["INT", "TERM", "CHLD", "PIPE", "QUIT", "USR1", "ALRM", "XFSZ"];
    for how in ["ignore", "block"] {
        let all = signals.map(|signal| format!("--{how}-signal={signal}"));
        for one in &all[..3] {
            runs_and_ends(behind(&["env", one], &[]), one);
        }
        let mut wrapper = vec!["env"];
        wrapper.extend(all.iter().map(String::as_str));
        runs_and_ends(behind(&wrapper, &[]), how);
    }
}

#[test]
fn it_works_after_odd_limits_descriptors_and_directories() {
    for shell in [
        "ulimit -S -n 40",
        "ulimit -S -f 1",
        "ulimit -S -v 8000000",
        "exec <&-",
        "exec 3</dev/null 4>/dev/null 9</",
        "unset HOME PATH TMPDIR; umask 777",
        "mkdir -p /tmp/sentinel-dev-gone.$$ && cd /tmp/sentinel-dev-gone.$$ && rmdir ../sentinel-dev-gone.$$",
    ] {
        runs_and_ends(after(shell, &[]), shell);
    }
}

#[test]
fn what_it_keeps_in_a_directory_that_others_can_read_is_closed_to_them() {
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let dev = after("umask 022", &["--state", state.path().to_str().unwrap()]);
    let secret = task("secret", "{command: [\"true\"], env: [{name: S, value: hush}]}");
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), &secret);
    dev.run(&["apply", "-f", file.path().to_str().unwrap()]).ended(0);
    dev.run(&["wait", "secret"]).ended(0);
    let mut seen = 0;
    each_below(state.path(), &mut |path, mode| {
        seen += 1;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    });
    assert!(seen > 10, "{seen} files");
}

fn each_below(path: &Path, look: &mut impl FnMut(&Path, u32)) {
    for entry in fs::read_dir(path).unwrap().flatten() {
        // What comes and goes meanwhile is not looked at.
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        look(&entry.path(), metadata.mode());
        if metadata.is_dir() {
            each_below(&entry.path(), look);
        }
    }
}

#[test]
fn a_state_directory_that_another_user_can_change_is_refused_with_owner_and_mode() {
    let outside = tempfile::tempdir().unwrap();
    let state = outside.path().join("state");
    fs::create_dir(&state).unwrap();
    write(&state.join("planted"), "");
    fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
    let refused = || {
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap()];
        Ran::of(&arguments, &sentinel().args(arguments).stdin(Stdio::null()).output().unwrap())
    };
    refused().ended(2).said("mode 0777");
    if is_root() {
        std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
        refused().ended(2).said("(uid 65534)");
    }
}

#[test]
fn more_nodes_can_be_simulated_than_a_user_has_inotify_instances() {
    let dev = Dev::start(&["--nodes", "130"]);
    let ran = dev.run(&["run", "--all", "--name", "all", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let uses_inotify = fs::read_dir(format!("/proc/{}/fd", dev.pid())).unwrap().flatten().any(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("inotify"))
    });
    assert!(!uses_inotify);
}

#[test]
fn more_nodes_than_the_machine_can_hold_are_refused_before_anything_is_started() {
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
    let ran = Ran::of(&["dev"], &output).ended(1);
    ran.said("--nodes 300 is more than this machine can hold").said("file descriptors").said("of its 400");
}

#[test]
fn the_host_of_dev_mode_is_this_machine_for_every_user() {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.path(), &task("host", "{command: [readlink, /proc/self/ns/mnt], environment: Host}"));
    fs::set_permissions(file.path(), PermissionsExt::from_mode(0o644)).unwrap();
    let user: &[&str] =
        if is_root() { &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] } else { &["env"] };
    for wrapper in [&["env"][..], user] {
        // From the file itself: dev mode takes no Task from another user, and no other user sends it one.
        let dev = behind(wrapper, &[file.path().to_str().unwrap()]);
        dev.err.wait_for("default/host run 1: Complete");
        dev.out.wait_for(&fs::read_link("/proc/self/ns/mnt").unwrap().to_string_lossy());
    }
}

#[test]
fn a_busy_node_is_waited_for_and_said_to_be_busy() {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let dev = Dev::start(&["--max-attempts", "1"]);
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    dev.run(&["run", "--detach", "--name", "first", "--", "sh", "-c", &wait]).ended(0);
    dev.until(&["get", "executions", "--task", "first"], |ran| ran.out.contains("Running"));
    let busy = "the node is busy: 1 of 1 commands";
    let followed = |arguments: &[&str]| {
        dev.cli(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut second = followed(&["run", "--name", "second", "--", "true"]);
    let mut third = followed(&["run", "--name", "third", "-o", "json", "--", "true"]);
    let mut nope = followed(&["run", "--name", "fourth", "--node", "nope", "--", "true"]);
    let (out, err) = (Heard::of(third.stdout.take().unwrap()), Heard::of(second.stderr.take().unwrap()));
    err.wait_for(&format!(": waiting: {busy} (--max-attempts"));
    out.wait_for("\"type\":\"waiting\"");
    assert!(out.text().contains(busy), "{}", out.text());
    let unreached = Heard::of(nope.stderr.take().unwrap());
    unreached.wait_for("sentinel: nope: waiting: no agent of this node is connected\n");
    dev.run(&["cancel", "fourth"]).ended(0);
    assert!(!kit::wait(&mut nope).success(), "{}", unreached.text());
    unreached.wait_for("default/fourth run 1: Cancelled");
    dev.until(&["get", "task", "second", "-o", "json"], |ran| ran.out.contains(busy));
    write(&gate, "");
    for child in [&mut second, &mut third] {
        assert!(kit::wait(child).success());
    }
    err.wait_for("run 1: Complete");
    assert_eq!(err.text().matches("waiting:").count(), 1, "{}", err.text());
}

#[test]
fn a_low_disk_is_said_with_directory_and_units_and_a_small_command_can_still_clean_up() {
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
    dev.run(&["apply", "-f", file.path().to_str().unwrap()]).ended(0);
    dev.run(&["wait", "small"]).ended(0);
}
