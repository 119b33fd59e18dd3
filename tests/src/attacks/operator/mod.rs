//! An operator in the wrong hands: from valid messages of every kind it makes mutations, and sends them to real agents, whose policy
//! allows little. Whatever is started on their nodes states what it is; an oracle that was written apart from the policy decides
//! whether that may be. A control shows that what may not be would be noticed.
//!
//! * [`witness`]: the program that is started, and what it states;
//! * [`policy`]: the policy, and the oracle;
//! * [`node`]: an agent, and the operator's side of its sockets;
//! * [`requests`], [`mutate`], [`meaning`]: messages, and their mutations, of form and of meaning;
//! * [`harness`]: one node under attack, and what became of it.

pub mod harness;
pub mod meaning;
pub mod mutate;
pub mod node;
pub mod policy;
pub mod requests;
pub mod witness;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::Attack;
use super::kit::{MIB, Memory, Row, Size};
use harness::{Harness, Tally};
use node::Allow;

/// How much the resident memory of an agent may grow.
const GROWTH: u64 = 48 * MIB;

/// Agents that are attacked at the same time.
const NODES: usize = 4;

/// What there is to carry out.
pub const ATTACK: Attack = Attack {
    name: "operator",
    group: "node",
    about: "an operator that sends agents mutations of every message: nothing is started that their policy does not allow",
    run: |size| attack(size).boxed(),
};

fn attack(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let seed = std::env::var("SENTINEL_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        println!("operator: SENTINEL_SEED={seed} repeats the mutations");
        let control = control(seed).await?;
        // Those that end the Session cost a wait before the agent dials again.
        let (mutations, closing) = (size.pick(3_200, 100_000) / NODES, size.pick(40, 1_600) / NODES);
        let attacks = (0..NODES).map(|index| {
            tokio::spawn(one_node(
                format!("node-{index}"),
                seed.wrapping_add(index as u64),
                mutations,
                closing,
            ))
        });
        let mut all = Tally::default();
        let mut memory = Memory::default();
        for attack in futures_util::future::join_all(attacks).await {
            let (tally, of_agent) = attack??;
            all.add(tally);
            // That of the agent whose memory grew most.
            if of_agent.peak - of_agent.before >= memory.peak - memory.before {
                memory = of_agent;
            }
        }
        Ok(vec![row(all, memory, control)])
    }
    .boxed()
}

async fn one_node(name: String, seed: u64, mutations: usize, closing: usize) -> Result<(Tally, Memory)> {
    let mut harness = Harness::start(&name, seed, Allow::Few).await?;
    harness.attack(mutations, closing).await?;
    harness.replay_after_restart().await?;
    harness.finish()
}

/// How many forbidden starts are noticed on a node that allows all.
async fn control(seed: u64) -> Result<usize> {
    let mut harness = Harness::start("control", seed, Allow::AllAsked).await?;
    harness.attack(400, 0).await?;
    let noticed = harness.judge().len();
    if noticed == 0 {
        bail!(
            "of 400 mutations on a node that allows everything, none started what is forbidden elsewhere: nothing would be noticed"
        );
    }
    Ok(noticed)
}

fn row(tally: Tally, memory: Memory, control: usize) -> Row {
    let list = |counts: &BTreeMap<String, usize>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let started: usize = tally.started.values().sum();
    for (what, counts) in [
        ("mutations", &tally.mutations),
        ("of these, messages", &tally.messages),
        ("refused", &tally.refused),
        ("started, by rule", &tally.started),
        ("outcomes", &tally.outcomes),
    ] {
        println!("operator: {what}: {}", list(counts));
    }
    println!(
        "operator: {} Sessions ended by what was sent, {} hostile frames on log sockets, {} replays after a restart, {} audit \
         records verified; control: {control} forbidden starts noticed",
        tally.closed, tally.log_frames, tally.replayed, tally.audited
    );
    let sent: usize = tally.mutations.values().sum();
    Row {
        attack: ATTACK.name,
        tried: format!(
            "{sent} mutations of an operator's messages to {NODES} agents, and replays after a restart"
        ),
        accepted: tally.forbidden,
        refused: tally.refused.values().sum(),
        may_accept: 0,
        memory,
        bound: GROWTH,
        faults: {
            let nothing = (started == 0).then(|| "nothing that is allowed was started".to_owned());
            nothing.into_iter().chain(tally.faults).collect()
        },
    }
}
