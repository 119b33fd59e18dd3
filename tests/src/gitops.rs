//! GitOps tools as the tests ask them: by the programs that `tests/parts/install` brings.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cluster::repository;
use crate::wait::until;

/// The patch of Argo CD's ConfigMap that users install.
pub fn argocd_cm() -> PathBuf {
    repository().join("gitops/argocd/argocd-cm.yaml")
}

/// The folder that is laid out as Argo CD's own repository is.
pub fn argocd_folder() -> PathBuf {
    repository().join("gitops/argocd/resource_customizations/sentinelnode.dev/Task")
}

/// The expressions for Flux that users copy.
pub fn flux_checks() -> PathBuf {
    repository().join("gitops/flux/health-checks.yaml")
}

/// A program that `tests/parts/install PART` has brought.
pub fn program(part: &str, name: &str) -> Command {
    let mut command = Command::new(repository().join("tests/parts/run"));
    command.args([part, name]).env_remove("SENTINEL_PARTS").kill_on_drop(true);
    command
}

/// Where that program is.
///
/// # Panics
/// When it is not installed.
pub async fn installed(part: &str, name: &str) -> PathBuf {
    let mut which = Command::new(repository().join("tests/parts/run"));
    let output = which.args(["--path", part, name]).output().await.expect("tests/parts/run starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

/// What `tests/parts/gitops` answers to these values, one answer for each.
///
/// # Panics
/// When it does not answer, with what it printed.
pub async fn ask(verb: &str, inputs: &[Value]) -> Vec<Value> {
    let mut command = program("gitops", "gitops");
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("tests/parts/run starts");
    let mut stdin = child.stdin.take().expect("its stdin");
    let text: String = inputs.iter().map(|input| format!("{input}\n")).collect();
    let write = async move { stdin.write_all(text.as_bytes()).await };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let Output { status, stdout, stderr } = output.expect("it ends");
    let printed = String::from_utf8_lossy(&stderr);
    assert!(status.success() && written.is_ok(), "gitops {verb}: {status}: {printed}");
    let answers = serde_json::Deserializer::from_slice(&stdout).into_iter::<Value>();
    let answers: Vec<Value> = answers.map(|answer| answer.expect("JSON")).collect();
    assert_eq!(answers.len(), inputs.len(), "gitops {verb}: {printed}");
    answers
}

/// The same for one value.
///
/// # Panics
/// When it does not answer.
pub async fn ask_one(verb: &str, input: Value) -> Value {
    ask(verb, &[input]).await.remove(0)
}

/// Waits until Argo CD finds no difference between these objects in Git and the live ones, by any of its three ways. It reads an
/// object twice for one of them; a status that is written between the two is a difference that is not there again.
///
/// # Panics
/// When it still finds one after a minute, with both objects.
pub async fn argo_cd_finds_no_difference(inputs: &[Value]) {
    let nothing = json!({"threeWay": null, "structuredMerge": null, "serverSide": null});
    until("Argo CD finds no difference", Duration::from_secs(60), || async {
        match ask("argo-diff", inputs).await.into_iter().find(|answer| *answer != nothing) {
            Some(difference) => Err(difference),
            None => Ok(()),
        }
    })
    .await;
}
