//! The whole system as values: the operator's brain and the agents' brains, the links between them, the cluster,
//! History and the nodes' disks, under loss, repetition, delay, crashes between any two effects, reboots, takeovers and
//! outages. After the faults stop, every promise must hold.
//!
//! One seed is one history. `SENTINEL_SEEDS=from..to` runs others than those of the test; a failing seed is
//! printed and can be run alone (`SENTINEL_SEEDS=17..18`, with `SENTINEL_TRACE=1` for what happened).
//!
//! The tester is tested too: `every_mutation_is_caught` breaks one rule at a time and wants a violation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::pedantic,
    unreachable_pub,
    missing_docs,
    reason = "a test"
)]

#[path = "../kstatus/mod.rs"]
mod kstatus;
#[path = "../world/mod.rs"]
mod world;
mod rng;
mod mutation;
mod witness;
mod attempt_dir;
mod node;
mod link;
mod stores;
mod operator;
mod simulation;

use mutation::Mutation;
use simulation::{Simulation, Violation};

/// Seeds that every change runs.
const SEEDS: std::ops::Range<u64> = 0..20_000;

/// Seeds within which a broken rule must be noticed.
const SEEDS_PER_MUTATION: u64 = 20_000;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SENTINEL_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("SENTINEL_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn run(seed: u64, mutation: Option<Mutation>) -> Result<simulation::Tally, Violation> {
    let trace = std::env::var_os("SENTINEL_TRACE").is_some();
    Simulation::new(seed, mutation, trace).run()
}

#[test]
fn after_any_faults_everything_ran_once_and_no_result_is_lost() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let run_every = &|first: u64| {
        let mut tally = simulation::Tally::default();
        for seed in seeds.clone().skip(first as usize).step_by(threads as usize) {
            match run(seed, None) {
                Ok(one) => tally.add(&one),
                Err(violation) => {
                    panic!("seed {seed}: {violation}\nrun it alone: SENTINEL_SEEDS={seed}..{}", seed + 1)
                }
            }
        }
        tally
    };
    let mut tally = simulation::Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|first| scope.spawn(move || run_every(first))).collect();
        parts.into_iter().for_each(|part| tally.add(&part.join().expect("a seed failed")));
    });
    println!("{tally:?}");
    assert!(
        tally.executions > 0 && tally.retries > 0 && tally.lost > 0 && tally.takeovers > 0 && tally.busy > 0,
        "the faults are not there: {tally:?}"
    );
}

#[test]
fn every_mutation_is_caught() {
    for mutation in Mutation::ALL {
        // A seed that fails anyway proves nothing of the mutation.
        let caught = (0..SEEDS_PER_MUTATION).find_map(|seed| {
            let violation = run(seed, Some(mutation)).err()?;
            run(seed, None).is_ok().then_some((seed, violation))
        });
        match caught {
            Some((seed, violation)) => println!("{mutation:?}: caught by seed {seed}: {violation}"),
            None => panic!("{mutation:?} was not noticed in {SEEDS_PER_MUTATION} seeds"),
        }
    }
}
