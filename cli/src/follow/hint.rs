//! What to do about a command that could not be started for a reason that people often meet.

use serde_json::Value;

use crate::output::quoted;

/// Words that a shell knows and no program has.
const OF_THE_SHELL: [&str; 36] = [
    ".", "[[", "alias", "bg", "bind", "builtin", "case", "cd", "declare", "dirs", "disown", "eval", "exec",
    "exit", "export", "fg", "for", "function", "hash", "history", "if", "jobs", "let", "local", "popd",
    "pushd", "read", "return", "set", "shift", "shopt", "source", "trap", "ulimit", "unset", "while",
];

/// A sentence about this command line, whose program was not found on the node.
pub(crate) fn hint(command: &Value) -> Option<String> {
    let words: Vec<&str> = command.as_array()?.iter().filter_map(Value::as_str).collect();
    let program = *words.first()?;
    let whole = words.join(" ");
    let why = if program.contains(char::is_whitespace) {
        format!("{program:?} is one argument, so all of it is the name of a program; no shell divides it.")
    } else if OF_THE_SHELL.contains(&program) {
        format!("{program} is a word of the shell, not a program.")
    } else if program.contains('=') && words.len() > 1 {
        return Some(format!(
            "{program:?} is taken as the name of a program. Set variables with: --env {}",
            quoted(program)
        ));
    } else {
        return None;
    };
    let directory = match (program, words.get(1)) {
        ("cd", Some(directory)) => {
            format!("\n  Or start the command there with: --workdir {}", quoted(directory))
        }
        _ => String::new(),
    };
    Some(format!("{why}\n  With a shell: sentinel run … -- sh -c {}{directory}", quoted(&whole)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_that_needs_a_shell_is_shown_with_one() {
        let hint = |words: &[&str]| hint(&json!(words));
        assert!(hint(&["echo hi there"]).unwrap().ends_with("-- sh -c 'echo hi there'"));
        assert!(hint(&["echo 'it'"]).unwrap().ends_with(r"sh -c 'echo '\''it'\'''"));
        let cd = hint(&["cd", "/tmp"]).unwrap();
        assert!(cd.contains("-- sh -c 'cd /tmp'") && cd.ends_with("--workdir /tmp"), "{cd}");
        assert!(hint(&["A=b", "env"]).unwrap().ends_with("--env A=b"));
        assert_eq!(hint(&["no-such-program", "a b"]), None);
    }
}
