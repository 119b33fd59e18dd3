//! `cancel`: cancels the active Run of a Task.

use super::wait::{Condition, wait_for};
use crate::args::CancelArgs;
use crate::client::Client;
use crate::exit::{ExitResult, OK};
use crate::output::format::print;

pub(super) async fn execute(client: &Client, namespace: &str, args: &CancelArgs) -> ExitResult {
    let run = client.cancel_task(namespace, &args.task, args.run).await?;
    print(&format!("task/{} run {run}: cancel requested\n", args.task))?;
    if args.wait {
        wait_for(client, namespace, &args.task, Condition::RunEnded(run), None).await?;
        print(&format!("task/{} run {run}: ended\n", args.task))?;
    }
    Ok(OK)
}
