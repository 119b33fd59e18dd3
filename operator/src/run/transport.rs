//! The certificate of the listeners, and what keeps it current.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::error::RunError;
use super::operator::Background;
use crate::admission::service::Admission;
use crate::certificates::keeper::{EVERY, Keeper};
use crate::certificates::publisher::Publisher;
use crate::clock::Clock;
use crate::config::{Certificate, GeneratedCertificate, PublishedAuthorities, TlsFiles};
use crate::expiry::Expiries;
use crate::metrics::Registry as MetricsRegistry;
use crate::server::tls::{CertificateFiles, FileCertificate, Reloaded, Reloads, ServerCertificate};

/// How often changed files are read.
pub(super) const FILES_EVERY: Duration = Duration::from_secs(30);

/// How long the first certificate may take: the API server may be starting too.
const FIRST_WITHIN: Duration = Duration::from_mins(1);

/// Registers what is counted of certificates and the webhook, in use or not, so that it is 0 and not missing.
pub(super) fn register(metrics: &MetricsRegistry) {
    let _ = Expiries::new(metrics);
    Admission::register(metrics);
    for what in Reloaded::ALL {
        let _ = Reloads::new(metrics, what);
    }
}

/// The certificate of the listeners, if they have one; and what keeps it and its published authorities current. One that the
/// operator makes is kept in this namespace.
///
/// # Errors
/// [`RunError`] when it cannot be used, or made.
pub(super) async fn certificate(
    configured: &Certificate,
    (kubernetes, namespace): (&kube::Config, &str),
    metrics: &MetricsRegistry,
) -> Result<Option<(ServerCertificate, Vec<Background>)>, RunError> {
    match configured {
        Certificate::None | Certificate::Plaintext => Ok(None),
        Certificate::Files(files) => of_files(files, (kubernetes, namespace), metrics).map(Some),
        Certificate::Generated(what) => generated(what, (kubernetes, namespace), metrics).await.map(Some),
    }
}

fn of_files(
    files: &TlsFiles,
    (kubernetes, namespace): (&kube::Config, &str),
    metrics: &MetricsRegistry,
) -> Result<(ServerCertificate, Vec<Background>), RunError> {
    let published = files.published.clone();
    let files = CertificateFiles { certificate: files.cert.clone(), key: files.key.clone() };
    let source =
        FileCertificate::open(files, metrics).map_err(|error| RunError::Certificate(Box::new(error)))?;
    let certificate = source.certificate();
    let keep = move |stop| source.keep_current(FILES_EVERY, stop).boxed();
    let mut background: Vec<Background> = vec![("the certificate", Box::new(keep))];
    if let Some(PublishedAuthorities { file, config_map, webhook }) = published {
        let publisher = Publisher::new(client(kubernetes, metrics)?, namespace, config_map, file);
        let publisher = publisher.with_webhook(webhook);
        let publish = move |stop| publisher.run(FILES_EVERY, stop).boxed();
        background.push(("the published authorities", Box::new(publish)));
    }
    Ok((certificate, background))
}

async fn generated(
    what: &GeneratedCertificate,
    (kubernetes, namespace): (&kube::Config, &str),
    metrics: &MetricsRegistry,
) -> Result<(ServerCertificate, Vec<Background>), RunError> {
    let client = client(kubernetes, metrics)?;
    let mut keeper = Keeper::new(client, namespace.to_owned(), what.clone(), Clock::system(), metrics);
    let first = keeper.first(FIRST_WITHIN).await;
    let certificate = first.map_err(|error| RunError::Certificates(Box::new(error)))?;
    let keep = move |stop| keeper.run(EVERY, stop).boxed();
    Ok((certificate, vec![("the certificate", Box::new(keep))]))
}

fn client(kubernetes: &kube::Config, metrics: &MetricsRegistry) -> Result<kube::Client, RunError> {
    crate::cluster::client::client(kubernetes.clone(), metrics)
        .map_err(|error| RunError::Kubeconfig(error.into()))
}
