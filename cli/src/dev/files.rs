//! Tasks from files: applied at startup, and again when a file changes.
//!
//! Level, not edge: a notification of the file system only triggers a poll, which compares what the files hold with
//! what was applied. A lost notification delays a change by at most [`POLL_INTERVAL`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::exit::Failure;
use crate::manifests::{FileKind, Manifest, read_path};
use crate::output::format::note;
use crate::output::text::Text;

/// How long to wait after a notification before files are read: editors write in several steps.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// How often files are read without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The watched files.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    namespace: String,
    client: Client,
    applied: BTreeMap<PathBuf, Content>,
    refused: Refusals,
}

/// Tasks that could not be applied, each as its file has it, and why: reported once, though each poll tries again.
#[derive(Debug, Default)]
struct Refusals(Vec<(Manifest, String)>);

impl Refusals {
    /// Whether this was not reported yet; it counts as reported from now on.
    fn is_new(&mut self, task: &Manifest, why: String) -> bool {
        let refusal = (task.clone(), why);
        if self.0.contains(&refusal) {
            return false;
        }
        self.remove(task);
        self.0.push(refusal);
        true
    }

    fn remove(&mut self, task: &Manifest) {
        self.0.retain(|(refused, _)| refused != task);
    }

    /// Forgets what no file has any more: it is reported again where it is written again.
    fn keep_those_in(&mut self, files: &[(PathBuf, Content)]) {
        self.0.retain(|(refused, _)| {
            files
                .iter()
                .any(|(_, content)| matches!(content, Content::Tasks(tasks) if tasks.contains(refused)))
        });
    }
}

