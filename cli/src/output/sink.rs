//! The only way to our two streams.
//!
//! Whatever goes out is one of three things: a [`Text`], which is escaped; a value as JSON or YAML, in which the format's
//! own escapes stand for every character that could steer a terminal; output of commands, which the printer escapes
//! where it goes to a terminal. A lint bans `std::io::stdout` and `stderr` everywhere else.
//!
//! A line may be left open (a prompt, a progress bar). The sink remembers who left it, so that the next writer does not
//! write into it.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::color::{To, is_terminal};
use super::escape::{is_safe, json_escaped};
use super::text::Text;
use crate::exit::Failure;

/// Who writes a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// We ourselves.
    Ours,
    /// A command whose output passes as it is, on either stream.
    Raw,
    /// One stream of one node.
    Lane(u64),
}

/// What a writer wrote.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// Whether the last line of it is to be continued.
    pub(super) open: bool,
}

/// Who left the last line of each stream open.
static OPEN: Mutex<[Option<Writer>; 2]> = Mutex::new([None, None]);

/// Writes a text to standard output. A reader that is gone is not an error: the result is not wanted any more.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print(text: impl Into<Text>) -> Result<(), Failure> {
    print_bytes(text.into().render(To::Out).as_bytes())
}

/// Writes a value to standard output as JSON on many lines.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print_bytes(json(value)?.as_bytes())
}

/// Writes a value to standard output as JSON on one line.
///
/// # Errors
/// As the stream gives them.
pub(crate) fn print_json_line(value: &Value) -> std::io::Result<()> {
    let mut line = json_escaped(&value.to_string());
    line.push('\n');
    write(To::Out, Writer::Ours, |_| Written { bytes: line.into_bytes(), open: false })
}

/// Writes a value to standard output as YAML.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print_yaml(value: &Value) -> Result<(), Failure> {
    print_bytes(yaml(value)?.as_bytes())
}

/// Writes what we made ourselves, out of nothing that others sent, to standard output.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print_script(script: &[u8]) -> Result<(), Failure> {
    print_bytes(script)
}

/// Writes a line about how it goes to standard error. When even that fails there is nowhere left to report it.
pub(crate) fn note(text: impl Into<Text>) {
    let line = text.into().render(To::Err) + "\n";
    let _ = write(To::Err, Writer::Ours, |_| Written { bytes: line.into_bytes(), open: false });
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    match write(To::Out, Writer::Ours, |_| Written { bytes: bytes.to_vec(), open: false }) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new(format!("failed to write to standard output: {error}"))),
    }
}

/// A value as JSON. Characters that could steer a terminal are written as JSON's own escapes, so it is the same value.
pub(super) fn json(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| json_escaped(&text) + "\n")
        .map_err(|error| Failure::new(format!("failed to write JSON: {error}")))
}

/// A value as YAML. Where a text in it could steer a terminal it is JSON, which is YAML too.
pub(super) fn yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value)
        .map_err(|error| Failure::new(format!("failed to write YAML: {error}")))?;
    if is_safe(&text) { Ok(text) } else { json(value) }
}

/// Lets a writer write, one at a time. `make` is given whether the writer's own line is still open; a line that another
/// left open is ended first.
pub(super) fn write(to: To, by: Writer, make: impl FnOnce(bool) -> Written) -> std::io::Result<()> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let written = make(open[index(to)] == Some(by));
    if written.bytes.is_empty() {
        return Ok(());
    }
    for stream in [To::Out, To::Err] {
        // On a terminal both streams are one screen.
        let same_screen = stream == to || (is_terminal(stream) && is_terminal(to));
        if same_screen && open[index(stream)].is_some_and(|other| other != by) {
            open[index(stream)] = None;
            raw(stream, b"\n")?;
        }
    }
    open[index(to)] = written.open.then_some(by);
    raw(to, &written.bytes)
}

fn index(to: To) -> usize {
    match to {
        To::Out => 0,
        To::Err => 1,
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that writes to our streams")]
fn raw(to: To, bytes: &[u8]) -> std::io::Result<()> {
    match to {
        To::Out => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        To::Err => std::io::stderr().lock().write_all(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a hostile server could put into any text.
    const HOSTILE: &str = "a\x1b[2J\x7f\u{9b}2J\u{202e}b\u{200b}\u{2028}\u{feff}";

    #[test]
    fn yaml_is_the_same_value_as_json() {
        let value = json!({"a": ["yes", "1", 1, null, true, "x: y\nz"], "b": {"c": {}}});
        let text = yaml(&value).unwrap();
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }

    #[test]
    fn json_and_yaml_hold_hostile_text_without_one_character_that_steers_a_terminal() {
        let value = json!({HOSTILE: [HOSTILE, "ä→日"]});
        for text in [json(&value).unwrap(), yaml(&value).unwrap()] {
            assert!(is_safe(&text), "{text:?}");
            assert!(text.contains("ä→日"), "{text}");
        }
        assert_eq!(serde_json::from_str::<Value>(&json(&value).unwrap()).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml(&value).unwrap()).unwrap(), value);
    }
}
