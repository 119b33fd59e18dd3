//! One node under attack.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::SinkExt as _;
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::to_operator::{ReportedState, ToOperator};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::meaning::MEANING;
use super::mutate::{FORM, Mutator};
use super::node::{Allow, Node, Session, receive};
use super::policy::{Asked, RULES, RUNS, counts};
use super::requests::{self, CHEAP_FORMS, FORMS, Place, is_message};
use crate::attacks::kit::{ANSWERED_WITHIN, Memory, Sampler};
use crate::wait::until;

/// Messages between two answers that are waited for.
const BATCH: usize = 25;

/// Valid requests that ran, which later ones repeat.
const REPLAYED: usize = 100;

/// Mutations between two lines of progress: the short form prints none.
const PROGRESS: usize = 2500;

/// Of twenty mutations, those that are of other messages than `Start`.
const OTHER_MESSAGES: std::ops::RangeInclusive<u8> = 3..=5;

/// What was sent, and what became of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Mutations by kind.
    pub mutations: BTreeMap<String, usize>,
    /// What was mutated, by the kind of message that it still is.
    pub messages: BTreeMap<String, usize>,
    /// Refusals by reason, those of the policy by rule.
    pub refused: BTreeMap<String, usize>,
    /// What was started and is allowed, by rule.
    pub started: BTreeMap<String, usize>,
    /// Ends by their Outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Sessions that ended.
    pub closed: usize,
    /// Mutated frames on log sockets.
    pub log_frames: usize,
    /// Requests that were repeated after a restart.
    pub replayed: usize,
    /// Audit records.
    pub audited: usize,
    /// What was started and is not allowed.
    pub forbidden: usize,
    /// What is wrong.
    pub faults: Vec<String>,
}

impl Tally {
    /// Adds that of another node.
    pub fn add(&mut self, other: Self) {
        for (into, from) in [
            (&mut self.mutations, other.mutations),
            (&mut self.messages, other.messages),
            (&mut self.refused, other.refused),
            (&mut self.started, other.started),
            (&mut self.outcomes, other.outcomes),
        ] {
            for (name, count) in from {
                *into.entry(name).or_default() += count;
            }
        }
        self.closed += other.closed;
        self.log_frames += other.log_frames;
        self.replayed += other.replayed;
        self.audited += other.audited;
        self.forbidden += other.forbidden;
        self.faults.extend(other.faults);
    }
}

/// An operator in the wrong hands, and its one node.
pub struct Harness {
    node: Node,
    rng: fastrand::Rng,
    number: usize,
    epoch: u64,
    asked: Asked,
    /// Valid requests that were sent unchanged.
    valid: Vec<Value>,
    /// All Attempts that were named.
    named: Vec<String>,
    to_forget: Vec<String>,
    tally: Tally,
    pid: u32,
    sampler: Sampler,
}

