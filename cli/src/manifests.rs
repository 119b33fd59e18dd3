//! Tasks in files: which files are read, what they hold, and how they are applied. Used by verbs and by dev mode.

use std::path::{Path, PathBuf};

use http::StatusCode;
use sentinel_operator::files;
use sentinel_operator::resource::manifest::MAX_BYTES;
use serde_json::Value;

use crate::client::{Client, Reply};
use crate::exit::Failure;
use crate::output::counted;

/// Maximum size of a file, bytes.
const MAX_FILE: u64 = MAX_BYTES as u64;

/// A Task from a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The whole object, with its namespace.
    pub(crate) object: Value,
}

impl Manifest {
    /// Applies the Task; returns `created`, `configured` or `unchanged`, and the Task.
    pub(crate) async fn apply(&self, client: &Client) -> Result<(String, Value), Failure> {
        Ok(Self::result(client.apply_task(&self.namespace, &self.name, &self.object).await?))
    }

    /// The same without storing anything: what would happen.
    pub(crate) async fn try_apply(&self, client: &Client) -> Result<(String, Value), Failure> {
        Ok(Self::result(client.try_task(&self.namespace, &self.name, &self.object).await?))
    }

    fn result(reply: Reply) -> (String, Value) {
        let result = if reply.status == StatusCode::CREATED { "created" } else { "configured" };
        (reply.result.unwrap_or_else(|| result.to_owned()), reply.value)
    }
}

/// Which kinds of files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Pipes and devices too: the file is named on the command line and read once.
    Any,
    /// Regular files only: the file is read repeatedly, and a pipe would block.
    Regular,
}

/// Every Task of the files; of a directory, those in its YAML and JSON files.
///
/// # Errors
/// Every problem of every file, in one message.
pub(crate) fn read_all(paths: &[PathBuf], namespace: &str, kind: FileKind) -> Result<Vec<Manifest>, Failure> {
    let mut tasks: Vec<Manifest> = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        for (file, read) in read_path(path, namespace, kind) {
            match read {
                Ok(mut found) => tasks.append(&mut found),
                Err(problem) => problems.push(format!("{}: {problem}", file.display())),
            }
        }
    }
    for (index, task) in tasks.iter().enumerate() {
        let same = |other: &Manifest| other.namespace == task.namespace && other.name == task.name;
        if tasks[..index].iter().any(same) {
            problems.push(format!("Task {}/{} is defined twice", task.namespace, task.name));
        }
    }
    match problems.len() {
        0 => Ok(tasks),
        1 => Err(Failure::usage(problems.remove(0))),
        _ => Err(Failure::usage(format!(
            "{}:\n  {}",
            counted(problems.len() as u64, "problem"),
            problems.join("\n  ")
        ))),
    }
}

/// The Tasks of one path, file by file.
pub(crate) fn read_path(
    path: &Path,
    namespace: &str,
    kind: FileKind,
) -> Vec<(PathBuf, Result<Vec<Manifest>, String>)> {
    if path == Path::new("-") && kind == FileKind::Any {
        let read = files::read_from(std::io::stdin(), MAX_FILE)
            .map_err(|error| format!("failed to read: {error}"))
            .and_then(|bytes| parse(&bytes, namespace));
        return vec![(PathBuf::from("standard input"), read)];
    }
    if !path.is_dir() {
        return vec![(path.to_owned(), read_file(path, namespace, kind))];
    }
    match files_in(path) {
        Err(error) => vec![(path.to_owned(), Err(format!("failed to read the directory: {error}")))],
        Ok(files) if files.is_empty() => {
            vec![(path.to_owned(), Err("holds no Task: no .yaml, .yml or .json file".to_owned()))]
        }
        Ok(files) => files
            .into_iter()
            .map(|file| {
                let read = read_file(&file, namespace, FileKind::Regular);
                (file, read)
            })
            .collect(),
    }
}

