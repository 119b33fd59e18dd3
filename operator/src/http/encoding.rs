//! Answers compressed as their readers ask: RFC 9110, §12.5.3.

use std::io::Write as _;

use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::accept::weight;
use super::answer::{Answer, Body, BodyError, Chunks};
use crate::server::Share;

/// Bytes that are compressed at once, so that other answers wait for less than a millisecond.
const AT_ONCE: usize = 64 << 10;

/// Bytes of the window of zstd, as a power of two: it bounds the memory of an answer.
const ZSTD_WINDOW: u32 = 17;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// gzip.
    Gzip,
    /// zstd, which takes less of the processor.
    Zstd,
}

/// When what was compressed is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// Once there is enough of it.
    AtEnd,
    /// With each chunk of the body.
    EachChunk,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The coding that the reader wants most; `None` for none.
    pub(super) fn wanted(headers: &HeaderMap) -> Option<Self> {
        let of_name = |names: &[&str], or| weight(headers, &ACCEPT_ENCODING, names, or);
        let identity = of_name(&["identity"], None).unwrap_or(0.0);
        let of = |coding, names: &[&str]| Some((of_name(names, Some("*"))?, coding));
        let found = [of(Self::Gzip, &["gzip", "x-gzip"]), of(Self::Zstd, &["zstd"])];
        let best = found.into_iter().flatten().max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.filter(|(weight, _)| *weight > 0.0 && *weight >= identity).map(|(_, coding)| coding)
    }
}

/// Whether the reader takes gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    weight(headers, &ACCEPT_ENCODING, &["gzip", "x-gzip"], Some("*")).is_some_and(|weight| weight > 0.0)
}

/// The answer, compressed. Each compressed answer takes memory, so it holds its share of that.
pub(super) fn compressed(mut answer: Answer, coding: Coding, flush: Flush, share: Share) -> Answer {
    let Body::Stream(chunks) = answer.body else { return answer };
    let Ok(encoder) = Encoder::new(coding) else {
        answer.body = Body::Stream(chunks);
        return answer;
    };
    let body = Compressed { chunks, encoder: Some(encoder), rest: Bytes::new(), flush, _share: share };
    answer.body = Body::Stream(Chunks::new(unfold(body, |mut body| async move {
        body.next().await.map(|chunk| (chunk, body))
    })));
    answer.with("content-encoding", coding.name())
}

/// A body that is being compressed.
struct Compressed {
    chunks: Chunks,
    /// `None` once it has ended.
    encoder: Option<Encoder>,
    /// What is not compressed yet of a chunk.
    rest: Bytes,
    flush: Flush,
    _share: Share,
}

impl Compressed {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            self.encoder.as_ref()?;
            if self.rest.is_empty() {
                match self.chunks.next().await {
                    Some(Ok(chunk)) => self.rest = chunk,
                    Some(Err(error)) => {
                        self.encoder = None;
                        return Some(Err(error));
                    }
                    None => return self.encoder.take().map(|encoder| encoder.finish().map_err(Into::into)),
                }
            }
            match self.step() {
                Ok(bytes) if bytes.is_empty() => tokio::task::yield_now().await,
                Ok(bytes) => return Some(Ok(bytes)),
                Err(error) => {
                    self.encoder = None;
                    return Some(Err(error.into()));
                }
            }
        }
    }

    fn step(&mut self) -> std::io::Result<Bytes> {
        let Some(encoder) = &mut self.encoder else { return Ok(Bytes::new()) };
        let piece = self.rest.split_to(self.rest.len().min(AT_ONCE));
        let is_flushed = self.flush == Flush::EachChunk && !self.rest.has_remaining() && !piece.is_empty();
        encoder.write(&piece, is_flushed)
    }
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> std::io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), 1)?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, bytes: &[u8], is_flushed: bool) -> std::io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                if is_flushed {
                    encoder.flush()?;
                }
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                if is_flushed {
                    encoder.flush()?;
                }
                Ok(std::mem::take(encoder.get_mut()).into())
            }
        }
    }

    fn finish(self) -> std::io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish().map(Bytes::from),
            Self::Zstd(encoder) => encoder.finish().map(Bytes::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &str) -> Option<Coding> {
        Coding::wanted(&HeaderMap::from_iter([(ACCEPT_ENCODING, accept.parse().unwrap())]))
    }

    #[test]
    fn wanted_coding_is_that_with_the_largest_weight() {
        for accept in
            ["gzip", "x-GZIP", "gzip;q=0.5, zstd;q=0.4", "zstd;q=0, *", "gzip; q=0.001", "gzip, identity"]
        {
            assert_eq!(wanted(accept), Some(Coding::Gzip), "{accept}");
        }
        for accept in ["zstd", "gzip, deflate, br, zstd", "*", "*;q=0.2, gzip;q=0", "gzip;q=0.8, zstd; q=1.0"]
        {
            assert_eq!(wanted(accept), Some(Coding::Zstd), "{accept}");
        }
        for accept in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "*;q=0",
            "gzip;q=0.000, zstd;q=0",
            "gzip;q=x",
            "gzip;q=2",
            "gzip;q=0.5, identity",
        ] {
            assert_eq!(wanted(accept), None, "{accept}");
        }
        assert_eq!(Coding::wanted(&HeaderMap::new()), None);
    }
}
