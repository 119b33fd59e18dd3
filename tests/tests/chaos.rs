//! The promises, tested by breaking the system on purpose. Each test owns its servers, and kills them too.
//!
//! One after the other: each wants the machine, and the times that are promised are those of one system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sentinel_tests::chaos::check::{Findings, executions};
use sentinel_tests::chaos::faults::InjectedFaults;
use sentinel_tests::chaos::harness::{Options, System, run};
use sentinel_tests::chaos::load_generator::LoadGenerator;
use sentinel_tests::chaos::recording;
use sentinel_tests::chaos::rng::Rng;
use sentinel_tests::programs::{Program, binary};
use sentinel_tests::wait::until;
use serde_json::{Value, json};
use tokio::sync::Mutex;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The longest that a recorder of these tests takes, milliseconds.
const MOST_MILLIS: u64 = 300;

/// The seed of the short form; another one with `CHAOS_SEED`.
fn seed() -> u64 {
    std::env::var("CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

fn load(system: &System, most_millis: u64) -> LoadGenerator {
    let nodes = system.fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let namespace = &system.fleet.namespace;
    LoadGenerator::new(
        namespace.client.clone(),
        &namespace.name,
        nodes,
        &system.recording(),
        most_millis,
        Rng::new(1),
    )
}

/// A Task with a recorder on the only node that waits for the file `hold` before it writes and ends.
async fn submit_held(system: &System, load: &mut LoadGenerator, name: &str, hold: &Path) {
    let most = MOST_MILLIS.to_string();
    let spec = json!({
        "targets": {"nodeNames": [system.fleet.nodes[0].name]},
        "run": {"command": [binary("recorder"), system.recording(), most, hold], "sandbox": "Privileged", "output": {"maxBlock": "1s"}},
    });
    load.submit(name, spec).await.expect("the API server takes it");
}

async fn recorders_start(system: &System, number: usize) {
    until("the recorders have started", Duration::from_mins(1), || async {
        let started = recording::read(&system.recording()).len();
        if started >= number { Ok(()) } else { Err(started) }
    })
    .await;
}

/// The verdict on a system without faults that would explain a loss.
async fn verdict(system: &System, load: &LoadGenerator, most_millis: u64) -> Findings {
    let (none, within) = (InjectedFaults::default(), Duration::from_secs(90));
    system.verdict(load, &none, within, most_millis).await.0.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_run_twice_whatever_is_killed() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let report = run(Options::short(seed())).await;
    println!("{report}");
    assert!(report.is_clean(), "seed {}:\n{report}", report.options.seed);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_agent_adopts_64_commands_within_2_s() {
    const COMMANDS: usize = 64;
    let _guard = ONE_AT_A_TIME.lock().await;
    let system = System::start("adopt", 1).await;
    let mut load = load(&system, MOST_MILLIS);
    let hold = system.directory.join("hold");
    for number in 0..COMMANDS {
        submit_held(&system, &mut load, &format!("t{number}"), &hold).await;
    }
    recorders_start(&system, COMMANDS).await;

    let node = &system.fleet.nodes[0];
    assert!(node.agent.kill(Duration::ZERO).await);
    let restarted = Instant::now();
    let pid = u64::from(node.agent.pid().unwrap());
    until("the new agent has a session", Duration::from_secs(20), || async {
        let status = fs::read_to_string(node.state.join("status")).unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        if status["pid"] == pid && status["connected"] == true { Ok(()) } else { Err(status) }
    })
    .await;
    let adopted = restarted.elapsed();
    println!("{COMMANDS} commands adopted in {adopted:?}");
    until("it reports how many it has", Duration::from_secs(20), || async {
        let view = system.fleet.get(&format!("/api/v1/nodes/{}", node.name)).await?;
        if view["metrics"]["running"] == COMMANDS { Ok(()) } else { Err(view["metrics"].to_string()) }
    })
    .await;
    fs::write(&hold, "").unwrap();
    let findings = verdict(&system, &load, MOST_MILLIS).await;
    println!("{findings:?}");
    system.end(findings.violations.is_empty()).await;
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
    assert_eq!((findings.attempts, findings.most_starts), (COMMANDS, 1));
    assert!(adopted <= Duration::from_secs(2), "adopted after {adopted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_outage_loses_nothing_and_is_reported() {
    const DOWN: Duration = Duration::from_secs(20);
    const MOST_MILLIS: u64 = 3_000;
    let _guard = ONE_AT_A_TIME.lock().await;
    let system = System::start("outage", 2).await;
    let mut load = load(&system, MOST_MILLIS);
    // Some begin before the outage, some during it.
    load.create().await.unwrap();
    recorders_start(&system, 1).await;
    let ferretdb = std::sync::Arc::clone(&system.servers.ferretdb);
    let gone = Instant::now();
    let outage = tokio::spawn(async move { ferretdb.kill(DOWN).await });
    for _ in 0..8 {
        load.create().await.unwrap();
    }
    until("a Task is over and not archived", DOWN, || async {
        let text = serde_json::to_value(load.tasks().await).unwrap();
        let over = text.as_array().unwrap().iter().any(|task| {
            let conditions = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |kind: &str, status: &str| {
                conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == status)
            };
            task["status"]["run"]["finishedAt"].is_string() && is("Archived", "False")
        });
        if over { Ok(()) } else { Err(text.to_string()) }
    })
    .await;
    assert!(gone.elapsed() < DOWN);
    assert!(outage.await.unwrap());
    let back = Instant::now();
    let findings = verdict(&system, &load, MOST_MILLIS).await;
    println!("drained {:?} after it was back: {findings:?}", back.elapsed());
    system.end(findings.violations.is_empty()).await;
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
    assert!(findings.attempts >= 9, "{findings:?}");
}

/// A small file system over a directory. Unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        assert!(status.unwrap().success(), "only root can mount a tmpfs");
        Self(at.to_owned())
    }

    fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        stat.blocks_available() * stat.fragment_size()
    }

    /// Takes all but so many bytes.
    fn fill(&self, leave: u64) {
        let mut filler = fs::File::create(self.0.join(format!("filler-{leave}"))).unwrap();
        while self.free() > leave {
            if let Err(error) = filler.write_all(&[0; 4096]) {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                return;
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_refuses_starts_and_keeps_running_results() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let system = System::start("full", 1).await;
    let node = &system.fleet.nodes[0];
    node.agent.end().await;
    let disk = SmallDisk::mount(&node.state, "size=80m");
    node.agent.start().await;
    system.fleet.ready(Duration::from_secs(30)).await;
    let mut load = load(&system, MOST_MILLIS);
    let hold = system.directory.join("hold");
    submit_held(&system, &mut load, "runs", &hold).await;
    recorders_start(&system, 1).await;

    disk.fill(32 << 20);
    submit_held(&system, &mut load, "refused", &hold).await;
    until("it is refused", Duration::from_secs(30), || async {
        let all = executions(&system.fleet).await?;
        let refused = all.values().any(|one| one["task"] == "refused" && one["outcome"] == "Refused");
        if refused { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    disk.fill(0);
    fs::write(&hold, "").unwrap();
    let findings = verdict(&system, &load, MOST_MILLIS).await;
    println!("{findings:?}");
    let recording = recording::read(&system.recording());
    assert_eq!(recording.len(), 1, "a refused command has started: {recording:?}");
    // Nothing was recorded of the refused one, and that is the only violation.
    let others: Vec<_> = findings.violations.iter().filter(|line| !line.contains("\"Refused\"")).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!((findings.bytes_missing, findings.outcomes["Refused"]), (0, 1));
    drop(disk);
    system.end(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_that_dies_with_container_is_retried_if_asked() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let system = System::start("contained", 1).await;
    let node = &system.fleet.nodes[0];
    node.agent.end().await;
    let agent = node.agent.contained();
    agent.start().await;
    system.fleet.ready(Duration::from_secs(30)).await;
    let mut load = load(&system, MOST_MILLIS);
    let hold = system.directory.join("hold");
    submit_held(&system, &mut load, "final", &hold).await;
    let again = json!({
        "targets": {"nodeNames": [node.name]},
        "run": {"script": {"text": format!("echo $SENTINEL_ATTEMPT; until [ -e {} ]; do sleep 0.1; done", hold.display())}, "sandbox": "Privileged"},
        "retry": {"limit": 1, "causes": ["Interrupted"]},
    });
    load.submit("again", again).await.expect("the API server takes it");
    until("both run", Duration::from_secs(30), || async {
        let view = system.fleet.get(&format!("/api/v1/nodes/{}", node.name)).await?;
        if view["metrics"]["running"] == 2 { Ok(()) } else { Err(view["metrics"].to_string()) }
    })
    .await;
    assert!(agent.log().contains("commands end with this agent's container"), "{}", agent.log());

    // Another container, on the same state directory.
    assert!(agent.kill(Duration::from_millis(100)).await);
    let of = async |task: &str| -> Result<Value, String> {
        let all = executions(&system.fleet).await?;
        all.into_values().find(|found| found["task"] == task).ok_or_else(|| format!("{task} does not exist"))
    };
    until("the first is interrupted", Duration::from_secs(60), || async {
        let found = of("final").await?;
        let message = found["message"].as_str().unwrap_or_default();
        let reported = found["outcome"] == "Interrupted" && message.contains("agent");
        if reported { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    until("the second runs once more", Duration::from_secs(60), || async {
        let found = of("again").await?;
        if found["attempt"] == 2 && found["state"] == "Running" { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    fs::write(&hold, "").unwrap();
    until("and succeeds", Duration::from_secs(60), || async {
        let found = of("again").await?;
        if found["outcome"] == "Succeeded" { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    let recording = recording::read(&system.recording());
    assert!(recording.values().all(|recorded| recorded.starts.len() == 1), "{recording:?}");
    agent.end().await;
    system.end(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_names_read_only_state_directory_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&directory.path().join("state"), "ro,size=1m");
    let token = directory.path().join("token");
    fs::write(&token, "x").unwrap();
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let flags = [
        ("--operator-url", "ws://127.0.0.1:9".to_owned()),
        ("--token-file", token.display().to_string()),
        ("--state-dir", disk.0.display().to_string()),
    ];
    let flags: Vec<String> = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    let agent = Program::start("node-agent", "agent", directory.path(), &flags);
    let code = agent.wait(Duration::from_secs(10)).await;
    let log = fs::read_to_string(directory.path().join("agent.log")).unwrap();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&disk.0.display().to_string()) && log.contains("Read-only file system"), "{log}");
}
