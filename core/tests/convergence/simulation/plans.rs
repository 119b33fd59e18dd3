//! The Task of a simulation.

use sentinel_core::plan::{Amount, OnChange, TaskPlan, Timeouts, spec_hash};
use sentinel_core::reconcile::retry::{Backoff, Cause, Retry};
use sentinel_protocol::ids::TaskUid;
use sentinel_protocol::request::{OutputRules, Program};
use sentinel_protocol::secret::SecretKeyRef;

use crate::rng::Rng;
use crate::world;

/// As it is after so many edits.
pub(super) fn plan(edit: u32, rng: &mut Rng) -> TaskPlan {
    let mut plan = world::plan();
    plan.request.program = Program::Command(vec!["echo".into(), edit.to_string()]);
    // The agent keeps their values in memory alone, and the operator sends them again.
    let secret = SecretKeyRef { name: "db".into(), key: "password".into(), optional: false };
    plan.request.stdin_from = (edit % 2 == 1).then_some(secret);
    plan.request.output = OutputRules { max_block_ms: 0, ..plan.request.output };
    TaskPlan {
        uid: TaskUid::new("uid").unwrap(),
        spec_hash: spec_hash(&plan.targets, &plan.request),
        timeouts: Timeouts {
            start_ms: 40_000,
            unreachable_ms: [15_000, 60_000][rng.below(2)],
            grace_ms: 1_000,
            ..plan.timeouts
        },
        retry: Retry {
            limit: [0, 0, 1, 2][rng.below(4)],
            backoff: Backoff { initial_ms: 500, factor: 2, max_ms: 5_000 },
            causes: [Cause::USUAL.to_vec(), vec![Cause::Failed, Cause::Lost, Cause::StartTimedOut]]
                [rng.below(2)]
            .clone(),
        },
        max_concurrent: [Amount::Count(1), Amount::Count(2), Amount::Percent(100)][rng.below(3)],
        on_change: [OnChange::Finish, OnChange::Cancel][rng.below(2)],

        ..plan
    }
}
