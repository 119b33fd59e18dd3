//! Measures how soon another operator leads, and how soon all agents are connected to it.
//!
//! Several operators as processes on a real API server, and a agents of simulated agents. The leader is killed, or
//! asked to end; it is started again at once, as a kubelet would. Three times are takeover from the signal: until the
//! Lease names another leader, until every agent has a Session with that one, and until a Task on all of them, made
//! right after the signal, is complete.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use sentinel_operator::leader::{ADDRESS_ANNOTATION, EPOCH_ANNOTATION};
use sentinel_operator::resource::Task;
use serde_json::json;

use super::fleet;
use super::process::Process;
use super::rng::Rng;
use super::servers::Servers;
use super::simulated_agents::SimulatedAgents;
use crate::cluster::TestNamespace;
use crate::ports::free_port;
use crate::wait::until;

/// Name of the Lease, the operator's default.
const LEASE: &str = "sentinel-operator";

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Age from which a Session counts as stable: its agent has reset its backoff.
const SETTLED: Duration = Duration::from_secs(6);

/// How to run it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Simulated agents.
    pub agents: usize,
    /// Operators.
    pub operators: usize,
    /// How often the leader is killed, and how often it is asked to end.
    pub rounds: usize,
    /// The seed of the agents' random waits.
    pub seed: u64,
}

/// How the leader is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Killed,
    Terminated,
}

/// Times of one takeover, since the signal.
#[derive(Debug, Clone, Copy)]
struct Takeover {
    /// The Lease names another leader.
    led: Duration,
    /// Every agent has a Session with it.
    connected: Duration,
    /// A Task on all of them is complete.
    complete: Duration,
}

/// The figures of all rounds.
#[derive(Debug, Default)]
pub struct Report {
    agents: usize,
    killed: Vec<Takeover>,
    asked: Vec<Takeover>,
}

impl Report {
    /// Whether another operator led within the limit each time.
    pub fn is_in_time(&self) -> bool {
        let within = |all: &[Takeover], limit| all.iter().all(|takeover| takeover.led <= limit);
        within(&self.killed, Stop::Killed.limit()) && within(&self.asked, Stop::Terminated.limit())
    }
}

impl Stop {
    /// Until another leads.
    fn limit(self) -> Duration {
        match self {
            Self::Killed => Duration::from_secs(5),
            Self::Terminated => Duration::from_millis(1_500),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<58}{:>8}{:>8}{:>8}{:>8}",
            "since the signal, seconds", "p50", "p99", "most", "limit"
        )?;
        for (what, all, stop) in
            [("killed", &self.killed, Stop::Killed), ("asked to end", &self.asked, Stop::Terminated)]
        {
            let mut line = |name: String, of: fn(&Takeover) -> Duration, limit: Option<Duration>| {
                let mut times: Vec<Duration> = all.iter().map(of).collect();
                times.sort_unstable();
                let at = |share: f64| {
                    let rank = (times.len() as f64 * share).ceil() as usize;
                    times.get(rank.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64()
                };
                let limit = limit.map(|limit| format!("{:.1}", limit.as_secs_f64())).unwrap_or_default();
                let what = format!("{what} {} times: {name}", all.len());
                writeln!(f, "{what:<58}{:>8.2}{:>8.2}{:>8.2}{limit:>8}", at(0.5), at(0.99), at(1.0))
            };
            line("another leads".to_owned(), |takeover| takeover.led, Some(stop.limit()))?;
            line(format!("all {} agents connected to it", self.agents), |takeover| takeover.connected, None)?;
            line("a Task on all of them complete".to_owned(), |takeover| takeover.complete, None)?;
        }
        Ok(())
    }
}

/// The current leader.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leader {
    epoch: u64,
    address: String,
}

/// One of the operators.
struct Replica {
    process: Arc<Process>,
    gateway: u16,
    metrics: u16,
}

struct Scenario {
    options: Options,
    directory: PathBuf,
    servers: Servers,
    namespace: TestNamespace,
    replicas: Vec<Replica>,
    agents: SimulatedAgents,
    http: reqwest::Client,
}

/// Measures it. Where everything was written is removed, and left when it panics.
pub async fn run(options: Options) -> Report {
    let begun = Instant::now();
    let scenario = Scenario::set(options).await;
    println!(
        "{} operators and {} agents are up after {:.0?}",
        options.operators,
        options.agents,
        begun.elapsed()
    );
    let mut report = Report { agents: options.agents, ..Report::default() };
    for number in 1..=options.rounds {
        for stop in [Stop::Killed, Stop::Terminated] {
            let takeover = scenario.round(stop, &format!("{stop:?}-{number}").to_lowercase()).await;
            println!("{stop:?} {number}: {takeover:.2?}");
            match stop {
                Stop::Killed => report.killed.push(takeover),
                Stop::Terminated => report.asked.push(takeover),
            }
        }
    }
    scenario.end().await;
    report
}

impl Scenario {
    async fn set(options: Options) -> Self {
        let directory = tempfile::Builder::new().prefix("failover-").tempdir().expect("a directory").keep();
        let servers = Servers::start(&directory).await;
        let namespace = TestNamespace::on(servers.parts.clone(), "failover").await;
        let mut replicas = Vec::new();
        for number in 0..options.operators {
            let [gateway, api, metrics]: [u16; 3] = std::array::from_fn(|_| free_port());
            let more = [
                ("--lease-namespace", namespace.name.clone()),
                ("--advertise", format!("127.0.0.1:{gateway}")),
            ];
            let name = format!("operator-{number}");
            let process = fleet::operator(&name, &namespace, &directory, [gateway, api, metrics], &more);
            process.start().await;
            replicas.push(Replica { process, gateway, metrics });
        }
        let gateways: Vec<u16> = replicas.iter().map(|replica| replica.gateway).collect();
        let tokens = tokens(&namespace, options.agents).await;
        let agents = SimulatedAgents::spawn(tokens, &gateways, &mut Rng::new(options.seed));
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client");
        let scenario = Self { options, directory, servers, namespace, replicas, agents, http };
        scenario.wait_until_stable().await;
        scenario
    }

