//! Admission of a new `Start`: an ordered list of rules; the first one that refuses decides.

use std::fmt;
use std::ops::RangeInclusive;

use sentinel_protocol::ids::Epoch;
use sentinel_protocol::limits::{
    CORE_BYTES, CPU_MILLIS, MAX_COMMAND_BYTES, MAX_COMMAND_ITEMS, MAX_ENV_BYTES, MAX_ENV_ITEMS, MAX_SHEBANG,
    MAX_STDIN_BYTES, MEMORY_BYTES, NOFILE, PIDS,
};
use sentinel_protocol::refusal::Refusal;
use sentinel_protocol::request::{Environment, Program, ResourceLimits, RunRequest};
use sentinel_protocol::secret::PUBLIC_VARIABLE;
use sentinel_protocol::to_agent::Start;

use super::event::SecretsSent;
use super::permit::{Permit, PolicyVerdict};

/// What this agent admits.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Active Attempts at most.
    pub max_attempts: u32,
    /// Attempts at most, including those that are over: results wait here while History is unavailable.
    pub max_owned: u32,
    /// Bytes that must be free on the Journal's disk for a new Attempt. One that can write little needs at most
    /// [`EMERGENCY_FREE`], so that a command that cleans up can still run.
    pub min_free: u64,
    /// Environments that commands can run in.
    pub environments: Vec<Environment>,
    /// Why the other environments are unavailable, if not by the agent's configuration.
    pub unavailable: Option<String>,
    /// The Journal's directory, for messages.
    pub directory: Option<String>,
}

/// Bytes that must be free for an Attempt with little output and no limits, when [`Rules::min_free`] asks for more.
/// Twice what the largest request, its records and [`SMALL_OUTPUT`] of output take.
pub const EMERGENCY_FREE: u64 = 4 << 20;

/// An Attempt whose output takes at most this many bytes of the disk counts as one with little output.
pub const SMALL_OUTPUT: u64 = 1 << 20;

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_attempts: 64,
            max_owned: 10_000,
            min_free: 64 << 20,
            environments: vec![Environment::Container],
            unavailable: None,
            directory: None,
        }
    }
}

/// Longest time from SIGTERM to SIGKILL: as long as a Task may ask for. A longer one would make `timeouts.run` no limit.
const MAX_GRACE_MS: u64 = 3_600_000;

/// What the rules decide about.
pub(super) struct Candidate<'a> {
    pub(super) start: &'a Start,
    pub(super) rules: &'a Rules,
    pub(super) highest_epoch: Epoch,
    pub(super) stopping: bool,
    pub(super) journal_failure: Option<&'a str>,
    pub(super) living: usize,
    pub(super) owned: usize,
    pub(super) free: u64,
    pub(super) policy: &'a PolicyVerdict,
    pub(super) secrets: &'a SecretsSent,
    /// How many are living that a rule of the policy allowed.
    pub(super) living_by: &'a dyn Fn(&str) -> usize,
}

/// Applies the rules in order; what the node's policy allows, if there is one.
///
/// # Errors
/// The first rule's Refusal.
pub(super) fn admit<'a>(candidate: &Candidate<'a>) -> Result<Option<&'a Permit>, Refusal> {
    current_epoch(candidate)?;
    not_stopping(candidate)?;
    journal_safe(candidate)?;
    environment_offered(candidate)?;
    request_sound(&candidate.start.request)?;
    grace_bounded(candidate)?;
    secrets_sent(candidate)?;
    let permit = candidate.policy.permit()?;
    room_for_one_more(candidate)?;
    if let Some(permit) = permit {
        room_by_rule(candidate, permit)?;
    }
    disk_has_room(candidate)?;
    Ok(permit)
}

/// The rules again, for what was accepted before a reboot and has its place since. `living_by` counts the others.
///
/// # Errors
/// The first rule's Refusal.
pub(super) fn admit_again<'a>(candidate: &Candidate<'a>) -> Result<Option<&'a Permit>, Refusal> {
    environment_offered(candidate)?;
    request_sound(&candidate.start.request)?;
    grace_bounded(candidate)?;
    let permit = candidate.policy.permit()?;
    if let Some(permit) = permit {
        room_by_rule(candidate, permit)?;
    }
    Ok(permit)
}

