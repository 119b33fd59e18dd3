//! `rerun`: the same spec once more.

use http::Method;

use super::run;
use crate::args::RerunArgs;
use crate::client::{Client, Query, task_path};
use crate::exit::{Ended, Failure, OK};
use crate::follow::Which;
use crate::output::format::print;

pub(super) async fn perform(client: &Client, namespace: &str, args: &RerunArgs) -> Ended {
    let mut query = Query::default();
    query.maybe("token", args.token.as_deref());
    let path = query.of(&format!("{}/rerun", task_path(namespace, &args.task)));
    let reply = client.call(Method::POST, &path, None).await?;
    let token = reply.value["token"]
        .as_str()
        .ok_or_else(|| Failure::new("the server did not say which token it took"))?
        .to_owned();
    if args.follow {
        return run::watch(client, namespace, &args.task, Which::OfToken(token), run::Shown::followed())
            .await;
    }
    print(&format!("task/{} rerun requested (token {token})\n", args.task))?;
    Ok(OK)
}
