//! `sentinel dev`: operator and agents in one process, over embedded stores. The only place that sees both.
//!
//! The operator is the same as in a cluster; its seams are filled by what needs nothing: the cluster in memory,
//! History in one file, presence in memory, random tokens for the agents. The agents are the same too, and so are
//! their supervisors. What is printed is read from the HTTP API, like any other client would.
//!
//! In reading order: [`state`] (where it is kept), [`nodes`] (the agents), [`files`] (Tasks from files, watched),
//! [`console`] (what is printed), [`stop`] (the end).

mod console;
mod files;
mod nodes;
mod state;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use sentinel_operator::clock::Clock;
use sentinel_operator::cluster::EmbeddedCluster;
use sentinel_operator::config::any_loopback_port;
use sentinel_operator::gateway::{Settings, StaticTokens};
use sentinel_operator::history::embedded::{EmbeddedHistory, EmbeddedOptions};
use sentinel_operator::metrics::Registry;
use sentinel_operator::presence::memory::MemoryPresence;
use sentinel_operator::run::{Election, Operator, Options, RunError, Seams};
use sentinel_operator::server::{Exposure, ServerError};
use sentinel_operator::telemetry;
use sentinel_protocol::ids::Epoch;
use tokio_util::sync::CancellationToken;

use self::nodes::Nodes;
use self::state::State;
use crate::args::DevArgs;
use crate::client::{Client, Server};
use crate::commands::apply::read_all;
use crate::exit::{Ended, Failure, OK};
use crate::interrupt;
use crate::output::color::Paint;
use crate::output::format::note;
use crate::output::text::Text;

/// How long the operator may take to hand what it holds to History at the end.
const DRAIN: Duration = Duration::from_secs(3);

pub(crate) async fn perform(args: DevArgs, namespace: &str) -> Ended {
    // Everything that can be wrong with the files is said before anything is started.
    read_all(&args.files, namespace)?;
    telemetry::init(telemetry::LogFormat::Text, &args.log)
        .map_err(|error| Failure::usage(format!("--log {:?}: {error}", args.log)))?;
    let state = State::open(args.state.as_deref())?;
    let clock = Clock::system();
    let tokens = StaticTokens::new();
    let cluster =
        EmbeddedCluster::in_directory(&state.path().join("cluster"), clock.clone()).map_err(|error| {
            Failure::new(format!("failed to open the Tasks kept in {}: {error}", state.shown()))
        })?;
    let nodes = Nodes::plan(args.nodes)?;
    cluster.set_nodes(nodes.facts());

    let operator = start(&args, &state, cluster, tokens.clone(), clock).await?;
    let client = Client::new(Server::at(operator.api_addr()));
    let gateway = operator.gateway_addr();
    let ending = CancellationToken::new();
    let operator_ending = ending.clone();
    let mut operator =
        tokio::spawn(async move { operator.run_until(operator_ending.cancelled_owned()).await });

    let work = async {
        let agents = nodes.start(gateway, &tokens, state.path())?;
        nodes.wait_until_here(&client).await?;
        banner(&client, &nodes, &state);
        let console = console::start(&client).await?;
        let mut files = files::Files::new(args.files.clone(), namespace.to_owned(), client.clone());
        files.apply_all().await?;
        if args.files.is_empty() {
            note("No Task yet. Try the lines above, or give files: sentinel dev examples/hello.yaml");
        }
        let watching = tokio::spawn(files.watch());
        interrupt::pressed().await?;
        watching.abort();
        stop::end_commands(&client).await?;
        console.finish().await;
        agents.stop().await;
        Ok::<(), Failure>(())
    };
    let result = tokio::select! {
        result = work => result,
        ended = &mut operator => return Err(gone(ended)),
    };
    ending.cancel();
    let ended = operator.await.map_err(|error| Failure::new(format!("the operator failed: {error}")))?;
    result?;
    ended.map_err(|error| Failure::new(format!("the operator failed: {error}")))?;
    state.remove();
    Ok(OK)
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
) -> Result<Operator, Failure> {
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
        metrics: Registry::new(),
    };
    let options = Options {
        gateway: any_loopback_port(),
        gateway_tls: None,
        api: args.listen,
        metrics: None,
        drain: DRAIN,
        settings: Settings::default(),
        election: Election::Alone(Epoch(1)),
    };
    Operator::start(seams, options).await.map_err(|error| not_started(args, &error))
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
            Failure::new(format!("{} is taken", args.listen)).hint(
                "Is another `sentinel dev` running? Take another port with --listen 127.0.0.1:7990, or any free one with --listen 127.0.0.1:0",
            )
        }
        ServerError::Exposed { .. } => Failure::usage(format!("--listen {}: {error}", args.listen)),
        _ => Failure::new(format!("{error}{}", cause(error))),
    }
}

/// Says where to look.
fn banner(client: &Client, nodes: &Nodes, state: &State) {
    let base = client.server().base();
    let flag = if client.server().is_default() { String::new() } else { format!(" --server {base}") };
    let tries = [
        (format!("sentinel{flag} run{} -- uname -a", nodes.run_flag()), "run a command, see its output"),
        (format!("sentinel{flag} get tasks"), "what there is, and how it stands"),
        (format!("sentinel{flag} logs -f NAME"), "the output of a Task"),
        (format!("sentinel{flag} nodes"), "how the nodes do"),
        (format!("curl {base}/api/v1/tasks"), "the same for programs"),
    ];
    let width = tries.iter().map(|(words, _)| words.len()).max().unwrap_or(0);
    let mut text = Text::new()
        .painted(Paint::Strong, "Sentinel Node, dev mode.")
        .then(" ")
        .painted(Paint::Faint, "Everything runs in this process; Ctrl-C ends it.")
        .then(format!("\n  API    {base}/api/v1\n  Nodes  {}\n  State  {}", nodes.shown(), state.shown()))
        .then("\nTry, in another terminal:\n");
    for (words, remark) in tries {
        text = text.then(format!("  {words:<width$}   ")).painted(Paint::Faint, remark).then("\n");
    }
    note(text);
}