impl Harness {
    /// Starts the node.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(name: &str, seed: u64, allow: Allow) -> Result<Self> {
        let mut node = Node::start(name, seed, allow).await?;
        // Its memory is measured from its first Session on.
        drop(node.session(1).await?);
        let pid = node.program.pid();
        Ok(Self {
            node,
            rng: fastrand::Rng::with_seed(seed),
            number: 0,
            epoch: 1,
            asked: Asked::default(),
            valid: Vec::new(),
            named: vec!["task-0/1/none/1".to_owned()],
            to_forget: Vec::new(),
            tally: Tally::default(),
            pid,
            sampler: Sampler::start(pid),
        })
    }

    /// Sends so many mutations; at most `closing` of them end a Session.
    ///
    /// # Errors
    /// When the agent does not answer any more.
    pub async fn attack(&mut self, mutations: usize, mut closing: usize) -> Result<()> {
        let mut sent = 0;
        while sent < mutations {
            let mut session = self.node.session(self.epoch).await?;
            let mut is_open = true;
            while is_open && sent < mutations {
                let (batch, closes) = self.batch(&session, closing)?;
                closing -= usize::from(closes);
                let before = sent;
                sent += batch.len();
                if sent / PROGRESS > before / PROGRESS {
                    eprintln!("operator: {}: {sent} of {mutations} mutations", self.node.name);
                }
                is_open = self.exchange(&mut session, batch).await?;
            }
            self.tally.closed += usize::from(!is_open);
        }
        Ok(())
    }

    /// The next frames; one alone if it ends the Session.
    fn batch(&mut self, session: &Session, closing: usize) -> Result<(Vec<Message>, bool)> {
        let mut frames = Vec::with_capacity(BATCH);
        while frames.len() < BATCH {
            let (kind, bytes) = self.mutation(session)?;
            let text = String::from_utf8(bytes);
            let is_read = text.as_ref().is_ok_and(|text| is_message(text) || has_unknown_kind(text));
            // Seldom, so that the agent spends its time on the others.
            let closes = !is_read && closing > 0 && self.rng.u8(..8) == 0;
            if !is_read && !closes {
                continue;
            }
            let message = text.as_ref().ok().and_then(|text| self.note(text));
            *self.tally.messages.entry(message.unwrap_or_else(|| "no message".to_owned())).or_default() += 1;
            *self.tally.mutations.entry(kind).or_default() += 1;
            let frame = match text {
                Ok(text) if closes && self.rng.u8(..8) == 0 => Message::binary(text.into_bytes()),
                Ok(text) if closes && self.rng.u8(..8) == 0 => Message::text(text + &" ".repeat(2 << 20)),
                Ok(text) => Message::text(text),
                Err(error) => Message::binary(error.into_bytes()),
            };
            if closes {
                return Ok((vec![frame], true));
            }
            frames.push(frame);
        }
        Ok((frames, false))
    }

    fn mutation(&mut self, session: &Session) -> Result<(String, Vec<u8>)> {
        let Self { node, rng, number, .. } = self;
        *number += 1;
        let place = Place {
            policy: &node.policy,
            node: &node.name,
            session: &session.id,
            sealing_key: session.sealing_key,
            epoch: self.epoch,
        };
        let choice = rng.u8(..20);
        let about = self.named[rng.usize(..self.named.len())].clone();
        let other = requests::other(rng, &place, &about);
        // A signature takes a thousand times as long as the rest.
        let forms = if rng.u8(..8) == 0 { FORMS } else { CHEAP_FORMS };
        let is_other = (OTHER_MESSAGES).contains(&choice);
        let (mut start, statement) = match forms[rng.usize(..forms.len())] {
            _ if is_other => (Value::Null, None),
            form => requests::start(&place, form, *number)?,
        };
        self.asked.signed.extend(statement);
        let earlier = (!self.valid.is_empty()).then(|| self.valid[rng.usize(..self.valid.len())].clone());
        let mut mutator = Mutator { rng, policy: &node.policy, earlier: earlier.as_ref() };
        Ok(match choice {
            // One in twenty is as it should be, so that there is something to repeat.
            0 => {
                if self.valid.len() < REPLAYED {
                    self.valid.push(start.clone());
                }
                ("none".to_owned(), start.to_string().into_bytes())
            }
            1 | 2 => {
                let mut again = earlier.clone().unwrap_or(start);
                again["epoch"] = place.epoch.into();
                let part = if choice == 2 { MEANING[mutator.rng.usize(..MEANING.len())] } else { "none" };
                mutator.meaning(part, &mut again);
                (
                    if part == "none" { "replay" } else { "replay with another part" }.to_owned(),
                    again.to_string().into_bytes(),
                )
            }
            choice if OTHER_MESSAGES.contains(&choice) => {
                let kind = FORM[mutator.rng.usize(..FORM.len())];
                (kind.to_owned(), mutator.form(kind, &other))
            }
            7..=9 => {
                let kind = FORM[mutator.rng.usize(..FORM.len())];
                (kind.to_owned(), mutator.form(kind, &start))
            }
            _ => {
                let mut parts = Vec::new();
                for _ in 0..mutator.rng.usize(1..4) {
                    let part = MEANING[mutator.rng.usize(..MEANING.len())];
                    mutator.meaning(part, &mut start);
                    parts.push(part);
                }
                let kind = if parts.len() == 1 { parts[0].to_owned() } else { "several parts".to_owned() };
                (kind, start.to_string().into_bytes())
            }
        })
    }

    /// Notes what is asked for, as it is written. Returns the kind of the message.
    fn note(&mut self, text: &str) -> Option<String> {
        let message = serde_json::from_str::<Value>(text).ok()?;
        let kind = message["kind"].as_str()?.chars().take(16).collect::<String>();
        let kind = if has_unknown_kind(text) { "an unknown kind".to_owned() } else { kind };
        let Some(attempt) = message["attempt"].as_str() else { return Some(kind) };
        if message["kind"] == "Start" {
            let rules = self.node.policy.fitting(&message);
            self.asked.fitting.extend(rules.into_iter().map(|rule| (attempt.to_owned(), rule)));
        }
        if self.named.len() < 1000 {
            self.named.push(attempt.to_owned());
        }
        Some(kind)
    }

    /// Sends frames, and handles what comes until the agent has answered all of them. False if the Session has ended.
    async fn exchange(&mut self, session: &mut Session, frames: Vec<Message>) -> Result<bool> {
        let forget = std::mem::take(&mut self.to_forget).into_iter();
        let forget = forget
            .map(|attempt| json!({"kind": "Forget", "attempt": attempt, "epoch": self.epoch}).to_string());
        self.number += 1;
        let place = Place {
            policy: &self.node.policy,
            node: &self.node.name,
            session: &session.id,
            sealing_key: session.sealing_key,
            epoch: self.epoch,
        };
        let barrier = requests::barrier(&place, self.number)?;
        let id = barrier["attempt"].clone();
        let frames = forget.map(Message::text).chain(frames).chain([Message::text(barrier.to_string())]);
        for frame in frames {
            let sending = tokio::time::timeout(ANSWERED_WITHIN, session.socket.send(frame)).await;
            if !matches!(sending, Ok(Ok(()))) {
                return Ok(false);
            }
        }
        loop {
            match receive(&mut session.socket).await {
                Ok(message) => {
                    let is_barrier =
                        matches!(&message, ToOperator::Refused(refused) if id == refused.attempt.to_string());
                    self.received(message);
                    if is_barrier {
                        return Ok(true);
                    }
                }
                Err(error) if error.to_string().contains("nothing comes") => {
                    bail!("the agent of {} does not answer", self.node.name)
                }
                Err(_) => return Ok(false),
            }
        }
    }

    fn received(&mut self, message: ToOperator) {
        match message {
            ToOperator::Refused(refused) => {
                let reason = match &refused.refusal {
                    Refusal::Policy { rule, .. } => {
                        if !RULES.contains(&rule.as_str()) {
                            self.tally
                                .faults
                                .push(format!("a refusal by the unknown rule {rule}: {refused:?}"));
                        }
                        format!("Policy/{rule}")
                    }
                    Refusal::StaleEpoch { seen } => {
                        self.epoch = self.epoch.max(seen.get());
                        "StaleEpoch".to_owned()
                    }
                    other => variant(other),
                };
                *self.tally.refused.entry(reason).or_default() += 1;
            }
            ToOperator::Report(report) => {
                if let ReportedState::Ended(ended) = &report.state {
                    *self.tally.outcomes.entry(variant(&ended.outcome)).or_default() += 1;
                    self.to_forget.push(report.attempt.to_string());
                }
            }
            _ => {}
        }
    }

    /// Repeats on a restarted agent what has run, which starts nothing.
    ///
    /// # Errors
    /// When the agent does not answer any more.
    pub async fn replay_after_restart(&mut self) -> Result<()> {
        self.settle().await;
        if self.node.program.pid() != self.pid || !self.node.program.is_running() {
            self.tally.faults.push(format!(
                "the agent of {} did not survive: {}",
                self.node.name,
                self.node.program.log()
            ));
        }
        let before = self.node.witnesses.len();
        self.node.restart().await;
        let mut session = self.node.session(self.epoch).await?;
        let have_run: BTreeSet<String> = self.node.witnesses.attempts();
        let has_run =
            |start: &&Value| start["attempt"].as_str().is_some_and(|attempt| have_run.contains(attempt));
        let replays: Vec<Value> = self.valid.iter().filter(has_run).cloned().collect();
        self.tally.replayed = replays.len();
        let frames = replays.iter().map(|start| Message::text(start.to_string())).collect();
        if !self.exchange(&mut session, frames).await? {
            bail!("the Session of {} ended while requests were repeated", self.node.name);
        }
        self.settle().await;
        let started = self.node.witnesses.len() - before;
        if started > 0 {
            self.tally
                .faults
                .push(format!("{started} requests ran again on {} after a restart", self.node.name));
        }
        Ok(())
    }

    /// Waits until nothing was started for a while: every command ends at once.
    async fn settle(&self) {
        let mut last = (self.node.witnesses.len(), std::time::Instant::now());
        until("commands of an attacked node end", Duration::from_secs(60), || {
            let now = self.node.witnesses.len();
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            let is_over = last.1.elapsed() > Duration::from_secs(1);
            async move { is_over.then_some(()).ok_or(now) }
        })
        .await;
    }

    /// Why each of what was started is not allowed; nothing if all is.
    pub fn judge(&mut self) -> Vec<String> {
        let witnesses = self.node.witnesses.all();
        let mut wrong = Vec::new();
        for seen in &witnesses {
            match self.node.policy.allows(seen, &self.asked) {
                Ok(rule) => *self.tally.started.entry(rule.to_owned()).or_default() += 1,
                Err(why) => wrong.push(why),
            }
        }
        for (attempt, times) in counts(witnesses.iter().map(|seen| seen.attempt().to_owned())) {
            if times > 1 {
                wrong.push(format!("Attempt {attempt} was started {times} times"));
            }
        }
        let signed =
            witnesses.iter().filter(|seen| seen.name() == "signed").filter_map(|seen| seen.argv.get(1));
        for (statement, times) in counts(signed.cloned()) {
            if times > RUNS as usize {
                wrong.push(format!("{statement} was started {times} times, signed for {RUNS}"));
            }
        }
        wrong
    }

    /// Judges what was started, and verifies the audit records.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn finish(mut self) -> Result<(Tally, Memory)> {
        let wrong = self.judge();
        self.tally.forbidden = wrong.len();
        self.tally.faults.extend(wrong.into_iter().take(5));
        let (fits, report) = self.node.audit("verify")?;
        if !fits {
            self.tally.faults.push(format!("the audit records of {} do not fit: {report}", self.node.name));
        }
        let started = self.node.witnesses.attempts();
        let mut accepted = BTreeSet::new();
        for line in self.node.audit("export")?.1.lines() {
            self.tally.audited += 1;
            let record: Value = serde_json::from_str(line)?;
            match record["kind"].as_str() {
                Some("Accepted") => {
                    if record["allowedBy"].as_str().is_none_or(str::is_empty) {
                        self.tally.faults.push(format!("an audit record without its rule: {line}"));
                    }
                    accepted.insert(record["attempt"].as_str().unwrap_or_default().to_owned());
                }
                Some("Refused") if is_without_rule(&record["refusal"]) => {
                    self.tally.faults.push(format!("an audit record of a refusal without its rule: {line}"));
                }
                _ => {}
            }
        }
        if let Some(attempt) = started.difference(&accepted).next() {
            self.tally.faults.push(format!("{attempt} was started, and no audit record has it"));
        }
        self.tally.log_frames = self.node.log_frames();
        self.tally.faults.truncate(12);
        Ok((self.tally, self.sampler.finish()))
    }
}

/// Whether a refusal by the policy names no rule of it.
fn is_without_rule(refusal: &Value) -> bool {
    let is_named = refusal["rule"].as_str().is_some_and(|rule| RULES.contains(&rule));
    refusal["reason"] == "Policy" && !is_named
}

fn has_unknown_kind(text: &str) -> bool {
    const KNOWN: &[&str] = &["Welcome", "Refuse", "Start", "Cancel", "Ack", "Forget", "AuditHead"];
    sentinel_protocol::codec::is_unknown_kind(text, KNOWN)
}

/// The name of a variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}
