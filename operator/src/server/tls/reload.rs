//! Reads files again and again, and counts what became of it.
//!
//! The files are polled: the kubelet swaps a symbolic link, which a watch on the file itself would miss.

use std::path::PathBuf;
use std::time::Duration;

use sentinel_telemetry::causes;
use tokio_util::sync::CancellationToken;

use super::error::TlsError;
use crate::metrics::{Counter, Registry};

/// What is replaced while it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The certificate of the listeners.
    ServerCertificate,
    /// The authorities of a trusted proxy.
    TrustedProxy,
    /// The authorities of the API server's front proxy, and its headers.
    FrontProxy,
}

const RELOADED: &str = "Reloaded";
const PANICKED: &str = "Panicked";

impl Reloaded {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ServerCertificate, Self::TrustedProxy, Self::FrontProxy];

    /// The values of the metric label `result`.
    pub(crate) fn results(self) -> &'static [&'static str] {
        match self {
            Self::ServerCertificate => &[
                RELOADED,
                PANICKED,
                "Read",
                "Pem",
                "Pair",
                "Setup",
                "Cluster",
                "Absent",
                "Issue",
                "Contended",
            ],
            Self::TrustedProxy => &[RELOADED, PANICKED, "Read", "Authorities"],
            Self::FrontProxy => &[RELOADED, PANICKED, "Read", "Content", "Authorities"],
        }
    }

    fn counter(self, registry: &Registry, result: &'static str) -> Counter {
        let of_authorities = |proxy| {
            let help = "Authorities of proxies that were taken into use after a change, and attempts that failed, by result.";
            let name = "sentinel_proxy_authorities_reloads_total";
            registry.counter_with(name, help, &[("proxy", proxy), ("result", result)])
        };
        match self {
            Self::ServerCertificate => {
                let help = "Certificates reloaded, and attempts that failed, by result.";
                let name = "sentinel_server_certificate_reloads_total";
                registry.counter_with(name, help, &[("result", result)])
            }
            Self::TrustedProxy => of_authorities("trusted"),
            Self::FrontProxy => of_authorities("front"),
        }
    }
}

/// Counts reloads. Clones share it.
#[derive(Debug, Clone)]
pub struct Reloads(Vec<(&'static str, Counter)>);

impl Reloads {
    /// Registers the counters, with all results.
    pub fn new(registry: &Registry, what: Reloaded) -> Self {
        Self(what.results().iter().map(|result| (*result, what.counter(registry, result))).collect())
    }

    /// Another one is in use.
    pub fn succeeded(&self) {
        self.failed(RELOADED);
    }

    /// An attempt failed with an error of this category.
    pub fn failed(&self, category: &'static str) {
        let known = self.0.iter().find(|(result, _)| *result == category);
        debug_assert!(known.is_some(), "{category} is not registered");
        if let Some((_, counter)) = known {
            counter.add(1);
        }
    }
}

/// What is read again from files; `true` when their content is another one, and in use.
pub(super) trait Reload: Clone + Send + 'static {
    /// What it is, in messages.
    const WHAT: &'static str;

    /// The file to name.
    fn file(&self) -> PathBuf;

    /// Reads the files once.
    fn reload(&self) -> Result<bool, TlsError>;
}

/// Reads the files every `every` until `stop`.
pub(super) async fn keep_current<R: Reload>(
    source: R,
    every: Duration,
    reloads: Reloads,
    stop: CancellationToken,
) {
    let what = R::WHAT;
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let (reading, file) = (source.clone(), source.file());
        match tokio::task::spawn_blocking(move || reading.reload()).await {
            Ok(Ok(changed)) => {
                failing = false;
                if changed {
                    reloads.succeeded();
                    tracing::info!(file = %file.display(), "{what} reloaded");
                }
            }
            Ok(Err(error)) => {
                reloads.failed(error.category());
                // Logged once until a reload succeeds, not at every attempt.
                if !failing {
                    tracing::warn!(
                        error = causes(&error),
                        "unable to reload the {what}; the current one stays in use"
                    );
                }
                failing = true;
            }
            Err(error) => {
                reloads.failed(PANICKED);
                tracing::error!(%error, "the reload of the {what} panicked; the current one stays in use");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_counted_from_the_start() {
        let registry = Registry::new();
        for what in Reloaded::ALL {
            let reloads = Reloads::new(&registry, what);
            let before = registry.render().lines().count();
            for result in what.results() {
                reloads.failed(result);
            }
            let text = registry.render();
            assert_eq!(text.lines().count(), before, "{text}");
        }
        let text = registry.render();
        for line in [
            "sentinel_server_certificate_reloads_total{result=\"Contended\"} 1",
            "sentinel_proxy_authorities_reloads_total{proxy=\"front\",result=\"Content\"} 1",
            "sentinel_proxy_authorities_reloads_total{proxy=\"trusted\",result=\"Reloaded\"} 1",
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "no line {line:?} in\n{text}");
        }
    }
}
