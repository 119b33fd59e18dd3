//! Tasks with a bad field outside of `spec.run`.

use super::{Bad, bad, only_in_status};

fn targets(targets: &str) -> String {
    format!("{{targets: {targets}, run: {{command: [\"true\"]}}}}")
}

fn with(rest: &str) -> String {
    format!("{{targets: {{all: true}}, run: {{command: [\"true\"]}}, {rest}}}")
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn of_targets() -> Vec<Bad> {
    let many: Vec<String> = (0..1001).map(|n| format!("n{n}")).collect();
    vec![
        bad(
            "no-targets",
            targets("{}"),
            "spec.targets must have exactly one of nodeSelector, nodeNames and all: true; it has none",
            "spec.targets must have exactly one of nodeSelector, nodeNames and all: true",
        ),
        bad(
            "two-kinds-of-targets",
            targets("{all: true, nodeNames: [a]}"),
            "spec.targets must have exactly one of nodeSelector, nodeNames and all: true; it has more than one",
            "spec.targets must have exactly one of nodeSelector, nodeNames and all: true",
        ),
        bad(
            "empty-selector",
            targets("{nodeSelector: {}}"),
            "spec.targets.nodeSelector must not be empty, it would mean every node; write all: true if that is meant",
            "spec.targets.nodeSelector must not be empty",
        ),
        bad(
            "missing-targets",
            "{run: {command: [x]}}",
            "spec.targets is required",
            "spec.targets: Required value",
        ),
        bad(
            "no-names",
            targets("{nodeNames: []}"),
            "spec.targets.nodeNames is \"0 items\"; it must be 1 to 1000",
            "spec.targets.nodeNames",
        ),
        bad(
            "too-many-names",
            targets(&format!("{{nodeNames: [{}]}}", many.join(","))),
            "spec.targets.nodeNames is \"1001 items\"; it must be 1 to 1000",
            "spec.targets.nodeNames: Too many",
        ),
        bad(
            "bad-node-name",
            targets("{nodeNames: [Worker_1]}"),
            "spec.targets.nodeNames[0] is \"Worker_1\"; it must be the name of a node",
            "spec.targets.nodeNames must be names of nodes",
        ),
        bad(
            "name-twice",
            targets("{nodeNames: [a, a]}"),
            "spec.targets.nodeNames[1] is \"a\"; it must be unique",
            "spec.targets.nodeNames[1]: Duplicate value",
        ),
        bad(
            "listed-and-excluded",
            targets("{nodeNames: [a], exclude: {nodeNames: [a]}}"),
            "spec.targets.nodeNames is \"a\"; it must not be both listed and excluded",
            "spec.targets.nodeNames must not have a name that is also in spec.targets.exclude.nodeNames",
        ),
        bad(
            "bad-label-key",
            targets("{nodeSelector: {matchLabels: {\"a b\": x}}}"),
            "spec.targets.nodeSelector.matchLabels is \"a b\"; it must be a label key",
            "each key of spec.targets.nodeSelector.matchLabels must be a label key, such as pool",
        ),
        bad(
            "bad-label-value",
            targets("{nodeSelector: {matchLabels: {zone: \"Zone A\"}}}"),
            "spec.targets.nodeSelector.matchLabels[zone] is \"Zone A\"; it must be a label value",
            "spec.targets.nodeSelector.matchLabels",
        ),
        bad(
            "values-with-exists",
            targets("{nodeSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}"),
            "spec.targets.nodeSelector.matchExpressions[0].values must have 1 to 64 values with operators In and NotIn",
            "operators In and NotIn need values, Exists and DoesNotExist take none",
        ),
        bad(
            "no-values-with-in",
            targets("{nodeSelector: {matchExpressions: [{key: a, operator: In}]}}"),
            "spec.targets.nodeSelector.matchExpressions[0].values must have 1 to 64 values",
            "operators In and NotIn need values",
        ),
        bad(
            "bad-operator",
            targets("{nodeSelector: {matchExpressions: [{key: a, operator: Gt, values: [\"1\"]}]}}"),
            "spec.targets.nodeSelector.matchExpressions[0].operator is \"Gt\"; it must be In or NotIn or Exists or DoesNotExist",
            "Unsupported value: \"Gt\"",
        ),
        bad(
            "bad-control-plane",
            targets("{all: true, controlPlane: Maybe}"),
            "spec.targets.controlPlane is \"Maybe\"; it must be Include or Exclude",
            "spec.targets.controlPlane: Unsupported value: \"Maybe\"",
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn of_selectors() -> Vec<Bad> {
    let labels: Vec<String> = (0..65).map(|n| format!("a{n}: b")).collect();
    let expressions: Vec<String> = (0..65).map(|n| format!("{{key: a{n}, operator: Exists}}")).collect();
    let values: Vec<String> = (0..65).map(|n| format!("a{n}")).collect();
    let many = |prefix: &str| (0..600).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>().join(",");
    let excluded: Vec<String> = (0..1001).map(|n| format!("n{n}")).collect();
    vec![
        bad(
            "many-match-labels",
            targets(&format!("{{nodeSelector: {{matchLabels: {{{}}}}}}}", labels.join(", "))),
            "spec.targets.nodeSelector.matchLabels is \"65 entries\"; it must be at most 64",
            "spec.targets.nodeSelector.matchLabels: Too many",
        ),
        bad(
            "many-match-expressions",
            targets(&format!("{{nodeSelector: {{matchExpressions: [{}]}}}}", expressions.join(", "))),
            "spec.targets.nodeSelector.matchExpressions is \"65 items\"; it must be at most 64",
            "spec.targets.nodeSelector.matchExpressions: Too many",
        ),
        bad(
            "many-values",
            targets(&format!(
                "{{nodeSelector: {{matchExpressions: [{{key: a, operator: In, values: [{}]}}]}}}}",
                values.join(", ")
            )),
            "spec.targets.nodeSelector.matchExpressions[0].values is \"65 items\"; it must be at most 64",
            "spec.targets.nodeSelector.matchExpressions[0].values: Too many",
        ),
        bad(
            "bad-expression-key",
            targets("{nodeSelector: {matchExpressions: [{key: \"a/b/c\", operator: Exists}]}}"),
            "spec.targets.nodeSelector.matchExpressions[0].key is \"a/b/c\"; it must be a label key",
            "spec.targets.nodeSelector.matchExpressions.key must be a label key, such as pool",
        ),
        bad(
            "bad-expression-value",
            targets("{nodeSelector: {matchExpressions: [{key: a, operator: In, values: [\"-x\"]}]}}"),
            "spec.targets.nodeSelector.matchExpressions[0].values[0] is \"-x\"; it must be a label value",
            "spec.targets.nodeSelector.matchExpressions.values must be a label value",
        ),
        bad(
            "label-key-too-long",
            targets(&format!("{{nodeSelector: {{matchLabels: {{{}: b}}}}}}", "k".repeat(64))),
            "spec.targets.nodeSelector.matchLabels is",
            "each key of spec.targets.nodeSelector.matchLabels must be a label key",
        ),
        bad(
            "bad-name-excluded",
            targets("{all: true, exclude: {nodeNames: [\"a b\"]}}"),
            "spec.targets.exclude.nodeNames[0] is \"a b\"; it must be the name of a node",
            "spec.targets.exclude.nodeNames must be names of nodes",
        ),
        bad(
            "too-many-excluded",
            targets(&format!("{{all: true, exclude: {{nodeNames: [{}]}}}}", excluded.join(","))),
            "spec.targets.exclude.nodeNames is \"1001 items\"; it must be at most 1000",
            "spec.targets.exclude.nodeNames: Too many",
        ),
        only_in_status(
            "many-listed-and-excluded",
            targets(&format!(
                "{{nodeNames: [{},both], exclude: {{nodeNames: [{},both]}}}}",
                many("listed"),
                many("excluded")
            )),
            "spec.targets.nodeNames is \"both\"; it must not be both listed and excluded",
            "comparing more than 250,000 pairs of names costs more than an API server lets a rule cost",
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn of_the_rest() -> Vec<Bad> {
    vec![
        bad(
            "idle-too-short",
            with("timeouts: {idle: 10ms}"),
            "spec.timeouts.idle is \"10ms\"; it must be 1s to 8760h",
            "spec.timeouts.idle must be a duration of 1s to 8760h",
        ),
        bad(
            "total-too-long",
            with("timeouts: {total: 9000h}"),
            "spec.timeouts.total is \"9000h\"; it must be 1s to 8760h",
            "spec.timeouts.total must be a duration of 1s to 8760h",
        ),
        bad(
            "retries-too-many",
            with("retry: {limit: 21}"),
            "spec.retry.limit is \"21\"; it must be 0 to 20",
            "spec.retry.limit",
        ),
        bad(
            "retries-negative",
            with("retry: {limit: -1}"),
            "spec.retry.limit is \"-1\"; it must be 0 to 20",
            "spec.retry.limit",
        ),
        bad(
            "backoff-too-long",
            with("retry: {limit: 1, backoff: {max: 25h}}"),
            "spec.retry.backoff.max is \"25h\"; it must be 100ms to 24h",
            "spec.retry.backoff.max must be a duration of 100ms to 24h",
        ),
        bad(
            "backoff-too-short",
            with("retry: {limit: 1, backoff: {initial: 10ms}}"),
            "spec.retry.backoff.initial is \"10ms\"; it must be 100ms to 24h",
            "spec.retry.backoff.initial must be a duration of 100ms to 24h",
        ),
        bad(
            "backoff-that-shrinks",
            with("retry: {limit: 1, backoff: {initial: 2m, max: 1m}}"),
            "spec.retry.backoff.initial is \"2m\"; it must be at most spec.retry.backoff.max",
            "spec.retry.backoff.initial must be at most spec.retry.backoff.max",
        ),
        bad(
            "backoff-factor-zero",
            with("retry: {limit: 1, backoff: {factor: 0}}"),
            "spec.retry.backoff.factor is \"0\"; it must be 1 to 10",
            "spec.retry.backoff.factor",
        ),
        bad(
            "retry-on-nothing",
            with("retry: {limit: 1, causes: []}"),
            "spec.retry.causes",
            "spec.retry.causes",
        ),
        bad(
            "retry-on-what-was-asked-for",
            with("retry: {limit: 1, causes: [Cancelled]}"),
            "spec.retry.causes[0] is \"Cancelled\"; it must be",
            "spec.retry.causes[0]",
        ),
        bad(
            "retry-on-the-same-twice",
            with("retry: {limit: 1, causes: [Failed, Failed]}"),
            "spec.retry.causes",
            "spec.retry.causes[1]",
        ),
        bad(
            "timeout-negative",
            with("timeouts: {run: \"-5m\"}"),
            "spec.timeouts.run is \"-5m\"; it must be a duration of 1s to 8760h, such as 5m, 1h30m or 500ms",
            "spec.timeouts.run",
        ),
        bad(
            "timeout-of-words",
            with("timeouts: {run: 5 minutes}"),
            "spec.timeouts.run is \"5 minutes\"; it must be a duration",
            "spec.timeouts.run",
        ),
        bad(
            "timeout-as-number",
            with("timeouts: {run: 5}"),
            "spec.timeouts.run is 5; it must be a string",
            "spec.timeouts.run",
        ),
        bad(
            "timeout-without-unit",
            with("timeouts: {start: \"50\"}"),
            "spec.timeouts.start is \"50\"; it must be a duration",
            "spec.timeouts.start",
        ),
        bad(
            "timeout-empty",
            with("timeouts: {grace: \"\"}"),
            "spec.timeouts.grace is \"\"",
            "spec.timeouts.grace",
        ),
        bad(
            "run-of-nothing",
            with("timeouts: {run: 0s}"),
            "spec.timeouts.run is \"0s\"; it must be 1s to 8760h",
            "spec.timeouts.run must be a duration of 1s to 8760h",
        ),
        bad(
            "start-too-short",
            with("timeouts: {start: 10ms}"),
            "spec.timeouts.start is \"10ms\"; it must be 1s to 720h",
            "spec.timeouts.start must be a duration of 1s to 720h",
        ),
        bad(
            "unreachable-too-short",
            with("timeouts: {unreachable: 5s}"),
            "spec.timeouts.unreachable is \"5s\"; it must be 15s to 720h",
            "spec.timeouts.unreachable must be a duration of 15s to 720h",
        ),
        bad(
            "grace-too-long",
            with("timeouts: {grace: 2h}"),
            "spec.timeouts.grace is \"2h\"; it must be 0s to 1h",
            "spec.timeouts.grace must be a duration of 0s to 1h",
        ),
        bad(
            "percent-0",
            with("rollout: {maxConcurrent: 0%}"),
            "spec.rollout.maxConcurrent is \"0%\"; it must be a number from 1 to 100000, or a percentage from 1% to 100%",
            "spec.rollout.maxConcurrent",
        ),
        bad(
            "percent-101",
            with("rollout: {maxConcurrent: 101%}"),
            "spec.rollout.maxConcurrent is \"101%\"",
            "spec.rollout.maxConcurrent",
        ),
        bad(
            "percent-of-halves",
            with("rollout: {maxConcurrent: 1.5%}"),
            "spec.rollout.maxConcurrent is \"1.5%\"",
            "spec.rollout.maxConcurrent",
        ),
        bad(
            "count-0",
            with("rollout: {maxConcurrent: 0}"),
            "spec.rollout.maxConcurrent is \"0\"; it must be 1 to 100000",
            "spec.rollout.maxConcurrent",
        ),
        bad(
            "count-negative",
            with("rollout: {maxConcurrent: -1}"),
            "spec.rollout.maxConcurrent is \"-1\"; it must be 1 to 100000",
            "spec.rollout.maxConcurrent",
        ),
        bad(
            "on-change-unknown",
            with("onChange: Restart"),
            "spec.onChange is \"Restart\"; it must be Finish or Cancel",
            "spec.onChange: Unsupported value: \"Restart\"",
        ),
        bad(
            "on-recreate-unknown",
            with("onRecreate: Once"),
            "spec.onRecreate is \"Once\"; it must be Run or OncePerSpec",
            "spec.onRecreate: Unsupported value: \"Once\"",
        ),
        bad(
            "suspend-yes",
            with("suspend: \"yes\""),
            "spec.suspend is \"yes\"; it must be true or false",
            "spec.suspend",
        ),
        bad(
            "token-too-long",
            with(&format!("rerunToken: {}", "x".repeat(129))),
            "spec.rerunToken is",
            "spec.rerunToken: Too long",
        ),
        bad(
            "ttl-of-days",
            with("ttlAfterFinished: 1d"),
            "spec.ttlAfterFinished is \"1d\"; it must be a duration",
            "spec.ttlAfterFinished",
        ),
        bad(
            "ttl-of-eleven-years",
            with("ttlAfterFinished: 96000h"),
            "spec.ttlAfterFinished is \"96000h\"; it must be 0s to 87600h",
            "spec.ttlAfterFinished must be a duration of 0s to 87600h",
        ),
        bad(
            "field-of-tomorrow",
            with("schedule: {cron: [\"0 3 * * *\"]}"),
            "spec.schedule is an unknown field",
            "unknown field \"spec.schedule\"",
        ),
    ]
}
