//! Commands that count their own starts and ends outside of the system, and the verdict on their results.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::operator::EmbeddedOperator;

/// Where commands write that they started, and that they end; each line synced.
pub const RECORDING: &str = "/var/recording";

/// How many commands run or wait at a time.
const AT_ONCE: usize = 5;

/// A command that was requested.
struct Requested {
    uid: String,
    kind: usize,
    /// Number of cuts before it was requested.
    cuts_before: usize,
    /// How it ended, when that was seen: the outcome and its message.
    ended: Option<(String, String)>,
}

/// All commands that were requested.
#[derive(Default)]
pub struct Workload {
    requested: Vec<Requested>,
    /// Boot ids, in their order.
    boots: Vec<String>,
    cuts: usize,
}

/// Their results.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Commands requested.
    pub requested: usize,
    /// Largest number of starts of one of them.
    pub most_starts: usize,
    /// By outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Commands requested before a cut and started after it.
    pub started_after_a_cut: usize,
    /// Violations.
    pub wrong: Vec<String>,
}

impl Workload {
    /// Submits commands until as many are active as may be.
    pub async fn top_up(&mut self, operator: &EmbeddedOperator) {
        self.poll(operator).await;
        let under_way = self.requested.iter().filter(|requested| requested.ended.is_none()).count();
        self.submit(operator, AT_ONCE.saturating_sub(under_way)).await;
    }

    /// Submits so many more commands.
    pub async fn submit(&mut self, operator: &EmbeddedOperator, commands: usize) {
        for _ in 0..commands {
            let kind = self.requested.len();
            let script = json!({ "interpreter": "/bin/sh", "text": script(kind) });
            let name = format!("t-{kind}");
            let uid = operator.task(&name, json!({ "script": script, "sandbox": "Privileged" }), &[]).await;
            self.requested.push(Requested { uid, kind, cuts_before: self.cuts, ended: None });
        }
    }

    /// Notes which have ended, as the operator reports it.
    pub async fn poll(&mut self, operator: &EmbeddedOperator) {
        for requested in self.requested.iter_mut().filter(|requested| requested.ended.is_none()) {
            if let Ok(execution) = operator.execution(&requested.uid).await {
                requested.ended = ended(&execution);
            }
        }
    }

    /// The machine runs, with this boot id.
    pub fn note_boot(&mut self, boot: &str) {
        self.boots.push(boot.to_owned());
    }

    /// The power was cut.
    pub fn note_cut(&mut self) {
        self.cuts += 1;
    }

    /// Waits until all have ended, and checks them. `recording` is the text of [`RECORDING`].
    pub async fn check(
        &mut self,
        operator: &EmbeddedOperator,
        recording: impl AsyncFnOnce() -> String,
    ) -> Verdict {
        let mut verdict = Verdict { requested: self.requested.len(), ..Verdict::default() };
        for requested in &mut self.requested {
            let execution = operator.ended(&requested.uid, Duration::from_mins(1)).await;
            let now = ended(&execution);
            if requested.ended.is_some() && requested.ended != now {
                verdict.wrong.push(format!("ended as {:?}, and now {execution}", requested.ended));
            }
            requested.ended = now;
        }
        // Bytes of an append that the power cut lost are read as zeros; the next line follows them.
        let recording = recording().await.replace('\0', "");
        for requested in &self.requested {
            let log = operator.log(&requested.uid).await;
            self.check_one(requested, &recording, &log, &mut verdict);
        }
        verdict
    }

    fn check_one(
        &self,
        requested: &Requested,
        recording: &str,
        log: &Result<String, String>,
        verdict: &mut Verdict,
    ) {
        let cuts = self.cuts;
        let of = |event: &str| -> Vec<&str> {
            let prefix = format!("{event} {}/1/", requested.uid);
            recording.lines().filter(|line| line.starts_with(&prefix)).collect()
        };
        let boot_of = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        let (starts, ends) = (of("start"), of("end"));
        verdict.most_starts = verdict.most_starts.max(starts.len());
        let (outcome, message) = requested.ended.clone().unwrap_or_default();
        let started_in =
            starts.first().and_then(|line| self.boots.iter().position(|boot| *boot == boot_of(line)));
        if started_in.is_some_and(|boot| boot > requested.cuts_before) {
            verdict.started_after_a_cut += 1;
        }
        *verdict.outcomes.entry(outcome.clone()).or_default() += 1;
        let mut wrong = |what: &str| {
            let Requested { uid, kind, cuts_before, .. } = requested;
            verdict.wrong.push(format!(
            "{what}: t-{kind} ({uid}), requested after cut {cuts_before} of {cuts}: {outcome} ({message}), {starts:?}, {ends:?}, {log:?}"
        ));
        };
        if starts.len() > 1 {
            wrong("started more than once");
        }
        let expected = if exit_code(requested.kind) == 0 { "Succeeded" } else { "Failed" };
        match outcome.as_str() {
            "Lost" => {
                if !message.contains("rebooted") && !message.contains("may or may not have been started") {
                    wrong("lost for a wrong reason");
                }
                if requested.cuts_before == cuts {
                    wrong("lost without a cut");
                }
            }
            _ if outcome == expected => {
                if starts.len() != 1 || ends.len() != 1 || boot_of(starts[0]) != boot_of(ends[0]) {
                    wrong("a result that the command does not confirm");
                }
                match log {
                    Ok(text) if *text == output(requested.kind) || text.contains("[sentinel: ") => {}
                    Ok(_) => wrong("output is missing without a marker"),
                    Err(_) => wrong("its output cannot be read"),
                }
            }
            _ => wrong("an unexpected outcome"),
        }
    }
}

fn ended(execution: &Value) -> Option<(String, String)> {
    let outcome = execution["outcome"].as_str()?.to_owned();
    Some((outcome, execution["message"].as_str().unwrap_or_default().to_owned()))
}

/// The exit code of the command with this number.
fn exit_code(kind: usize) -> u8 {
    if kind % 4 == 3 { 3 } else { 0 }
}

/// What the command with this number writes.
fn output(kind: usize) -> String {
    let lines = |count: usize| (0..count).map(|line| format!("line {line}\n")).collect::<Vec<_>>().concat();
    match kind % 5 {
        0 => String::new(),
        1 => lines(40),
        2 => lines(12),
        3 => format!("{}\n", "x".repeat(300_000)),
        _ => "done\n".to_owned(),
    }
}

fn script(kind: usize) -> String {
    let lines = |count: usize, pause: &str| {
        format!("i=0; while [ $i -lt {count} ]; do echo line $i; {pause}i=$((i + 1)); done")
    };
    let body = match kind % 5 {
        0 => ":".to_owned(),
        1 => lines(40, ""),
        2 => lines(12, "usleep 40000; "),
        3 => "head -c 300000 /dev/zero | tr '\\0' x; echo".to_owned(),
        _ => "sleep 1; echo done".to_owned(),
    };
    let recording =
        |event: &str| format!("echo \"{event} $SENTINEL_ATTEMPT $boot\" >>{RECORDING}; sync {RECORDING}\n");
    format!(
        "read boot </proc/sys/kernel/random/boot_id\n{}{body}\n{}exit {}\n",
        recording("start"),
        recording("end"),
        exit_code(kind)
    )
}
