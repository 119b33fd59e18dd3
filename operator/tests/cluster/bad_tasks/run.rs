//! Tasks whose `spec.run` must be refused: the command or script, its surroundings, its limits, and sizes in bytes.

use super::{Bad, bad, only_in_status};

pub(super) fn run(run: &str) -> String {
    format!("{{targets: {{all: true}}, run: {run}}}")
}

/// Limits in bytes, and zero bytes.
#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn of_bytes() -> Vec<Bad> {
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
            "root-by-default",
            run("{command: [a], user: root}"),
            "spec.run.user is \"root\"; it must not be root in the sandbox Restricted",
            "spec.run.user must not be root in the sandbox Restricted",
        ),
        bad(
            "restricted-uid-0",
            run("{command: [a], environment: Host, sandbox: Restricted, user: \"00\"}"),
            "spec.run.user is \"00\"; it must not be root in the sandbox Restricted",
            "spec.run.user must not be root in the sandbox Restricted",
        ),
        bad(
            "restricted-group-0",
            run("{command: [a], sandbox: Restricted, user: daemon, group: \"0\"}"),
            "spec.run.group is \"0\"; it must not be root in the sandbox Restricted",
            "spec.run.group must not be root in the sandbox Restricted",
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
pub(super) fn of_run() -> Vec<Bad> {
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
            "mask-not-a-boolean",
            run("{command: [a], output: {mask: \"no\"}}"),
            "spec.run.output.mask",
            "spec.run.output.mask",
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
