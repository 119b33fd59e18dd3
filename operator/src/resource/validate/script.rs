//! `spec.run.script`: its interpreter, and whether that can read the text.

use sentinel_protocol::limits::{MAX_COMMAND_BYTES, MAX_SHEBANG};
use sentinel_protocol::request::Program;

use super::super::invalid::Problems;
use super::super::task;
use super::values::no_zero_byte;

const TEXT: &str = "spec.run.script.text";
const INTERPRETER: &str = "spec.run.script.interpreter";

/// Interpreter of a script that names none.
const DEFAULT_INTERPRETER: &str = "/bin/sh";

pub(super) fn program(script: &task::Script, problems: &mut Problems) -> Option<Program> {
    let text = &script.text;
    no_zero_byte(TEXT, text, problems);
    if text.is_empty() {
        problems.value(TEXT, "", "must not be empty");
        return None;
    }
    if text.len() > MAX_COMMAND_BYTES {
        let allowed = format!("must be at most {MAX_COMMAND_BYTES} bytes");
        problems.value(TEXT, &format!("{} bytes", text.len()), allowed);
    }
    if text.starts_with('\u{feff}') {
        let allowed = "must not begin with a byte-order mark; save it as UTF-8 without one";
        problems.value(TEXT, text, allowed);
    }
    line_ends(text, problems);
    let (interpreter, argument) = match &script.interpreter {
        Some(interpreter) => {
            named(interpreter, problems);
            (interpreter.clone(), None)
        }
        None => first_line(text, problems)?,
    };
    Some(Program::Script { interpreter, argument, text: text.clone() })
}

/// To an interpreter the CR is a part of the line: a shell runs the command `df\r`, the kernel the interpreter
/// `/bin/sh\r`.
fn line_ends(text: &str, problems: &mut Problems) {
    let save = "save it with LF, for example with";
    if let Some(at) = text.find("\r\n") {
        let line = text[..at].matches('\n').count() + 1;
        problems.field(
            TEXT,
            format!("has lines that end with CR LF, line {line} is the first; {save}: dos2unix FILE"),
        );
    } else if text.contains('\r') && !text.contains('\n') {
        problems.field(
            TEXT,
            format!("has lines that end with CR and none that ends with LF; {save}: mac2unix FILE"),
        );
    }
}

fn named(interpreter: &str, problems: &mut Problems) {
    no_zero_byte(INTERPRETER, interpreter, problems);
    if interpreter.is_empty() || interpreter.len() > 4096 {
        problems.value(INTERPRETER, interpreter, "must name a program");
    } else if interpreter.contains(char::is_whitespace) {
        let allowed = format!(
            "takes no arguments; omit it and write them in the first line of the text, such as #!{}",
            interpreter.trim()
        );
        problems.value(INTERPRETER, interpreter, allowed);
    }
}

