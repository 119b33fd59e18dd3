//! The forms that a result is printed in.

use clap::ValueEnum;
use serde_json::Value;

use super::sink::{print_json, print_yaml};
use crate::exit::Failure;

pub(crate) use super::sink::{note, print};

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

impl Format {
    /// Prints the value where this form is one of the whole value.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written.
    pub(crate) fn print_whole(self, value: &Value) -> Result<Whole, Failure> {
        match self {
            Self::Json => print_json(value).map(|()| Whole::Printed),
            Self::Yaml => print_yaml(value).map(|()| Whole::Printed),
            Self::Table | Self::Wide | Self::Name => Ok(Whole::NotOfThisForm),
        }
    }
}

/// Whether the whole value was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    Printed,
    NotOfThisForm,
}
