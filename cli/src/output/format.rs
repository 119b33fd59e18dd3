//! What `-o` offers.

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value;

use crate::exit::Failure;

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON, as the API gave it.
    Json,
    /// YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// Writes a text to standard output. A reader that went away is no error: the result is not wanted any more.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
///
/// # Errors
/// [`Failure`] when they cannot be written.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new(format!("failed to write to standard output: {error}"))),
    }
}

/// Says something about how it goes, on standard error. When even that fails there is nobody left to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A value as JSON for people and programs.
///
/// # Errors
/// [`Failure`] when it has no such form.
pub(crate) fn json(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Failure::new(format!("failed to write JSON: {error}")))
}

/// A value as YAML.
///
/// # Errors
/// [`Failure`] when it has no such form.
pub(crate) fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| Failure::new(format!("failed to write YAML: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_says_the_same_as_json() {
        let value = serde_json::json!({"a": ["yes", "1", 1, null, true, "x: y\nz"], "b": {"c": {}}});
        let text = yaml(&value).unwrap();
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }
}
