//! Completion by shells: what they are offered, and in the shells themselves, as far as they are installed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "fixtures of tests may panic")]

#[cfg(test)]
mod kit;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use kit::{CliOutput, Dev, sentinel};

/// What a shell is offered for the last of these words.
fn offered(server: &str, shell: &str, words: &[&str]) -> Vec<String> {
    let mut command = sentinel();
    command.env("SENTINEL_SERVER", server).env("SENTINEL_COMPLETE", shell).env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).arg("--").arg("sentinel").args(words);
    let output = CliOutput::of(words, &command.stdin(Stdio::null()).output().unwrap()).exited(0);
    assert_eq!(output.err, "", "{words:?}");
    // zsh and fish have a description behind the value.
    output.out.lines().map(|line| line.split(['\t', ':']).next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn completion_knows_tasks_nodes_namespaces_and_runs() {
    let dev = Dev::start(&["--nodes", "2"]);
    dev.run(&["run", "--name", "web", "--node", "sim-1", "--", "true"]).exited(0);
    dev.run(&["rerun", "web", "--follow"]).exited(0);
    dev.run(&["-n", "ops", "run", "--name", "other", "--node", "sim-1", "--", "true"]).exited(0);
    for shell in ["bash", "zsh", "fish"] {
        let of = |words: &[&str]| offered(&dev.server, shell, words);
        assert_eq!(of(&["logs", "w"]), ["web"], "{shell}");
        assert_eq!(of(&["get", "task", "o"]), [""; 0], "{shell}: it is in another namespace");
        assert_eq!(of(&["-n", "ops", "cancel", "o"]), ["other"], "{shell}");
        assert_eq!(of(&["wait", "ops/"]), ["ops/other"], "{shell}");
        assert_eq!(of(&["run", "--node", "sim-"]), ["sim-1", "sim-2"], "{shell}");
        assert_eq!(of(&["get", "tasks", "-n", "o"]), ["ops"], "{shell}");
        let mut runs = of(&["logs", "web", "--run", ""]);
        runs.sort();
        assert_eq!(runs, ["1", "2"], "{shell}");
        assert_eq!(of(&["get", "execution", "web/2/"]), ["web/2/sim-1"], "{shell}");
        // Nothing was offered behind the kind of a name.
        assert_eq!(of(&["logs", "task/"]), ["task/web"], "{shell}");
        assert_eq!(of(&["wait", "task/ops/"]), ["task/ops/other"], "{shell}");
        assert_eq!(of(&["logs", "execution/web/2/"]), ["execution/web/2/sim-1"], "{shell}");
        assert_eq!(of(&["get", "node", "sim-1"]), ["sim-1"], "{shell}");
        // Nouns were offered in the singular only.
        for (begun, noun) in [("t", "tasks"), ("run", "runs"), ("exec", "executions"), ("no", "nodes")] {
            assert_eq!(of(&["get", begun]), [noun], "{shell}");
        }
    }
}

#[test]
fn completion_is_silent_and_quick_without_a_server() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // One that never answers, and one that does not exist.
    let deaf = format!("http://{}", listener.local_addr().unwrap());
    for server in [deaf.as_str(), "unix:/nowhere", "not an address"] {
        let begun = Instant::now();
        assert_eq!(offered(server, "bash", &["logs", "w"]), [""; 0], "{server}");
        // A loaded machine starts a process slowly; without the deadline it would wait forever.
        assert!(begun.elapsed() < kit::TIMEOUT, "{server}");
    }
}

/// A directory with `sentinel` in it, as on the PATH of a user.
fn on_path() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sentinel"), directory.path().join("sentinel")).unwrap();
    directory
}

#[expect(clippy::disallowed_methods, reason = "unlike a captured message, it is seen when the test passes")]
fn report_not_run(program: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: completion in {program}: it is not installed");
}

/// What a shell prints when it executes this script with `sentinel` on its PATH; `None` where it is not installed.
fn in_shell(shell: &[&str], script: &str, server: &str) -> Option<String> {
    let (program, flags) = shell.split_first().unwrap();
    if Command::new(program).arg("--version").output().is_err() {
        report_not_run(program);
        return None;
    }
    let (bin, home) = (on_path(), tempfile::tempdir().unwrap());
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap_or_default());
    // The shell waits for its terminal without a limit of its own.
    let mut command = Command::new("timeout");
    command.arg(kit::TIMEOUT.as_secs().to_string()).arg(program).args(flags).arg(script);
    command
        .env("PATH", path)
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("TERM", "xterm");
    command.env("SENTINEL_SERVER", server).env_remove("SENTINEL_NAMESPACE");
    let output = CliOutput::of(shell, &command.stdin(Stdio::null()).output().unwrap()).exited(0);
    Some(output.out)
}

