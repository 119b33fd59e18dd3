//! The memory of what crashes is on no disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use sentinel_tests::testbed::Testbed;
use sentinel_tests::wait::until;
use serde_json::json;

use super::{Canary, PATIENCE, create_secret};

/// A part of the system that may crash.
struct Part {
    name: &'static str,
    pid: u32,
    directory: PathBuf,
    /// What was in its directory before.
    before: Vec<PathBuf>,
}

impl Part {
    fn of(name: &'static str, pid: u32) -> Self {
        let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        let before = core_files(&directory);
        Self { name, pid, directory, before }
    }

    /// The limit of a core file, soft and hard.
    fn limit(&self) -> [String; 2] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.pid)).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        [4, 5].map(|word| core.split_whitespace().nth(word).unwrap().to_owned())
    }

    /// As if there were none, which is so where `core_pattern` is a program.
    fn lift_limit(&self) {
        let lift = [format!("--pid={}", self.pid), "--core=unlimited:unlimited".to_owned()];
        assert!(Command::new("prlimit").args(lift).status().unwrap().success());
    }

    /// Aborts it, waits for its end, and returns the core files.
    async fn crash(&self) -> Vec<PathBuf> {
        let sent = Command::new("kill").args(["-ABRT", &self.pid.to_string()]).status().unwrap();
        assert!(sent.success());
        let status = format!("/proc/{}/status", self.pid);
        until(&format!("{} has ended", self.name), PATIENCE, || async {
            // Its parent may leave it as a zombie.
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            if status.is_empty() || status.contains("State:\tZ") { Ok(()) } else { Err(status) }
        })
        .await;
        core_files(&self.directory).into_iter().filter(|core| !self.before.contains(core)).collect()
    }
}

fn core_files(directory: &Path) -> Vec<PathBuf> {
    let is_core = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("core").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            && path.is_file()
    };
    std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).filter(is_core).collect()
}

/// Whether this machine writes the core file of a process into its directory, as one without a protection shows.
fn writes_cores_beside_programs() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let crash = ["-c", "ulimit -c unlimited && kill -ABRT $$"];
    Command::new("sh").args(crash).current_dir(directory.path()).status().unwrap();
    !core_files(directory.path()).is_empty()
}

/// A Task with a Secret, whose command waits. Returns its process id, and that of its supervisor.
async fn waiting_command(testbed: &Testbed, name: &str) -> (u32, u32) {
    // By which it is found: its files may be its own, and so may its process ids.
    let mark = format!("sleep 600 & wait # {name} of {}", testbed.namespace.name);
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": name},
        "spec": {
            "targets": {"nodeNames": [testbed.namespace.node_name("a")]},
            "run": {
                "command": ["sh", "-c", mark],
                "env": [{"name": "VALUE", "valueFrom": {"secretKeyRef": {"name": "canaries", "key": "c0"}}}],
            },
        },
    });
    testbed.namespace.apply(&task.to_string()).await.unwrap();
    let command = until("the command runs", PATIENCE, || async {
        let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
        let mut found = processes.filter(|process| {
            let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
        });
        found.find_map(|process| process.file_name()?.to_str()?.parse::<u32>().ok()).ok_or("not found")
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{command}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    (command, parent.unwrap())
}

/// Values are in the memory of the operator, the agent, the supervisor and the command. None of them leaves it in a core file, and the
/// first three do not even with their limit lifted.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_no_core_file() {
    let mut testbed = Testbed::new("crashes").await;
    create_secret(&testbed, &[Canary::new()]).await;
    let agent = testbed.agent("a", &[]).await;
    let (command, supervisor) = waiting_command(&testbed, "first").await;
    // A supervisor ends with its command.
    let (_, another) = waiting_command(&testbed, "second").await;
    let operator = testbed.operator.as_ref().unwrap().pid();
    let parts = [
        (Part::of("a command", command), "1"),
        (Part::of("its supervisor", supervisor), "0"),
        (Part::of("another supervisor", another), "0"),
        (Part::of("the agent", agent.pid()), "0"),
        (Part::of("the operator", operator), "0"),
    ];
    for (part, expected) in &parts {
        let [soft, hard] = part.limit();
        println!("{}: core file size {soft}, at most {hard}", part.name);
        assert_eq!(&soft, expected, "{}", part.name);
    }
    if !writes_cores_beside_programs() {
        println!("this machine writes no core file beside its program, so none is searched for");
        return testbed.close().await;
    }
    for (part, _) in parts.iter().filter(|(part, _)| part.pid != supervisor) {
        // The limit of a command is its only protection.
        if part.pid != command {
            part.lift_limit();
        }
        assert_eq!(part.crash().await, Vec::<PathBuf>::new(), "of {}", part.name);
        println!("{} was aborted and left no core file in {}", part.name, part.directory.display());
    }
    drop(testbed.operator.take());
    testbed.close().await;
}
