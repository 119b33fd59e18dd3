//! The client of the API, with what is particular to the command line: token files, and failures with hints.

pub(crate) use sentinel_api::client::{
    Client, ClientError, Event, Events, LineAttempt, LineEvent, LineEvents, LineLog, LineLogItem, LineSource,
    Listed, LogEnd, LogItem, LogQuery, Reply, Server, Since,
};
pub(crate) use sentinel_api::path::{Query, escape, task as task_path};

use std::path::Path;

use http::StatusCode;
use sentinel_operator::files;

use crate::exit::Failure;
use crate::output::format::note;
use crate::output::text::Text;

/// Largest file with a token, bytes.
const MAX_TOKEN_FILE: u64 = 64 << 10;

/// A client of that server, with the token of a file, if one is given.
pub(crate) fn connect(server: Server, token_file: Option<&Path>) -> Result<Client, Failure> {
    let client = match token_file {
        None => Client::new(server),
        Some(path) => {
            let wrong = |why: &str| {
                Failure::usage(format!("--token-file {}: failed to read the token: {why}", path.display()))
            };
            let token = read_token(path).map_err(|why| wrong(&why))?;
            Client::with_token(server, &token).map_err(|error| wrong(&error.to_string()))?
        }
    };
    Ok(client.on_warning(warn))
}

/// Prints a warning of a client.
pub(crate) fn warn(why: &str) {
    note(Text::message().plain(why));
}

/// A link to the web page with the token in its fragment, which a browser does not send; the page reads and removes it.
pub(crate) fn page_link(page: &str, token: &str) -> String {
    format!("{page}#token={}", escape(token))
}

fn read_token(path: &Path) -> Result<String, String> {
    // Read once, so that it may come from a pipe.
    let bytes = std::fs::File::open(path).and_then(|file| files::read_from(file, MAX_TOKEN_FILE));
    let text = String::from_utf8(bytes.map_err(|error| error.to_string())?);
    let text = text.map_err(|_| "it is not text".to_owned())?;
    match text.trim() {
        "" => Err("the file is empty".to_owned()),
        token => Ok(token.to_owned()),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = error.status();
        let is_usage = status.is_some_and(|status| USAGE_STATUS.iter().any(|usage| usage.as_u16() == status));
        let is_usage = is_usage || matches!(error, ClientError::InvalidRequest { .. });
        let mut failure =
            if is_usage { Self::usage(error.to_string()) } else { Self::new(error.to_string()) };
        failure.status = status;
        failure.is_lasting = failure.is_refusal() || (status.is_none() && !error.is_retryable());
        failure.hint = hint(&error);
        failure
    }
}

/// Statuses of answers to invalid input of the user.
const USAGE_STATUS: [StatusCode; 3] =
    [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::UNSUPPORTED_MEDIA_TYPE];

/// What to do next.
fn hint(error: &ClientError) -> Option<String> {
    let text = match error {
        ClientError::Cluster { advice, .. } => advice,
        ClientError::Unreachable { server: Server::Cluster(_), .. } => {
            "Is the API server up, and the address that of the kubeconfig's context? Try: kubectl cluster-info"
        }
        ClientError::Unreachable { .. } => {
            "Start one with: sentinel dev\nOr name its address: --server URL (or SENTINEL_SERVER), or a cluster: --context NAME"
        }
        ClientError::Untrusted { .. } => {
            "Run it as the user of that server, or name another one: --server URL (or SENTINEL_SERVER)"
        }
        ClientError::Foreign { .. } | ClientError::NotJson { .. } => {
            "Is it a Sentinel Node API? Name another with --server, or a cluster with --context."
        }
        ClientError::Shape { .. } => {
            "Is the server of another release than this program? See: sentinel version"
        }
        ClientError::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED.as_u16() => {
            "Your own dev mode needs no token. For another one, use --token-file FILE with the file that it prints at startup"
        }
        ClientError::Refused { status: 404, error } if error.field.as_deref() == Some("namespace") => {
            return error
                .allowed
                .as_ref()
                .map(|served| format!("Name the namespace that it serves: -n {served}"));
        }
        ClientError::Refused { status, error } if *status == StatusCode::FORBIDDEN.as_u16() => {
            role(&error.message)?
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The `ClusterRole` of the chart that has the right which the API server names as missing.
fn role(message: &str) -> Option<&'static str> {
    if !message.contains("cannot ") {
        return None;
    }
    let writes = ["cannot create", "cannot update", "cannot patch", "cannot delete"];
    Some(if message.contains("tasks/log") {
        "Ask for the ClusterRole sentinel-node-log-reader in that namespace. See all your rights: sentinel check"
    } else if writes.iter().any(|write| message.contains(write)) {
        "Ask for the ClusterRole sentinel-node-task-runner in that namespace. See all your rights: sentinel check"
    } else {
        "Ask for the ClusterRole sentinel-node-task-viewer, in that namespace or in all. See all your rights: sentinel check"
    })
}
