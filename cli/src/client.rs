//! The client of the API, with what is particular to the command line: token files, and failures with hints.

pub(crate) use sentinel_api::client::{
    Client, ClientError, Event, Events, LineAttempt, LineEvent, LineEvents, LineLog, LineLogItem, LineSource,
    Listed, LogEnd, LogItem, LogQuery, Reply, Server, Since, Trust,
};
pub(crate) use sentinel_api::path::{Query, escape, task as task_path};

use std::path::Path;

use http::StatusCode;
use sentinel_operator::files;

use crate::exit::Failure;
use crate::output::escape::single_line;
use crate::output::format::note;
use crate::output::text::Text;
use crate::roles::Role;

/// Largest file with a token, bytes.
const MAX_TOKEN_FILE: u64 = 64 << 10;

/// Largest file with authorities, bytes; that of a system has a quarter of it.
const MAX_AUTHORITIES: u64 = 1 << 20;

/// A client of that server, with the token of a file and the authorities of another, where they are given.
pub(crate) fn connect(
    server: Server,
    token_file: Option<&Path>,
    authority: Option<&Path>,
) -> Result<Client, Failure> {
    let wrong = |why: String| {
        let path = token_file.map(|path| path.display().to_string()).unwrap_or_default();
        Failure::usage(format!("--token-file {path}: failed to read the token: {why}"))
    };
    let token = token_file.map(read_token).transpose().map_err(wrong)?;
    let token = token.as_deref();
    let made = match trusted(server, authority)? {
        (server, Some(trust)) => Client::over_tls(server, token, trust),
        (server, None) => match token {
            Some(token) => Client::with_token(server, token),
            None => Ok(Client::new(server)),
        },
    };
    Ok(made.map_err(|error| wrong(error.to_string()))?.on_warning(warn))
}

/// How a server over TLS is identified, and that server with the file of it.
fn trusted(server: Server, authority: Option<&Path>) -> Result<(Server, Option<Trust>), Failure> {
    let Server::Https { base, host, port, .. } = server else {
        let Some(path) = authority else { return Ok((server, None)) };
        let message = format!("--certificate-authority {} is for a server with https://", path.display());
        return Err(Failure::usage(message).hint(format!(
            "The server is {server}: name another with --server https://HOST (or SENTINEL_SERVER)"
        )));
    };
    let trust = match authority {
        None => Trust::of_system().map_err(|error| {
            Failure::usage(format!("failed to verify {base}: {error}"))
                .hint("Name a file with the authorities to trust: --certificate-authority FILE")
        })?,
        Some(path) => {
            let wrong = |why: String| {
                let file = path.display();
                Failure::usage(format!(
                    "--certificate-authority {file}: failed to read the authorities: {why}"
                ))
            };
            let pem = std::fs::File::open(path).and_then(|file| files::read_from(file, MAX_AUTHORITIES));
            let pem = pem.map_err(|error| wrong(error.to_string()))?;
            Trust::of_pem(&pem).map_err(|error| wrong(error.to_string()))?
        }
    };
    let authority = authority.map(Path::to_owned);
    Ok((Server::Https { base, host, port, authority }, Some(trust)))
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
        // What a server answers begins no line.
        let message = single_line(&error.to_string());
        let mut failure = if is_usage { Self::usage(message) } else { Self::new(message) };
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
        ClientError::Unreachable { server: Server::Https { .. }, .. } => {
            "Is the address right, and can it be reached from here? Name another one: --server URL (or SENTINEL_SERVER)"
        }
        ClientError::Unreachable { .. } => {
            "Start one with: sentinel dev\nOr name its address: --server URL (or SENTINEL_SERVER), or a cluster: --context NAME"
        }
        ClientError::Untrusted { server: Server::Https { authority: None, .. }, .. } => {
            "If its certificate is of an authority of your own, name the file with it: --certificate-authority FILE. It is in ca.crt of the ConfigMap of the operator whose name ends with -ca, unless an ingress has another"
        }
        ClientError::Untrusted { server: Server::Https { .. }, .. } => {
            "Use a name of its certificate in --server, and the authority that signed it in --certificate-authority"
        }
        ClientError::Untrusted { .. } => {
            "Run it as the user of that server, or name another one: --server URL (or SENTINEL_SERVER)"
        }
        ClientError::Foreign { status, .. } if status.is_redirection() => {
            "It leads elsewhere, as a proxy does that signs people in by their browser. Use an address that takes a token (--token-file FILE), or the cluster: --context NAME"
        }
        ClientError::Foreign { .. } | ClientError::NotJson { .. } => {
            "Is it a Sentinel Node API? Name another with --server, or a cluster with --context."
        }
        ClientError::Shape { .. } => {
            "Is the server of another release than this program? See: sentinel version"
        }
        ClientError::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED.as_u16() => {
            "Your own dev mode needs no token. For another one, use --token-file FILE with the file that it prints at startup; for an operator, with a token of its cluster, such as: kubectl create token NAME"
        }
        ClientError::Refused { status: 404, error } if error.field.as_deref() == Some("namespace") => {
            return error
                .allowed
                .as_ref()
                .map(|served| format!("Name the namespace that it serves: -n {served}"));
        }
        ClientError::Refused { status, error } if *status == StatusCode::FORBIDDEN.as_u16() => {
            return role(&error.message);
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The `ClusterRole` of the chart that has the right which the API server names as missing.
fn role(message: &str) -> Option<String> {
    if !message.contains("cannot ") {
        return None;
    }
    let writes = ["cannot create", "cannot update", "cannot patch", "cannot delete"];
    let role = if message.contains("tasks/log") {
        Role::LogReader
    } else if message.contains("tasks/approve") {
        Role::TaskApprover
    } else if writes.iter().any(|write| message.contains(write)) {
        Role::TaskRunner
    } else {
        Role::TaskViewer
    };
    // Nodes are of none, and lists of all namespaces ask for all.
    let of_cluster = message.contains("at the cluster scope");
    let place = if of_cluster { "by a ClusterRoleBinding" } else { "in that namespace" };
    Some(format!("Ask for the {role}, {place}. See all your rights: sentinel check"))
}