fn grace_bounded(c: &Candidate<'_>) -> Result<(), Refusal> {
    within("timeouts.grace in milliseconds", Some(c.start.deadlines.grace_ms), &(0..=MAX_GRACE_MS))
}

fn current_epoch(c: &Candidate<'_>) -> Result<(), Refusal> {
    if c.start.epoch < c.highest_epoch {
        return Err(Refusal::StaleEpoch { seen: c.highest_epoch });
    }
    Ok(())
}

fn not_stopping(c: &Candidate<'_>) -> Result<(), Refusal> {
    if c.stopping { Err(Refusal::Stopping) } else { Ok(()) }
}

fn journal_safe(c: &Candidate<'_>) -> Result<(), Refusal> {
    c.journal_failure.map_or(Ok(()), |message| Err(Refusal::JournalUnsafe { message: message.into() }))
}

fn environment_offered(c: &Candidate<'_>) -> Result<(), Refusal> {
    let environment = c.start.request.environment;
    if c.rules.environments.contains(&environment) {
        return Ok(());
    }
    let why = c.rules.unavailable.clone().map(Into::into);
    Err(Refusal::EnvironmentUnavailable { environment: environment.as_str().into(), why })
}

fn room_for_one_more(c: &Candidate<'_>) -> Result<(), Refusal> {
    for (there, limit) in [(c.living, c.rules.max_attempts), (c.owned, c.rules.max_owned)] {
        if there >= limit as usize {
            return Err(Refusal::TooManyAttempts { limit, rule: None });
        }
    }
    Ok(())
}

fn room_by_rule(c: &Candidate<'_>, permit: &Permit) -> Result<(), Refusal> {
    match permit.concurrent {
        Some(limit) if (c.living_by)(&permit.rule) >= limit as usize => {
            Err(Refusal::TooManyAttempts { limit, rule: Some(permit.rule.clone()) })
        }
        _ => Ok(()),
    }
}

fn disk_has_room(c: &Candidate<'_>) -> Result<(), Refusal> {
    let request = &c.start.request;
    let is_small = request.output.limit.min(request.output.spool) <= SMALL_OUTPUT && request.limits.is_none();
    let needed = if is_small { c.rules.min_free.min(EMERGENCY_FREE) } else { c.rules.min_free };
    if c.free < needed {
        return Err(Refusal::DiskLow {
            free: c.free,
            needed,
            directory: c.rules.directory.clone().map(Into::into),
        });
    }
    Ok(())
}

/// The agent does not rely on the operator's validation: an invalid request is refused here.
fn request_sound(request: &RunRequest) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::InvalidRequest { message: message.into() });
    program_sound(&request.program)?;
    let env_bytes: usize = request.env.iter().map(|v| v.name.len() + v.value.len()).sum();
    if request.env.len() > MAX_ENV_ITEMS || env_bytes > MAX_ENV_BYTES {
        return refuse(format!(
            "run.env has {} variables and {env_bytes} bytes; allowed are {MAX_ENV_ITEMS} and {MAX_ENV_BYTES}",
            request.env.len()
        ));
    }
    if let Some(bad) = request
        .env
        .iter()
        .find(|v| v.name.is_empty() || v.name.contains(['=', '\0']) || v.value.contains('\0'))
    {
        let name: String = bad.name.chars().take(64).collect();
        return refuse(format!(
            "run.env variable {name:?}: the name must not be empty or contain '=' or NUL"
        ));
    }
    if request.stdin.len() > MAX_STDIN_BYTES {
        let len = request.stdin.len();
        return refuse(format!("run.stdin has {len} bytes; allowed are {MAX_STDIN_BYTES}"));
    }
    if !request.working_dir.starts_with('/') || request.working_dir.contains('\0') {
        return refuse(format!("run.workingDir {:?} is not an absolute path", request.working_dir));
    }
    if request.umask > 0o777 {
        return refuse(format!("run.umask {:o} is not between 0 and 777", request.umask));
    }
    if request.stdin_from.is_some() && !request.stdin.is_empty() {
        return refuse("run.stdin and run.stdinFrom are both set".to_owned());
    }
    if let Some(both) = request.env.iter().find(|v| v.value_from.is_some() && !v.value.is_empty()) {
        return refuse(format!("run.env variable {:?} has a value and valueFrom", both.name));
    }
    if request.env.iter().any(|v| v.value_from.is_some() && v.name == PUBLIC_VARIABLE) {
        return refuse(format!(
            "run.env variable {PUBLIC_VARIABLE} must not be from a Secret: messages have its value"
        ));
    }
    if request.needs_secrets() && request.limits.core.is_some_and(|core| core > 0) {
        return refuse(
            "run.limits.core must be 0 where run.env or run.stdinFrom uses a Secret: a core dump has its value"
                .to_owned(),
        );
    }
    limits_sound(&request.limits)
}

