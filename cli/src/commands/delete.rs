//! `delete`: removes Tasks.

use http::Method;

use super::apply::{Pipes, read_all};
use super::wait::{What, until};
use crate::args::DeleteArgs;
use crate::client::{Client, task_path};
use crate::exit::{Ended, Failure, OK};
use crate::output::format::{note, print};
use crate::output::text::Text;

pub(super) async fn perform(client: &Client, namespace: &str, args: &DeleteArgs) -> Ended {
    let mut wanted: Vec<(String, String)> = args
        .tasks
        .iter()
        .map(|name| (namespace.to_owned(), name.trim_start_matches("task/").to_owned()))
        .collect();
    for task in read_all(&args.filename, namespace, Pipes::Taken)? {
        wanted.push((task.namespace, task.name));
    }
    let mut first_failure: Option<Failure> = None;
    let mut asked = Vec::new();
    for (namespace, name) in wanted {
        match client.call(Method::DELETE, &task_path(&namespace, &name), None).await {
            Ok(_) => {
                print(Text::from("task/").name(&name).then(" deletion requested\n"))?;
                asked.push((namespace, name));
            }
            Err(failure) => {
                note(Text::from("task/").name(&name).then(format!(": {failure}")));
                first_failure.get_or_insert(failure);
            }
        }
    }
    if args.wait {
        for (namespace, name) in asked {
            until(client, &namespace, &name, What::Deleted, None).await?;
            print(&format!("task/{name} deleted\n"))?;
        }
    }
    match first_failure {
        None => Ok(OK),
        Some(failure) => Ok(failure.code),
    }
}
