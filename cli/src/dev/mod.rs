//! `sentinel dev`: operator and agents in one process, over embedded stores. The only module that starts them.
//!
//! The operator is the same as in a cluster, with other implementations of its interfaces: a cluster in memory, History
//! in one file, presence in memory, random tokens for the agents. Agents and supervisors are the same too. What is
//! printed is read from the HTTP API, as by any other client.
//!
//! The API is open to this user only: over a Unix socket in a private directory, and over TCP with a token from a file
//! in it ([`sentinel_api::client::dev_socket`]).
//!
//! In reading order: [`signals`] (what stops it), [`leftovers`] (of a killed one), [`state`] (its directory), [`server`]
//! (operator and API), [`nodes`] (agents), [`files`] (watched Tasks), [`console`] (what is printed), [`stop`] (the end).

mod console;
mod files;
mod leftovers;
mod nodes;
mod requesters;
mod server;
mod signals;
mod state;
mod stop;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use sentinel_api::client::peer::effective_uid;
use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::gateway::StaticTokens;
use sentinel_operator::run::RunError;
use sentinel_telemetry::LogFormat;
use std::path::Path;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use self::nodes::Nodes;
use self::server::{Endpoint, start};
use self::signals::Signals;
use self::state::State;
use crate::args::DevArgs;
use crate::client::{Server, connect, page_link};
use crate::exit::{ExitResult, Failure, OK};
use crate::manifests::{FileKind, read_all};
use crate::output::color::{StdStream, Style, is_terminal};
use crate::output::format::note;
use crate::output::text::Text;

pub(crate) fn execute(args: DevArgs, namespace: &str) -> LocalBoxFuture<'_, ExitResult> {
    executed(args, namespace).boxed_local()
}

async fn executed(args: DevArgs, namespace: &str) -> ExitResult {
    // Signals are caught first, so that nothing is ever left behind.
    let mut signals = Signals::catch()?;
    // All problems of files are reported before anything is started.
    read_all(&args.files, namespace, FileKind::Regular)?;
    sentinel_telemetry::init(LogFormat::Text, &args.log)
        .map_err(|error| Failure::usage(format!("--log {:?}: {error}", args.log)))?;
    leftovers::clean_up();
    // The lock of the state comes before every listener.
    let state = State::open(args.state.as_deref())?;
    let clock = Clock::system();
    let tokens = StaticTokens::new();
    let cluster = EmbeddedCluster::in_directory(&state.path().join("cluster"), clock.clone())
        .map_err(|error| Failure::new(format!("failed to open the Tasks in {}: {error}", state.summary())))?;
    let nodes = Nodes::plan(args.nodes)?
        .with_limits(args.max_attempts, args.min_free)
        .with_policy(args.policy.clone());
    let cluster = cluster.stamping(requesters::stamps(state.path())?);
    cluster.set_nodes(nodes.facts());

    let (operator, endpoint, audit) = start(&args, &state, cluster, tokens.clone(), clock).await?;
    let client = connect(Server::Unix(endpoint.socket.socket()), None, None)?;
    let gateway = operator.gateway_addr();
    let stop_operator = CancellationToken::new();
    let stopped = stop_operator.clone().cancelled_owned();
    let mut operator = tokio::spawn(async move { operator.run_until(stopped).await });

    let (mut agents, mut console) = (None, None);
    let work = async {
        let api = endpoint.socket.socket();
        let private = [Some(state.path()), api.parent()].into_iter().flatten().map(Path::to_owned);
        agents = Some(nodes.start(gateway, &tokens, state.path(), &private.collect::<Vec<_>>())?);
        nodes.wait_until_connected(&client).await?;
        banner(&endpoint, &nodes, &state);
        console = Some(console::start(&client).await?);
        let mut files = files::Files::new(args.files.clone(), namespace.to_owned(), client.clone());
        files.apply_all().await?;
        if args.files.is_empty() {
            note("No Tasks yet. Try the commands above, or pass files: sentinel dev examples/hello.yaml");
        }
        files.watch().await;
        Ok::<(), Failure>(())
    };
    let result = tokio::select! {
        result = work => result,
        _ = signals.next() => Ok(()),
        exited = &mut operator => return Err(operator_exited(exited)),
    };
    // Running commands belong to this dev mode and end with it, whatever the result.
    let cancelled = tokio::select! {
        cancelled = stop::cancel_all(&client, &mut signals) => cancelled,
        exited = &mut operator => return Err(operator_exited(exited)),
    };
    if let Some(console) = console {
        console.finish().await;
    }
    if let Some(agents) = agents {
        agents.stop().await;
    }
    stop_operator.cancel();
    let exited = join(operator).await;
    // In time: what is queued is bounded.
    let _ = tokio::task::spawn_blocking(move || audit.close()).await;
    result.and(cancelled).and(exited)?;
    state.remove();
    Ok(OK)
}

/// Waits for the operator to stop.
async fn join(operator: JoinHandle<Result<(), RunError>>) -> Result<(), Failure> {
    match operator.await {
        Ok(Ok(())) => Ok(()),
        exited => Err(operator_exited(exited)),
    }
}

/// The failure that the operator exited unexpectedly.
fn operator_exited(exited: Result<Result<(), RunError>, JoinError>) -> Failure {
    Failure::new(match exited {
        Ok(Ok(())) => "the operator exited unexpectedly".to_owned(),
        Ok(Err(error)) => format!("the operator failed: {error}"),
        Err(error) => format!("the operator failed: {error}"),
    })
}

/// Prints addresses and first commands.
fn banner(endpoint: &Endpoint, nodes: &Nodes, state: &State) {
    let Endpoint { socket: files, server } = endpoint;
    let base = server.base();
    let page = format!("{base}/");
    let flag = if server.is_default() { String::new() } else { format!(" --server {base}") };
    let socket = files.socket();
    let examples = [
        (format!("sentinel{flag} run{} -- uname -a", nodes.run_flag()), "run a command and show its output"),
        (format!("sentinel{flag} get tasks"), "list Tasks with their status"),
        (format!("sentinel{flag} logs -f NAME"), "follow the output of a Task"),
        (format!("sentinel{flag} nodes"), "list nodes with their resources"),
        (format!("sentinel{flag} ui"), "open the web page"),
        (
            format!("curl --unix-socket {} http://localhost/api/v1/tasks", socket.display()),
            "the same over HTTP",
        ),
    ];
    let width = examples[..5].iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    // The log of a service would keep the token for others to read.
    let page = if is_terminal(StdStream::Err) { page_link(&page, files.token()) } else { page };
    let mut text = Text::new()
        .styled(Style::Bold, "Sentinel Node, dev mode.")
        .plain(" ")
        .styled(Style::Dim, "Everything runs in this process; stop it with Ctrl-C.")
        .plain(format!("\n  Page   {page}"))
        .plain(format!("\n  API    {base}/api/v1 "))
        .styled(Style::Dim, "(with the token; your own sentinel needs none, root can use the socket)")
        .plain(format!("\n  Socket {}", socket.display()))
        .plain(format!("\n  Token  {}", files.token_file().display()))
        .plain(format!("\n  Nodes  {}\n  State  {}\n", nodes.summary(), state.summary()));
    if effective_uid() == 0 {
        let warning = "  Running as root: so does every command whose Task names no user.\n";
        text = text.styled(Style::Error, warning);
    }
    text = text.plain("Try, in another terminal:\n");
    for (command, meaning) in examples {
        text = text.plain(format!("  {command:<width$}   ")).styled(Style::Dim, meaning).plain("\n");
    }
    note(text);
}
