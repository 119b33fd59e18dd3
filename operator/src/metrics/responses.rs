//! HTTP responses of a listener by class of status.

use super::registry::{Counter, Registry};

/// HTTP responses of a listener by class of status.
#[derive(Debug, Clone)]
pub struct HttpResponses([Counter; 5]);

impl HttpResponses {
    /// The counters of this listener.
    pub fn new(metrics: &Registry, listener: &'static str) -> Self {
        const HELP: &str = "HTTP responses, by class of status.";
        let class = |code| {
            metrics.counter_with(
                "sentinel_http_answers_total",
                HELP,
                &[("listener", listener), ("code", code)],
            )
        };
        Self(["1xx", "2xx", "3xx", "4xx", "5xx"].map(class))
    }

    /// Counts a response.
    pub fn count(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.0[class].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_responses_by_class() {
        let metrics = Registry::new();
        let responses = HttpResponses::new(&metrics, "api");
        for code in [200, 201, 404, 503] {
            responses.count(http::StatusCode::from_u16(code).unwrap());
        }
        let text = metrics.render();
        for line in ["code=\"2xx\"} 2", "code=\"4xx\"} 1", "code=\"5xx\"} 1", "code=\"3xx\"} 0"] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
