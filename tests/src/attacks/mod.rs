//! Attacks on an operator, and by one: each reports what it tried, what was accepted, and how much memory it cost the victim,
//! beside a declared bound.
//!
//! * [`kit`]: a victim as a real process, its memory sampled while it is attacked, and the row that comes of it;
//! * [`agents`]: an operator with simulated agents, and what such an agent needs to speak the protocol;
//! * one file for each attack; [`ALL`] lists them.
//!
//! To add one: a file, a line in [`ALL`]. An attack takes its numbers from [`Size`], so that the tests can run a short
//! form of what `just attacks` runs in full.

pub mod agent_epoch;
pub mod agent_output;
pub mod agent_reports;
pub mod agent_sockets;
pub mod agent_tokens;
pub mod agents;
pub mod bodies;
pub mod files;
pub mod kit;
pub mod log_readers;
pub mod names;
pub mod operator;
pub mod readers;
pub mod strangers;

pub use kit::{Report, Row, Size};

use futures_util::future::BoxFuture;

/// An attack.
pub struct Attack {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Which of them belong together: `http`, `gateway`, `local`, `node`.
    pub group: &'static str,
    /// What it does, one sentence.
    pub about: &'static str,
    /// Carries it out.
    pub run: fn(Size) -> BoxFuture<'static, anyhow::Result<Vec<Row>>>,
}

/// All of them.
pub const ALL: &[Attack] = &[
    bodies::ATTACK,
    readers::ATTACK,
    log_readers::ATTACK,
    names::ATTACK,
    strangers::ATTACK,
    files::ATTACK,
    agent_epoch::ATTACK,
    agent_reports::ATTACK,
    agent_output::ATTACK,
    agent_sockets::ATTACK,
    agent_tokens::ATTACK,
    operator::ATTACK,
];

/// Carries out the attacks of these names or groups; all of them when there are none.
///
/// # Errors
/// When a name is unknown.
pub async fn run(wanted: &[String], size: Size) -> anyhow::Result<Report> {
    for name in wanted {
        if !ALL.iter().any(|attack| attack.name == name || attack.group == name) {
            anyhow::bail!("no attack and no group is called {name:?}; --list shows them");
        }
    }
    let mut report = Report::default();
    for attack in ALL {
        if wanted.is_empty() || wanted.iter().any(|name| attack.name == name || attack.group == name) {
            match (attack.run)(size).await {
                Ok(rows) => report.rows.extend(rows),
                Err(error) => report.rows.push(Row::not_done(attack.name, &error)),
            }
        }
    }
    Ok(report)
}
