//! `ceilings`: checks a file of ceilings. Needs no server.

use std::path::Path;

use sentinel_operator::resource::ceilings;

use crate::args::{CeilingsArgs, CeilingsVerb};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::output::format::print;
use crate::output::text::Text;

pub(super) fn execute(args: &CeilingsArgs) -> ExitResult {
    let CeilingsVerb::Lint { file, strict } = &args.what;
    lint(file, *strict)
}

fn lint(file: &Path, strict: bool) -> ExitResult {
    let rules = ceilings::read(file).map_err(|error| Failure::usage(error.to_string()))?;
    let findings = ceilings::lint(&rules);
    if findings.is_empty() {
        print(Text::from("").single_line(&file.display().to_string()).plain(": nothing found\n"))?;
    }
    for finding in &findings {
        print(Text::from("").single_line(&finding.to_string()).plain("\n"))?;
    }
    Ok(if strict && !findings.is_empty() { FAILED } else { OK })
}