/// The files of a directory that may hold Tasks, sorted by name.
fn files_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if may_hold_tasks(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file of a directory is read, by its name. Hidden files are temporary files of editors.
fn may_hold_tasks(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let known = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json");
    known && !hidden
}

fn read_file(path: &Path, namespace: &str, kind: FileKind) -> Result<Vec<Manifest>, String> {
    let is_regular = || std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let bytes = if kind == FileKind::Regular || is_regular() {
        files::read(path, MAX_FILE)
    } else {
        std::fs::File::open(path).and_then(|file| files::read_from(file, MAX_FILE))
    };
    let bytes = bytes.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => format!("failed to read: {error}"),
    })?;
    parse(&bytes, namespace)
}

fn parse(bytes: &[u8], namespace: &str) -> Result<Vec<Manifest>, String> {
    let tasks =
        sentinel_operator::resource::manifest::read_bytes(bytes).map_err(|error| error.to_string())?;
    tasks
        .into_iter()
        .map(|mut task| {
            let namespace = task.metadata.namespace.get_or_insert_with(|| namespace.to_owned()).clone();
            let name = task.metadata.name.clone().unwrap_or_default();
            let object = serde_json::to_value(&task)
                .map_err(|error| format!("failed to write {name} as JSON: {error}"))?;
            Ok(Manifest { namespace, name, object })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: hello}\nspec: {targets: {all: true}, run: {command: [\"true\"]}}\n";

    #[test]
    fn reads_the_yaml_and_json_files_of_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("b.yaml"), HELLO.replace("hello", "b")).unwrap();
        std::fs::write(directory.path().join("a.yml"), HELLO.replace("hello", "a")).unwrap();
        std::fs::write(directory.path().join("notes.txt"), "not yaml: [").unwrap();
        std::fs::write(directory.path().join(".b.yaml.swp.yaml"), "not yaml: [").unwrap();
        let tasks = read_all(&[directory.path().to_owned()], "ns", FileKind::Any).unwrap();
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!((names, tasks[0].namespace.as_str()), (vec!["a", "b"], "ns"));
    }

    #[test]
    fn lists_every_problem_of_every_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("empty.yaml"), "# nothing\n").unwrap();
        std::fs::write(directory.path().join("pod.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
            .unwrap();
        std::fs::write(directory.path().join("good.yaml"), HELLO).unwrap();
        let paths = [directory.path().to_owned(), "/nowhere.yaml".into()];
        let failure = read_all(&paths, "ns", FileKind::Any).unwrap_err();
        assert_eq!(failure.code, crate::exit::USAGE);
        for expected in
            ["3 problems", "empty.yaml: holds no Task", "pod.yaml: 2 problems", "/nowhere.yaml: no such file"]
        {
            assert!(failure.message.contains(expected), "{expected:?} is not in {}", failure.message);
        }
    }

    #[test]
    fn rejects_large_files_and_watched_pipes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::File::create(path("sparse.yaml")).unwrap().set_len(3 << 30).unwrap();
        for kind in [FileKind::Any, FileKind::Regular] {
            let error = read_file(&path("sparse.yaml"), "ns", kind).unwrap_err();
            assert!(error.contains("more than 4194304 bytes"), "{error}");
        }
        let error = read_file(Path::new("/dev/zero"), "ns", FileKind::Any).unwrap_err();
        assert!(error.contains("more than 4194304 bytes"), "{error}");
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe.yaml"), 0o600.into()).unwrap();
        let error = read_file(&path("pipe.yaml"), "ns", FileKind::Regular).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
        let pipe = path("pipe.yaml");
        let writer = std::thread::spawn(move || std::fs::write(pipe, HELLO).unwrap());
        assert_eq!(read_file(&path("pipe.yaml"), "ns", FileKind::Any).unwrap().len(), 1);
        writer.join().unwrap();
        // In a directory it is skipped.
        std::fs::remove_file(path("sparse.yaml")).unwrap();
        assert!(files_in(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn rejects_a_task_that_is_defined_twice() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.yaml"), HELLO).unwrap();
        std::fs::write(directory.path().join("b.yaml"), HELLO).unwrap();
        let failure = read_all(&[directory.path().to_owned()], "ns", FileKind::Any).unwrap_err();
        assert!(failure.message.contains("Task ns/hello is defined twice"), "{}", failure.message);
    }
}