/// Nothing is accepted without the values that it needs: they would have to be waited for.
fn secrets_sent(c: &Candidate<'_>) -> Result<(), Refusal> {
    let request = &c.start.request;
    if !request.needs_secrets() {
        return Ok(());
    }
    let message = match c.secrets {
        SecretsSent::Values => return Ok(()),
        SecretsSent::Unusable(why) => why.clone(),
        SecretsSent::None => {
            let all: Vec<String> =
                request.secrets().map(|(field, reference)| format!("{reference} ({field})")).collect();
            format!("the operator had no value of {}", all.join(", "))
        }
    };
    Err(Refusal::InvalidRequest { message: message.into() })
}

fn program_sound(program: &Program) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::InvalidRequest { message: message.into() });
    match program {
        Program::Command(items) => {
            let bytes: usize = items.iter().map(String::len).sum();
            if items.first().is_none_or(String::is_empty) {
                return refuse("run.command names no program".to_owned());
            }
            if items.len() > MAX_COMMAND_ITEMS || bytes > MAX_COMMAND_BYTES {
                return refuse(format!(
                    "run.command has {} items and {bytes} bytes; allowed are {MAX_COMMAND_ITEMS} and \
                     {MAX_COMMAND_BYTES}",
                    items.len()
                ));
            }
            if items.iter().any(|item| item.contains('\0')) {
                return refuse("run.command contains a NUL character".to_owned());
            }
        }
        Program::Script { interpreter, argument, text } => {
            if interpreter.is_empty() || interpreter.contains('\0') {
                return refuse("run.script.interpreter is empty or contains a NUL character".to_owned());
            }
            if argument
                .as_ref()
                .is_some_and(|argument| argument.len() > MAX_SHEBANG || argument.contains('\0'))
            {
                return refuse(format!(
                    "the argument of run.script.interpreter is longer than {MAX_SHEBANG} bytes or contains a NUL \
                     character"
                ));
            }
            if text.len() > MAX_COMMAND_BYTES {
                let len = text.len();
                return refuse(format!("run.script.text has {len} bytes; allowed are {MAX_COMMAND_BYTES}"));
            }
        }
    }
    Ok(())
}

fn limits_sound(limits: &ResourceLimits) -> Result<(), Refusal> {
    within("run.limits.cpu in thousandths", limits.cpu_millis, &CPU_MILLIS)?;
    within("run.limits.memory in bytes", limits.memory, &MEMORY_BYTES)?;
    within("run.limits.pids", limits.pids, &PIDS)?;
    within("run.limits.nofile", limits.nofile, &NOFILE)?;
    within("run.limits.core in bytes", limits.core, &CORE_BYTES)
}

