//! The verbs, one file each; [`tables`], [`describe`], [`sort`] and [`execution`] serve those that read. The larger verbs
//! return their future behind a pointer: without, all of them are one function to the compiler, which keeps one processor busy.

mod apply;
mod approve;
mod audit;
mod cancel;
mod ceilings;
mod check;
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
mod once;
mod policy;
mod report;
mod rerun;
mod run;
mod sign;
mod sort;
mod tables;
mod ui;
mod wait;

use crate::args::{AuditArgs, AuditVerb, Cli, Verb};
use crate::connection::{Connection, connect};
use crate::exit::{ExitResult, Failure, OK};
use crate::output::format::print;

/// Executes a verb.
pub(crate) async fn execute(cli: Cli) -> ExitResult {
    let Cli { global, verb } = cli;
    let place = global.place();
    let verb = match verb {
        Verb::Dev(args) => return crate::dev::execute(args, place.local_namespace()).await,
        Verb::Completion(args) => return completion::execute(&args),
        Verb::Reference => return completion::reference(),
        Verb::Version => {
            print(concat!("sentinel ", env!("CARGO_PKG_VERSION"), "\n"))?;
            return Ok(OK);
        }
        Verb::Check(args) => return check::execute(&place, &args).await,
        Verb::Report(args) => return report::execute(&place, &args).await,
        Verb::Sign(args) => return sign::execute(&args, place.local_namespace()),
        Verb::Policy(args) => return policy::execute(&args, place.local_namespace()),
        Verb::Audit(AuditArgs { verb: AuditVerb::Verify(args) }) => return audit::verify(&args),
        Verb::Ceilings(args) => return ceilings::execute(&args),
        verb => verb,
    };
    let force = matches!(&verb, Verb::Apply(args) if args.force_conflicts);
    let is_run = match &verb {
        Verb::Run(_) => true,
        Verb::Rerun(args) => args.follow,
        _ => false,
    };
    let done = match connect(&place, force).await {
        Ok(connection) => with_server(verb, &connection).await,
        Err(failure) => Err(failure),
    };
    if is_run { done.map_err(Failure::for_run) } else { done }
}

/// Executes a verb that asks a server.
async fn with_server(verb: Verb, connection: &Connection) -> ExitResult {
    let Connection { client, namespace, .. } = connection;
    match verb {
        Verb::Run(args) => run::execute(client, namespace, &args).await,
        Verb::Apply(args) => apply::execute(client, namespace, &args).await,
        Verb::Get(args) => get::execute(client, namespace, &args).await,
        Verb::Logs(args) => logs::execute(client, namespace, &args).await,
        Verb::Nodes(args) => nodes::execute(client, args.name.as_deref(), args.output, None).await,
        Verb::Wait(args) => wait::execute(client, namespace, &args).await,
        Verb::Cancel(args) => cancel::execute(client, namespace, &args).await,
        Verb::Rerun(args) => rerun::execute(client, namespace, &args).await,
        Verb::Approve(args) => approve::execute(client, namespace, &args).await,
        Verb::Delete(args) => delete::execute(client, namespace, &args).await,
        Verb::Ui(args) => ui::execute(connection, &args).await,
        Verb::Audit(AuditArgs { verb: AuditVerb::Heads(args) }) => audit::heads(client, &args).await,
        Verb::Dev(_)
        | Verb::Completion(_)
        | Verb::Reference
        | Verb::Version
        | Verb::Check(_)
        | Verb::Policy(_)
        | Verb::Ceilings(_)
        | Verb::Sign(_)
        | Verb::Report(_)
        | Verb::Audit(AuditArgs { verb: AuditVerb::Verify(_) }) => {
            Err(Failure::usage("this verb needs no server"))
        }
    }
}