/// The interpreter in the first line of a script, as the kernel reads it: after `#!` the program, then the rest as one
/// argument. Unlike in the kernel, a name without `/` is searched in `PATH`.
fn first_line(text: &str, problems: &mut Problems) -> Option<(String, Option<String>)> {
    let Some(rest) = text.strip_prefix("#!") else {
        if text.trim_start().starts_with("#!") {
            let allowed =
                format!("has a #! line after blank space; make it the very first line, or set {INTERPRETER}");
            problems.field(TEXT, allowed);
        }
        return Some((DEFAULT_INTERPRETER.to_owned(), None));
    };
    let line = rest.lines().next().unwrap_or_default();
    let blank = [' ', '\t'];
    let line_bytes = line.len() + 2;
    if line_bytes > MAX_SHEBANG {
        let allowed = format!(
            "has a #! line of {line_bytes} bytes; the kernel accepts at most {MAX_SHEBANG}. Shorten it, or set {INTERPRETER}"
        );
        problems.field(TEXT, allowed);
        return None;
    }
    let line = line.trim_matches(blank);
    let (program, argument) = line.split_once(blank).unwrap_or((line, ""));
    if program.is_empty() {
        problems
            .field(TEXT, format!("has a #! line that names no program; correct it, or set {INTERPRETER}"));
        return None;
    }
    let argument = argument.trim_start_matches(blank);
    Some((program.to_owned(), (!argument.is_empty()).then(|| argument.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(interpreter: Option<&str>, text: &str) -> Result<(String, Option<String>), String> {
        let script = task::Script { interpreter: interpreter.map(str::to_owned), text: text.to_owned() };
        let mut problems = Problems::default();
        let program = program(&script, &mut problems);
        let problems = super::super::super::invalid::describe(&problems.into_inner());
        match program {
            Some(Program::Script { interpreter, argument, text: kept }) if problems.is_empty() => {
                assert_eq!(kept, text, "the text reaches the interpreter as it is");
                Ok((interpreter, argument))
            }
            _ => Err(problems),
        }
    }

    #[test]
    fn first_line_names_the_interpreter_as_in_the_kernel() {
        let check = |text, program: &str, argument: Option<&str>| {
            assert_eq!(read(None, text), Ok((program.to_owned(), argument.map(str::to_owned))), "{text:?}");
        };
        check("df\n", "/bin/sh", None);
        check("# a comment\n#!/usr/bin/python3\n", "/bin/sh", None);
        check("#!/usr/bin/python3\nprint(1)\n", "/usr/bin/python3", None);
        check("#!/usr/bin/python3", "/usr/bin/python3", None);
        check("#! \t /bin/bash -eu \t\ndf\n", "/bin/bash", Some("-eu"));
        check("#!/usr/bin/env -S python3 -u -W error\n", "/usr/bin/env", Some("-S python3 -u -W error"));
        check("#!/usr/bin/awk\t-f\n", "/usr/bin/awk", Some("-f"));
        check("#!python3\n", "python3", None);
        let longest = format!("#!/{}\n", "x".repeat(252));
        assert_eq!(read(None, &longest).map(|(program, _)| program.len()), Ok(253));
    }

    #[test]
    fn given_interpreter_overrides_the_first_line() {
        assert_eq!(read(Some("bash"), "#!/usr/bin/python3 -u\n"), Ok(("bash".to_owned(), None)));
        assert_eq!(read(Some("cat"), " #!\n"), Ok(("cat".to_owned(), None)));
    }

    #[test]
    fn broken_script_is_refused_with_a_remedy() {
        let check = |interpreter: Option<&str>, text: &str, expected: &str| {
            let message = read(interpreter, text).unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message}");
        };
        check(None, "", "must not be empty");
        check(
            None,
            "\u{feff}#!/bin/sh\ndf\n",
            "must not begin with a byte-order mark; save it as UTF-8 without one",
        );
        check(
            None,
            "#!/bin/sh\r\ndf\r\n",
            "CR LF, line 1 is the first; save it with LF, for example with: dos2unix",
        );
        check(Some("sh"), "df\n\ndf\r\ndf\n", "CR LF, line 3 is the first");
        check(None, "#!/bin/sh\rdf\r", "lines that end with CR and none that ends with LF");
        check(None, "\n  #!/bin/sh\n", "a #! line after blank space; make it the very first line");
        check(None, "#!\ndf\n", "a #! line that names no program");
        check(None, "#! \t\n", "a #! line that names no program");
        check(
            None,
            &format!("#!/{}\n", "x".repeat(253)),
            "a #! line of 256 bytes; the kernel accepts at most 255",
        );
        check(None, "a\0b", "must not contain a zero byte");
        check(Some("/bin/bash -eu"), "df\n", "takes no arguments; omit it and write them in the first line");
        check(Some("/bin/bash -eu"), "df\n", "such as #!/bin/bash -eu");
        check(Some(""), "df\n", "must name a program");
    }

    #[test]
    fn carriage_return_within_a_line_is_accepted() {
        assert!(read(None, "printf 'a\rb\n'\necho\n").is_ok());
    }
}
