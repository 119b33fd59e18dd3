//! The admission webhook: its keys, and its listener.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;

use super::error::RunError;
use super::operator::Background;
use crate::admission::keys::{Kept, KeyKeeper};
use crate::admission::service::Admission as Service;
use crate::clock::Clock;
use crate::config::Admission;
use crate::metrics::Registry as MetricsRegistry;
use crate::resource::stamp::Stamps;
use crate::server::tls::{Clients, ServerCertificate, Tls};
use crate::server::{Exposure, Limits, Server};

/// How long the first key may take: the API server may be starting too.
const FIRST_WITHIN: Duration = Duration::from_mins(1);

/// By which Tasks are stamped.
#[derive(Default)]
pub(super) struct Keyed {
    pub(super) stamps: Stamps,
    /// Notified when the webhook is called at a path that is not its own.
    pub(super) strayed: Arc<Notify>,
    /// What keeps the keys current.
    pub(super) keep: Vec<Background>,
}

/// Reads the keys by which Tasks are stamped, or makes the first one; what keeps them current.
///
/// # Errors
/// [`RunError::AdmissionKeys`] when there is none.
pub(super) async fn keys(
    configured: Option<&Admission>,
    client: kube::Client,
    namespace: &str,
) -> Result<Keyed, RunError> {
    let stamps = Stamps::default();
    let Some(Admission { secret, webhook, .. }) = configured else { return Ok(Keyed::default()) };
    let kept = Kept { secret: secret.clone(), webhook: webhook.clone() };
    let mut keeper = KeyKeeper::new(client, namespace, kept, stamps.clone());
    keeper.first(FIRST_WITHIN).await.map_err(|error| RunError::AdmissionKeys(Box::new(error)))?;
    let strayed = keeper.strayed();
    let keep = move |stop| keeper.run(stop).boxed();
    Ok(Keyed { stamps, strayed, keep: vec![("the keys of the admission webhook", Box::new(keep))] })
}

/// Opens the port of the webhook; what serves it. Every replica does, the leader or not.
///
/// # Errors
/// [`RunError`] when the port cannot be opened, or the certificate cannot be used.
pub(super) async fn listen(
    configured: Option<&Admission>,
    keyed: &Keyed,
    certificate: Option<&ServerCertificate>,
    metrics: &MetricsRegistry,
) -> Result<Vec<Background>, RunError> {
    let (Some(Admission { listen, .. }), Some(certificate)) = (configured, certificate) else {
        return Ok(Vec::new());
    };
    let tls = Tls::new(certificate.clone(), Clients::Unasked);
    let tls = tls.map_err(|error| RunError::Certificate(Box::new(error)))?;
    let server = Server::bind("admission", *listen, Exposure::Anywhere, Limits::of_proxy(), metrics).await?;
    let service = Service::new(keyed.stamps.clone(), keyed.strayed.clone(), Clock::system(), metrics);
    let address = server.local_addr();
    tracing::info!(%address, "the admission webhook is served");
    let serve = move |stop| server.with_tls(tls).serve(service, stop).boxed();
    Ok(vec![("the admission webhook", Box::new(serve))])
}
