//! `cancel`: cancels the active Run of a Task.

use super::wait::{Condition, wait_for};
use crate::args::CancelArgs;
use crate::client::Client;
use crate::exit::{ExitResult, OK};
use crate::output::format::print;

pub(super) async fn execute(client: &Client, namespace: &str, args: &CancelArgs) -> ExitResult {
    let (namespace, name) = args.task.within(namespace);
    let run = client.cancel_task(namespace, name, args.run).await?;
    print(&format!("task/{name} run {run}: cancel requested\n"))?;
    if args.wait {
        let ended = wait_for(client, namespace, name, Condition::RunEnded(run), None).await?;
        print(&format!("task/{name} run {run}: {}\n", ended.description))?;
    }
    Ok(OK)
}
