//! The agent on a machine with a kernel of its own: power cuts, and control groups v2 with all that they can do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::time::{Duration, Instant};

use sentinel_tests::machines::build::static_agent;
use sentinel_tests::machines::escape::{BASELINE_AS_ROOT, build_escape, successes};
use sentinel_tests::machines::machine::Machine;
use sentinel_tests::machines::operator::EmbeddedOperator;
use sentinel_tests::machines::workload::{RECORDING, Workload};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Software emulation takes a core.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Long enough for a machine in software emulation on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The longest time that commands run before the power is cut.
const LONGEST_RUN: Duration = Duration::from_millis(3500);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text}")))
}

/// `SENTINEL_CUTS` sets how often, `SENTINEL_SEED` when.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs virtual machines and a static agent: just test-vm"]
async fn a_power_cut_at_any_instant_runs_nothing_twice_and_forgets_no_result() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let cuts = number("SENTINEL_CUTS", 3);
    let mut seed = number("SENTINEL_SEED", u64::from(std::process::id()));
    println!("SENTINEL_CUTS={cuts} SENTINEL_SEED={seed}");
    let operator = EmbeddedOperator::new("vm-1").await;
    let mut machine = Machine::new(operator.path().join("machine"), &[static_agent()]);
    let (mut load, mut boot) = (Workload::default(), String::new());
    for cut in 1..=cuts {
        machine.boot(&operator.script());
        boot = operator.connected(&boot, PATIENCE).await;
        load.note_boot(&boot);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lasting = LONGEST_RUN.mul_f64((seed >> 40) as f64 / (1_u64 << 24) as f64);
        let begun = Instant::now();
        while begun.elapsed() < lasting {
            load.top_up(&operator).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        machine.cut().await;
        load.poll(&operator).await;
        load.note_cut();
        println!("cut {cut} after {lasting:?}");
    }
    machine.boot(&operator.script());
    boot = operator.connected(&boot, PATIENCE).await;
    load.note_boot(&boot);
    // These meet no cut, so none of them may be lost.
    load.submit(&operator, 5).await;
    let recording = async || machine.run(&format!("cat {RECORDING}")).await.unwrap();
    let verdict = load.check(&operator, recording).await;
    println!("{verdict:#?}");
    assert!(verdict.wrong.is_empty(), "{:#?}", verdict.wrong);
    assert_eq!(verdict.most_starts, 1);
    assert!(verdict.outcomes.contains_key("Succeeded"), "nothing ended: {:?}", verdict.outcomes);
    // A few cuts may all hit moments of one kind.
    if cuts >= 10 {
        assert!(verdict.outcomes.contains_key("Lost"), "no cut hit a command: {:?}", verdict.outcomes);
        assert!(verdict.started_after_a_cut > 0, "no command waited through a cut");
    }
    machine.cut().await;
}

/// Prints the `cgroup.procs` of each group with a process of a command, and fails without one. The process that waits to become the
/// next command is none.
const GROUPS_OF_COMMANDS: &str = "cd /sys/fs/cgroup/sentinel && for g in *.*; do for p in $(cat $g/cgroup.procs); do \
    grep -q __supervise /proc/$p/cmdline || echo $g/cgroup.procs; done; done 2>/dev/null | sort -u | grep .";

/// Waits until the command succeeds in the machine's shell.
async fn shows(machine: &Machine, what: &str, command: &str) -> String {
    sentinel_tests::wait::until(what, PATIENCE, || machine.run(command)).await
}

