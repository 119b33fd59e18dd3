//! Spans to a collector, by OTLP over HTTP (`http/protobuf`).
//!
//! `opentelemetry-otlp` encodes and sends; the queue in front of it is ours, because the SDK's drops without a counter that
//! can be read, and sends from a thread without tokio.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::export::{Export, Traces};
use super::span::{Span, Value};
use crate::metrics::{Counter, Registry};

/// Spans that wait to be sent; more are dropped and counted. Enough for all Attempts of a Run on two thousand nodes.
const MAX_QUEUED: usize = 8192;

/// Spans in one request.
const BATCH: usize = 512;

/// How long spans are gathered before a request that is not full.
const GATHER: Duration = Duration::from_secs(1);

/// How long the collector may take to answer.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// How long what is queued may take to be sent when the operator stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Why no trace can be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The URL is of no use.
    #[error("--trace-otlp-endpoint {endpoint:?}: {why}")]
    Endpoint {
        /// The URL.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// No certificate to trust can be found for an https:// URL.
    #[error(
        "--trace-otlp-endpoint {endpoint:?}: no certificates to trust (SSL_CERT_FILE names a file with them): {source}"
    )]
    Trust {
        /// The URL.
        endpoint: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Otlp {
    exporter: SpanExporter,
    queue: mpsc::Receiver<SpanData>,
    /// Taken from the queue and not sent yet.
    gathered: Vec<SpanData>,
    sent: Counter,
    failed: Counter,
}

/// The queue.
#[derive(Debug)]
struct Queue {
    into: mpsc::Sender<SpanData>,
    dropped: Counter,
    scope: InstrumentationScope,
}

impl Otlp {
    /// Traces to the collector at this URL, and the work that sends them. `/v1/traces` is appended unless the URL has a path.
    /// Headers are read from `OTEL_EXPORTER_OTLP_HEADERS`, as with every exporter of OpenTelemetry.
    ///
    /// # Errors
    /// [`TraceError`]. Whether the collector answers is not tried.
    pub fn new(
        endpoint: &str,
        instance: Option<String>,
        metrics: &Registry,
    ) -> Result<(Traces, Self), TraceError> {
        let unusable = |why: String| TraceError::Endpoint { endpoint: endpoint.to_owned(), why };
        let url = traces_url(endpoint).map_err(unusable)?;
        let client = HyperClient::new(connector(endpoint)?, SEND_WITHIN, None);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(SEND_WITHIN)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let resource = Resource::builder_empty().with_service_name("sentinel-operator").with_attributes(
            [KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))]
                .into_iter()
                .chain(instance.map(|name| KeyValue::new("service.instance.id", name))),
        );
        exporter.set_resource(&resource.build());
        let (into, queue) = mpsc::channel(MAX_QUEUED);
        let count = |result| {
            let help = "Spans for the collector of traces, by what became of them.";
            metrics.counter_with("sentinel_trace_spans_total", help, &[("result", result)])
        };
        let scope = InstrumentationScope::builder("sentinel").with_version(env!("CARGO_PKG_VERSION")).build();
        let traces = Traces::to(Arc::new(Queue { into, dropped: count("dropped"), scope }));
        Ok((
            traces,
            Self { exporter, queue, gathered: Vec::new(), sent: count("sent"), failed: count("failed") },
        ))
    }

    /// Sends until `stop`, and then what is queued, for a short time.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = self.gather() => {}
                () = stop.cancelled() => break,
            }
            self.send(&mut failing).await;
        }
        let rest = async {
            loop {
                self.take_what_waits();
                if self.gathered.is_empty() {
                    break;
                }
                self.send(&mut failing).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_WITHIN, rest).await;
    }

    /// Gathers the next batch. Cancellation safe: what was taken stays in `gathered`.
    async fn gather(&mut self) {
        if self.gathered.is_empty() && self.queue.recv_many(&mut self.gathered, BATCH).await == 0 {
            // The queue is closed; `stop` follows.
            std::future::pending::<()>().await;
        }
        if self.gathered.len() < BATCH {
            tokio::time::sleep(GATHER).await;
            self.take_what_waits();
        }
    }

    fn take_what_waits(&mut self) {
        while self.gathered.len() < BATCH
            && let Ok(next) = self.queue.try_recv()
        {
            self.gathered.push(next);
        }
    }

    async fn send(&mut self, failing: &mut bool) {
        let batch = std::mem::take(&mut self.gathered);
        let spans = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.sent.add(spans);
                *failing = false;
            }
            Err(error) => {
                self.failed.add(spans);
                // Once until a request succeeds.
                if !*failing {
                    tracing::warn!(%error, spans, "unable to send traces; they are dropped until the collector answers");
                }
                *failing = true;
            }
        }
    }
}

impl Export for Queue {
    fn export(&self, span: Span) {
        if !span.context.is_sampled() {
            return;
        }
        if self.into.try_send(data(span, &self.scope)).is_err() {
            self.dropped.add(1);
        }
    }
}

/// A span as the SDK has it.
fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let flags = TraceFlags::default().with_sampled(span.context.is_sampled());
    let trace = TraceId::from_bytes(span.context.trace_id());
    let id = SpanId::from_bytes(span.context.span_id());
    let attributes = span.attributes.into_iter().map(|(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    });
    SpanData {
        span_context: SpanContext::new(trace, id, flags, false, TraceState::default()),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: span.is_remote_child,
        span_kind: SpanKind::Internal,
        name: span.name.into(),
        start_time: time(span.from.0),
        end_time: time(span.to.0),
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.failure.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn time(unix_millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_millis).unwrap_or_default())
}

/// The URL that traces are posted to.
fn traces_url(endpoint: &str) -> Result<String, String> {
    let url: http::Uri = endpoint.parse().map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
        return Err("expected http://HOST:PORT or https://HOST:PORT, usually with port 4318".to_owned());
    }
    let has_path = !matches!(url.path(), "" | "/");
    Ok(if has_path { endpoint.to_owned() } else { format!("{}/v1/traces", endpoint.trim_end_matches('/')) })
}

/// Connects with the certificates that the machine trusts, or without TLS for http://.
fn connector(endpoint: &str) -> Result<HttpsConnector<HttpConnector>, TraceError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = |source| TraceError::Trust { endpoint: endpoint.to_owned(), source };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(trust)?;
    let config = if endpoint.starts_with("https:") {
        builder.with_platform_verifier().map_err(trust)?.with_no_client_auth()
    } else {
        builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_appended_to_a_url_without_one() {
        let posted = |endpoint| traces_url(endpoint).unwrap();
        assert_eq!(posted("http://collector:4318"), "http://collector:4318/v1/traces");
        assert_eq!(posted("https://collector:4318/"), "https://collector:4318/v1/traces");
        assert_eq!(posted("http://collector/otlp/traces"), "http://collector/otlp/traces");
        for bad in ["collector:4318", "grpc://collector", "http://", "", "/v1/traces", "http://a b"] {
            let error = Otlp::new(bad, None, &Registry::new()).err().unwrap().to_string();
            assert!(error.starts_with("--trace-otlp-endpoint"), "{bad:?}: {error}");
        }
    }
}
