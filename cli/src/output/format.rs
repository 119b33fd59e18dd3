//! The output formats that flags choose between.

use clap::ValueEnum;
use serde_json::Value;

use super::sink::{print_json, print_yaml};
use crate::exit::Failure;

pub(crate) use super::sink::{note, print};

/// Format of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON as returned by the API.
    Json,
    /// YAML.
    Yaml,
    /// Names only, one per line.
    Name,
}

impl OutputFormat {
    /// Prints the value if the format is JSON or YAML; returns whether it did.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written.
    pub(crate) fn print_document(self, value: &Value) -> Result<bool, Failure> {
        match self {
            Self::Json => print_json(value).map(|()| true),
            Self::Yaml => print_yaml(value).map(|()| true),
            Self::Table | Self::Wide | Self::Name => Ok(false),
        }
    }
}

/// Format of the output of commands while it is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum StreamFormat {
    /// The output of the command.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// The bytes of the command, of both streams on standard output.
    #[value(skip)]
    Raw,
}
