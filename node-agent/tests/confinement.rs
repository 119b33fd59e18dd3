//! What a command is kept from, one rule at a time. `tests/tests/sandbox.rs` has a command that tries everything. As root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test of real processes")]

mod fixtures;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fixtures::{Node, PROGRAM, can_run_as_root, finish, shell};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sentinel_node_agent::supervisor::{Launcher, Prefork};
use sentinel_protocol::outcome::{Outcome, StartFailure};
use sentinel_protocol::request::{Environment, Program, RootFilesystem, Sandbox};
use sentinel_protocol::to_agent::Start;

fn confined(number: u32, sandbox: impl Into<Option<Sandbox>>, text: &str) -> Start {
    let mut start = shell(number, text);
    start.request.sandbox = sandbox.into();
    start
}

fn failure(outcome: Outcome) -> (StartFailure, String) {
    match outcome {
        Outcome::StartFailed { reason, message } => (reason, message.to_string()),
        other => panic!("it has started: {other:?}"),
    }
}

fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    directory
}

#[test]
fn a_command_that_names_nothing_is_an_ordinary_user() {
    if !can_run_as_root() {
        return;
    }
    let mut node = Node::new();
    let script = "id -u; id -g; id -G; echo $HOME ${USER-unset}; ulimit -Hn; cat /proc/self/oom_score_adj; \
                  grep -E '^(CapBnd|CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '";
    let text = node.run(&confined(1, None, script)).text();
    let zero = "0".repeat(16);
    let files = getrlimit(Resource::Nofile).maximum.map_or(65_536, |hard| hard.min(65_536));
    let expected = format!(
        "65534\n65534\n65534\n/ unset\n{files}\n500\nCapInh: {zero}\nCapPrm: {zero}\nCapEff: {zero}\nCapBnd: {zero}\nCapAmb: {zero}\n\
         NoNewPrivs: 1\nSeccomp: 2\n"
    );
    assert_eq!(text, expected);
    // As another user, the files by which a command reaches its own output belong to the agent.
    let mut outputs = confined(2, None, "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin");
    outputs.request.stdin = "in\n".into();
    let finished = node.run(&outputs);
    assert_eq!((finished.text().as_str(), finished.stderr()), ("out\nin\n", b"err\n".to_vec()));
    let mut script = confined(3, None, "");
    script.request.program = Program::Script {
        interpreter: "/bin/sh".into(),
        argument: None,
        text: "echo script of $(id -u)\n".into(),
    };
    assert_eq!(node.run(&script).text(), "script of 65534\n");
    let mut group = confined(4, None, "id -u; id -g");
    group.request.group = Some("daemon".into());
    assert_eq!(node.run(&group).text(), "65534\n1\n");
}

#[test]
fn restricted_runs_nothing_as_root_by_any_name() {
    if !can_run_as_root() {
        return;
    }
    let mut node = Node::new();
    for (number, (user, group)) in
        [(Some("root"), None), (Some("0"), Some("daemon")), (Some("1234"), Some("root")), (None, Some("0"))]
            .into_iter()
            .enumerate()
    {
        let mut start = confined(number as u32 + 1, Sandbox::Restricted, "id");
        start.request.user = user.map(str::to_owned);
        start.request.group = group.map(str::to_owned);
        let (reason, message) = failure(node.outcome(&start));
        assert_eq!(reason, StartFailure::IdentityDenied, "{message}");
        assert!(
            message.contains("runs nothing as root") && message.contains("run.sandbox: Baseline"),
            "{message}"
        );
    }
    let mut baseline = confined(9, Sandbox::Baseline, "id -u; grep CapPrm /proc/self/status");
    baseline.request.user = Some("root".into());
    assert_eq!(node.run(&baseline).text(), "0\nCapPrm:\t00000000a80425fb\n");
}

