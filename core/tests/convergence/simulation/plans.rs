//! The Task of a simulation.

use sentinel_core::plan::{
    Amount, ControlPlane, OnChange, Select, Starts, TargetRule, TaskPlan, Timeouts, spec_hash,
};
use sentinel_core::reconcile::retry::{Backoff, Cause, Retry};
use sentinel_protocol::ids::{TaskRef, TaskUid};
use sentinel_protocol::request::{Environment, Leftovers, OutputRules, Program, ResourceLimits, RunRequest};

use crate::rng::Rng;

/// As it is after so many edits.
pub(super) fn plan(edit: u32, rng: &mut Rng) -> TaskPlan {
    let targets = TargetRule { select: Select::All, exclude: vec![], control_plane: ControlPlane::Exclude };
    let request = RunRequest {
        program: Program::Command(vec!["echo".into(), edit.to_string()]),
        env: vec![],
        working_dir: "/".into(),
        user: None,
        group: None,
        umask: 0o22,
        stdin: String::new(),
        environment: Environment::Container,
        success_exit_codes: vec![0],
        output: OutputRules { limit: 1 << 30, spool: 64 << 20, max_block_ms: 0, merge: false },
        limits: ResourceLimits::default(),
        leftovers: Leftovers::End,
    };
    TaskPlan {
        task: TaskRef::new("ops", "t").unwrap(),
        uid: TaskUid::new("uid").unwrap(),
        spec_hash: spec_hash(&targets, &request),
        targets,
        request,
        timeouts: Timeouts {
            start_ms: 40_000,
            run_ms: None,
            idle_ms: None,
            total_ms: None,
            unreachable_ms: [15_000, 60_000][rng.below(2)],
            grace_ms: 1_000,
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
        starts: Starts::Allowed,
        rerun_token: String::new(),
        ttl_after_finished_ms: None,
    }
}
