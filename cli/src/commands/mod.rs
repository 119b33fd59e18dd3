//! The verbs, one file each; [`tables`], [`describe`], [`sort`] and [`execution`] serve those that read.

mod apply;
mod cancel;
mod completion;
mod delete;
mod describe;
mod execution;
mod flags;
mod fold;
mod get;
mod grep;
mod log_lines;
mod logs;
mod nodes;
mod rerun;
mod run;
mod sort;
mod tables;
mod ui;
mod wait;

use crate::args::{Cli, Verb};
use crate::client::connect;
use crate::exit::{ExitResult, Failure, OK};
use crate::output::format::print;

/// Executes a verb.
pub(crate) async fn execute(cli: Cli) -> ExitResult {
    let client = connect(cli.global.server.clone(), cli.global.token_file.as_deref())?;
    // An empty value counts as unset.
    let namespace = Some(cli.global.namespace.as_str()).filter(|name| !name.is_empty()).unwrap_or("default");
    match cli.verb {
        Verb::Dev(args) => crate::dev::execute(args, namespace).await,
        Verb::Run(args) => run::execute(&client, namespace, &args).await.map_err(Failure::for_run),
        Verb::Apply(args) => apply::execute(&client, namespace, &args).await,
        Verb::Get(args) => get::execute(&client, namespace, &args).await,
        Verb::Logs(args) => logs::execute(&client, namespace, &args).await,
        Verb::Nodes(args) => nodes::execute(&client, args.name.as_deref(), args.output, None).await,
        Verb::Wait(args) => wait::execute(&client, namespace, &args).await,
        Verb::Cancel(args) => cancel::execute(&client, namespace, &args).await,
        Verb::Rerun(args) => rerun::execute(&client, namespace, &args).await,
        Verb::Delete(args) => delete::execute(&client, namespace, &args).await,
        Verb::Ui(args) => ui::execute(&client, &args).await,
        Verb::Completion(args) => completion::execute(&args),
        Verb::Reference => completion::reference(),
        Verb::Version => {
            print(concat!("sentinel ", env!("CARGO_PKG_VERSION"), "\n"))?;
            Ok(OK)
        }
    }
}
