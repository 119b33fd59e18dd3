//! The seam to whatever sends spans.

use std::fmt;
use std::sync::Arc;

use super::span::Span;

/// Where spans go. Must not block.
pub trait Export: fmt::Debug + Send + Sync {
    /// Takes a span, or drops and counts it.
    fn export(&self, span: Span);
}

/// Whether spans are recorded, and where they go. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<dyn Export>>);

impl Traces {
    /// No span is recorded.
    pub fn off() -> Self {
        Self::default()
    }

    /// Spans go here.
    pub fn to(exporter: Arc<dyn Export>) -> Self {
        Self(Some(exporter))
    }

    /// Whether spans are recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Sends a span.
    pub fn send(&self, span: Span) {
        if let Some(exporter) = &self.0 {
            exporter.export(span);
        }
    }
}