/// Command lines, and what Tab at their end makes of each.
const LINES: [(&str, &str); 6] = [
    ("sentinel logs w", "web"),
    ("sentinel logs task/w", "task/web"),
    ("sentinel get ta", "tasks"),
    ("sentinel get task w", "web"),
    ("sentinel logs web/1/", "web/1/sim-1"),
    ("sentinel compl", "completion"),
];

fn dev_with_a_task() -> Dev {
    let dev = Dev::start(&["--nodes", "2"]);
    dev.run(&["run", "--name", "web", "--node", "sim-1", "--", "true"]).exited(0);
    dev
}

#[test]
fn bash_completes_by_the_printed_script() {
    let dev = dev_with_a_task();
    // As readline calls the function that the script registers.
    let script = "source <(sentinel completion bash); f=$(complete -p sentinel | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                  while IFS= read -r line; do read -ra COMP_WORDS <<<\"$line\"; COMP_CWORD=$((${#COMP_WORDS[@]}-1)); \
                  COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMPREPLY=(); \
                  $f sentinel \"${COMP_WORDS[-1]}\" \"${COMP_WORDS[-2]}\"; echo \"${COMPREPLY[*]}\"; done <<<\"$LINES_TO_TRY\"";
    check_each(&dev, &["bash", "--norc", "-c"], |lines| format!("LINES_TO_TRY='{lines}'; {script}"));
}

#[test]
fn fish_completes_by_the_printed_script() {
    let dev = dev_with_a_task();
    // `complete -C` prints what Tab offers, with descriptions.
    let script = |lines: &str| {
        let tries = lines.lines().map(|line| format!("complete -C '{line}' | cut -f 1; "));
        format!("sentinel completion fish | source; {}", tries.collect::<String>())
    };
    check_each(&dev, &["fish", "--no-config", "-c"], script);
}

#[test]
fn zsh_completes_by_the_printed_script() {
    let dev = dev_with_a_task();
    // A second zsh on a terminal of its own: the line is typed, and Tab is pressed. The bound key prints the line then.
    let script = |lines: &str| {
        let tries = lines.lines().map(|line| {
            format!("zpty -n -w z $'{line}\\t\\C-x'; zpty -r -m z out '*<<*>>*'; print -r -- ${{${{out##*<<}}%%>>*}}; zpty -n -w z $'\\C-u'; ")
        });
        let setup = "zmodload zsh/zpty; zpty z zsh -f -i; \
            zpty -w z 'PS1= PS2=; unsetopt zle_bracketed_paste; unset zle_bracketed_paste; autoload -Uz compinit; compinit -u -D; \
            source <(sentinel completion zsh); show() { print -n -r -- \"<\"\"<$BUFFER>\"\">\" }; zle -N show; bindkey \"^X\" show; bindkey \"^U\" kill-whole-line; print rea\"\"dy'; \
            zpty -r -m z out '*ready*'; ";
        format!("{setup}{}zpty -d z", tries.collect::<String>())
    };
    let Some(shown) = in_shell(&["zsh", "-f", "-c"], &script(&all_lines()), &dev.server) else { return };
    let completed: Vec<&str> = shown.lines().map(str::trim_end).collect();
    let expected: Vec<String> =
        LINES.iter().map(|(line, word)| format!("{} {word}", line.rsplit_once(' ').unwrap().0)).collect();
    assert_eq!(completed, expected);
}

fn all_lines() -> String {
    LINES.map(|(line, _)| line).join("\n")
}

/// Checks that the script, which is made of all lines, prints what each becomes at its end.
fn check_each(dev: &Dev, shell: &[&str], script: impl Fn(&str) -> String) {
    let Some(shown) = in_shell(shell, &script(&all_lines()), &dev.server) else { return };
    let completed: Vec<&str> = shown.lines().map(str::trim_end).collect();
    assert_eq!(completed, LINES.map(|(_, word)| word));
}
