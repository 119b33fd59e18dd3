//! `apply`: creates or updates Tasks from files.

use std::path::PathBuf;

use crate::args::{ApplyArgs, DryRun};
use crate::client::Client;
use crate::exit::{ExitResult, Failure, OK};
use crate::manifests::{FileKind, read_all};
use crate::output::format::{OutputFormat, note, print};
use crate::output::text::Text;
use crate::program::phrased;

pub(super) async fn execute(client: &Client, namespace: &str, args: &ApplyArgs) -> ExitResult {
    let files: Vec<PathBuf> = args.files.iter().chain(&args.filename).cloned().collect();
    let tasks = read_all(&files, namespace, FileKind::Any)?;
    let how = if args.dry_run.is_some() { " (server dry run)" } else { "" };
    let mut first_failure: Option<Failure> = None;
    for task in &tasks {
        let applied = match args.dry_run {
            None => task.apply(client).await,
            Some(DryRun::Server) => task.try_apply(client).await,
        };
        match applied {
            Ok((result, value)) => {
                if args.output == OutputFormat::Yaml {
                    print("---\n")?;
                }
                if !args.output.print_document(&value)? {
                    let name = Text::from("task/").single_line(&task.name);
                    let name_only = args.output == OutputFormat::Name;
                    print(
                        if name_only { name } else { name.plain(" ").single_line(&result).plain(how) }
                            .plain("\n"),
                    )?;
                }
            }
            Err(failure) => {
                note(Text::from("task/").single_line(&task.name).plain(format!(": {failure}")));
                first_failure.get_or_insert(failure);
            }
        }
    }
    if let Some(hint) = first_failure.as_ref().and_then(|failure| failure.hint.as_deref()) {
        note(&phrased(hint));
    }
    Ok(first_failure.map_or(OK, |failure| failure.code))
}
