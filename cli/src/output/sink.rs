//! The only module that writes to standard output and standard error; a lint bans `stdout()` and `stderr()` elsewhere.
//!
//! It writes one of three things: a [`Text`], which is escaped; JSON or YAML, in which the format's own escapes replace
//! every character that could control a terminal; output of commands, which the printer escapes on a terminal unless raw
//! bytes were requested.
//!
//! A line may stay unfinished (a prompt, a progress bar). The sink remembers its writer, so that another one starts a
//! new line first.

use std::borrow::Cow;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use serde::Serialize;
use serde_json::Value;

use super::color::{StdStream, is_terminal};
use super::escape::{is_safe, json_escaped};
use super::text::Text;
use crate::exit::Failure;

/// The writer of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// This program.
    Own,
    /// A command whose output passes unchanged, on either stream.
    Passthrough,
    /// One stream of one node.
    NodeStream(u64),
}

/// Bytes to write.
#[derive(Debug, Default)]
pub(super) struct Rendered<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// Whether the last line is unfinished.
    pub(super) unfinished: bool,
}

/// The writer of the unfinished last line of each stream.
static UNFINISHED: Mutex<[Option<Writer>; 2]> = Mutex::new([None, None]);

/// Writes a text to standard output. A closed pipe is not an error: its reader has what it needs.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print(text: impl Into<Text>) -> Result<(), Failure> {
    print_bytes(text.into().render(StdStream::Out).as_bytes())
}

/// Writes a value to standard output as indented JSON.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print_bytes(json(value)?.as_bytes())
}

/// Writes a value to standard output as JSON on one line.
///
/// # Errors
/// The error of the stream, also that of a closed pipe.
pub(crate) fn print_json_line(value: &impl Serialize) -> std::io::Result<()> {
    print_json_lines(std::slice::from_ref(value))
}

/// Writes each value to standard output as JSON on a line.
///
/// # Errors
/// As [`print_json_line`].
pub(crate) fn print_json_lines(values: &[impl Serialize]) -> std::io::Result<()> {
    let mut lines = String::new();
    for value in values {
        lines.push_str(&json_escaped(&serde_json::to_string(value)?));
        lines.push('\n');
    }
    write(StdStream::Out, Writer::Own, |_| Rendered { bytes: lines.into_bytes().into(), unfinished: false })
}

/// Writes bytes of a command to standard output, unchanged also on a terminal.
///
/// # Errors
/// As [`print_json_line`].
pub(crate) fn print_raw(bytes: &[u8]) -> std::io::Result<()> {
    write(StdStream::Out, Writer::Passthrough, |_| Rendered { bytes: bytes.into(), unfinished: false })
}

/// Writes a value to standard output as YAML.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print_yaml(value: &Value) -> Result<(), Failure> {
    print_bytes(yaml(value)?.as_bytes())
}

/// Writes generated text, in which nothing comes from a server, to standard output.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print_generated(text: &[u8]) -> Result<(), Failure> {
    print_bytes(text)
}

/// Writes a message to standard error. An error of that stream cannot be reported anywhere and is ignored.
pub(crate) fn note(text: impl Into<Text>) {
    let line = text.into().render(StdStream::Err) + "\n";
    let _ = write(StdStream::Err, Writer::Own, |_| Rendered {
        bytes: line.into_bytes().into(),
        unfinished: false,
    });
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    match write(StdStream::Out, Writer::Own, |_| Rendered { bytes: bytes.into(), unfinished: false }) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::stdout(&error)),
    }
}

/// A value as JSON, with JSON's own escapes for characters that could control a terminal.
pub(super) fn json(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| json_escaped(&text) + "\n")
        .map_err(|error| Failure::new(format!("failed to write JSON: {error}")))
}

/// A value as YAML; as JSON, which is YAML too, if a text in it could control a terminal.
pub(super) fn yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value)
        .map_err(|error| Failure::new(format!("failed to write YAML: {error}")))?;
    if is_safe(&text) { Ok(text) } else { json(value) }
}

/// Writes what `render` returns, one writer at a time. `render` gets whether the writer's own last line is
/// unfinished; an unfinished line of another writer is ended first.
pub(super) fn write<'a>(
    to: StdStream,
    by: Writer,
    render: impl FnOnce(bool) -> Rendered<'a>,
) -> std::io::Result<()> {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let rendered = render(unfinished[index(to)] == Some(by));
    if rendered.bytes.is_empty() {
        return Ok(());
    }
    for stream in [StdStream::Out, StdStream::Err] {
        // On a terminal both streams are one screen.
        let same_screen = stream == to || (is_terminal(stream) && is_terminal(to));
        if same_screen && unfinished[index(stream)].is_some_and(|other| other != by) {
            unfinished[index(stream)] = None;
            raw(stream, b"\n")?;
        }
    }
    unfinished[index(to)] = rendered.unfinished.then_some(by);
    raw(to, &rendered.bytes)
}

fn index(to: StdStream) -> usize {
    match to {
        StdStream::Out => 0,
        StdStream::Err => 1,
    }
}

#[expect(clippy::disallowed_methods, reason = "the one module that writes to these streams")]
fn raw(to: StdStream, bytes: &[u8]) -> std::io::Result<()> {
    match to {
        StdStream::Out => write_whole(std::io::stdout().lock(), bytes),
        StdStream::Err => std::io::stderr().lock().write_all(bytes),
    }
}

/// Writes without the buffer of standard output, which would divide what is written at its last line end.
fn write_whole(out: impl AsFd, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&out, bytes) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // As the standard library has it: a program that was started without standard output writes to none.
            Err(Errno::BADF) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a hostile server could put into any text.
    const HOSTILE: &str = "a\x1b[2J\x7f\u{9b}2J\u{202e}b\u{200b}\u{2028}\u{feff}";

    #[test]
    fn yaml_and_json_hold_the_same_value() {
        let value = json!({"a": ["yes", "1", 1, null, true, "x: y\nz"], "b": {"c": {}}});
        let text = yaml(&value).unwrap();
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }

    #[test]
    fn json_and_yaml_escape_hostile_text() {
        let value = json!({HOSTILE: [HOSTILE, "ä→日"]});
        for text in [json(&value).unwrap(), yaml(&value).unwrap()] {
            assert!(is_safe(&text), "{text:?}");
            assert!(text.contains("ä→日"), "{text}");
        }
        assert_eq!(serde_json::from_str::<Value>(&json(&value).unwrap()).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml(&value).unwrap()).unwrap(), value);
    }
}
