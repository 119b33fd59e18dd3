//! The variables of a command.

use sentinel_protocol::to_agent::Start;
use sentinel_secrets::values::SecretValues;

use super::identity::User;

/// `PATH` of a command that sets none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command's environment: a few variables for every command, then the request's. A variable of a Secret without a value is not set.
pub(super) fn environment(
    start: &Start,
    secrets: Option<&SecretValues>,
    user: Option<&User>,
) -> Vec<(String, String)> {
    let id = &start.attempt;
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        env.retain(|(other, _)| other != name);
        env.push((name.to_owned(), value.to_owned()));
    };
    set("PATH", PATH);
    set("LANG", "C.UTF-8");
    set("HOME", user.map_or("/", |user| &user.home));
    if let Some(user) = user {
        set("USER", &user.name);
        set("LOGNAME", &user.name);
        set("SHELL", if user.shell.is_empty() { "/bin/sh" } else { &user.shell });
    }
    set("SENTINEL_TASK", &start.task.name);
    set("SENTINEL_NAMESPACE", &start.task.namespace);
    set("SENTINEL_RUN", &id.run.to_string());
    set("SENTINEL_NODE", id.node.as_str());
    set("SENTINEL_ATTEMPT", &id.to_string());
    if let Some(trace) = &start.trace {
        set("TRACEPARENT", &trace.parent.to_string());
        if let Some(state) = &trace.state {
            set("TRACESTATE", state.as_str());
        }
    }
    for variable in &start.request.env {
        match &variable.value_from {
            None => set(&variable.name, &variable.value),
            Some(reference) => {
                let value = secrets.and_then(|secrets| secrets.get(reference));
                if let Some(value) = value.and_then(|value| std::str::from_utf8(value.expose()).ok()) {
                    set(&variable.name, value);
                }
            }
        }
    }
    env
}

/// Where a program is searched for by its name alone.
pub(super) fn search_path(start: &Start, user: Option<&User>) -> String {
    path_in(&environment(start, None, user)).to_owned()
}

pub(super) fn path_in(env: &[(String, String)]) -> &str {
    env.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, value)| value)
}
