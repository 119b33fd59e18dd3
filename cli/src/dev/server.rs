//! The operator of dev mode, over embedded stores, and its API.

use std::sync::Arc;
use std::time::Duration;

use sentinel_api::client::dev_socket::DevSocket;
use sentinel_api::client::peer::{effective_uid, listeners};
use sentinel_operator::audit::{Audit, AuditOptions};
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::config::any_loopback_port;
use sentinel_operator::controller::CurrentCeilings;
use sentinel_operator::gateway::{Settings, StaticTokens};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::http::BasePath;
use sentinel_operator::http::guard::{Access, Door, Secret};
use sentinel_operator::identity::local::Owner;
use sentinel_operator::metrics::Registry;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::run::{ApiAt, Election, Operator, Options, RunError, Seams};
use sentinel_operator::server::{Exposure, Limits, Server as ApiServer, ServerError};
use sentinel_operator::traces::Traces;
use sentinel_protocol::ids::Epoch;

use super::state::State;
use crate::args::DevArgs;
use crate::client::Server;
use crate::exit::Failure;

/// How long the operator may take at exit to write what it holds to History.
const DRAIN: Duration = Duration::from_secs(3);

/// Bytes of the operator's audit records that are kept.
const AUDIT_KEPT: u64 = 64 << 20;

/// Where the API listens, and its credentials.
pub(super) struct Endpoint {
    pub(super) socket: DevSocket,
    pub(super) server: Server,
}

/// Starts the operator.
pub(super) async fn start(
    args: &DevArgs,
    state: &State,
    cluster: EmbeddedCluster,
    tokens: StaticTokens,
    clock: Clock,
) -> Result<(Operator, Endpoint, Audit), Failure> {
    let metrics = Registry::new();
    let ceilings = args.ceilings.clone().map(CurrentCeilings::of_file).transpose();
    let ceilings =
        ceilings.map_err(|error| Failure::usage(format!("--ceilings: {error}")))?.unwrap_or_default();
    let audit = audit(state, &clock, &metrics)?;
    let (api, endpoint) = bind_api(args, &metrics).await?;
    let file = state.path().join("history.db");
    let options = EmbeddedOptions { clock: clock.clone(), ..EmbeddedOptions::default() };
    let history = EmbeddedHistory::open(&file, options).map_err(|error| {
        Failure::new(format!("failed to open the History in {}: {error}", state.summary()))
    })?;
    let seams = Seams {
        cluster: Arc::new(cluster),
        history: Arc::new(history),
        presence: Arc::new(MemoryPresence::new(clock.clone())),
        auth: Arc::new(tokens),
        by_caller: None,
        owner: Some(Owner::new(effective_uid())),
        exposure: Exposure::NO_TOKEN_REVIEW,
        clock,
        metrics,
        traces: Traces::off(),
        audit: audit.clone(),
        ceilings,
    };
    let options = Options {
        gateway: any_loopback_port(),
        gateway_tls: None,
        api,
        base_path: BasePath::default(),
        metrics: None,
        background: Vec::new(),
        drain: DRAIN,
        settings: Settings::default(),
        election: Election::Alone(Epoch::from(1)),
    };
    let operator = Operator::start(seams, options).await.map_err(|error| start_failure(args, &error))?;
    Ok((operator, endpoint, audit))
}

/// The audit records of the operator, beside its History.
fn audit(state: &State, clock: &Clock, metrics: &Registry) -> Result<Audit, Failure> {
    let options =
        AuditOptions { directory: Some(state.path().join("audit")), kept: AUDIT_KEPT, stream: None };
    Audit::start(options, "dev mode", clock, metrics).map_err(|error| {
        Failure::new(format!("failed to open the audit records in {}: {error}", state.summary()))
    })
}

/// Binds the API: a TCP port that requires a token, and a socket in a private directory.
async fn bind_api(args: &DevArgs, metrics: &Registry) -> Result<(ApiAt, Endpoint), Failure> {
    let limits = Limits::of_people();
    let failed = |error: ServerError| start_failure(args, &error.into());
    let tcp =
        ApiServer::bind("api", args.listen, Exposure::NO_PEOPLE, limits, metrics).await.map_err(failed)?;
    let address = tcp.local_addr();
    let dev_socket = DevSocket::claim(address.port()).map_err(|error| {
        Failure::new(format!(
            "failed to create a private directory for the socket and the token of the API: {error}"
        ))
        .hint("Set XDG_RUNTIME_DIR to a directory that only you can access")
    })?;
    let socket =
        ApiServer::bind_socket("api", &dev_socket.socket(), limits, metrics).await.map_err(failed)?;
    let token = Secret::of(dev_socket.token());
    let servers = ApiAt::Servers(vec![
        (tcp, Door::of_api(Access::Bearer(token))),
        (socket, Door::of_api(Access::Socket)),
    ]);
    let server: Server =
        format!("http://{address}").parse().map_err(|error| Failure::new(format!("{error}")))?;
    Ok((servers, Endpoint { socket: dev_socket, server }))
}

fn start_failure(args: &DevArgs, error: &RunError) -> Failure {
    let cause = |error: &RunError| {
        std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
    };
    let RunError::Server(refused) = error else {
        return Failure::new(format!("{error}{}", cause(error)));
    };
    match &**refused {
        ServerError::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            let owners = listeners(args.listen);
            let other = owners.iter().find(|uid| **uid != effective_uid());
            let by = other.map(|uid| format!(" by user {uid}")).unwrap_or_default();
            Failure::new(format!("{} is in use{by}", args.listen)).hint(
                "Is another `sentinel dev` running? Choose another port with --listen 127.0.0.1:7990, or any free one with --listen 127.0.0.1:0",
            )
        }
        ServerError::Exposed { .. } => Failure::usage(format!("--listen {}: {error}", args.listen)),
        _ => Failure::new(format!("{error}{}", cause(error))),
    }
}
