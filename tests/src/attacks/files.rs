//! What may stand in a watched folder beside Tasks: a sparse file of gigabytes, a pipe without a writer, links to
//! devices. Dev mode reports what is wrong with each and continues.

use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::Attack;
use super::kit::{MIB, Row, Size, Victim};
use crate::wait::until;

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "files",
    group: "local",
    about: "sparse files, pipes and devices in the folder that a dev mode watches",
    run,
};

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let task = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: NAME}\nspec: {targets: {all: true}, run: {command: [\"true\"]}}\n";
        std::fs::write(path("first.yaml"), task.replace("NAME", "first"))?;
        let dev = Victim::dev(&[&folder.path().display().to_string()]).await?;
        let sampler = dev.watch();
        let sparse = size.pick(2, 5);
        for number in 0..sparse {
            std::fs::File::create(path(&format!("sparse-{number}.yaml")))?.set_len(3 << 30)?;
        }
        nix::unistd::mkfifo(&path("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU)?;
        for device in ["zero", "null", "tty"] {
            std::os::unix::fs::symlink(format!("/dev/{device}"), path(&format!("{device}.yaml")))?;
        }
        std::os::unix::fs::symlink(path("loop.yaml"), path("loop.yaml"))?;
        std::fs::write(path("last.yaml"), task.replace("NAME", "last"))?;
        until("the Task of the last file exists", Duration::from_secs(60), || async {
            match dev.ask("GET", "/api/v1/tasks/default/last", None).await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}; {}", dev.program.log())),
            }
        })
        .await;
        let is_named = |log: &str| (0..sparse).all(|number| log.contains(&format!("sparse-{number}.yaml: ")));
        until("each sparse file is named", Duration::from_secs(60), || async {
            let log = dev.program.log();
            if is_named(&log) { Ok(()) } else { Err(log) }
        })
        .await;
        let mut faults = Vec::new();
        if !dev.is_alive().await {
            faults.push("/healthz does not answer".to_owned());
        }
        let row = Row {
            attack: ATTACK.name,
            tried: format!("{sparse} sparse files of 3 GiB, a pipe, 3 devices and a loop in the watched folder"),
            accepted: 0,
            refused: sparse + 5,
            may_accept: 0,
            memory: sampler.finish(),
            bound: 24 * MIB,
            faults,
        };
        dev.close().await;
        Ok(vec![row])
    }
    .boxed()
}
