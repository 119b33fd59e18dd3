//! `docs/operating.md` lists every flag of the node agent.
//!
//! After a change: `UPDATE_REFERENCE=1 cargo test -p sentinel-node-agent --test operating_reference`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../docs/generated.rs"]
mod generated;

use clap::CommandFactory as _;
use sentinel_node_agent::config::Cli;

#[test]
fn the_page_lists_every_flag_of_the_node_agent() {
    generated::check("operating.md", "node-agent flags", &generated::flags(&Cli::command()));
}
