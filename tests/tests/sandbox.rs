//! What each profile of `run.sandbox` promises, tried by a command that does its worst, under a real agent. As root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_tests::machines::escape::{BASELINE_AS_ROOT, build_escape, successes};
use sentinel_tests::machines::operator::EmbeddedOperator;
use sentinel_tests::programs::{Program, binary};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Two commands of one user are not kept from each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const PATIENCE: Duration = Duration::from_mins(1);

/// An operator and an agent on this machine.
struct Node {
    operator: EmbeddedOperator,
    /// Where every user finds the program.
    public: TempDir,
    /// The agent's token, state and socket.
    private: PathBuf,
    _agent: Program,
    _socket: UnixListener,
}

impl Node {
    /// With an agent that this program starts: itself, or one that takes rights from it first.
    async fn with(starter: &[&str]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let operator = EmbeddedOperator::new("here").await;
        // Not in /tmp, which can be another one for a command.
        let public = tempfile::tempdir_in("/var/tmp").unwrap();
        mode(public.path(), 0o755);
        let program = build_escape(public.path());
        let setuid = public.path().join("setuid");
        fs::copy(program, &setuid).unwrap();
        mode(&setuid, 0o4755);
        fs::create_dir(public.path().join("scratch")).unwrap();
        mode(&public.path().join("scratch"), 0o777);
        let private = operator.path().join("agent");
        fs::create_dir(&private).unwrap();
        // As open as an agent accepts it: what keeps commands out is not the mode of the directory above.
        for directory in [operator.path(), &private] {
            mode(directory, 0o755);
        }
        let token = private.join("token");
        fs::write(&token, format!("{}\n", operator.token)).unwrap();
        mode(&token, 0o400);
        let state = private.join("state");
        fs::create_dir(&state).unwrap();
        mode(&state, 0o700);
        let socket = UnixListener::bind(state.join("socket")).unwrap();
        let agent = binary("node-agent").display().to_string();
        let mut words: Vec<String> = starter.iter().map(|&word| word.to_owned()).chain([agent]).collect();
        words.extend([
            format!("--operator-url=ws://{}", operator.gateway),
            format!("--token-file={}", token.display()),
            format!("--state-dir={}", state.display()),
            "--profile=container".to_owned(),
        ]);
        let agent = Program::start_binary(Path::new(&words[0]), "agent", operator.path(), &words[1..]);
        operator.connected("", PATIENCE).await;
        Self { operator, public, private, _agent: agent, _socket: socket }
    }

    /// Runs it with these fields of `spec.run`; returns how it ended, and what it printed.
    async fn run(&self, name: &str, fields: Value, more: &[&str]) -> (Value, String) {
        let at = |directory: &Path, name: &str| directory.join(name).display().to_string();
        let mut command = vec![
            at(self.public.path(), "escape"),
            format!("token={}", at(&self.private, "token")),
            format!("state={}", at(&self.private, "state")),
            format!("socket={}", at(&self.private, "state/socket")),
            format!("setuid={}", at(self.public.path(), "setuid")),
            format!("scratch={}", at(self.public.path(), "scratch")),
        ];
        command.extend(more.iter().map(|&word| word.to_owned()));
        let mut run = json!({ "command": command });
        run.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.ended(name, run).await
    }

    async fn ended(&self, name: &str, run: Value) -> (Value, String) {
        let uid = self.operator.task(name, run, &[]).await;
        let execution = self.operator.ended(&uid, PATIENCE).await;
        let log = self.operator.log(&uid).await.unwrap_or_default();
        (execution, log)
    }

    async fn escapes(&self, name: &str, fields: Value, more: &[&str]) -> BTreeSet<String> {
        let (execution, printed) = self.run(name, fields, more).await;
        assert_eq!(execution["outcome"], "Succeeded", "{execution}\n{printed}");
        println!("--- {name}\n{printed}");
        successes(&printed).into_iter().map(str::to_owned).collect()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_escapes_that_a_profile_keeps() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let node = Node::with(&[]).await;
    // The default in the container, and what may be asked for beside it.
    for (name, fields) in [
        ("restricted", json!({})),
        ("restricted-user", json!({ "user": "1234", "group": "1234" })),
        ("restricted-read-only", json!({ "readOnlyRootFilesystem": true, "workingDir": "/tmp" })),
        ("baseline-user", json!({ "sandbox": "Baseline", "user": "1234", "group": "1234" })),
    ] {
        let more: &[&str] = if name.starts_with("restricted") { &["bomb=yes"] } else { &[] };
        assert_eq!(node.escapes(name, fields, more).await, set(&[]), "{name}");
    }
    // On this machine no block device may be readable at all.
    let mut root = node.escapes("baseline-root", json!({ "sandbox": "Baseline" }), &[]).await;
    root.insert("disk".to_owned());
    assert_eq!(root, set(&BASELINE_AS_ROOT));
    // The trials are real: without a sandbox most of them succeed.
    let privileged = node.escapes("privileged", json!({ "sandbox": "Privileged" }), &[]).await;
    for trial in [
        "read-token",
        "list-state",
        "write-state",
        "connect-socket",
        "bind-socket",
        "token-by-root",
        "memory",
        "ptrace",
        "process-vm",
        "pidfd-getfd",
        "signal",
        "more-capabilities",
        "setuid-program",
        "new-privileges",
        "mount",
        "unhide",
        "open-tree",
        "user-namespace",
        "clone3-user-namespace",
        "keyring",
        "bpf",
        "perf",
        "reboot",
        "leave-cgroup",
    ] {
        assert!(privileged.contains(trial), "{trial} did not succeed without a sandbox: {privileged:?}");
    }
    assert!(privileged.len() > 45, "{privileged:?}");
}

/// The rights that the chart's profile `container` gives an agent: it can hide nothing, and closes its files to other users.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_escapes_from_an_agent_without_the_right_to_mount() {
    let rights = ["setpriv", "--bounding-set=-all,+kill,+setgid,+setuid", "--inh-caps=-all"];
    let _guard = ONE_AT_A_TIME.lock().await;
    let node = Node::with(&rights).await;
    for (name, fields) in [
        ("restricted", json!({})),
        ("restricted-user", json!({ "user": "1234", "group": "1234" })),
        ("baseline-user", json!({ "sandbox": "Baseline", "user": "1234", "group": "1234" })),
    ] {
        assert_eq!(node.escapes(name, fields, &[]).await, set(&[]), "{name}");
    }
    // Root could read the token whatever its capabilities are.
    for (name, fields, sentence) in [
        (
            "baseline-root",
            json!({ "sandbox": "Baseline" }),
            "run.sandbox Baseline cannot be held for root on this node",
        ),
        (
            "baseline-uid",
            json!({ "sandbox": "Baseline", "user": "0" }),
            "run.sandbox Baseline cannot be held for root",
        ),
        (
            "read-only",
            json!({ "readOnlyRootFilesystem": true }),
            "run.readOnlyRootFilesystem cannot be held on this node",
        ),
    ] {
        let (execution, _) = node.run(name, fields, &[]).await;
        assert_eq!(execution["outcome"], "StartFailed", "{execution}");
        assert!(execution["message"].as_str().unwrap().contains(sentence), "{execution}");
    }
}
