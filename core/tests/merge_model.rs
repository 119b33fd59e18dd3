//! The merge of logs against a model that sorts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use proptest::prelude::*;
use sentinel_core::stream::merge::{Merge, Now, Wait};

const WINDOW: u64 = 500_000;

/// An item: when its line was written by a true clock, and how much later it arrived, microseconds.
type Item = (i64, u64);

/// Logs with the error of their clocks, and their items in order.
fn logs() -> impl Strategy<Value = Vec<(i64, Vec<Item>)>> {
    let item = (0..300_000_i64, 0..WINDOW);
    let error = prop_oneof![3 => Just(0), 1 => Just(3_600_000_000), 1 => Just(-3_600_000_000)];
    let log = (error, prop::collection::vec(item, 0..25));
    prop::collection::vec(log, 1..6).prop_map(|logs| {
        let of = |(error, steps): (i64, Vec<Item>)| {
            let mut at = 10_000_000_000;
            let mut arrived = 0;
            let items = steps.into_iter().map(|(step, delay)| {
                at += step;
                // In order, as positions in a log are.
                arrived = (at as u64 + delay).max(arrived);
                (at, arrived)
            });
            (error, items.collect())
        };
        logs.into_iter().map(of).collect()
    })
}

fn now(micros: u64) -> Now {
    Now { monotonic: micros, wall: micros as i64 }
}

/// The items in the order in which they are sent, with the time of each; what is due is taken at once.
fn followed(logs: &[(i64, Vec<Item>)], is_offset_known: bool) -> Vec<(usize, usize, u64, bool)> {
    let mut merge = Merge::new(Wait::AtMost(WINDOW), i64::MIN);
    let mut arrivals: Vec<(u64, usize, usize, i64)> = Vec::new();
    for (log, (error, items)) in logs.iter().enumerate() {
        merge.add_log(log, now(0));
        for (number, (at, arrived)) in items.iter().enumerate() {
            arrivals.push((*arrived, log, number, if is_offset_known { *at } else { at + error }));
        }
    }
    arrivals.sort_unstable();
    let mut sent = Vec::new();
    let mut clock = 0;
    let mut take = |merge: &mut Merge<usize, usize>, clock: &mut u64, until: u64| {
        while let Some(due) = merge.due(now(*clock)).filter(|due| *due <= until) {
            *clock = due.max(*clock);
            let merged = merge.pop(now(*clock)).unwrap();
            sent.push((merged.log, merged.item, *clock, merged.is_late));
        }
        *clock = until;
    };
    for (arrived, log, number, at) in arrivals {
        take(&mut merge, &mut clock, arrived);
        merge.push(log, Some(at), number, 1, now(clock));
    }
    take(&mut merge, &mut clock, u64::MAX / 2);
    sent
}

/// Each item once, those of one log in order.
fn assert_complete(logs: &[(i64, Vec<Item>)], sent: &[(usize, usize)]) -> Result<(), TestCaseError> {
    for (log, (_, items)) in logs.iter().enumerate() {
        let of_log: Vec<usize> =
            sent.iter().filter(|(of, _)| *of == log).map(|(_, number)| *number).collect();
        prop_assert_eq!(of_log, (0..items.len()).collect::<Vec<_>>());
    }
    Ok(())
}

proptest! {
    #[test]
    fn complete_logs_are_sorted_by_time(logs in prop::collection::vec(prop::collection::vec(prop::option::of(0..50_i64), 0..30), 1..6)) {
        let mut merge = Merge::new(Wait::ForAll, i64::MIN);
        let mut expected = Vec::new();
        for (log, times) in logs.iter().enumerate() {
            merge.add_log(log, now(0));
            let mut highest = i64::MIN;
            for (number, at) in times.iter().enumerate() {
                highest = highest.max(at.unwrap_or(i64::MIN));
                expected.push((highest, log, number));
            }
        }
        expected.sort_unstable();
        // One item of each log at a time: a log that has none holds the others up.
        let mut next = vec![0; logs.len()];
        let mut sent = Vec::new();
        loop {
            for (log, times) in logs.iter().enumerate() {
                if merge.waiting(log).next().is_none() {
                    match times.get(next[log]) {
                        Some(at) => merge.push(log, *at, next[log], 1, now(1)),
                        None => merge.end(log),
                    }
                    next[log] += 1;
                }
            }
            let Some(merged) = merge.pop(now(1_000)) else { break };
            prop_assert!(!merged.is_late);
            sent.push((merged.log, merged.item));
        }
        prop_assert_eq!(sent, expected.into_iter().map(|(_, log, number)| (log, number)).collect::<Vec<_>>());
    }

    #[test]
    fn what_arrives_within_the_window_is_sorted_if_offsets_are_known(logs in logs()) {
        let sent = followed(&logs, true);
        assert_complete(&logs, &sent.iter().map(|(log, number, ..)| (*log, *number)).collect::<Vec<_>>())?;
        let times: Vec<i64> = sent.iter().map(|(log, number, ..)| logs[*log].1[*number].0).collect();
        prop_assert!(times.is_sorted(), "{:?}", times);
        prop_assert!(sent.iter().all(|(.., is_late)| !is_late));
    }

    #[test]
    fn no_clock_loses_repeats_reorders_or_holds_up_an_item(logs in logs()) {
        let sent = followed(&logs, false);
        assert_complete(&logs, &sent.iter().map(|(log, number, ..)| (*log, *number)).collect::<Vec<_>>())?;
        for (log, number, at, is_late) in sent {
            let (error, items) = &logs[log];
            prop_assert!(at <= items[number].1 + WINDOW, "held up");
            // A clock that is ahead does not make the others late, and one that is right is not late alone.
            prop_assert!(!is_late || *error <= 0);
        }
    }
}

#[test]
fn a_log_that_is_silent_holds_up_old_items_once() {
    let mut merge = Merge::new(Wait::AtMost(WINDOW), i64::MIN);
    let (_silent, busy) = (merge.add_log("a", now(0)), merge.add_log("b", now(0)));
    let start = 3_600_000_000;
    // An hour of output at once, from a node that was not reachable.
    for number in 0..100_u64 {
        merge.push(busy, Some(number as i64), number, 1, now(start));
    }
    assert_eq!(merge.due(now(start)), Some(WINDOW), "the silent one was silent for longer than the window");
    let mut sent = 0;
    while merge.pop(now(start + sent)).is_some() {
        sent += 1;
    }
    // The log itself has become empty only with its last item.
    assert_eq!(sent, 100);
}

#[test]
fn late_output_is_sent_and_marked() {
    let mut merge = Merge::new(Wait::AtMost(WINDOW), i64::MIN);
    let (one, other) = (merge.add_log("a", now(0)), merge.add_log("b", now(0)));
    merge.push(one, Some(2_000_000), "new", 3, now(2_000_000));
    assert_eq!(merge.pop(now(2_400_000)), None);
    assert_eq!(merge.pop(now(2_500_000)).map(|merged| merged.is_late), Some(false));
    merge.push(other, Some(1_000_000), "old", 3, now(9_000_000));
    assert_eq!(merge.cost(other), 3);
    let merged = merge.pop(now(9_000_000)).unwrap();
    assert_eq!((merged.item, merged.is_late, merge.cost(other)), ("old", true, 0));
}
