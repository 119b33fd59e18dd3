//! Tasks that must be refused: what is wrong, our message, and the API server's.
//!
//! Over 500 lines: it is one table, and a reader compares its rows.

/// One of them.
pub(crate) struct Bad {
    /// What is wrong, in short; also the Task's name.
    pub(crate) name: &'static str,
    /// Its spec, as YAML.
    pub(crate) spec: String,
    /// Our message: field, value and what is allowed.
    pub(crate) ours: &'static str,
    /// Whether an API server refuses it.
    pub(crate) at_apply: AtApply,
}

/// Whether an API server refuses a bad Task. Dev mode always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtApply {
    /// An API server too, with this in its message.
    Refused(&'static str),
    /// An API server accepts it, for this reason; the status of the Task then refuses it.
    Taken {
        /// Why the definition cannot describe it.
        because: &'static str,
    },
}

impl Bad {
    /// A part of the API server's message; `None` where it accepts the Task.
    pub(crate) fn theirs(&self) -> Option<&'static str> {
        match self.at_apply {
            AtApply::Refused(theirs) => Some(theirs),
            AtApply::Taken { .. } => None,
        }
    }
}

fn bad(name: &'static str, spec: impl Into<String>, ours: &'static str, theirs: &'static str) -> Bad {
    Bad { name, spec: spec.into(), ours, at_apply: AtApply::Refused(theirs) }
}

fn only_in_status(
    name: &'static str,
    spec: impl Into<String>,
    ours: &'static str,
    because: &'static str,
) -> Bad {
    Bad { name, spec: spec.into(), ours, at_apply: AtApply::Taken { because } }
}

fn targets(targets: &str) -> String {
    format!("{{targets: {targets}, run: {{command: [\"true\"]}}}}")
}

fn run(run: &str) -> String {
    format!("{{targets: {{all: true}}, run: {run}}}")
}

fn with(rest: &str) -> String {
    format!("{{targets: {{all: true}}, run: {{command: [\"true\"]}}, {rest}}}")
}

