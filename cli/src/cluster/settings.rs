//! Which cluster, and whose credentials.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use sentinel_api::client::ClusterName;
use sentinel_operator::files;
use sentinel_protocol::product::user_agent;

use crate::exit::Failure;
use crate::output::quoted;

/// What the command line has about the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The kubeconfig; that of kubectl by default.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context; the current one by default.
    pub(crate) context: Option<String>,
    /// The user to act as.
    pub(crate) user: Option<String>,
    /// The groups to act as.
    pub(crate) groups: Vec<String>,
}

/// A cluster, and credentials for it.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Its name, for people.
    pub(crate) name: ClusterName,
    /// The client of its API server.
    pub(crate) client: Client,
    /// What the client was made of.
    pub(crate) config: Config,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration has credentials.
        f.debug_struct("Cluster").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether there is a kubeconfig, or this is a pod with a service account.
pub(crate) fn is_configured() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("KUBECONFIG")
        || home_config().is_some_and(|path| path.is_file())
        || (is_set("KUBERNETES_SERVICE_HOST")
            && PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token").exists())
}

fn home_config() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".kube/config"))
}

/// Most bytes of a kubeconfig: of thousands of clusters.
const MAX_KUBECONFIG: u64 = 16 << 20;

/// A kubeconfig that the command line names: a pipe, or a regular file that is not too long. A device may have no end.
fn read(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let is_pipe = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if !is_pipe {
        let unread = |error| KubeconfigError::ReadConfig(error, path.to_owned());
        files::check(path, MAX_KUBECONFIG).map_err(unread)?;
    }
    Kubeconfig::read_from(path)
}

/// The contexts of the kubeconfig, for completion.
pub(crate) fn contexts(kubeconfig: Option<&PathBuf>) -> Vec<String> {
    let read = match kubeconfig {
        Some(path) => read(path),
        None => Kubeconfig::read(),
    };
    read.map(|read| read.contexts.into_iter().map(|context| context.name).collect()).unwrap_or_default()
}

impl Settings {
    /// Whether the command line names a cluster.
    pub(crate) fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some() || self.user.is_some() || !self.groups.is_empty()
    }

    /// The cluster, with a client of its API server. An exec plugin may run; nothing is sent yet.
    ///
    /// # Errors
    /// When there is no kubeconfig, or it lacks the context, or the credentials cannot be read.
    pub(crate) async fn connect(&self) -> Result<Cluster, Failure> {
        let (mut config, context) = self.config().await?;
        config.default_retry = false;
        if let Ok(agent) = HeaderValue::try_from(user_agent("sentinel")) {
            config.headers.push((USER_AGENT, agent));
        }
        if self.user.is_some() {
            config.auth_info.impersonate.clone_from(&self.user);
        }
        if !self.groups.is_empty() {
            config.auth_info.impersonate_groups = Some(self.groups.clone());
        }
        let source = match &context {
            Some(context) => format!("context {context}"),
            None => "in-cluster".to_owned(),
        };
        let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let name = ClusterName { address, source, flags: self.flags() };
        let client = Client::try_from(config.clone()).map_err(|error| {
            let why = sentinel_telemetry::causes(&error);
            Failure::new(format!(
                "failed to prepare the connection to {} ({}): {why}",
                name.address, name.source
            ))
            .hint("Does kubectl work with the same kubeconfig? Try: kubectl auth whoami")
        })?;
        Ok(Cluster { name, client, config })
    }

    async fn config(&self) -> Result<(Config, Option<String>), Failure> {
        let read = match &self.kubeconfig {
            Some(path) => read(path),
            None => Kubeconfig::read(),
        };
        let read = match read {
            Ok(read) if !read.contexts.is_empty() || self.is_given() => read,
            Ok(_) => return in_cluster("the kubeconfig has no context"),
            Err(error) if self.kubeconfig.is_none() => {
                let in_pod = in_cluster(&error.to_string());
                return in_pod.map_err(|failure| self.unread(&error).hint(failure.hint.unwrap_or_default()));
            }
            Err(error) => return Err(self.unread(&error)),
        };
        let context = self.context.clone().or_else(|| read.current_context.clone());
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let known: Vec<String> = read.contexts.iter().map(|context| context.name.clone()).collect();
        if let Some(wanted) = &context
            && !known.contains(wanted)
        {
            let message = format!("no context {} in the kubeconfig {}", quoted(wanted), self.path());
            return Err(Failure::usage(message).hint(format!("It has: {}", listed(&known))));
        }
        let config = Config::from_custom_kubeconfig(read, &options).await.map_err(|error| match error {
            KubeconfigError::CurrentContextNotSet | KubeconfigError::LoadContext(_) => {
                let message = format!("the kubeconfig {} has no current context", self.path());
                let hint = format!("Name one with --context: {}", listed(&known));
                Failure::usage(message).hint(hint)
            }
            other => self.unread(&other),
        })?;
        Ok((config, context))
    }

    fn unread(&self, error: &KubeconfigError) -> Failure {
        // The error repeats the path; its cause does not.
        let why = match error {
            KubeconfigError::ReadConfig(cause, _) => cause.to_string(),
            other => sentinel_telemetry::causes(other),
        };
        Failure::new(format!("failed to read the kubeconfig {}: {why}", self.path()))
            .hint("Name another with --kubeconfig FILE (or KUBECONFIG), or a server with --server URL")
    }

    /// Where the kubeconfig is, for messages.
    fn path(&self) -> String {
        if let Some(path) = &self.kubeconfig {
            return path.display().to_string();
        }
        let variable = std::env::var("KUBECONFIG").ok().filter(|value| !value.is_empty());
        variable.unwrap_or_else(|| "~/.kube/config".to_owned())
    }

    /// The flags of the command line, for another one.
    fn flags(&self) -> String {
        let mut flags = String::new();
        let mut add = |flag: &str, value: &str| {
            for part in [" ", flag, " ", &quoted(value)] {
                flags.push_str(part);
            }
        };
        if let Some(path) = &self.kubeconfig {
            add("--kubeconfig", &path.to_string_lossy());
        }
        if let Some(context) = &self.context {
            add("--context", context);
        }
        if let Some(user) = &self.user {
            add("--as", user);
        }
        for group in &self.groups {
            add("--as-group", group);
        }
        flags
    }
}

fn in_cluster(why_not: &str) -> Result<(Config, Option<String>), Failure> {
    Config::incluster().map(|config| (config, None)).map_err(|error: InClusterError| {
        Failure::new(format!("no cluster to talk to: {why_not}, and this is not a pod: {error}")).hint(
            "Name a kubeconfig with --kubeconfig FILE (or KUBECONFIG), or a server with --server URL, or start one with: sentinel dev",
        )
    })
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
