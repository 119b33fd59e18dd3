//! One file per verb.

pub(crate) mod apply;
pub(crate) mod cancel;
mod completion;
mod delete;
mod describe;
mod execution;
mod get;
mod logs;
mod nodes;
mod rerun;
mod run;
mod sort;
mod stdin;
mod wait;

use crate::args::{Cli, Verb};
use crate::client::Client;
use crate::exit::{Ended, OK};
use crate::output::format::print;

/// Carries a verb out.
pub(crate) async fn perform(cli: Cli) -> Ended {
    let client = Client::with_token(cli.global.server.clone(), cli.global.token_file.as_deref())?;
    // A variable that is set to nothing is not set.
    let namespace = Some(cli.global.namespace.as_str()).filter(|name| !name.is_empty()).unwrap_or("default");
    match cli.verb {
        Verb::Dev(args) => crate::dev::perform(args, namespace).await,
        Verb::Run(args) => {
            run::perform(&client, namespace, &args).await.map_err(crate::exit::Failure::of_run)
        }
        Verb::Apply(args) => apply::perform(&client, namespace, &args).await,
        Verb::Get(args) => get::perform(&client, namespace, &args).await,
        Verb::Logs(args) => logs::perform(&client, namespace, &args).await,
        Verb::Nodes(args) => nodes::perform(&client, args.name.as_deref(), args.output, None).await,
        Verb::Wait(args) => wait::perform(&client, namespace, &args).await,
        Verb::Cancel(args) => cancel::perform(&client, namespace, &args).await,
        Verb::Rerun(args) => rerun::perform(&client, namespace, &args).await,
        Verb::Delete(args) => delete::perform(&client, namespace, &args).await,
        Verb::Completion(args) => completion::perform(&args),
        Verb::Version => {
            print(concat!("sentinel ", env!("CARGO_PKG_VERSION"), "\n"))?;
            Ok(OK)
        }
    }
}