/// All of them.
pub(crate) fn all() -> Vec<Bad> {
    [of_targets(), of_selectors(), of_run(), of_bytes(), of_the_rest()].into_iter().flatten().collect()
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn of_targets() -> Vec<Bad> {
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
fn of_selectors() -> Vec<Bad> {
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

/// Limits in bytes, and zero bytes.
#[allow(clippy::too_many_lines, reason = "a table")]
fn of_bytes() -> Vec<Bad> {
    let e = |count: usize| "é".repeat(count);
    let control = "\\x01".repeat(130_000);
    vec![
        only_in_status(
            "command-of-bytes",
            run(&format!("{{command: [echo, {}, {}]}}", e(40_000), e(40_000))),
            "spec.run.command is \"160007 bytes\"; it must be at most 131072",
            "counting the bytes of 1024 arguments of up to 128 KiB costs more than an API server lets a rule cost; it counts characters",
        ),
        only_in_status(
            "larger-than-a-frame",
            run(&format!("{{command: [echo, \"{control}\"], stdin: \"{}\"}}", "\\x01".repeat(65_536))),
            "it must be at most 1032192 bytes as JSON, with command, env and stdin",
            "CEL cannot compute the length of a string as JSON",
        ),
        bad(
            "script-of-bytes",
            run(&format!("{{script: {{text: {}}}}}", e(70_000))),
            "spec.run.script.text is \"140000 bytes\"; it must be at most 131072 bytes",
            "spec.run.script.text must be at most 131072 bytes",
        ),
        bad(
            "nul-in-script",
            run("{script: {text: \"a\\0b\"}}"),
            "spec.run.script.text is \"a\\0b\"; it must not contain a zero byte",
            "spec.run.script.text must not contain a zero byte",
        ),
        bad(
            "interpreter-of-nothing",
            run("{script: {interpreter: \"\", text: a}}"),
            "spec.run.script.interpreter is \"\"; it must be 1 to 4096 characters long",
            "spec.run.script.interpreter",
        ),
        bad(
            "interpreter-of-bytes",
            run(&format!("{{script: {{interpreter: /{}, text: a}}}}", e(2500))),
            "spec.run.script.interpreter is",
            "spec.run.script.interpreter must be at most 4096 bytes",
        ),
        bad(
            "nul-in-interpreter",
            run("{script: {interpreter: \"/bin/a\\0b\", text: a}}"),
            "spec.run.script.interpreter is \"/bin/a\\0b\"; it must not contain a zero byte",
            "spec.run.script.interpreter must not contain a zero byte",
        ),
        bad(
            "nul-in-env",
            run("{command: [a], env: [{name: A, value: \"a\\0b\"}]}"),
            "spec.run.env[0].value is \"a\\0b\"; it must not contain a zero byte",
            "spec.run.env.value must not contain a zero byte",
        ),
        bad(
            "env-of-bytes",
            run(&format!("{{command: [a], env: [{{name: A, value: {}}}]}}", e(40_000))),
            "spec.run.env is \"80001 bytes\"; it must be at most 65536 bytes",
            "spec.run.env must be at most 65536 bytes in total",
        ),
        bad(
            "stdin-of-bytes",
            run(&format!("{{command: [a], stdin: {}}}", e(40_000))),
            "spec.run.stdin is \"80000 bytes\"; it must be at most 65536 bytes",
            "spec.run.stdin must be at most 65536 bytes",
        ),
        bad(
            "stdin-too-long",
            run(&format!("{{command: [a], stdin: {}}}", "x".repeat(65_537))),
            "spec.run.stdin is",
            "spec.run.stdin: Too long",
        ),
        bad(
            "nul-in-directory",
            run("{command: [a], workingDir: \"/a\\0b\"}"),
            "spec.run.workingDir is \"/a\\0b\"; it must not contain a zero byte",
            "spec.run.workingDir must not contain a zero byte",
        ),
        bad(
            "directory-of-bytes",
            run(&format!("{{command: [a], workingDir: /{}}}", e(2500))),
            "spec.run.workingDir is",
            "spec.run.workingDir must be at most 4096 bytes",
        ),
        bad(
            "many-arguments",
            run(&format!("{{command: [{}]}}", vec!["a"; 1025].join(","))),
            "spec.run.command is \"1025 items\"; it must be 1 to 1024",
            "spec.run.command: Too many",
        ),
        bad(
            "group-of-spaces",
            run("{command: [a], group: \"no group\"}"),
            "spec.run.group is \"no group\"; it must be a name, or a number from 0 to 4294967294",
            "spec.run.group must be a name, or a number from 0 to 4294967294",
        ),
        bad(
            "user-of-eleven-digits",
            run("{command: [a], user: \"00000000001\"}"),
            "spec.run.user is \"00000000001\"; it must be a name, or a number",
            "spec.run.user must be a name, or a number",
        ),
        bad(
            "cpu-from-zero",
            run("{command: [a], limits: {cpu: \"0500m\"}}"),
            "spec.run.limits.cpu is \"0500m\"; it must be 10m to 1024",
            "spec.run.limits.cpu must be 10m to 1024",
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn of_run() -> Vec<Bad> {
    let long = "x".repeat(1 << 20);
    let half = "x".repeat(70_000);
    let variables: Vec<String> = (0..257).map(|n| format!("{{name: A{n}}}")).collect();
    vec![
        bad(
            "no-command",
            run("{}"),
            "spec.run must have exactly one of command and script; it has none",
            "spec.run must have exactly one of command and script",
        ),
        bad(
            "command-and-script",
            run("{command: [a], script: {text: b}}"),
            "spec.run must have exactly one of command and script; it has both",
            "spec.run must have exactly one of command and script",
        ),
        bad(
            "empty-command",
            run("{command: []}"),
            "spec.run.command is \"0 items\"; it must be 1 to 1024",
            "spec.run.command",
        ),
        bad(
            "empty-program",
            run("{command: [\"\"]}"),
            "spec.run.command[0] is \"\"; it must name a program",
            "spec.run.command[0] must name a program",
        ),
        bad(
            "command-is-text",
            run("{command: df -h}"),
            "spec.run.command is \"df -h\"; it must be a list",
            "spec.run.command",
        ),
        bad(
            "number-in-command",
            run("{command: [sleep, 5]}"),
            "spec.run.command[1] is 5; it must be a string (quote numbers, and words such as yes)",
            "spec.run.command[1]",
        ),
        bad(
            "nul-in-command",
            run("{command: [a, \"b\\0c\"]}"),
            "spec.run.command[1] is \"b\\0c\"; it must not contain a zero byte, which the kernel cannot pass on",
            "spec.run.command[1]",
        ),
        bad(
            "a-mebibyte-of-arguments",
            run(&format!("{{command: [echo, {long}]}}")),
            "spec.run.command[1]",
            "spec.run.command[1]: Too long",
        ),
        bad(
            "long-in-all",
            run(&format!("{{command: [echo, {half}, {half}]}}")),
            "spec.run.command is \"140007 bytes\"; it must be at most 131072; put more into spec.run.script",
            "spec.run.command must be at most 131072 bytes in total",
        ),
        bad(
            "misspelt-field",
            run("{comand: [df]}"),
            "spec.run.comand is an unknown field; did you mean command?",
            "unknown field \"spec.run.comand\"",
        ),
        bad(
            "empty-script",
            run("{script: {text: \"\"}}"),
            "spec.run.script.text is \"\"; it must be 1 to 131072 characters long",
            "spec.run.script.text",
        ),
        bad(
            "script-with-crlf",
            run("{script: {text: \"#!/bin/sh\\r\\necho\\r\\n\"}}"),
            "spec.run.script.text has lines that end with CR LF, line 1 is the first; save it with LF",
            "spec.run.script.text has lines that end with CR LF",
        ),
        bad(
            "script-with-mark",
            run("{script: {text: \"\\uFEFF#!/bin/sh\\n\"}}"),
            "it must not begin with a byte-order mark",
            "spec.run.script.text must not begin with a byte-order mark",
        ),
        bad(
            "script-with-crlf-further-down",
            run("{script: {text: \"df\\ndf\\r\\n\"}}"),
            "spec.run.script.text has lines that end with CR LF, line 2 is the first; save it with LF",
            "spec.run.script.text has lines that end with CR LF or CR; save it with LF",
        ),
        bad(
            "script-with-cr",
            run("{script: {text: \"df\\rdf\\r\"}}"),
            "spec.run.script.text has lines that end with CR and none that ends with LF",
            "spec.run.script.text has lines that end with CR LF or CR; save it with LF",
        ),
        bad(
            "script-with-late-shebang",
            run("{script: {text: \"\\n#!/bin/sh\\n\"}}"),
            "spec.run.script.text has a #! line after blank space; make it the very first line",
            "spec.run.script.text has a #! line after blank space; make it the very first line",
        ),
        bad(
            "script-with-empty-shebang",
            run("{script: {text: \"#! \\ndf\\n\"}}"),
            "spec.run.script.text has a #! line that names no program",
            "spec.run.script.text has a #! line that names no program",
        ),
        bad(
            "script-with-long-shebang",
            run(&format!("{{script: {{text: \"#!/{}\\ndf\\n\"}}}}", "x".repeat(253))),
            "spec.run.script.text has a #! line of 256 bytes; the kernel accepts at most 255",
            "spec.run.script.text has a #! line that names no program or is longer than 255 bytes",
        ),
        bad(
            "interpreter-with-arguments",
            run("{script: {interpreter: /bin/bash -eu, text: df}}"),
            "spec.run.script.interpreter is \"/bin/bash -eu\"; it takes no arguments; omit it and write them in the \
             first line of the text, such as #!/bin/bash -eu",
            "spec.run.script.interpreter takes no arguments; omit it and write them in the first line of the text",
        ),
        bad(
            "leftovers-unknown",
            run("{command: [a], leftovers: Kill}"),
            "spec.run.leftovers",
            "spec.run.leftovers",
        ),
        bad(
            "merge-not-a-boolean",
            run("{command: [a], output: {merge: \"yes\"}}"),
            "spec.run.output.merge",
            "spec.run.output.merge",
        ),
        bad(
            "nofile-too-few",
            run("{command: [a], limits: {nofile: 3}}"),
            "spec.run.limits.nofile is \"3\"; it must be 16 to 1073741816",
            "spec.run.limits.nofile",
        ),
        bad(
            "core-too-large",
            run("{command: [a], limits: {core: 17Ti}}"),
            "spec.run.limits.core is \"17Ti\"; it must be 0 to 16Ti",
            "spec.run.limits.core must be an amount of 0 to 16Ti bytes",
        ),
        bad(
            "core-not-a-quantity",
            run("{command: [a], limits: {core: unlimited}}"),
            "spec.run.limits.core",
            "spec.run.limits.core",
        ),
        bad(
            "env-without-name",
            run("{command: [a], env: [{value: x}]}"),
            "spec.run.env[0].name is required",
            "spec.run.env[0].name: Required value",
        ),
        bad(
            "env-name-empty",
            run("{command: [a], env: [{name: \"\"}]}"),
            "spec.run.env[0].name is \"\"",
            "spec.run.env[0].name",
        ),
        bad(
            "env-name-with-equals",
            run("{command: [a], env: [{name: \"A=B\"}]}"),
            "spec.run.env[0].name is \"A=B\"; it must be 1 to 256 letters, digits",
            "spec.run.env[0].name",
        ),
        bad(
            "env-name-twice",
            run("{command: [a], env: [{name: A}, {name: A}]}"),
            "spec.run.env[1].name is \"A\"; it must be unique; spec.run.env[0] is the same",
            "spec.run.env[1]: Duplicate value",
        ),
        bad(
            "env-too-many",
            run(&format!("{{command: [a], env: [{}]}}", variables.join(", "))),
            "spec.run.env is \"257 items\"; it must be at most 256",
            "spec.run.env: Too many",
        ),
        bad(
            "env-too-long",
            run(&format!(
                "{{command: [a], env: [{{name: A, value: {}}}, {{name: B, value: {}}}]}}",
                &half[..40_000],
                &half[..40_000]
            )),
            "spec.run.env is \"80002 bytes\"; it must be at most 65536 bytes",
            "spec.run.env must be at most 65536 bytes in total",
        ),
        bad(
            "relative-directory",
            run("{command: [a], workingDir: tmp}"),
            "spec.run.workingDir is \"tmp\"",
            "spec.run.workingDir",
        ),
        bad(
            "user-of-spaces",
            run("{command: [a], user: \"no body\"}"),
            "spec.run.user is \"no body\"; it must be a name, or a number from 0 to 4294967294",
            "spec.run.user",
        ),
        bad(
            "user-minus-one",
            run("{command: [a], user: \"4294967295\"}"),
            "spec.run.user is \"4294967295\"; it must be a name, or a number from 0 to 4294967294",
            "spec.run.user must be a name, or a number from 0 to 4294967294",
        ),
        bad(
            "user-as-number",
            run("{command: [a], user: 0}"),
            "spec.run.user is 0; it must be a string",
            "spec.run.user",
        ),
        bad("umask-as-number", run("{command: [a], umask: 022}"), "spec.run.umask is", "spec.run.umask"),
        bad(
            "umask-of-nines",
            run("{command: [a], umask: \"099\"}"),
            "spec.run.umask is \"099\"; it must be three octal digits in quotes",
            "spec.run.umask must be three octal digits in quotes",
        ),
        bad(
            "exit-code-256",
            run("{command: [a], successExitCodes: [256]}"),
            "spec.run.successExitCodes[0] is \"256\"; it must be 0 to 255",
            "spec.run.successExitCodes[0]",
        ),
        bad(
            "exit-code-negative",
            run("{command: [a], successExitCodes: [-1]}"),
            "spec.run.successExitCodes[0] is \"-1\"; it must be 0 to 255",
            "spec.run.successExitCodes[0]",
        ),
        bad(
            "exit-code-twice",
            run("{command: [a], successExitCodes: [0, 0]}"),
            "spec.run.successExitCodes[1] is 0; it must be unique",
            "spec.run.successExitCodes[1]: Duplicate value",
        ),
        bad(
            "no-exit-codes",
            run("{command: [a], successExitCodes: []}"),
            "spec.run.successExitCodes is \"0 items\"; it must be 1 to 256",
            "spec.run.successExitCodes",
        ),
        bad(
            "bad-environment",
            run("{command: [a], environment: host}"),
            "spec.run.environment is \"host\"; it must be Host or Container",
            "spec.run.environment: Unsupported value: \"host\"",
        ),
        bad(
            "cpu-of-nothing",
            run("{command: [a], limits: {cpu: 5m}}"),
            "spec.run.limits.cpu is \"5m\"; it must be 10m to 1024",
            "spec.run.limits.cpu must be 10m to 1024",
        ),
        bad(
            "cpu-of-halves",
            run("{command: [a], limits: {cpu: \"0.5\"}}"),
            "spec.run.limits.cpu is \"0.5\"; it must be 10m to 1024: thousandths of a CPU, such as 500m, or whole CPUs, such as 2",
            "spec.run.limits.cpu",
        ),
        bad(
            "cpu-0",
            run("{command: [a], limits: {cpu: 0}}"),
            "spec.run.limits.cpu is \"0\"; it must be 1 to 1024",
            "spec.run.limits.cpu",
        ),
        bad(
            "cpu-of-5000",
            run("{command: [a], limits: {cpu: \"5000\"}}"),
            "spec.run.limits.cpu is \"5000\"; it must be 10m to 1024",
            "spec.run.limits.cpu must be 10m to 1024",
        ),
        bad(
            "memory-too-small",
            run("{command: [a], limits: {memory: 1Mi}}"),
            "spec.run.limits.memory is \"1Mi\"; it must be 4Mi to 16Ti",
            "spec.run.limits.memory must be an amount of 4Mi to 16Ti bytes",
        ),
        bad(
            "memory-too-large",
            run("{command: [a], limits: {memory: 17Ti}}"),
            "spec.run.limits.memory is \"17Ti\"; it must be 4Mi to 16Ti",
            "spec.run.limits.memory must be an amount of 4Mi to 16Ti bytes",
        ),
        bad(
            "memory-in-words",
            run("{command: [a], limits: {memory: 256MB}}"),
            "spec.run.limits.memory is \"256MB\"; it must be an amount of 4Mi to 16Ti bytes, such as 64Mi or 1G",
            "spec.run.limits.memory",
        ),
        bad(
            "pids-0",
            run("{command: [a], limits: {pids: 0}}"),
            "spec.run.limits.pids is \"0\"; it must be 1 to 4194304",
            "spec.run.limits.pids",
        ),
        bad(
            "limit-of-letters",
            run("{command: [a], output: {limit: 5M1}}"),
            "spec.run.output.limit is \"5M1\"; it must be an amount of 0 to 1Ti bytes, such as 64Mi or 1G",
            "spec.run.output.limit",
        ),
        bad(
            "limit-negative",
            run("{command: [a], output: {limit: \"-5Mi\"}}"),
            "spec.run.output.limit is \"-5Mi\"",
            "spec.run.output.limit",
        ),
        bad(
            "limit-of-exbibytes",
            run("{command: [a], output: {limit: 10Ei}}"),
            "spec.run.output.limit is \"10Ei\"",
            "spec.run.output.limit",
        ),
        bad(
            "limit-too-much",
            run("{command: [a], output: {limit: 2Ti}}"),
            "spec.run.output.limit is \"2Ti\"; it must be 0 to 1Ti",
            "spec.run.output.limit must be an amount of 0 to 1Ti bytes",
        ),
        bad(
            "spool-too-little",
            run("{command: [a], output: {spool: 1k}}"),
            "spec.run.output.spool is \"1k\"; it must be 1Mi to 64Gi",
            "spec.run.output.spool must be an amount of 1Mi to 64Gi bytes",
        ),
        bad(
            "block-too-long",
            run("{command: [a], output: {maxBlock: 25h}}"),
            "spec.run.output.maxBlock is \"25h\"; it must be 0s to 24h",
            "spec.run.output.maxBlock must be a duration of 0s to 24h",
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn of_the_rest() -> Vec<Bad> {
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

/// The Task as YAML.
pub(crate) fn manifest(name: &str, spec: &str) -> String {
    format!("apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}