/// A shell script that prints the processes with this in their command line, and fails when there are none.
fn processes(what: &str) -> String {
    let (first, rest) = what.split_at(1);
    format!("ps -o pid,args | grep '[{first}]{rest}'")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs virtual machines and a static agent: just test-vm"]
async fn a_cancelled_tree_is_gone_whatever_it_does_to_stay() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let operator = EmbeddedOperator::new("vm-1").await;
    let mut machine = Machine::new(operator.path().join("machine"), &[static_agent()]);
    machine.boot(&operator.script());
    operator.connected("", PATIENCE).await;
    // Each prints `ready` when its processes exist; all of those are `sleep`s of one length.
    let trees = [
        ("double-fork", 9001, "( ( sleep 9001 & ) & ); sleep 9001 & echo ready; wait"),
        (
            "daemon",
            9002,
            "setsid sh -c 'setsid sleep 9002 & sleep 9002' </dev/null >/dev/null 2>&1 & echo ready; sleep 9002",
        ),
        (
            "ignores-term",
            9003,
            "trap '' TERM INT HUP; sh -c 'trap \"\" TERM; while :; do sleep 9003; done' & echo ready; while :; do sleep 9003; done",
        ),
        ("stopped", 9004, "sleep 9004 & kill -STOP $!; echo ready; kill -STOP $$"),
        ("breeding", 9005, "trap '' TERM; echo ready; while :; do setsid sleep 9005 & usleep 50000; done"),
    ];
    for (name, seconds, script) in trees {
        let run = json!({ "command": ["/bin/sh", "-c", script] });
        let uid = operator.task(name, run, &[("timeouts", json!({ "grace": "1s" }))]).await;
        sentinel_tests::wait::until("it prints ready", PATIENCE, || async {
            let log = operator.log(&uid).await?;
            if log.contains("ready") { Ok(()) } else { Err(log) }
        })
        .await;
        shows(&machine, "its processes exist", &processes(&format!("sleep {seconds}"))).await;
        operator.cancel(name).await;
        let execution = operator.ended(&uid, PATIENCE).await;
        assert_eq!(execution["outcome"], "Cancelled", "{name}: {execution}");
        let left = machine.run(&processes(&format!("sleep {seconds}"))).await;
        assert!(left.is_err(), "{name}: Cancelled, and still running: {left:?}");
    }
    let populated = machine.run(GROUPS_OF_COMMANDS).await;
    assert!(populated.is_err(), "a group of a command is left with processes in it: {populated:?}");
    machine.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs virtual machines and a static agent: just test-vm"]
async fn cgroup_kill_ends_daemon_of_dead_supervisor() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let operator = EmbeddedOperator::new("vm-1").await;
    let mut machine = Machine::new(operator.path().join("machine"), &[static_agent()]);
    machine.boot(&operator.script());
    operator.connected("", PATIENCE).await;
    // In a session of its own and without a parent, the daemon belongs to the command by its cgroup alone.
    let script =
        "setsid sh -c 'sleep 9010 & sleep 9010' </dev/null >/dev/null 2>&1 & echo $$; exec sleep 9011";
    let uid = operator.task("orphan", json!({ "command": ["/bin/sh", "-c", script] }), &[]).await;
    let command = shows(
        &machine,
        "the command runs",
        &format!("{} | awk '$2 == \"sleep\" {{ print $1 }}' | grep .", processes("sleep 9011")),
    )
    .await;
    shows(&machine, "its daemon runs", &processes("sleep 9010")).await;
    let command = command.trim();
    let group = machine.run(&format!("cat /proc/{command}/cgroup")).await.unwrap();
    let parent = machine.run(&format!("awk '/^PPid/ {{ print $2 }}' /proc/{command}/status")).await.unwrap();
    let parent = parent.trim();
    assert!(group.trim().starts_with(&format!("0::/sentinel/{parent}.")), "the command is in {group}");
    shows(
        &machine,
        "the supervisor is with the others",
        &format!("grep -x 0::/sentinel/supervisors /proc/{parent}/cgroup"),
    )
    .await;
    machine.run(&format!("kill -KILL {parent}")).await.unwrap();
    let execution = operator.ended(&uid, PATIENCE).await;
    assert_eq!(execution["outcome"], "Interrupted", "{execution}");
    let left = machine.run(&processes("sleep 901")).await;
    assert!(left.is_err(), "still there: {left:?}");
    let kept = machine.run(&format!("ls -d /sys/fs/cgroup/sentinel/{parent}.*")).await;
    assert!(kept.is_err(), "its group is left: {kept:?}");
    machine.cut().await;
}

