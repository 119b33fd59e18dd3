//! The formats of a scrape.

use http::HeaderMap;
use http::header::ACCEPT;

/// The format of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4, which everything reads.
    PrometheusText,
    /// `OpenMetrics` text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that a client asks for: `OpenMetrics` if it accepts it no less than plain text, as Prometheus does.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let mut best = (0, Self::PrometheusText);
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in accepted.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::PrometheusText,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
            if quality > best.0 || (quality == best.0 && quality > 0 && format == Self::OpenMetrics) {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::PrometheusText => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The quality of a media range (RFC 9110, section 12.4.2) in thousandths; 0 for one that is not a number.
fn thousandths(quality: &str) -> u32 {
    quality.parse::<f32>().map_or(0, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_what_the_client_prefers() {
        let accepted = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, value.parse().unwrap());
            Format::accepted(&headers)
        };
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accepted(prometheus), Format::OpenMetrics);
        assert_eq!(
            accepted("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;q=0.5"),
            Format::PrometheusText
        );
        assert_eq!(accepted("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(accepted("application/openmetrics-text;q=0"), Format::PrometheusText);
        for plain in ["*/*", "text/html,*/*;q=0.8", "application/json", "text/plain", ";q=x,"] {
            assert_eq!(accepted(plain), Format::PrometheusText, "{plain}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::PrometheusText);
    }
}
