//! The trace that an Attempt belongs to, as in [W3C Trace Context](https://www.w3.org/TR/trace-context/).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most bytes of a `tracestate`; what is longer is dropped as a whole, as the standard allows.
const MAX_STATE: usize = 512;

/// A trace, and the span of it that what follows is part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// Trace, span and flags.
    #[serde(rename = "traceparent")]
    pub parent: TraceParent,
    /// What tracing systems pass on beside it.
    #[serde(rename = "tracestate", default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TraceState>,
}

/// A `traceparent`: `00-<trace, 32 digits>-<span, 16 digits>-<flags, 2 digits>`, lower-case hexadecimal, neither id all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

/// Text that is not a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a traceparent: expected 00-<32 hexadecimal digits>-<16 hexadecimal digits>-<2 hexadecimal digits>, lower-case"
)]
pub struct InvalidTraceParent;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

impl TraceParent {
    /// These ids; `None` when one of them is zero.
    pub fn new(trace: [u8; 16], span: [u8; 8], is_sampled: bool) -> Option<Self> {
        let (trace, span) = (u128::from_be_bytes(trace), u64::from_be_bytes(span));
        (trace != 0 && span != 0).then_some(Self { trace, span, flags: u8::from(is_sampled) })
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace.to_be_bytes()
    }

    /// The id of the span.
    pub fn span_id(&self) -> [u8; 8] {
        self.span.to_be_bytes()
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Another span of the same trace; this one when the id is zero.
    #[must_use]
    pub fn with_span(self, span: [u8; 8]) -> Self {
        let span = u64::from_be_bytes(span);
        if span == 0 { self } else { Self { span, ..self } }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// A version above 00 is read as 00, without what that version added.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(InvalidTraceParent)?;
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if !is_hex {
                return Err(InvalidTraceParent);
            }
            u128::from_str_radix(part, 16).map_err(|_| InvalidTraceParent)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_longer = parts.next().is_some();
        if version == 0xff || (version == 0 && is_longer) || trace == 0 || span == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self { trace, span: span as u64, flags: flags as u8 })
    }
}

impl TryFrom<String> for TraceParent {
    type Error = InvalidTraceParent;

    fn try_from(text: String) -> Result<Self, InvalidTraceParent> {
        text.parse()
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

/// A `tracestate`: `key=value` pairs, separated by commas; at most 512 bytes of printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceState(String);

/// Text that is not a `tracestate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a tracestate: expected key=value pairs, separated by commas, in at most {MAX_STATE} bytes of printable ASCII"
)]
pub struct InvalidTraceState;

impl TraceState {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TraceState {
    type Error = InvalidTraceState;

    fn try_from(text: String) -> Result<Self, InvalidTraceState> {
        let is_plain = text.len() <= MAX_STATE && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        let has_pairs =
            text.split(',').all(|pair| pair.trim().split_once('=').is_some_and(|(key, _)| !key.is_empty()));
        if is_plain && has_pairs { Ok(Self(text)) } else { Err(InvalidTraceState) }
    }
}

impl From<TraceState> for String {
    fn from(state: TraceState) -> Self {
        state.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_in_the_standard() {
        let parent: TraceParent = EXAMPLE.parse().unwrap();
        assert_eq!(parent.to_string(), EXAMPLE);
        assert!(parent.is_sampled());
        assert_eq!(parent.trace_id()[..2], [0x0a, 0xf7]);
        assert_eq!(parent.span_id(), 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert_eq!(TraceParent::new(parent.trace_id(), parent.span_id(), true), Some(parent));
        let child = parent.with_span([0, 0, 0, 0, 0, 0, 0, 2]).to_string();
        assert_eq!(child, "00-0af7651916cd43dd8448eb211c80319c-0000000000000002-01");
        let later =
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-what-comes".parse::<TraceParent>();
        assert!(later.is_ok_and(|parent| !parent.is_sampled()));
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad:?}");
        }
        for bad in ["", "a", "=b", "a=b,", "a=\u{e9}", "a=b\n", &format!("a={}", "b".repeat(MAX_STATE))] {
            assert_eq!(TraceState::try_from(bad.to_owned()), Err(InvalidTraceState), "{bad:?}");
        }
        assert!(TraceState::try_from("a=b, c@d=e".to_owned()).is_ok());
    }
}
