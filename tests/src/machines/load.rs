//! Commands that count their own starts and ends outside of the system, and the judgement over what became of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::ground::Ground;

/// Where commands write that they started, and that they end; each line synced.
pub const WITNESS: &str = "/var/witness";

/// How many commands run or wait at a time.
const AT_ONCE: usize = 5;

/// A command that was asked for.
struct Asked {
    uid: String,
    kind: usize,
    /// Number of cuts before it was asked for.
    cuts_before: usize,
    /// How it ended, when that was seen: the outcome and its message.
    ended: Option<(String, String)>,
}

/// All commands that were asked for.
#[derive(Default)]
pub struct Load {
    asked: Vec<Asked>,
    /// Boot ids, in their order.
    boots: Vec<String>,
    cuts: usize,
}

/// What became of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Commands asked for.
    pub asked: usize,
    /// Largest number of starts of one of them.
    pub most_starts: usize,
    /// By outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Commands asked for before a cut and started after it.
    pub started_after_a_cut: usize,
    /// What must not be.
    pub wrong: Vec<String>,
}

impl Load {
    /// Asks for as many more commands as may be under way at a time.
    pub async fn press(&mut self, ground: &Ground) {
        self.look(ground).await;
        let under_way = self.asked.iter().filter(|asked| asked.ended.is_none()).count();
        self.ask(ground, AT_ONCE.saturating_sub(under_way)).await;
    }

    /// Asks for so many more commands.
    pub async fn ask(&mut self, ground: &Ground, commands: usize) {
        for _ in 0..commands {
            let kind = self.asked.len();
            let script = json!({ "interpreter": "/bin/sh", "text": script(kind) });
            let name = format!("t-{kind}");
            let uid = ground.task(&name, json!({ "script": script }), &[]).await;
            self.asked.push(Asked { uid, kind, cuts_before: self.cuts, ended: None });
        }
    }

    /// Notes what the operator says to have ended.
    pub async fn look(&mut self, ground: &Ground) {
        for asked in self.asked.iter_mut().filter(|asked| asked.ended.is_none()) {
            if let Ok(execution) = ground.execution(&asked.uid).await {
                asked.ended = ended(&execution);
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

    /// Waits until all have ended, and judges. `witness` is the text of [`WITNESS`].
    pub async fn judge(&mut self, ground: &Ground, witness: impl AsyncFnOnce() -> String) -> Judgement {
        let mut judgement = Judgement { asked: self.asked.len(), ..Judgement::default() };
        for asked in &mut self.asked {
            let execution = ground.ended(&asked.uid, Duration::from_mins(1)).await;
            let now = ended(&execution);
            if asked.ended.is_some() && asked.ended != now {
                judgement.wrong.push(format!("ended as {:?}, and now {execution}", asked.ended));
            }
            asked.ended = now;
        }
        // Room that an append had and whose bytes the cut took is read as zeros; the next line follows them.
        let witness = witness().await.replace('\0', "");
        for asked in &self.asked {
            let log = ground.log(&asked.uid).await;
            self.judge_one(asked, &witness, &log, &mut judgement);
        }
        judgement
    }

    fn judge_one(
        &self,
        asked: &Asked,
        witness: &str,
        log: &Result<String, String>,
        judgement: &mut Judgement,
    ) {
        let cuts = self.cuts;
        let of = |word: &str| -> Vec<&str> {
            let prefix = format!("{word} {}/1/", asked.uid);
            witness.lines().filter(|line| line.starts_with(&prefix)).collect()
        };
        let boot_of = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        let (starts, ends) = (of("start"), of("end"));
        judgement.most_starts = judgement.most_starts.max(starts.len());
        let (outcome, message) = asked.ended.clone().unwrap_or_default();
        let started_in =
            starts.first().and_then(|line| self.boots.iter().position(|boot| *boot == boot_of(line)));
        if started_in.is_some_and(|boot| boot > asked.cuts_before) {
            judgement.started_after_a_cut += 1;
        }
        *judgement.outcomes.entry(outcome.clone()).or_default() += 1;
        let mut wrong = |what: &str| {
            let Asked { uid, kind, cuts_before, .. } = asked;
            judgement.wrong.push(format!(
            "{what}: t-{kind} ({uid}), asked for after cut {cuts_before} of {cuts}: {outcome} ({message}), {starts:?}, {ends:?}, {log:?}"
        ));
        };
        if starts.len() > 1 {
            wrong("started more than once");
        }
        let expected = if exit_code(asked.kind) == 0 { "Succeeded" } else { "Failed" };
        match outcome.as_str() {
            "Lost" => {
                if !message.contains("rebooted") && !message.contains("may or may not have been started") {
                    wrong("lost for a wrong reason");
                }
                if asked.cuts_before == cuts {
                    wrong("lost without a cut");
                }
            }
            _ if outcome == expected => {
                if starts.len() != 1 || ends.len() != 1 || boot_of(starts[0]) != boot_of(ends[0]) {
                    wrong("a result that the command does not confirm");
                }
                match log {
                    Ok(text) if *text == output(asked.kind) || text.contains("[sentinel: ") => {}
                    _ => wrong("output is missing and nothing says so"),
                }
            }
            _ => wrong("an outcome that nobody asked for"),
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
    let witness =
        |word: &str| format!("echo \"{word} $SENTINEL_ATTEMPT $boot\" >>{WITNESS}; sync {WITNESS}\n");
    format!(
        "read boot </proc/sys/kernel/random/boot_id\n{}{body}\n{}exit {}\n",
        witness("start"),
        witness("end"),
        exit_code(kind)
    )
}
