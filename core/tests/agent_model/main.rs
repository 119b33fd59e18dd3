//! The agent's brain over random histories: messages lost, repeated and reordered, crashes between any two effects,
//! reboots, and supervisors that come late or are killed. Disk, kernel and supervisors are plain values here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
#[path = "../convergence/attempt_dir.rs"]
mod attempt_dir;
mod machine;
mod operation;
mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use sentinel_protocol::ids::SpecHash;

use machine::Machine;
use operation::{Op, op};
use world::{World, hash, id};

/// The id was used for another spec before; every Start is refused.
fn taken_by_another_spec(world: &World, n: usize) -> bool {
    let other = |spec_hash: &SpecHash| *spec_hash != hash(0);
    world.dirs.get(&id(n)).is_some_and(|dir| other(&dir.spec_hash))
        || world.tombs.get(&id(n)).is_some_and(|tomb| other(&tomb.spec_hash))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_runs_twice_and_no_result_is_lost(ops in prop::collection::vec(op(), 1..80)) {
        let mut machine = Machine::connected();
        let mut asked = BTreeSet::new();
        for op in &ops {
            if let Op::Start { n, spec: 0, stale: false, .. } = op && machine.connected {
                asked.insert(*n);
            }
            machine.apply(op);
        }
        machine.settle(&asked);
        let world = &machine.world;
        for &n in &asked {
            let answered = world.reported.contains_key(&id(n)) || world.refused_ever.contains(&id(n));
            prop_assert!(answered || taken_by_another_spec(world, n), "{} was never answered", id(n));
        }
        for (id, dir) in &world.dirs {
            prop_assert!(dir.exit.is_some() || dir.boot != world.boot, "{id} never ended");
            prop_assert!(dir.exit.is_none() || world.reported.contains_key(id), "the end of {id} was never reported");
        }
        for (id, ended) in &world.reported {
            let kept = world.dirs.get(id).and_then(|dir| dir.exit.clone());
            let kept = kept.or_else(|| world.tombs.get(id).map(|tomb| tomb.ended.clone()));
            prop_assert_eq!(kept.as_ref(), Some(ended), "the end of {} was forgotten", id);
        }
    }
}