fn within<T: PartialOrd + fmt::Display>(
    field: &str,
    value: Option<T>,
    allowed: &RangeInclusive<T>,
) -> Result<(), Refusal> {
    let Some(value) = value.filter(|value| !allowed.contains(value)) else { return Ok(()) };
    let (least, most) = (allowed.start(), allowed.end());
    Err(Refusal::InvalidRequest {
        message: format!("{field} is {value}; allowed is {least} to {most}").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::permit::FileIdentity;
    use sentinel_protocol::request::{Deadlines, EnvVar, OutputRules};
    use sentinel_protocol::secret::SecretKeyRef;

    use super::*;

    fn start() -> Start {
        Start::new(
            "u/1/n/1".parse().unwrap(),
            sentinel_protocol::ids::SpecHash::new("0".repeat(64)).unwrap(),
            Epoch::from(3),
            sentinel_protocol::ids::TaskRef::new("ops", "t").unwrap(),
            RunRequest::new(Program::Command(vec!["true".into()])),
            Deadlines { start_ms: 1, run_ms: None, idle_ms: None, total_ms: None, grace_ms: 1 },
        )
    }

    fn candidate<'a>(start: &'a Start, rules: &'a Rules) -> Candidate<'a> {
        Candidate {
            start,
            rules,
            highest_epoch: Epoch::from(3),
            stopping: false,
            journal_failure: None,
            living: 0,
            owned: 0,
            free: u64::MAX,
            policy: &PolicyVerdict::NoPolicy,
            secrets: &SecretsSent::None,
            living_by: &|_| 0,
        }
    }

    fn allowed(concurrent: Option<u32>) -> PolicyVerdict {
        let program = FileIdentity { path: "/bin/true".into(), device: 1, inode: 2, size: 3, changed_at: 4 };
        PolicyVerdict::Allowed(Box::new(Permit {
            rule: "backups".into(),
            concurrent,
            signed: None,
            program,
            directory: None,
            uid: 1,
            gid: 1,
            groups: vec![],
        }))
    }

    #[test]
    fn nothing_is_admitted_that_the_policy_did_not_allow() {
        let (start, rules) = (start(), Rules::default());
        let admitted = |policy: &PolicyVerdict, living: usize| {
            let living_by = |rule: &str| if rule == "backups" { living } else { 0 };
            admit(&Candidate { policy, living_by: &living_by, ..candidate(&start, &rules) })
                .map(Option::<&Permit>::cloned)
        };
        let refused = PolicyVerdict::Refused { rule: "no-root".into(), why: "root".into() };
        let refusal =
            |rule: &str, why: Option<&str>| Refusal::Policy { rule: rule.into(), why: why.map(Into::into) };
        assert_eq!(admitted(&refused, 0), Err(refusal("no-root", Some("root"))));
        assert_eq!(admitted(&PolicyVerdict::default(), 0), Err(refusal("unchecked", None)));
        assert_eq!(admitted(&PolicyVerdict::NoPolicy, 0), Ok(None));
        let permit = admitted(&allowed(None), 1000).unwrap().unwrap();
        assert_eq!(permit.rule, "backups");
        assert!(admitted(&allowed(Some(2)), 1).is_ok());
        let full = admitted(&allowed(Some(2)), 2).unwrap_err();
        assert_eq!(full, Refusal::TooManyAttempts { limit: 2, rule: Some("backups".into()) });
        assert!(full.is_temporary(), "it waits for its turn");
    }

    #[test]
    fn nothing_is_accepted_without_the_values_of_its_secrets() {
        let rules = Rules::default();
        let mut start = start();
        let reference = |key: &str| SecretKeyRef { name: "db".into(), key: key.into(), optional: false };
        start.request.stdin_from = Some(reference("k"));
        let admitted = |start: &Start, secrets: SecretsSent| {
            admit(&Candidate { secrets: &secrets, ..candidate(start, &rules) }).map(drop)
        };
        let refused = |message: &str| Err(Refusal::InvalidRequest { message: message.into() });
        assert_eq!(admitted(&start, SecretsSent::Values), Ok(()));
        let none = "the operator had no value of key \"k\" of Secret db (run.stdinFrom)";
        assert_eq!(admitted(&start, SecretsSent::None), refused(none));
        assert_eq!(admitted(&start, SecretsSent::Unusable("broken".into())), refused("broken"));
        start.request.limits.core = Some(1);
        let core = admitted(&start, SecretsSent::Values).unwrap_err().to_string();
        assert!(core.contains("run.limits.core must be 0"), "{core}");
        start.request.limits.core = Some(0);
        start.request.stdin = "x".into();
        assert!(admitted(&start, SecretsSent::Values).is_err());
        start.request.stdin = String::new();
        start.request.env =
            vec![EnvVar { name: "A".into(), value: "b".into(), value_from: Some(reference("k")) }];
        assert!(admitted(&start, SecretsSent::Values).is_err());
    }

    #[test]
    fn a_sound_start_is_taken() {
        assert_eq!(admit(&candidate(&start(), &Rules::default())), Ok(None));
    }

    #[test]
    fn each_rule_refuses_with_its_own_reason() {
        let (start, rules) = (start(), Rules::default());
        let base = || candidate(&start, &rules);
        let check = |c: Candidate<'_>, reason: &str| {
            let refusal = admit(&c).unwrap_err();
            let word = serde_json::to_value(&refusal).unwrap()["reason"].as_str().unwrap().to_owned();
            assert_eq!(word, reason);
        };
        check(Candidate { highest_epoch: Epoch::from(4), ..base() }, "StaleEpoch");
        check(Candidate { stopping: true, ..base() }, "Stopping");
        check(Candidate { journal_failure: Some("EIO"), ..base() }, "JournalUnsafe");
        check(Candidate { living: 64, ..base() }, "TooManyAttempts");
        check(Candidate { owned: 10_000, ..base() }, "TooManyAttempts");
        check(Candidate { free: (64 << 20) - 1, ..base() }, "DiskLow");
        let host = Rules { environments: vec![Environment::Host], ..Rules::default() };
        check(candidate(&start, &host), "EnvironmentUnavailable");
    }

    #[test]
    fn a_low_disk_still_takes_a_command_that_can_hardly_fill_it() {
        let rules = Rules { directory: Some("/s".into()), ..Rules::default() };
        let admitted = |start: &Start, free| admit(&Candidate { free, ..candidate(start, &rules) }).map(drop);
        let low = |needed| Err(Refusal::DiskLow { free: 3 << 20, needed, directory: Some("/s".into()) });
        let mut small = start();
        assert_eq!(admitted(&small, 3 << 20), low(64 << 20));
        small.request.output.spool = SMALL_OUTPUT;
        assert_eq!(admitted(&small, EMERGENCY_FREE), Ok(()));
        assert_eq!(admitted(&small, 3 << 20), low(EMERGENCY_FREE));
        small.request.output = OutputRules { limit: SMALL_OUTPUT, ..start().request.output };
        assert_eq!(admitted(&small, EMERGENCY_FREE), Ok(()), "little is kept, however large the window");
        small.request.limits.pids = Some(5);
        assert_eq!(admitted(&small, 3 << 20), low(64 << 20));
        let none = Rules { min_free: 0, ..Rules::default() };
        assert_eq!(admit(&Candidate { free: 0, ..candidate(&small, &none) }), Ok(None));
    }

    #[test]
    fn what_cannot_be_run_as_written_is_refused_with_the_field() {
        let check = |change: &dyn Fn(&mut RunRequest), field: &str| {
            let mut start = start();
            change(&mut start.request);
            match admit(&candidate(&start, &Rules::default())) {
                Err(Refusal::InvalidRequest { message }) => {
                    assert!(message.starts_with(field), "{message:?} does not name {field}");
                }
                other => panic!("{field}: {other:?}"),
            }
        };
        check(&|r| r.program = Program::Command(vec![]), "run.command");
        check(&|r| r.program = Program::Command(vec![String::new()]), "run.command");
        check(&|r| r.program = Program::Command(vec!["a\0".into()]), "run.command");
        check(&|r| r.program = Program::Command(vec!["a".into(); MAX_COMMAND_ITEMS + 1]), "run.command");
        check(&|r| r.program = Program::Command(vec!["a".repeat(MAX_COMMAND_BYTES + 1)]), "run.command");
        let script = |interpreter: &str, text: String| Program::Script {
            interpreter: interpreter.into(),
            argument: None,
            text,
        };
        check(&|r| r.program = script("", String::new()), "run.script.interpreter");
        check(&|r| r.program = script("sh", "a".repeat(MAX_COMMAND_BYTES + 1)), "run.script.text");
        let var = |name: &str, value: &str| {
            vec![EnvVar { name: name.into(), value: value.into(), value_from: None }]
        };
        check(&|r| r.env = var("", "x"), "run.env");
        check(&|r| r.env = var("A=B", "x"), "run.env");
        check(&|r| r.env = var("A", "\0"), "run.env");
        check(&|r| r.env = var("A", &"x".repeat(MAX_ENV_BYTES)), "run.env");
        let path_from = SecretKeyRef { name: "s".into(), key: "k".into(), optional: false };
        let path = EnvVar { name: "PATH".into(), value: String::new(), value_from: Some(path_from) };
        check(&|r| r.env = vec![path.clone()], "run.env variable PATH must not be from a Secret");
        check(&|r| r.stdin = "x".repeat(MAX_STDIN_BYTES + 1), "run.stdin");
        check(&|r| r.working_dir = "tmp".into(), "run.workingDir");
        check(&|r| r.umask = 0o1000, "run.umask");
    }
}