/// What of a file is in effect: of a Task that the API refused, what was applied before.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    Tasks(Vec<Manifest>),
    /// The problem.
    Invalid(String),
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>, namespace: String, client: Client) -> Self {
        Self { paths, namespace, client, applied: BTreeMap::new(), refused: Refusals::default() }
    }

    /// Applies every Task of every file. A file that cannot be read, though all could before the start, is left to the first
    /// poll, which reports it.
    ///
    /// # Errors
    /// The API rejects a Task.
    pub(super) async fn apply_all(&mut self) -> Result<(), Failure> {
        for (path, content) in self.read().await {
            let Content::Tasks(tasks) = &content else { continue };
            for task in tasks {
                let (result, _) = task.apply(&self.client).await?;
                report_applied(task, &result);
            }
            self.applied.insert(path, content);
        }
        Ok(())
    }

    /// Applies changes, forever.
    pub(super) async fn watch(mut self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        let (notify, mut notifications) = mpsc::channel::<()>(1);
        let watcher = self.watcher(notify);
        if let Err(error) = &watcher {
            note(&format!("sentinel: failed to watch files ({error}); polling them every 2 s"));
        }
        loop {
            // Without a watcher the channel is closed, and only the timeout triggers a poll.
            let notified = tokio::time::timeout(POLL_INTERVAL, async {
                match notifications.recv().await {
                    Some(()) => {}
                    None => std::future::pending().await,
                }
            });
            if notified.await.is_ok() {
                tokio::time::sleep(DEBOUNCE).await;
                while notifications.try_recv().is_ok() {}
            }
            self.poll().await;
        }
    }

    /// Watches the directories of the files, since editors replace files.
    fn watcher(&self, notify: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |_| {
            // A full channel already has a notification.
            let _ = notify.try_send(());
        })?;
        for path in &self.paths {
            let directory =
                if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new(".")) };
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// What the files hold. Read in a thread of its own, so that a slow disk blocks nothing else.
    async fn read(&self) -> Vec<(PathBuf, Content)> {
        let (paths, namespace) = (self.paths.clone(), self.namespace.clone());
        let read = move || {
            paths
                .iter()
                .flat_map(|path| read_path(path, &namespace, FileKind::Regular))
                .map(|(path, read)| (path, read.map_or_else(Content::Invalid, Content::Tasks)))
                .collect::<Vec<_>>()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    async fn poll(&mut self) {
        let found = self.read().await;
        self.refused.keep_those_in(&found);
        for (path, content) in &self.applied {
            if !found.iter().any(|(other, _)| other == path) {
                report_removed(path, Some(content));
            }
        }
        self.applied.retain(|path, _| found.iter().any(|(other, _)| other == path));
        for (path, content) in found {
            if self.applied.get(&path) == Some(&content) {
                continue;
            }
            let previous = self.applied.remove(&path);
            let content = match content {
                Content::Tasks(tasks) => Content::Tasks(self.apply_changed(tasks, previous).await),
                Content::Invalid(_) if !path.exists() => {
                    report_removed(&path, previous.as_ref());
                    content
                }
                Content::Invalid(ref problem) => {
                    report_error(&format!("{}: {problem}; its applied Tasks are unchanged", path.display()));
                    content
                }
            };
            self.applied.insert(path, content);
        }
    }

    /// Applies what differs from `previous`; returns what is in effect.
    async fn apply_changed(&mut self, tasks: Vec<Manifest>, previous: Option<Content>) -> Vec<Manifest> {
        let previous = match previous {
            Some(Content::Tasks(previous)) => previous,
            _ => Vec::new(),
        };
        for Manifest { namespace, name, .. } in &previous {
            if !tasks.iter().any(|task| task.namespace == *namespace && task.name == *name) {
                report(&format!(
                    "{namespace}/{name} was removed from its file; the Task is kept (delete it with: sentinel delete {name})"
                ));
            }
        }
        let mut applied = Vec::new();
        for task in tasks {
            if previous.contains(&task) || self.apply(&task).await {
                applied.push(task);
            } else {
                let earlier =
                    previous.iter().find(|one| one.namespace == task.namespace && one.name == task.name);
                applied.extend(earlier.cloned());
            }
        }
        applied
    }

    /// Applies a Task; whether the API accepted it.
    async fn apply(&mut self, task: &Manifest) -> bool {
        match task.apply(&self.client).await {
            Ok((result, _)) => {
                self.refused.remove(task);
                report_applied(task, &result);
                true
            }
            Err(failure) => {
                let why = failure.to_string();
                let report = format!("{}/{}: {why}", task.namespace, task.name);
                if self.refused.is_new(task, why) {
                    report_error(&report);
                }
                false
            }
        }
    }
}

fn report_removed(path: &Path, content: Option<&Content>) {
    let kept = match content {
        Some(Content::Tasks(tasks)) => {
            let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
            format!("; its Tasks are kept (delete them with: sentinel delete {})", names.join(" "))
        }
        Some(Content::Invalid(_)) => "; its applied Tasks are kept".to_owned(),
        None => String::new(),
    };
    report(&format!("{} was removed{kept}", path.display()));
}

fn report_applied(task: &Manifest, result: &str) {
    if result != "unchanged" {
        report(&format!("{}/{} {result}", task.namespace, task.name));
    }
}

fn report(text: &str) {
    note(Text::message().plain(text));
}

fn report_error(text: &str) {
    note(Text::error().plain(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Server, connect};
    use serde_json::json;

    #[test]
    fn a_refusal_is_new_again_once_its_task_was_edited_or_taken_out() {
        let task = |command| Manifest {
            namespace: "default".to_owned(),
            name: "later".to_owned(),
            object: json!({"spec": {"run": {"command": [command]}}}),
        };
        let full = || "the disk is full".to_owned();
        let mut refused = Refusals::default();
        let in_file = |tasks: &[Manifest]| [(PathBuf::from("later.yaml"), Content::Tasks(tasks.to_vec()))];
        assert!(refused.is_new(&task("a"), full()));
        refused.keep_those_in(&in_file(&[task("a")]));
        assert!(!refused.is_new(&task("a"), full()));
        assert!(refused.is_new(&task("a"), "no answer".to_owned()));
        refused.keep_those_in(&in_file(&[task("b")]));
        assert!(refused.is_new(&task("b"), full()), "edited");
        refused.keep_those_in(&in_file(&[]));
        assert!(refused.is_new(&task("b"), full()), "taken out and written again");
        refused.remove(&task("b"));
        assert!(refused.is_new(&task("b"), full()), "applied in between");
    }

    /// All files are checked before dev mode starts, and read again once it has. What was wrong by then counted as
    /// reported, and never was.
    #[tokio::test]
    async fn a_file_that_goes_bad_during_the_start_is_left_to_the_first_poll() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bad.yaml"), "kind: [").unwrap();
        let client = connect(Server::Unix(folder.path().join("socket")), None, None).unwrap();
        let mut files = Files::new(vec![folder.path().to_owned()], "default".to_owned(), client);
        files.apply_all().await.unwrap();
        assert!(files.applied.is_empty(), "{:?}", files.applied);
    }
}