    /// One takeover, begun when the system is stable.
    async fn round(&self, stop: Stop, name: &str) -> Takeover {
        self.wait_until_stable().await;
        let before = self.leader().await.expect("a leader");
        let leader = self.replicas.iter().find(|one| before.address.ends_with(&format!(":{}", one.gateway)));
        let process = Arc::clone(&leader.expect("an operator of ours").process);
        self.agents.ends();
        let begun = Instant::now();
        let stopped = tokio::spawn(async move {
            match stop {
                Stop::Killed => process.kill(Duration::ZERO).await,
                Stop::Terminated => process.restart(Duration::from_secs(30)).await,
            }
        });
        let (led, connected, complete) = tokio::join!(
            self.another_leads(before.epoch, begun),
            self.all_connected(before.epoch, begun),
            self.task_complete(name, begun),
        );
        assert!(stopped.await.expect("it does not panic"), "another fault holds the leader");
        println!("  ends of dials and Sessions: {:?}", self.agents.ends());
        self.remove(name).await;
        Takeover { led, connected, complete }
    }

    async fn another_leads(&self, epoch: u64, begun: Instant) -> Duration {
        until("another operator leads", PATIENCE, || async {
            match self.leader().await {
                Some(leader) if leader.epoch > epoch => Ok(begun.elapsed()),
                other => Err(other),
            }
        })
        .await
    }

    async fn all_connected(&self, epoch: u64, begun: Instant) -> Duration {
        until("every agent is connected to it", PATIENCE, || async {
            let connected = self.agents.led_above(epoch);
            if connected == self.options.agents { Ok(begun.elapsed()) } else { Err(connected) }
        })
        .await
    }

    async fn task_complete(&self, name: &str, begun: Instant) -> Duration {
        let task = json!({
            "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": { "name": name },
            "spec": {
                "targets": { "all": true }, "run": { "command": ["true"] },
                "rollout": { "maxConcurrent": "100%" },
            },
        });
        let task: Task = serde_json::from_value(task).expect("a Task");
        self.tasks().create(&PostParams::default(), &task).await.expect("the API server takes it");
        until("the Task is complete", PATIENCE, || async {
            let status =
                serde_json::to_value(self.tasks().get(name).await.map_err(|e| e.to_string())?.status);
            let run = &status.expect("JSON")["run"];
            if run["finishedAt"].is_null() {
                return Err(run.to_string());
            }
            assert_eq!(run["verdict"], "Complete", "{run}");
            Ok(begun.elapsed())
        })
        .await
    }

    /// Waits for the archive, so that no work of this round continues in the next.
    async fn remove(&self, name: &str) {
        until("the Task is archived", PATIENCE, || async {
            let task = self.tasks().get(name).await.map_err(|error| error.to_string())?;
            let conditions = task.status.map(|status| status.conditions).unwrap_or_default();
            let archived = conditions.iter().any(|one| one.type_ == "Archived" && one.status == "True");
            if archived { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
        self.tasks().delete(name, &DeleteParams::default()).await.expect("deleted");
        until("the Task is gone", PATIENCE, || async {
            match self.tasks().get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits until every operator is ready and every agent has had its Session for a while.
    async fn wait_until_stable(&self) {
        for replica in &self.replicas {
            let url = format!("http://127.0.0.1:{}/readyz", replica.metrics);
            until("the operator is ready", PATIENCE, || async {
                replica.process.restart_if_exited().await;
                let answer = self.http.get(&url).send().await.map_err(|error| error.to_string())?;
                if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
            })
            .await;
        }
        until("every agent is connected", PATIENCE, || async {
            let (connected, youngest) = (self.agents.led_above(0), self.agents.youngest());
            let wait_until_stable = connected == self.options.agents && youngest >= SETTLED;
            if wait_until_stable { Ok(()) } else { Err((connected, youngest)) }
        })
        .await;
    }

    async fn leader(&self) -> Option<Leader> {
        let leases = Api::<Lease>::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let lease = leases.get(LEASE).await.ok()?;
        let annotations = lease.metadata.annotations?;
        let epoch = annotations.get(EPOCH_ANNOTATION)?.parse().ok()?;
        Some(Leader { epoch, address: annotations.get(ADDRESS_ANNOTATION)?.clone() })
    }

    fn tasks(&self) -> Api<Task> {
        Api::namespaced(self.namespace.client.clone(), &self.namespace.name)
    }

    async fn end(self) {
        drop(self.agents);
        for replica in &self.replicas {
            replica.process.end().await;
        }
        for server in self.servers.all() {
            server.end().await;
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Nodes with these many agents' tokens.
async fn tokens(namespace: &TestNamespace, agents: usize) -> Vec<String> {
    let token = |number: usize| async move {
        let node = namespace.node(&format!("n{number}"), &[]).await;
        namespace.agent_token(&node).await
    };
    stream::iter(0..agents).map(token).buffer_unordered(16).collect().await
}
