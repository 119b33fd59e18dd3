//! `sentinel dev`: operator and agents in one process, over embedded stores. The only place that sees both.
//!
//! The operator is the same as in a cluster; its seams are filled by what needs nothing: the cluster in memory,
//! History in one file, presence in memory, random tokens for the agents. The agents are the same too, and so are
//! their supervisors. What is printed is read from the HTTP API, like any other client would.
//!
//! Its API is its user's alone: over a Unix socket in a directory that only that user can enter, and over TCP with a
//! token from a file there ([`local`]).
//!
//! In reading order: [`signals`] (what ends it), [`leftovers`] (of one that was killed), [`state`] (where it is kept),
//! [`nodes`] (the agents), [`files`] (Tasks from files, watched), [`console`] (what is printed), [`stop`] (the end).

mod console;
mod files;
mod leftovers;
mod nodes;
mod signals;
mod state;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::config::any_loopback_port;
use sentinel_operator::gateway::{Settings, StaticTokens};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::http::guard::{Access, Secret};
use sentinel_operator::metrics::Registry;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::run::{ApiAt, Election, Operator, Options, RunError, Seams};
use sentinel_operator::server::{Exposure, Limits, Server as ApiServer, ServerError};
use sentinel_operator::telemetry;
use sentinel_protocol::ids::Epoch;
use tokio_util::sync::CancellationToken;

use self::nodes::Nodes;
use self::signals::Signals;
use self::state::State;
use crate::args::DevArgs;
use crate::client::local::{self, Place};
use crate::client::{Client, Server};
use crate::commands::apply::{Pipes, read_all};
use crate::exit::{Ended, Failure, OK};
use crate::output::color::Paint;
use crate::output::format::note;
use crate::output::text::Text;

/// How long the operator may take to hand what it holds to History at the end.
const DRAIN: Duration = Duration::from_secs(3);

pub(crate) async fn perform(args: DevArgs, namespace: &str) -> Ended {
    // From here on a signal ends it in order, and leaves nothing behind.
    let mut signals = Signals::catch()?;
    // Everything that can be wrong with the files is reported before anything is started.
    read_all(&args.files, namespace, Pipes::Refused)?;
    telemetry::init(telemetry::LogFormat::Text, &args.log)
        .map_err(|error| Failure::usage(format!("--log {:?}: {error}", args.log)))?;
    leftovers::find();
    // Its lock comes before every listener.
    let state = State::open(args.state.as_deref())?;
    let clock = Clock::system();
    let tokens = StaticTokens::new();
    let cluster =
        EmbeddedCluster::in_directory(&state.path().join("cluster"), clock.clone()).map_err(|error| {
            Failure::new(format!("failed to open the Tasks kept in {}: {error}", state.shown()))
        })?;
    let nodes = Nodes::plan(args.nodes)?.limited(args.max_attempts, args.min_free);
    cluster.set_nodes(nodes.facts());

    let (operator, door) = start(&args, &state, cluster, tokens.clone(), clock).await?;
    let client = Client::new(Server::Unix(door.place.socket()));
    let gateway = operator.gateway_addr();
    let ending = CancellationToken::new();
    let operator_ending = ending.clone();
    let mut operator =
        tokio::spawn(async move { operator.run_until(operator_ending.cancelled_owned()).await });

    let (mut agents, mut console) = (None, None);
    let work = async {
        agents = Some(nodes.start(gateway, &tokens, state.path())?);
        nodes.wait_until_here(&client).await?;
        banner(&door, &nodes, &state);
        console = Some(console::start(&client).await?);
        let mut files = files::Files::new(args.files.clone(), namespace.to_owned(), client.clone());
        files.apply_all().await?;
        if args.files.is_empty() {
            note("No Task yet. Try the lines above, or give files: sentinel dev examples/hello.yaml");
        }
        files.watch().await;
        Ok::<(), Failure>(())
    };
    let result = tokio::select! {
        result = work => result,
        _ = signals.next() => Ok(()),
        ended = &mut operator => return Err(gone(ended)),
    };
    // Whatever was the reason: commands that run belong to this dev mode, and end with it.
    let stopped = tokio::select! {
        stopped = stop::end_commands(&client, &mut signals) => stopped,
        ended = &mut operator => return Err(gone(ended)),
    };
    if let Some(console) = console {
        console.finish().await;
    }
    if let Some(agents) = agents {
        agents.stop().await;
    }
    ending.cancel();
    let ended = operator.await.map_err(|error| Failure::new(format!("the operator failed: {error}")))?;
    result.and(stopped)?;
    ended.map_err(|error| Failure::new(format!("the operator failed: {error}")))?;
    state.remove();
    Ok(OK)
}

/// Where it answers, and what opens it.
struct Door {
    place: Place,
    server: Server,
}

fn gone(ended: Result<Result<(), RunError>, tokio::task::JoinError>) -> Failure {
    Failure::new(match ended {
        Ok(Ok(())) => "the operator ended by itself".to_owned(),
        Ok(Err(error)) => format!("the operator failed: {error}"),
        Err(error) => format!("the operator failed: {error}"),
    })
}

