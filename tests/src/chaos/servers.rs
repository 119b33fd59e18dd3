//! A set of real servers as child processes, so that each can be killed: the parts of `tests/parts`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use mongodb::bson::doc;
use redis::AsyncCommands;

use super::process::Process;
use crate::cluster::repository;
use crate::parts::{Bin, Parts};
use crate::ports::free_port;
use crate::wait::until;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_mins(1);

/// The servers.
pub struct Servers {
    /// Where they are.
    pub parts: Parts,
    /// The store of the API server.
    pub etcd: Arc<Process>,
    /// The Kubernetes API server.
    pub apiserver: Arc<Process>,
    /// Redis.
    pub redis: Arc<Process>,
    /// What speaks MongoDB's protocol.
    pub ferretdb: Arc<Process>,
    /// What keeps FerretDB's data.
    pub postgres: Arc<Process>,
}

impl Servers {
    /// Starts all of them in this directory and waits until they answer.
    pub async fn start(directory: &Path) -> Self {
        let ports: [u16; 5] = std::array::from_fn(|_| free_port());
        let [etcd_port, api_port, redis_port, postgres_port, ferretdb_port] = ports;
        let serve = |name: &str, folder: &str, numbers: &[u16]| {
            let mut arguments: Vec<OsString> = vec![directory.join(folder).into()];
            arguments.extend(numbers.iter().map(|number| number.to_string().into()));
            let program = repository().join(format!("tests/parts/serve-{name}"));
            Process::new(name, program, arguments, directory.join(format!("{name}.log")))
        };
        let control_plane = directory.join("apiserver");
        let servers = Self {
            parts: Parts {
                kubeconfig: control_plane.join("admin.kubeconfig"),
                api_server: format!("https://127.0.0.1:{api_port}"),
                redis_url: format!("redis://127.0.0.1:{redis_port}/"),
                mongodb_uri: format!("mongodb://127.0.0.1:{ferretdb_port}/"),
                bin: Bin { kubectl: PathBuf::from("kubectl") },
            },
            etcd: serve("etcd", "etcd", &[etcd_port]),
            apiserver: serve("apiserver", "apiserver", &[api_port, etcd_port]),
            redis: serve("redis", "redis", &[redis_port]),
            ferretdb: serve("ferretdb", "ferretdb", &[ferretdb_port, postgres_port]),
            postgres: serve("postgres", "postgres", &[postgres_port]),
        };
        for server in servers.all() {
            server.start().await;
        }
        servers.answer().await;
        servers
    }

    /// Every one, in the order in which they are started.
    pub fn all(&self) -> [&Arc<Process>; 5] {
        [&self.etcd, &self.postgres, &self.redis, &self.apiserver, &self.ferretdb]
    }

    /// Waits until each of them answers.
    pub async fn answer(&self) {
        until("the API server answers", PATIENCE, || async {
            for server in self.all() {
                server.restart_if_exited().await;
            }
            if !self.parts.kubeconfig.exists() {
                return Err("no kubeconfig yet".to_owned());
            }
            let client = self.parts.client().await;
            Api::<Namespace>::all(client).get("default").await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        until("Redis answers", PATIENCE, || async {
            self.redis.restart_if_exited().await;
            let client = redis::Client::open(self.parts.redis_url.as_str())?;
            let mut redis = client.get_multiplexed_async_connection().await?;
            redis.exists::<_, bool>("x").await
        })
        .await;
        let options = format!("{}?serverSelectionTimeoutMS=1000", self.parts.mongodb_uri);
        let mongo = mongodb::Client::with_uri_str(&options).await.expect("a client");
        until("FerretDB answers", PATIENCE, || async {
            for server in [&self.postgres, &self.ferretdb] {
                server.restart_if_exited().await;
            }
            mongo.database("x").collection::<mongodb::bson::Document>("x").find_one(doc! {}).await
        })
        .await;
    }
}