#[test]
fn a_read_only_root_has_an_empty_scratch_of_its_own() {
    if !can_run_as_root() {
        return;
    }
    let (mut node, open) = (Node::new(), open_directory());
    let script = format!(
        "touch {0}/x 2>/dev/null || echo refused; ls -A /tmp /dev/shm | grep -v ':$'; echo y >/tmp/y && cat /tmp/y; \
         touch /dev/shm/z; : >/dev/null; touch /proc/self/comm 2>/dev/null || echo refused",
        open.path().display()
    );
    for (number, sandbox) in
        [Sandbox::Restricted, Sandbox::Baseline, Sandbox::Privileged].into_iter().enumerate()
    {
        let mut start = confined(number as u32 + 1, sandbox, &script);
        start.request.root_filesystem = RootFilesystem::ReadOnly;
        let text = node.run(&start).text();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["refused", "y", "refused"], "{sandbox:?}");
    }
    assert!(!Path::new("/tmp/y").exists() && !Path::new("/dev/shm/z").exists());
    let mut in_scratch = confined(9, None, "true");
    in_scratch.request.program =
        Program::Command(vec![Path::new("/tmp").join("no-longer-here").display().to_string()]);
    fs::copy("/bin/true", "/tmp/no-longer-here").unwrap();
    in_scratch.request.root_filesystem = RootFilesystem::ReadOnly;
    let (_, message) = failure(node.outcome(&in_scratch));
    fs::remove_file("/tmp/no-longer-here").unwrap();
    assert!(message.contains("empty with run.readOnlyRootFilesystem"), "{message}");
}

/// A directory that is mounted twice was hidden in one place only.
#[test]
fn the_agents_files_are_hidden_wherever_they_are_mounted() {
    if !can_run_as_root() {
        return;
    }
    let node = Node::new();
    let open = open_directory();
    let [whole, part, file, token] =
        ["whole", "part of it", "file", "token"].map(|name| open.path().join(name));
    for directory in [&whole, &part] {
        fs::create_dir(directory).unwrap();
    }
    for file in [&file, &token] {
        fs::write(file, "secret\n").unwrap();
    }
    let attempts = node.path().join("attempts");
    let below = |from: &Path| format!("ls -A '{}' 2>/dev/null | wc -l; ", from.display());
    let script = [node.path(), &whole, &part, &attempts].map(below).concat()
        + &format!("cat '{}' '{}' | wc -c", file.display(), token.display());
    let mut start = confined(1, Sandbox::Baseline, &script);
    let state = node.path().to_owned();
    // Threads have mount namespaces of their own, which their children inherit.
    let finished = std::thread::spawn(move || {
        own_mounts(&[(&state, &whole), (&attempts, &part), (&token, &file)]);
        let mut launcher = Launcher::of(PROGRAM, Prefork::Off).hiding(vec![state, token]);
        let hidden = node.accept(&start);
        launcher.launch(&hidden).unwrap();
        let hidden = finish(hidden).text();
        start.attempt = "0b6c-1/2/node-1/1".parse().unwrap();
        start.request.sandbox = Some(Sandbox::Privileged);
        let shown = node.accept(&start);
        launcher.launch(&shown).unwrap();
        (hidden, finish(shown).text())
    });
    let (hidden, shown) = finished.join().unwrap();
    assert_eq!(hidden, "0\n0\n0\n0\n0\n");
    let shown: Vec<u32> = shown.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(shown.iter().all(|count| *count > 0), "they are not there at all: {shown:?}");
}

#[expect(unsafe_code, reason = "unshare of a descriptor table would be unsafe; this one has no such flag")]
fn own_mounts(binds: &[(&PathBuf, &PathBuf)]) {
    // SAFETY: no descriptor table is shared or unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    for (from, to) in binds {
        mount_bind(*from, *to).unwrap();
    }
}

#[test]
fn environments_have_defaults_of_their_own() {
    assert_eq!(confined(1, None, "").request.sandbox(), Sandbox::Restricted);
    let mut host = confined(1, None, "");
    host.request.environment = Environment::Host;
    assert_eq!(host.request.sandbox(), Sandbox::Baseline);
}
