//! Tasks from files: applied at the start, and again whenever a file changes.
//!
//! Level, not edge: a notice from the file system only says that it is time to look; what is done follows from what
//! the files hold. So a notice that is lost costs two seconds and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::commands::apply::{FileTask, Pipes, apply, read_path};
use crate::exit::Failure;
use crate::output::color::Paint;
use crate::output::format::note;
use crate::output::text::Text;

/// How long a file must be left alone before it is read: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(150);

/// How often the files are looked at when no notice comes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The files that are watched.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    namespace: String,
    client: Client,
    known: BTreeMap<PathBuf, Known>,
}

/// What a file held when it was last looked at.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    Good(Vec<(String, String, serde_json::Value)>),
    Bad(String),
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>, namespace: String, client: Client) -> Self {
        Self { paths, namespace, client, known: BTreeMap::new() }
    }

    /// Applies every Task of every file.
    ///
    /// # Errors
    /// When the API refuses one; what is wrong in a file was found before anything was started.
    pub(super) async fn apply_all(&mut self) -> Result<(), Failure> {
        for (path, read) in self.read().await {
            if let Ok(tasks) = &read {
                for task in tasks {
                    let (result, _) = apply(&self.client, task).await?;
                    say_applied(task, &result);
                }
            }
            self.known.insert(path, Known::of(read));
        }
        Ok(())
    }

    /// Looks at the files whenever one may have changed, for ever.
    pub(super) async fn watch(mut self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        let (bell, mut rings) = mpsc::channel::<()>(1);
        let watcher = self.notices(bell);
        if let Err(error) = &watcher {
            note(&format!("sentinel: no notices of changed files ({error}); they are looked at every 2 s"));
        }
        loop {
            // A closed channel (no watcher) leaves the clock alone.
            let rang = tokio::time::timeout(LOOK_EVERY, async {
                match rings.recv().await {
                    Some(()) => {}
                    None => std::future::pending().await,
                }
            });
            if rang.await.is_ok() {
                tokio::time::sleep(SETTLE).await;
                while rings.try_recv().is_ok() {}
            }
            self.look().await;
        }
    }

    /// Asks the system for notices about the directories that hold the files: an editor may replace a file.
    fn notices(&self, bell: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |_| {
            // One ring that waits is as good as many.
            let _ = bell.try_send(());
        })?;
        for path in &self.paths {
            let directory =
                if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new(".")) };
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// What the files hold. They are read aside: a slow disk holds nothing else up.
    async fn read(&self) -> Vec<(PathBuf, Result<Vec<FileTask>, String>)> {
        let (paths, namespace) = (self.paths.clone(), self.namespace.clone());
        let read = move || {
            paths.iter().flat_map(|path| read_path(path, &namespace, Pipes::Refused)).collect::<Vec<_>>()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    async fn look(&mut self) {
        let found = self.read().await;
        for path in self.known.keys().filter(|path| !found.iter().any(|(other, _)| other == *path)) {
            let known = self.known.get(path);
            say(&format!("{} is gone; {}", path.display(), known.map_or_else(String::new, Known::stays)));
        }
        self.known.retain(|path, _| found.iter().any(|(other, _)| other == path));
        for (path, read) in found {
            let now = Known::of(read.clone());
            let before = self.known.get(&path);
            if before == Some(&now) {
                continue;
            }
            match read {
                Err(_) if !path.exists() => {
                    say(&format!(
                        "{} is gone; {}",
                        path.display(),
                        before.map_or_else(String::new, Known::stays)
                    ));
                }
                Err(problem) => {
                    say_bad(&format!("{}: {problem}; what was applied before stays", path.display()));
                }
                Ok(tasks) => self.apply_changed(&tasks, before.cloned().as_ref()).await,
            }
            self.known.insert(path, now);
        }
    }

    async fn apply_changed(&self, tasks: &[FileTask], before: Option<&Known>) {
        let before = match before {
            Some(Known::Good(before)) => before.as_slice(),
            _ => &[],
        };
        for task in tasks {
            let same = before.iter().any(|(namespace, name, object)| {
                *namespace == task.namespace && *name == task.name && *object == task.object
            });
            if same {
                continue;
            }
            match apply(&self.client, task).await {
                Ok((result, _)) => say_applied(task, &result),
                Err(failure) => say_bad(&format!("{}/{}: {failure}", task.namespace, task.name)),
            }
        }
        for (namespace, name, _) in before {
            if !tasks.iter().any(|task| task.namespace == *namespace && task.name == *name) {
                say(&format!(
                    "{namespace}/{name} is no longer in its file; it stays (sentinel delete {name})"
                ));
            }
        }
    }
}

impl Known {
    fn of(read: Result<Vec<FileTask>, String>) -> Self {
        match read {
            Ok(tasks) => {
                Self::Good(tasks.into_iter().map(|task| (task.namespace, task.name, task.object)).collect())
            }
            Err(problem) => Self::Bad(problem),
        }
    }

    /// What is said of the Tasks of a file that is gone.
    fn stays(&self) -> String {
        match self {
            Self::Good(tasks) => {
                let names: Vec<&str> = tasks.iter().map(|(_, name, _)| name.as_str()).collect();
                format!("its Tasks stay (sentinel delete {})", names.join(" "))
            }
            Self::Bad(_) => "what was applied before stays".to_owned(),
        }
    }
}

fn say_applied(task: &FileTask, result: &str) {
    if result != "unchanged" {
        say(&format!("{}/{} {result}", task.namespace, task.name));
    }
}

fn say(text: &str) {
    note(Text::sentinel().then(text));
}

fn say_bad(text: &str) {
    note(Text::new().painted(Paint::Bad, "sentinel:").then(" ").then(text));
}
