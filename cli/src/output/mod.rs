//! What people and programs see: tables, JSON and YAML, lines of commands.
//!
//! Results go to standard output, everything about how it goes to standard error. Colour and escaping depend on
//! whether the stream is a terminal, each stream for itself.

pub(crate) mod color;
pub(crate) mod escape;
pub(crate) mod format;
pub(crate) mod printer;
pub(crate) mod table;
pub(crate) mod time;
