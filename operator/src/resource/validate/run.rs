//! `spec.run`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sentinel_protocol::ids::NodeName;
use sentinel_protocol::limits::{
    CORE_BYTES, CPU_MILLIS, MAX_COMMAND_BYTES, MAX_COMMAND_ITEMS, MAX_CONTROL_FRAME, MAX_ENV_BYTES,
    MAX_ENV_ITEMS, MAX_STDIN_BYTES, MEMORY_BYTES, NOFILE, PIDS,
};
use sentinel_protocol::quantity;
use sentinel_protocol::request::{self, OutputRules, Program, ResourceLimits, RunRequest, Sandbox};
use sentinel_protocol::secret::{MAX_SEALED, PUBLIC_VARIABLE, SecretKeyRef};

use super::super::invalid::Problems;
use super::super::rules::{SECRET_KEY, SECRET_NAME};
use super::super::task;
use super::script;
use super::values::{HOUR, bytes, duration, no_zero_byte};

/// Size of a `Start` without its request.
const START_OVERHEAD: usize = 16 << 10;

pub(super) fn request(spec: &task::RunSpec, problems: &mut Problems) -> Option<RunRequest> {
    let program = program(spec, problems);
    let env = env(&spec.env, problems);
    if !spec.working_dir.starts_with('/') {
        problems.value("spec.run.workingDir", &spec.working_dir, "must be an absolute path, such as /tmp");
    }
    if spec.working_dir.len() > 4096 {
        problems.value("spec.run.workingDir", &spec.working_dir, "must be at most 4096 bytes");
    }
    no_zero_byte("spec.run.workingDir", &spec.working_dir, problems);
    identity("spec.run.user", spec.user.as_deref(), problems);
    identity("spec.run.group", spec.group.as_deref(), problems);
    if spec.stdin.len() > MAX_STDIN_BYTES {
        let allowed = format!("must be at most {MAX_STDIN_BYTES} bytes");
        problems.value("spec.run.stdin", &format!("{} bytes", spec.stdin.len()), allowed);
    }
    let stdin_from = spec.stdin_from.as_ref().map(|from| secret("spec.run.stdinFrom", from, problems));
    if stdin_from.is_some() && !spec.stdin.is_empty() {
        problems.field("spec.run.stdinFrom", "must not be set together with stdin");
    }
    let umask = umask(&spec.umask, problems);
    let success_exit_codes = exit_codes(&spec.success_exit_codes, problems);
    let output = output(&spec.output, problems);
    let limits = limits(&spec.limits, problems);
    let request = RunRequest {
        program: program?,
        env: env?,
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        group: spec.group.clone(),
        umask: umask?,
        stdin: spec.stdin.clone(),
        stdin_from,
        environment: match spec.environment {
            task::Environment::Host => request::Environment::Host,
            task::Environment::Container => request::Environment::Container,
        },
        success_exit_codes: success_exit_codes?,
        output: output?,
        limits: limits?,
        sandbox: spec.sandbox.map(sandbox),
        root_filesystem: spec.read_only_root_filesystem.unwrap_or_default().into(),
        leftovers: match spec.leftovers {
            task::Leftovers::End => request::Leftovers::End,
            task::Leftovers::Keep => request::Leftovers::Keep,
        },
    };
    if request.sandbox() == Sandbox::Restricted {
        not_root("spec.run.user", spec.user.as_deref(), problems);
        not_root("spec.run.group", spec.group.as_deref(), problems);
    }
    if request.needs_secrets() && request.limits.core.is_some_and(|core| core > 0) {
        let core = spec.limits.core.as_deref().unwrap_or_default();
        let allowed = "must be 0 where spec.run uses a Secret: a core dump has its value";
        problems.value("spec.run.limits.core", core, allowed);
    }
    fits_a_frame(&request, problems);
    Some(request)
}

fn program(spec: &task::RunSpec, problems: &mut Problems) -> Option<Program> {
    match (&spec.command, &spec.script) {
        (Some(command), None) => self::command(command, problems),
        (None, Some(script)) => script::program(script, problems),
        (None, None) => {
            problems.field("spec.run", "must have exactly one of command and script; it has none");
            None
        }
        (Some(_), Some(_)) => {
            problems.field("spec.run", "must have exactly one of command and script; it has both");
            None
        }
    }
}

fn command(command: &[String], problems: &mut Problems) -> Option<Program> {
    const FIELD: &str = "spec.run.command";
    if command.first().is_none_or(String::is_empty) {
        problems.value("spec.run.command[0]", "", "must name a program");
        return None;
    }
    let bytes: usize = command.iter().map(|item| item.len() + 1).sum();
    if bytes > MAX_COMMAND_BYTES {
        let allowed =
            format!("must be at most {MAX_COMMAND_BYTES}; put more into spec.run.script or spec.run.stdin");
        problems.value(FIELD, &format!("{bytes} bytes"), allowed);
    }
    if command.len() > MAX_COMMAND_ITEMS {
        let allowed = format!("must be at most {MAX_COMMAND_ITEMS}");
        problems.value(FIELD, &format!("{} items", command.len()), allowed);
        return None;
    }
    for (index, item) in command.iter().enumerate() {
        no_zero_byte(&format!("{FIELD}[{index}]"), item, problems);
    }
    Some(Program::Command(command.to_vec()))
}

