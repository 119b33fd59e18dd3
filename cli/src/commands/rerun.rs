//! `rerun`: runs a Task again, unchanged.

use super::run;
use crate::args::RerunArgs;
use crate::client::Client;
use crate::exit::{ExitResult, OK};
use crate::follow::RunSelector;
use crate::output::format::print;

pub(super) async fn execute(client: &Client, namespace: &str, args: &RerunArgs) -> ExitResult {
    let (namespace, name) = args.task.within(namespace);
    let token = client.rerun_task(namespace, name, args.token.as_deref()).await?;
    if args.follow {
        let run = RunSelector::OfToken(token);
        return run::watch(client, namespace, name, run, run::Display::default()).await;
    }
    print(&format!("task/{name} rerun requested (token {token})\n"))?;
    Ok(OK)
}