async fn start(
    args: &DevArgs,
    state: &State,
    cluster: EmbeddedCluster,
    tokens: StaticTokens,
    clock: Clock,
) -> Result<(Operator, Door), Failure> {
    let metrics = Registry::new();
    let (api, door) = doors(args, &metrics).await?;
    let file = state.path().join("history.db");
    let options = EmbeddedOptions { clock: clock.clone(), ..EmbeddedOptions::default() };
    let history = EmbeddedHistory::open(&file, options)
        .map_err(|error| Failure::new(format!("failed to open the history in {}: {error}", state.shown())))?;
    let seams = Seams {
        cluster: Arc::new(cluster),
        history: Arc::new(history),
        presence: Arc::new(MemoryPresence::new(clock.clone())),
        auth: Arc::new(tokens),
        exposure: Exposure::NO_TOKEN_REVIEW,
        clock,
        metrics,
    };
    let options = Options {
        gateway: any_loopback_port(),
        gateway_tls: None,
        api,
        metrics: None,
        drain: DRAIN,
        settings: Settings::default(),
        election: Election::Alone(Epoch::from(1)),
    };
    let operator = Operator::start(seams, options).await.map_err(|error| not_started(args, &error))?;
    Ok((operator, door))
}

/// The listeners of the API: a port that asks for a token, and a socket that is this user's.
async fn doors(args: &DevArgs, metrics: &Registry) -> Result<(ApiAt, Door), Failure> {
    let limits = Limits::of_people();
    let failed = |error: ServerError| not_started(args, &error.into());
    let tcp =
        ApiServer::bind("api", args.listen, Exposure::NO_PEOPLE, limits, metrics).await.map_err(failed)?;
    let address = tcp.local_addr();
    let place = Place::take(address.port()).map_err(|error| {
        Failure::new(format!("failed to make a place for the socket and the token of the API: {error}"))
            .hint("Give a directory that only you can enter: XDG_RUNTIME_DIR=DIR")
    })?;
    let socket = ApiServer::bind_socket("api", &place.socket(), limits, metrics).await.map_err(failed)?;
    let token = Secret::of(place.token());
    let servers = ApiAt::Servers(vec![(tcp, Access::Bearer(token)), (socket, Access::Socket)]);
    let server = format!("http://{address}").parse().map_err(Failure::new)?;
    Ok((servers, Door { place, server }))
}

fn not_started(args: &DevArgs, error: &RunError) -> Failure {
    let cause = |error: &RunError| {
        std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
    };
    let RunError::Server(refused) = error else {
        return Failure::new(format!("{error}{}", cause(error)));
    };
    match &**refused {
        ServerError::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            let owners = local::listeners(args.listen);
            let by = owners.iter().find(|uid| **uid != local::me());
            let by = by.map(|uid| format!(" by user {uid}")).unwrap_or_default();
            Failure::new(format!("{} is taken{by}", args.listen)).hint(
                "Is another `sentinel dev` running? Take another port with --listen 127.0.0.1:7990, or any free one with --listen 127.0.0.1:0",
            )
        }
        ServerError::Exposed { .. } => Failure::usage(format!("--listen {}: {error}", args.listen)),
        _ => Failure::new(format!("{error}{}", cause(error))),
    }
}

/// Says where to look.
fn banner(door: &Door, nodes: &Nodes, state: &State) {
    let Door { place, server } = door;
    let base = server.base();
    let flag = if server.is_default() { String::new() } else { format!(" --server {base}") };
    let socket = place.socket();
    let tries = [
        (format!("sentinel{flag} run{} -- uname -a", nodes.run_flag()), "run a command, see its output"),
        (format!("sentinel{flag} get tasks"), "what there is, and how it stands"),
        (format!("sentinel{flag} logs -f NAME"), "the output of a Task"),
        (format!("sentinel{flag} nodes"), "how the nodes do"),
        (
            format!("curl --unix-socket {} http://localhost/api/v1/tasks", socket.display()),
            "the same for programs",
        ),
    ];
    let width = tries[..4].iter().map(|(words, _)| words.len()).max().unwrap_or(0);
    let mut text = Text::new()
        .painted(Paint::Strong, "Sentinel Node, dev mode.")
        .then(" ")
        .painted(Paint::Faint, "Everything runs in this process; Ctrl-C ends it.")
        .then(format!("\n  API    {base}/api/v1 "))
        .painted(Paint::Faint, "(with the token; sentinel of this user needs none, root over the socket)")
        .then(format!("\n  Socket {}", socket.display()))
        .then(format!("\n  Token  {}", place.token_file().display()))
        .then(format!("\n  Nodes  {}\n  State  {}\n", nodes.shown(), state.shown()));
    if local::me() == 0 {
        let warning = "  It runs as root: so does every command whose Task names no user.\n";
        text = text.painted(Paint::Bad, warning);
    }
    text = text.then("Try, in another terminal:\n");
    for (words, remark) in tries {
        text = text.then(format!("  {words:<width$}   ")).painted(Paint::Faint, remark).then("\n");
    }
    note(text);
}