fn env(spec: &[task::EnvVar], problems: &mut Problems) -> Option<Vec<request::EnvVar>> {
    const FIELD: &str = "spec.run.env";
    if spec.len() > MAX_ENV_ITEMS {
        problems.value(FIELD, &format!("{} items", spec.len()), format!("must be at most {MAX_ENV_ITEMS}"));
        return None;
    }
    let bytes: usize = spec.iter().map(|var| var.name.len() + var.value.len()).sum();
    if bytes > MAX_ENV_BYTES {
        problems.value(FIELD, &format!("{bytes} bytes"), format!("must be at most {MAX_ENV_BYTES} bytes"));
    }
    let mut seen = BTreeMap::new();
    for (index, var) in spec.iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        if !is_env_name(&var.name) {
            let allowed = "must be 1 to 256 letters, digits, '_', '-' and '.', not beginning with a digit";
            problems.value(format!("{field}.name"), &var.name, allowed);
        }
        if let Some(first) = seen.insert(&var.name, index) {
            let allowed = format!("must be unique; {FIELD}[{first}] is the same");
            problems.value(format!("{field}.name"), &var.name, allowed);
        }
        no_zero_byte(&format!("{field}.value"), &var.value, problems);
        if var.value_from.is_some() && !var.value.is_empty() {
            problems.field(format!("{field}.valueFrom"), "must not be set together with value");
        }
        if var.value_from.is_some() && var.name == PUBLIC_VARIABLE {
            problems.field(
                format!("{field}.valueFrom"),
                "must not be set for PATH: messages about programs have its value",
            );
        }
    }
    let mut var = |(index, var): (usize, &task::EnvVar)| request::EnvVar {
        name: var.name.clone(),
        value: var.value.clone(),
        value_from: var
            .value_from
            .as_ref()
            .map(|from| secret(&format!("{FIELD}[{index}].valueFrom"), from, problems)),
    };
    Some(spec.iter().enumerate().map(&mut var).collect())
}

fn secret(field: &str, from: &task::ValueFrom, problems: &mut Problems) -> SecretKeyRef {
    let task::SecretKey { name, key, optional } = &from.secret_key_ref;
    if NodeName::new(name.as_str()).is_err() {
        problems.value(format!("{field}.secretKeyRef.name"), name, format!("must be {SECRET_NAME}"));
    }
    let in_keys = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if key.is_empty() || key.len() > 253 || !key.bytes().all(in_keys) {
        problems.value(format!("{field}.secretKeyRef.key"), key, format!("must be {SECRET_KEY}"));
    }
    SecretKeyRef { name: name.clone(), key: key.clone(), optional: *optional }
}

fn is_env_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let first = name.bytes().next();
    name.len() <= 256 && first.is_some_and(|byte| !byte.is_ascii_digit()) && name.bytes().all(inner)
}

fn identity(field: &str, value: Option<&str>, problems: &mut Problems) {
    let Some(value) = value else { return };
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        // 4294967295 is -1 in the kernel, which means no change.
        if value.len() <= 10 && value.parse::<u32>().is_ok_and(|id| id != u32::MAX) {
            return;
        }
        problems.value(field, value, "must be a name, or a number from 0 to 4294967294");
        return;
    }
    let name = value.strip_suffix('$').unwrap_or(value);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !first || value.len() > 256 || !name.bytes().all(inner) {
        problems.value(field, value, "must be a name, or a number from 0 to 4294967294");
    }
}

fn sandbox(sandbox: task::Sandbox) -> Sandbox {
    match sandbox {
        task::Sandbox::Restricted => Sandbox::Restricted,
        task::Sandbox::Baseline => Sandbox::Baseline,
        task::Sandbox::Privileged => Sandbox::Privileged,
    }
}

/// A name that a node resolves to uid or gid 0 is found there.
fn not_root(field: &str, value: Option<&str>, problems: &mut Problems) {
    let is_zero = |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte == b'0');
    if let Some(value) = value.filter(|value| *value == "root" || is_zero(value)) {
        let allowed = "must not be root in the sandbox Restricted, which the environment Container has by default; leave it \
                       out, or set spec.run.sandbox";
        problems.value(field, value, allowed);
    }
}

fn umask(text: &str, problems: &mut Problems) -> Option<u32> {
    let digits = text.len() == 3 || (text.len() == 4 && text.starts_with('0'));
    let value = u32::from_str_radix(text, 8).ok().filter(|_| digits && !text.starts_with('+'));
    if value.is_none() {
        problems.value("spec.run.umask", text, "must be three octal digits in quotes, such as \"022\"");
    }
    value
}

