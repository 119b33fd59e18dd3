//! What a reader takes, of the headers by which it chooses among representations: RFC 9110, §12.5.

use http::HeaderMap;
use http::header::{ACCEPT, HeaderName};
use sentinel_api::records;

use super::log_text::NDJSON;

/// The weight of a value in such a header, 0 to 1: that of its own name, or else of the other one; `None` if neither is listed.
pub(super) fn weight(
    headers: &HeaderMap,
    header: &HeaderName,
    names: &[&str],
    or: Option<&str>,
) -> Option<f32> {
    let listed = || {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|listed| {
            let mut parts = listed.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let parsed = |text: &str| text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight));
            // What cannot be read is not wanted.
            (name, weight.map_or(1.0, |text| parsed(text).unwrap_or(0.0)))
        })
    };
    let of = |wanted: &[&str]| {
        listed().find(|(name, _)| wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)))
    };
    of(names).or_else(|| of(&[or?])).map(|(_, weight)| weight)
}

/// Whether the reader names the media type of records with their bytes as they are, and wants JSON no more.
pub(super) fn prefers_records(headers: &HeaderMap) -> bool {
    let json = weight(headers, &ACCEPT, &[NDJSON], Some("*/*")).unwrap_or(0.0);
    let records = weight(headers, &ACCEPT, &[records::MEDIA_TYPE], None).unwrap_or(0.0);
    records > 0.0 && records >= json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_for_a_reader_that_names_them() {
        let prefers =
            |accept: &str| prefers_records(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]));
        let named = records::MEDIA_TYPE;
        for accept in [
            named.to_owned(),
            named.to_ascii_uppercase(),
            format!("{named}, application/json;q=0.9, */*;q=0.8"),
            format!("*/*, {named}"),
            format!("application/x-ndjson;q=0.5, {named};q=0.5"),
        ] {
            assert!(prefers(&accept), "{accept}");
        }
        for accept in [
            String::new(),
            "*/*".to_owned(),
            "application/*".to_owned(),
            "application/json, text/event-stream, */*".to_owned(),
            format!("{named};q=0"),
            format!("{named};q=2"),
            format!("{named};q=x, */*"),
            format!("{named}x"),
            format!("{named};q=0.4, application/x-ndjson;q=0.5"),
        ] {
            assert!(!prefers(&accept), "{accept}");
        }
        assert!(!prefers_records(&HeaderMap::new()));
    }
}
