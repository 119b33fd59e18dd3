//! Hints for common mistakes in commands whose program was not found.

use serde_json::Value;

use crate::output::escape::single_line;
use crate::output::quoted;

/// Keywords and builtins of shells that are not programs.
const SHELL_BUILTINS: [&str; 36] = [
    ".", "[[", "alias", "bg", "bind", "builtin", "case", "cd", "declare", "dirs", "disown", "eval", "exec",
    "exit", "export", "fg", "for", "function", "hash", "history", "if", "jobs", "let", "local", "popd",
    "pushd", "read", "return", "set", "shift", "shopt", "source", "trap", "ulimit", "unset", "while",
];

/// A hint for this command, if its mistake is a common one.
pub(super) fn hint(command: &Value) -> Option<String> {
    let words: Vec<&str> = command.as_array()?.iter().filter_map(Value::as_str).collect();
    let program = *words.first()?;
    // The advice has lines of its own.
    let whole = single_line(&words.join(" "));
    let why = if program.contains(char::is_whitespace) {
        format!("{program:?} is one argument, so all of it is taken as the program; no shell splits it.")
    } else if SHELL_BUILTINS.contains(&program) {
        format!("{program} is a shell builtin, not a program.")
    } else if program.contains('=') && words.len() > 1 {
        return Some(format!(
            "{program:?} is taken as the program. Set variables with: --env {}",
            quoted(program)
        ));
    } else {
        return None;
    };
    let directory = match (program, words.get(1)) {
        ("cd", Some(directory)) => {
            format!("\n  Or set the working directory with: --workdir {}", quoted(directory))
        }
        _ => String::new(),
    };
    Some(format!("{why}\n  Use a shell: sentinel run … -- sh -c {}{directory}", quoted(&whole)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn suggests_a_shell_for_builtins_and_single_strings() {
        let hint = |words: &[&str]| hint(&json!(words));
        assert!(hint(&["echo hi there"]).unwrap().ends_with("-- sh -c 'echo hi there'"));
        assert!(hint(&["echo 'it'"]).unwrap().ends_with(r"sh -c 'echo '\''it'\'''"));
        let cd = hint(&["cd", "/tmp"]).unwrap();
        assert!(cd.contains("-- sh -c 'cd /tmp'") && cd.ends_with("--workdir /tmp"), "{cd}");
        assert!(hint(&["A=b", "env"]).unwrap().ends_with("--env A=b"));
        assert_eq!(hint(&["no-such-program", "a b"]), None);
    }
}