fn exit_codes(codes: &[i32], problems: &mut Problems) -> Option<Vec<u8>> {
    const FIELD: &str = "spec.run.successExitCodes";
    if codes.is_empty() {
        problems.value(FIELD, "", "must have at least one code");
        return None;
    }
    let mut valid = BTreeSet::new();
    for (index, code) in codes.iter().enumerate() {
        match u8::try_from(*code) {
            Ok(code) if valid.insert(code) => {}
            Ok(_) => {
                problems.value(format!("{FIELD}[{index}]"), &code.to_string(), "must be unique");
            }
            Err(_) => problems.value(format!("{FIELD}[{index}]"), &code.to_string(), "must be 0 to 255"),
        }
    }
    Some(valid.into_iter().collect())
}

fn output(spec: &task::Output, problems: &mut Problems) -> Option<OutputRules> {
    let limit = bytes("spec.run.output.limit", &spec.limit, (0, 1 << 40), "0 to 1Ti", problems);
    let spool = bytes("spec.run.output.spool", &spec.spool, (1 << 20, 64 << 30), "1Mi to 64Gi", problems);
    let max_block =
        duration("spec.run.output.maxBlock", &spec.max_block, (0, 24 * HOUR), "0s to 24h", problems);
    Some(OutputRules {
        limit: limit?,
        spool: spool?,
        max_block_ms: max_block?,
        merge: spec.merge,
        mask: spec.mask,
    })
}

fn limits(spec: &task::Limits, problems: &mut Problems) -> Option<ResourceLimits> {
    let cpu = match &spec.cpu {
        Some(cpu) => self::cpu(cpu, problems).map(Some),
        None => Some(None),
    };
    let memory = match &spec.memory {
        Some(text) => {
            let range = (*MEMORY_BYTES.start(), *MEMORY_BYTES.end());
            bytes("spec.run.limits.memory", text, range, "4Mi to 16Ti", problems).map(Some)
        }
        None => Some(None),
    };
    let pids = match spec.pids {
        Some(pids) => self::pids(pids, problems).map(Some),
        None => Some(None),
    };
    let nofile = match spec.nofile {
        Some(count) => nofile(count, problems).map(Some),
        None => Some(None),
    };
    let core = match &spec.core {
        Some(text) => {
            let range = (*CORE_BYTES.start(), *CORE_BYTES.end());
            bytes("spec.run.limits.core", text, range, "0 to 16Ti", problems).map(Some)
        }
        None => Some(None),
    };
    Some(ResourceLimits { cpu_millis: cpu?, memory: memory?, pids: pids?, nofile: nofile?, core: core? })
}

fn nofile(count: i32, problems: &mut Problems) -> Option<u32> {
    let valid = u32::try_from(count).ok().filter(|count| NOFILE.contains(count));
    if valid.is_none() {
        let allowed = format!("must be {} to {}", NOFILE.start(), NOFILE.end());
        problems.value("spec.run.limits.nofile", &count.to_string(), allowed);
    }
    valid
}

fn cpu(value: &IntOrString, problems: &mut Problems) -> Option<u32> {
    const ALLOWED: &str = "must be 10m to 1024: thousandths of a CPU, such as 500m, or whole CPUs, such as 2";
    let (text, millis) = match value {
        IntOrString::Int(whole) => {
            (whole.to_string(), u32::try_from(*whole).ok().and_then(|whole| whole.checked_mul(1000)))
        }
        IntOrString::String(text) => {
            let millis = quantity::parse_millis(text).filter(|_| !text.starts_with('0'));
            (text.clone(), millis)
        }
    };
    let millis = millis.filter(|millis| CPU_MILLIS.contains(millis));
    if millis.is_none() {
        problems.value("spec.run.limits.cpu", &text, ALLOWED);
    }
    millis
}

fn pids(count: i32, problems: &mut Problems) -> Option<u32> {
    let valid = u32::try_from(count).ok().filter(|count| PIDS.contains(count));
    if valid.is_none() {
        let allowed = format!("must be {} to {}", PIDS.start(), PIDS.end());
        problems.value("spec.run.limits.pids", &count.to_string(), allowed);
    }
    valid
}

/// Control characters make a request up to six times as long on the wire as in memory.
fn fits_a_frame(request: &RunRequest, problems: &mut Problems) {
    let size = serde_json::to_vec(request).map_or(usize::MAX, |json| json.len());
    let sealed = if request.needs_secrets() { MAX_SEALED } else { 0 };
    let most = MAX_CONTROL_FRAME - START_OVERHEAD - sealed;
    if size > most {
        let allowed = format!("must be at most {most} bytes as JSON, with command, env and stdin");
        problems.value("spec.run", &format!("{size} bytes"), allowed);
    }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::request::{Program, RunRequest};

    use crate::resource::manifest;
    use crate::resource::validate::validate;

    #[test]
    fn a_task_that_states_only_a_command_is_a_request_that_states_only_a_command() {
        let text = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: a, namespace: ns, uid: u}\n\
                    spec: {targets: {all: true}, run: {command: [df]}}\n";
        let plan = validate(&manifest::read(text).unwrap()[0]).unwrap();
        assert_eq!(plan.request, RunRequest::new(Program::Command(vec!["df".into()])));
    }
}
