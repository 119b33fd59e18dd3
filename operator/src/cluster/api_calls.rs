//! Counts the calls of the API server, under client-go's name.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode, Uri};
use tower_layer::Layer;
use tower_service::Service;

use crate::metrics::{Counter, Registry};

/// Counts each call of a client.
#[derive(Debug, Clone)]
pub(super) struct CountCalls {
    metrics: Registry,
    host: &'static str,
}

impl CountCalls {
    /// Calls of this API server.
    pub(super) fn new(metrics: &Registry, server: &Uri) -> Self {
        // Not the authority, which can have a password.
        let host = server.host().unwrap_or("unknown");
        let host = server.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // Labels of metrics are static. A process makes a few clients, all of one API server.
        Self { metrics: metrics.clone(), host: Box::leak(host.into_boxed_str()) }
    }

    fn counter(&self, method: &'static str, code: &'static str) -> Counter {
        let help =
            "Calls of the API server, by status code and method; `<error>` is a call without an answer.";
        let labels = [("code", code), ("host", self.host), ("method", method)];
        self.metrics.counter_with("rest_client_requests_total", help, &labels)
    }
}

impl<S> Layer<S> for CountCalls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        // Shown from the start, so that a rate has a beginning.
        for code in ["200", "<error>"] {
            self.counter("GET", code);
        }
        Counted { inner, calls: self.clone() }
    }
}

/// A client whose calls are counted.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    inner: S,
    calls: CountCalls,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (calls, method) = (self.calls.clone(), method(request.method()));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or("<error>", |answer| code(answer.status()));
            calls.counter(method, code).add(1);
            answer
        })
    }
}

fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// The codes that an API server answers with; others are counted by their class.
fn code(status: StatusCode) -> &'static str {
    const KNOWN: [&str; 18] = [
        "101", "200", "201", "202", "400", "401", "403", "404", "405", "409", "410", "413", "415", "422",
        "429", "500", "503", "504",
    ];
    let class = match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    KNOWN.into_iter().find(|known| *known == status.as_str()).unwrap_or(class)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};

    use super::*;

    #[derive(Clone)]
    struct Answers(u16);

    impl Service<Request<()>> for Answers {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = Ready<Result<Response<()>, Infallible>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::from_u16(self.0).unwrap();
            ready(Ok(answer))
        }
    }

    #[tokio::test]
    async fn every_status_and_method_makes_a_bounded_number_of_series() {
        let metrics = Registry::new();
        let calls = CountCalls::new(&metrics, &"https://user:secret@10.0.0.1:6443".parse().unwrap());
        for status in 100..=999 {
            for method in ["GET", "WATCH", "PUT", "X-1", "X-2"] {
                let mut client = calls.layer(Answers(status));
                client.call(Request::builder().method(method).body(()).unwrap()).await.unwrap();
            }
        }
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("rest_client_requests_total{")).count();
        assert!((60..=75).contains(&series), "{series} series");
        let line = "rest_client_requests_total{code=\"409\",host=\"10.0.0.1:6443\",method=\"PUT\"} 1";
        assert!(text.lines().any(|rendered| rendered == line), "{text}");
    }
}
