//! The forms in which a value may appear in output.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::{self, Alphabet};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sentinel_protocol::secret::MIN_MASKED;

/// Lengths of the lines of base64: of `openssl` and PEM, and of `base64` and MIME.
const LINES: [usize; 2] = [64, 76];

/// All forms of a value, without the end of a line that many Secrets end with; none when it is too short to be masked.
pub(super) fn encodings(value: &[u8]) -> Vec<Vec<u8>> {
    let value = without_end_of_line(value);
    if value.len() < MIN_MASKED {
        return Vec::new();
    }
    let mut forms = vec![value.to_vec(), hex(value, false), hex(value, true)];
    for alphabet in [&alphabet::STANDARD, &alphabet::URL_SAFE] {
        base64(value, alphabet, &mut forms);
    }
    forms.extend([percent(value, true, false), percent(value, false, false), percent(value, true, true)]);
    if let Ok(text) = std::str::from_utf8(value) {
        json(text, &mut forms);
    }
    forms.retain(|form| form.len() >= MIN_MASKED);
    forms
}

pub(super) fn without_end_of_line(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r' | b'\n'] = value {
        value = rest;
    }
    value
}

fn hex(value: &[u8], upper: bool) -> Vec<u8> {
    let text = value.iter().fold(String::with_capacity(value.len() * 2), |mut text, byte| {
        let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        text
    });
    text.into_bytes()
}

/// The value alone, and where it follows one or two bytes of a group of three.
fn base64(value: &[u8], alphabet: &Alphabet, forms: &mut Vec<Vec<u8>>) {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(alphabet, config);
    for before in 0..3 {
        let encoded = engine.encode([&[0; 2][..before], value].concat()).into_bytes();
        // The first characters have bits of what is before.
        let first = [0, 2, 3][before];
        let unpadded = encoded.iter().position(|byte| *byte == b'=').unwrap_or(encoded.len());
        // The last one has bits of what follows, if anything does.
        let certain = (before + value.len()) * 8 / 6;
        for end in [certain, unpadded, encoded.len()] {
            forms.push(encoded[first..end].to_vec());
        }
        if before == 0 {
            let in_lines = |width| encoded.chunks(width).collect::<Vec<&[u8]>>().join(&b'\n');
            forms.extend(LINES.into_iter().filter(|width| encoded.len() > *width).map(in_lines));
        }
    }
}

/// As in a URL, or in a form, which has `+` for a space.
fn percent(value: &[u8], upper: bool, form: bool) -> Vec<u8> {
    let text = value.iter().fold(String::with_capacity(value.len()), |mut text, byte| {
        let _ = match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                write!(text, "{}", char::from(*byte))
            }
            b' ' if form => write!(text, "+"),
            byte if upper => write!(text, "%{byte:02X}"),
            byte => write!(text, "%{byte:02x}"),
        };
        text
    });
    text.into_bytes()
}

/// As in a JSON string, also of encoders that escape `/` and everything that is not ASCII.
fn json(text: &str, forms: &mut Vec<Vec<u8>>) {
    let Ok(quoted) = serde_json::to_string(text) else { return };
    let escaped = &quoted[1..quoted.len() - 1];
    let ascii = |upper: bool| {
        escaped.chars().fold(String::with_capacity(escaped.len()), |mut ascii, c| {
            if c.is_ascii() {
                ascii.push(c);
            }
            for unit in c.encode_utf16(&mut [0; 2]).iter().filter(|_| !c.is_ascii()) {
                let _ = if upper { write!(ascii, "\\u{unit:04X}") } else { write!(ascii, "\\u{unit:04x}") };
            }
            ascii
        })
    };
    for form in [escaped.to_owned(), ascii(false), ascii(true)] {
        forms.push(form.replace('/', "\\/").into_bytes());
        forms.push(form.into_bytes());
    }
}
