//! By which name this program was called: `sentinel`, or `kubectl sentinel`, as kubectl calls its plugins.

use std::path::Path;
use std::sync::LazyLock;

/// The file name by which kubectl finds a plugin with the name `sentinel`.
const PLUGIN: &str = "kubectl-sentinel";

/// What a person types for it as a plugin.
const AS_PLUGIN: &str = "kubectl sentinel";

static IS_PLUGIN: LazyLock<bool> = LazyLock::new(|| {
    let called = std::env::args_os().next().unwrap_or_default();
    is_plugin(Path::new(&called))
});

fn is_plugin(called: &Path) -> bool {
    called.file_stem().is_some_and(|name| name == PLUGIN)
}

/// A text with its command lines as a person types them.
pub(crate) fn phrased(text: &str) -> String {
    if *IS_PLUGIN { as_plugin(text) } else { text.to_owned() }
}

/// Help with its command lines as a person types them.
pub(crate) fn phrased_help(mut command: clap::Command) -> clap::Command {
    if !*IS_PLUGIN {
        return command;
    }
    if command.get_name() == "sentinel" {
        command = command.bin_name(AS_PLUGIN);
    }
    if let Some(examples) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(as_plugin(&examples));
    }
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, phrased_help))
}

/// Replaces `sentinel` where it begins a command line: at the beginning of a text or behind what stands before one, and with a
/// verb or a flag behind it.
fn as_plugin(text: &str) -> String {
    const WORD: &str = "sentinel ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(WORD) {
        let (before, after) = (&rest[..at], &rest[at + WORD.len()..]);
        let begins = match before.chars().last().or(out.chars().last()) {
            None => true,
            Some(last) => last.is_whitespace() || "`|(;&".contains(last),
        };
        let continues =
            after.starts_with(|c: char| c.is_ascii_lowercase() || c == '-' || c == '<' || c == '[');
        let is_message = before.ends_with("kubectl ");
        out.push_str(before);
        out.push_str(if begins && continues && !is_message { "kubectl sentinel " } else { WORD });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_command_lines_are_phrased() {
        for (given, expected) in [
            ("Follow it with: sentinel logs -f a", "Follow it with: kubectl sentinel logs -f a"),
            (
                "  sentinel run --all -- ls\n  sentinel --context a nodes",
                "  kubectl sentinel run --all -- ls\n  kubectl sentinel --context a nodes",
            ),
            ("sentinel: 3 nodes", "sentinel: 3 nodes"),
            ("kubectl sentinel check", "kubectl sentinel check"),
            ("/run/sentinel x", "/run/sentinel x"),
            ("x | sentinel apply -", "x | kubectl sentinel apply -"),
            ("See what is wrong with `sentinel check`", "See what is wrong with `kubectl sentinel check`"),
        ] {
            assert_eq!(as_plugin(given), expected);
        }
    }

    #[test]
    fn kubectl_finds_a_plugin_by_its_file_name() {
        assert!(
            is_plugin(Path::new("/usr/bin/kubectl-sentinel")) && is_plugin(Path::new("kubectl-sentinel"))
        );
        assert!(!is_plugin(Path::new("/usr/bin/sentinel")) && !is_plugin(Path::new("kubectl-sentinelx")));
    }
}