/// A machine with an agent that is connected.
async fn node() -> (EmbeddedOperator, Machine) {
    let operator = EmbeddedOperator::new("vm-1").await;
    let mut machine = Machine::new(operator.path().join("machine"), &[static_agent()]);
    machine.boot(&operator.script());
    operator.connected("", PATIENCE).await;
    (operator, machine)
}

/// A command of the machine's shell under limits; the Task's uid.
async fn limited(operator: &EmbeddedOperator, name: &str, limits: Value, script: &str) -> String {
    let run = json!({ "command": ["/bin/sh", "-c", script], "limits": limits });
    operator.task(name, run, &[("timeouts", json!({ "grace": "1s" }))]).await
}

/// Waits until only the supervisors that wait for a command have groups: the others remove theirs after they have reported how their
/// commands ended.
async fn no_group_is_left(machine: &Machine) {
    let groups = format!("! {{ {GROUPS_OF_COMMANDS}; }} && set -- *.*/ && echo $* && [ $# = 2 ]");
    shows(machine, "the groups of the commands are gone", &groups).await;
}

/// The value of a line `key value` of a file.
fn counted(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no number {key} in {text}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs virtual machines and a static agent: just test-vm"]
async fn oom_kills_whole_tree_and_reports_its_peak() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let (operator, mut machine) = node().await;
    // `tail` keeps what it may have to print, all of it.
    let greedy = "tail -c 100000000 /dev/zero";
    let memory = || json!({ "memory": "24Mi" });
    let alone = limited(&operator, "alone", memory(), &format!("exec {greedy}")).await;
    // If the shell survived, it would exit with 7 and no OOM would be reported.
    let tree = format!("sleep 9021 & sh -c '{greedy}; exit 9'; exit 7");
    let tree = limited(&operator, "tree", memory(), &tree).await;
    for uid in [&alone, &tree] {
        let execution = operator.ended(uid, PATIENCE).await;
        assert_eq!(execution["outcome"], "OomKilled", "{execution}");
        let message = execution["message"].as_str().unwrap();
        let peak = message.split(' ').find_map(|part| part.parse::<u64>().ok());
        let peak = peak.unwrap_or_else(|| panic!("no peak: {message}"));
        assert!((20 << 20..=25 << 20).contains(&peak), "{message}");
    }
    let left = machine.run(&processes("sleep 9021")).await;
    assert!(left.is_err(), "killed for its memory, and still running: {left:?}");
    // A command that is killed otherwise lacked no memory, and one that keeps to it is not touched.
    let killed = limited(&operator, "killed", memory(), "kill -9 $$").await;
    assert_eq!(operator.ended(&killed, PATIENCE).await["outcome"], "Signaled");
    let modest = limited(&operator, "modest", memory(), "echo fits").await;
    assert_eq!(operator.ended(&modest, PATIENCE).await["outcome"], "Succeeded");
    no_group_is_left(&machine).await;
    machine.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs virtual machines and a static agent: just test-vm"]
async fn pids_limit_bounds_processes_of_command() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let (operator, mut machine) = node().await;
    // The shell and three of its children.
    let many = "for i in 1 2 3 4 5 6; do sleep 9031 & echo made $i; done; echo all";
    let many = limited(&operator, "many", json!({ "pids": 4 }), many).await;
    let execution = operator.ended(&many, PATIENCE).await;
    assert_eq!(execution["outcome"], "Failed", "{execution}");
    let log = operator.log(&many).await.unwrap();
    assert!(log.contains("made 3") && !log.contains("made 4"), "{log}");
    assert!(log.contains("fork"), "{log}");
    let left = machine.run(&processes("sleep 9031")).await;
    assert!(left.is_err(), "the command has ended, and they still exist: {left:?}");
    no_group_is_left(&machine).await;
    machine.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs virtual machines and a static agent: just test-vm"]
async fn cgroup_holds_all_limits_and_throttles_busy_command() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let (operator, mut machine) = node().await;
    let limits = json!({ "cpu": "200m", "memory": "64Mi", "pids": 8 });
    let busy = limited(&operator, "busy", limits, "sleep 9041 & while :; do :; done").await;
    let group = shows(&machine, "the command has a group", GROUPS_OF_COMMANDS).await;
    let group = format!("/sys/fs/cgroup/sentinel/{}", group.trim().trim_end_matches("/cgroup.procs"));
    let read = async |file: &str| {
        shows(&machine, "the file of the cgroup is readable", &format!("cat {group}/{file}")).await
    };
    assert_eq!(read("cpu.max").await.trim(), "20000 100000");
    assert_eq!(read("memory.max").await.trim(), (64_u64 << 20).to_string());
    assert_eq!(read("memory.swap.max").await.trim(), "0");
    assert_eq!(read("pids.max").await.trim(), "8");
    shows(&machine, "both are in it", &format!("[ $(wc -l <{group}/cgroup.procs) = 2 ]")).await;
    // The kernel's own account over so many of its spans of 100 ms, whatever the machine was doing meanwhile.
    let begun = read("cpu.stat").await;
    let spans = counted(&begun, "nr_periods ") + 40;
    let account = sentinel_tests::wait::until("the kernel has counted", PATIENCE, || async {
        let now = machine.run(&format!("cat {group}/cpu.stat")).await?;
        if counted(&now, "nr_periods ") >= spans { Ok(now) } else { Err(now) }
    })
    .await;
    let more = |key: &str| (counted(&account, key) - counted(&begun, key)) as f64;
    let share = more("usage_usec ") / (more("nr_periods ") * 100_000.0);
    println!("of 0.2 of a processor it had {share:.3}: {account}");
    assert!((0.02..0.4).contains(&share), "{share}: {begun} {account}");
    assert!(more("nr_throttled ") > 0.0, "{begun} {account}");
    operator.cancel("busy").await;
    assert_eq!(operator.ended(&busy, PATIENCE).await["outcome"], "Cancelled");
    no_group_is_left(&machine).await;
    machine.cut().await;
}

