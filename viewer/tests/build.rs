//! The tests of the build script's modules, which cargo does not run where they are.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub, reason = "a test")]

#[path = "../build/bundle.rs"]
mod bundle;
#[path = "../build/chunks.rs"]
mod chunks;
#[path = "../build/module.rs"]
mod module;
#[path = "../build/script.rs"]
mod script;
#[path = "../build/source.rs"]
mod source;
#[path = "../build/style.rs"]
mod style;
