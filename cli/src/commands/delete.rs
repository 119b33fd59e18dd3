//! `delete`: deletes Tasks.

use super::wait::{Condition, wait_for};
use crate::args::DeleteArgs;
use crate::client::Client;
use crate::exit::{ExitResult, Failure, OK};
use crate::manifests::{FileKind, read_all};
use crate::output::format::{note, print};
use crate::output::text::Text;
use crate::program::phrased;

pub(super) async fn execute(client: &Client, namespace: &str, args: &DeleteArgs) -> ExitResult {
    let mut tasks: Vec<(String, String)> = args
        .tasks
        .iter()
        .map(|task| task.within(namespace))
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .collect();
    for task in read_all(&args.filename, namespace, FileKind::Any)? {
        tasks.push((task.namespace, task.name));
    }
    let mut first_failure: Option<Failure> = None;
    let mut requested = Vec::new();
    for (namespace, name) in tasks {
        match client.delete_task(&namespace, &name).await.map_err(Failure::from) {
            Ok(()) => {
                print(Text::from("task/").single_line(&name).plain(" deletion requested\n"))?;
                requested.push((namespace, name));
            }
            Err(failure) => {
                note(Text::from("task/").single_line(&name).plain(format!(": {failure}")));
                first_failure.get_or_insert(failure);
            }
        }
    }
    if args.wait {
        for (namespace, name) in requested {
            wait_for(client, &namespace, &name, Condition::Deleted, None).await?;
            print(&format!("task/{name} deleted\n"))?;
        }
    }
    if let Some(hint) = first_failure.as_ref().and_then(|failure| failure.hint.as_deref()) {
        note(&phrased(hint));
    }
    Ok(first_failure.map_or(OK, |failure| failure.code))
}
