//! `cancel`: ends the Run of a Task.

use http::Method;

use super::wait::{What, until};
use crate::args::CancelArgs;
use crate::client::{Client, Query, task_path};
use crate::exit::{Ended, Failure, OK};
use crate::output::format::print;

pub(super) async fn perform(client: &Client, namespace: &str, args: &CancelArgs) -> Ended {
    let run = request(client, namespace, &args.task, args.run).await?;
    print(&format!("task/{} run {run}: cancel requested\n", args.task))?;
    if args.wait {
        until(client, namespace, &args.task, What::RunOver(run), None).await?;
        print(&format!("task/{} run {run}: ended\n", args.task))?;
    }
    Ok(OK)
}

/// Asks for it; gives the number of the Run.
pub(crate) async fn request(
    client: &Client,
    namespace: &str,
    name: &str,
    run: Option<u32>,
) -> Result<u32, Failure> {
    let mut query = Query::default();
    query.maybe("run", run);
    let path = query.of(&format!("{}/cancel", task_path(namespace, name)));
    let reply = client.call(Method::POST, &path, None).await?;
    reply.value["run"]
        .as_u64()
        .and_then(|run| u32::try_from(run).ok())
        .ok_or_else(|| Failure::new("the server did not say which run it cancels"))
}