/// Control groups v2, where all processes of a command are counted, and the namespaces of another process 1.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs virtual machines and a static agent: just test-vm"]
async fn nothing_escapes_that_a_profile_keeps_on_cgroup_v2() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let operator = EmbeddedOperator::new("vm-1").await;
    let escape = build_escape(operator.path());
    let mut machine = Machine::new(operator.path().join("machine"), &[static_agent(), escape]);
    machine.boot(&operator.script());
    operator.connected("", PATIENCE).await;
    let prepared = "mkdir -m 777 /scratch && echo x >/etc/shadow && chmod 600 /etc/shadow && cp /bin/escape /setuid && chmod 4755 /setuid";
    machine.run(prepared).await.unwrap();
    let state = "/var/lib/sentinel";
    let command = [
        "/bin/escape",
        "token=/run/token",
        &format!("state={state}"),
        &format!("socket={state}/socket"),
        "setuid=/setuid",
        "scratch=/scratch",
    ]
    .map(str::to_owned);
    let none = std::collections::BTreeSet::new();
    let as_root = BASELINE_AS_ROOT.into_iter().collect();
    for (name, fields, expected) in [
        ("container", json!({}), &none),
        (
            "host",
            json!({ "environment": "Host", "sandbox": "Restricted", "user": "1234", "group": "1234" }),
            &none,
        ),
        (
            "read-only",
            json!({ "environment": "Host", "sandbox": "Restricted", "readOnlyRootFilesystem": true }),
            &none,
        ),
        ("user", json!({ "environment": "Host", "user": "1234", "group": "1234" }), &none),
        ("root", json!({ "environment": "Host" }), &as_root),
    ] {
        let mut run = json!({ "command": command });
        if expected.is_empty() && name != "user" {
            run["command"].as_array_mut().unwrap().push("bomb=yes".into());
        }
        run.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let uid = operator.task(name, run, &[]).await;
        let execution = operator.ended(&uid, PATIENCE * 3).await;
        let printed = operator.log(&uid).await.unwrap_or_default();
        assert_eq!(execution["outcome"], "Succeeded", "{execution}\n{printed}");
        println!("--- {name}\n{printed}");
        assert_eq!(&successes(&printed), expected, "{name}");
    }
    machine.cut().await;
}
