//! Keeps the generated tables of the pages in `docs` current.
//!
//! The tests `operating_reference` of the operator and of the node agent include this file. Each table is between the
//! lines `<!-- begin generated: NAME -->` and `<!-- end generated: NAME -->`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// The variable that makes the tests write the tables instead of comparing them.
const UPDATE: &str = "UPDATE_REFERENCE";

/// Compares a table of the page with its current content, or writes it if `UPDATE_REFERENCE` is set.
pub(crate) fn check(page: &str, name: &str, table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let shown = format!("docs/{page}");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) =
        (format!("<!-- begin generated: {name} -->\n"), format!("<!-- end generated: {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin:?} in {shown}"));
    let (written, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end:?} in {shown}"));
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    let stale = |one: &str, other: &str| {
        let lines: Vec<&str> = one.lines().filter(|line| !other.lines().any(|seen| seen == *line)).collect();
        lines.join("\n")
    };
    assert!(
        written == table,
        "the table {name:?} in {shown} is not current; update it with\n  \
         {UPDATE}=1 cargo test -p {} --test operating_reference\nin the page only:\n{}\nin the program only:\n{}",
        env!("CARGO_PKG_NAME"),
        stale(written, table),
        stale(table, written),
    );
}

/// The flags of a command as a table: flag, environment variable, default, meaning.
pub(crate) fn flags(command: &clap::Command) -> String {
    let mut table = "| Flag | Variable | Default | Meaning |\n|---|---|---|---|\n".to_owned();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
        let value = match arg.get_action() {
            clap::ArgAction::Set | clap::ArgAction::Append => {
                let names = arg.get_value_names().unwrap_or_default();
                names.first().map(|name| format!(" {name}")).unwrap_or_default()
            }
            _ => String::new(),
        };
        let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        let default = match defaults.first() {
            None if arg.is_required_set() => "required".to_owned(),
            None => String::new(),
            Some(default) => default.clone(),
        };
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut meaning = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let values: Vec<String> = match arg.get_action() {
            clap::ArgAction::Set | clap::ArgAction::Append => {
                arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect()
            }
            _ => Vec::new(),
        };
        if !values.is_empty() {
            let end = if meaning.ends_with('.') { " " } else { ". " };
            let _ = write!(meaning, "{end}One of {}", values.join(", "));
        }
        let meaning = meaning.replace('|', "\\|");
        let _ = writeln!(table, "| `--{long}{value}` | {variable} | {default} | {meaning} |");
    }
    table
}
