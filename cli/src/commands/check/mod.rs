//! `check`: whether a cluster is fit for Sentinel Node, or whether an installation works.
//!
//! [`cluster`] asks the API server about itself, [`installation`] about the objects of the chart, [`pod_security`] whether their
//! namespace admits them, [`rights`] what the caller may do; [`service`] asks the operator; [`task`] runs a Task. Each
//! finding is a line ([`findings`]); what could not be checked is a warning, never left out.

mod cluster;
pub(crate) mod findings;
mod installation;
mod pod_security;
mod rights;
mod schema;
mod service;
mod task;

pub(crate) use installation::why_unready;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use std::sync::Arc;

use self::findings::{Findings, Verdict};
use self::installation::Installed;
use self::pod_security::Level;
use crate::args::{CheckArgs, CheckFormat};
use crate::cluster::{Cluster, INSTALL_NAMESPACE, forward};
use crate::connection::{Connection, Place, Target, connect};
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::output::format::print;
use crate::output::sink::print_json;

pub(super) fn execute<'a>(place: &'a Place, args: &'a CheckArgs) -> LocalBoxFuture<'a, ExitResult> {
    executed(place, args).boxed_local()
}

async fn executed(place: &Place, args: &CheckArgs) -> ExitResult {
    let mut findings = Findings::new(args.output);
    if args.pre {
        let Target::Cluster(settings) = place.target() else {
            return Err(Failure::usage("--pre checks a cluster, and this is none")
                .hint("Name one with --context NAME, and no --server"));
        };
        let cluster = settings.connect().await?;
        before(&cluster, args, &mut findings).await?;
    } else {
        let connection = connect(place, false).await?;
        all(&connection, args.install_namespace.as_deref(), &mut findings).await?;
        if args.task {
            task::check(&connection, args, &mut findings).await?;
        }
    }
    match args.output {
        CheckFormat::Json => print_json(&findings.to_json())?,
        CheckFormat::Text => {
            let (failed, warned) = (findings.count(Verdict::Fail), findings.count(Verdict::Warn));
            print(&format!("\n{} ok, {warned} warned, {failed} failed\n", findings.count(Verdict::Ok)))?;
        }
    }
    Ok(if findings.is_ok() { OK } else { FAILED })
}

/// What must hold before Sentinel Node is installed.
async fn before(cluster: &Cluster, args: &CheckArgs, findings: &mut Findings) -> Result<(), Failure> {
    if !cluster::version(cluster, findings).await? {
        return Ok(());
    }
    let namespace = args.install_namespace.as_deref().unwrap_or(INSTALL_NAMESPACE);
    cluster::clock(cluster, findings).await?;
    cluster::aggregation(cluster, findings).await?;
    cluster::nodes(cluster, findings).await?;
    pod_security::check(cluster, namespace, Level::of_profile(args.profile), findings).await?;
    cluster::storage(cluster, findings).await?;
    schema::check(cluster, schema::Wanted::Fitting, namespace, findings).await?;
    if forward::installations(cluster).await.is_ok_and(|all| all.is_empty()) {
        cluster::left_tasks(cluster, findings).await?;
    }
    rights::to_install(cluster, namespace, findings).await
}

/// Everything about an installation. It goes as far as it can: what needs an answer that is missing is left to the line about
/// that.
///
/// # Errors
/// When a line cannot be printed.
pub(crate) async fn all(
    connection: &Connection,
    namespace: Option<&str>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    if let Some((cluster, _)) = &connection.cluster
        && !of_cluster(cluster, connection, namespace, findings).await?
    {
        return Ok(());
    }
    service::check(connection, findings).await
}

/// Returns whether the API server answers.
async fn of_cluster(
    cluster: &Arc<Cluster>,
    connection: &Connection,
    namespace: Option<&str>,
    findings: &mut Findings,
) -> Result<bool, Failure> {
    if !cluster::version(cluster, findings).await? {
        return Ok(false);
    }
    cluster::clock(cluster, findings).await?;
    let installed = Installed::find(cluster, namespace, findings).await?;
    schema::check(cluster, schema::Wanted::Equal, &installed.namespace, findings).await?;
    installation::api_service(cluster, &installed, findings).await?;
    pod_security::check(cluster, &installed.namespace, installed.level(), findings).await?;
    installation::operator(cluster, &installed, findings).await?;
    installation::agents(cluster, &installed, findings).await?;
    if installed.is_absent() {
        cluster::left_tasks(cluster, findings).await?;
    }
    if installed.is_aggregated() == Some(false) {
        rights::to_forward(cluster, &installed.namespace, &installed.ca(), findings).await?;
    }
    rights::to_use(cluster, installed.fullname(), &connection.namespace, findings).await?;
    Ok(true)
}
