//! `apply`: Tasks from files.

use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use sentinel_operator::files;
use sentinel_operator::resource::manifest::MAX_BYTES;
use serde_json::Value;

use crate::args::ApplyArgs;
use crate::client::{Client, task_path};
use crate::exit::{Ended, Failure, OK};
use crate::output::format::{Format, Whole, note, print};
use crate::output::text::Text;

/// Most bytes that are read of a file.
const MAX_FILE: u64 = MAX_BYTES as u64;

/// A Task out of a file.
#[derive(Debug, Clone)]
pub(crate) struct FileTask {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The whole object, with its namespace.
    pub(crate) object: Value,
}

pub(super) async fn perform(client: &Client, namespace: &str, args: &ApplyArgs) -> Ended {
    let files: Vec<PathBuf> = args.files.iter().chain(&args.filename).cloned().collect();
    let tasks = read_all(&files, namespace, Pipes::Taken)?;
    let mut first_failure: Option<Failure> = None;
    for task in &tasks {
        match apply(client, task).await {
            Ok((result, value)) => {
                if args.output == Format::Yaml {
                    print("---\n")?;
                }
                if args.output.print_whole(&value)? == Whole::NotOfThisForm {
                    let name = Text::from("task/").name(&task.name);
                    let named = args.output == Format::Name;
                    print(if named { name } else { name.then(" ").name(&result) }.then("\n"))?;
                }
            }
            Err(failure) => {
                note(Text::from("task/").name(&task.name).then(format!(": {failure}")));
                first_failure.get_or_insert(failure);
            }
        }
    }
    match first_failure {
        None => Ok(OK),
        Some(failure) => Ok(failure.code),
    }
}

/// Applies one Task; says what that did to it.
pub(crate) async fn apply(client: &Client, task: &FileTask) -> Result<(String, Value), Failure> {
    let path = task_path(&task.namespace, &task.name);
    let reply = client.call(Method::PUT, &path, Some(&task.object)).await?;
    let done = if reply.status == StatusCode::CREATED { "created" } else { "configured" };
    Ok((reply.result.unwrap_or_else(|| done.to_owned()), reply.value))
}

/// Whether a file may be something else than a regular one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipes {
    /// It may: it is named on the command line and read once.
    Taken,
    /// It may not: it is read again and again, and must hold nothing up.
    Refused,
}

/// Every Task of the files; of a directory, those in its YAML and JSON files.
///
/// # Errors
/// Everything that is wrong with any of them, in one message; then none is used.
pub(crate) fn read_all(paths: &[PathBuf], namespace: &str, pipes: Pipes) -> Result<Vec<FileTask>, Failure> {
    let mut tasks: Vec<FileTask> = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        for (file, read) in read_path(path, namespace, pipes) {
            match read {
                Ok(mut found) => tasks.append(&mut found),
                Err(problem) => problems.push(format!("{}: {problem}", file.display())),
            }
        }
    }
    for (index, task) in tasks.iter().enumerate() {
        let same = |other: &FileTask| other.namespace == task.namespace && other.name == task.name;
        if tasks[..index].iter().any(same) {
            problems.push(format!("Task {}/{} is there twice", task.namespace, task.name));
        }
    }
    match problems.len() {
        0 => Ok(tasks),
        1 => Err(Failure::usage(problems.remove(0))),
        _ => Err(Failure::usage(format!("{} problems:\n  {}", problems.len(), problems.join("\n  ")))),
    }
}

/// What one path holds, file by file.
pub(crate) fn read_path(
    path: &Path,
    namespace: &str,
    pipes: Pipes,
) -> Vec<(PathBuf, Result<Vec<FileTask>, String>)> {
    if path == Path::new("-") && pipes == Pipes::Taken {
        let read = files::read_from(std::io::stdin(), MAX_FILE)
            .map_err(|error| format!("failed to read: {error}"))
            .and_then(|bytes| parse(&bytes, namespace));
        return vec![(PathBuf::from("standard input"), read)];
    }
    if !path.is_dir() {
        return vec![(path.to_owned(), read_file(path, namespace, pipes))];
    }
    match files_in(path) {
        Err(error) => vec![(path.to_owned(), Err(format!("failed to read the directory: {error}")))],
        Ok(files) if files.is_empty() => {
            vec![(
                path.to_owned(),
                Err("holds no Task: there is no .yaml, .yml or .json file in it".to_owned()),
            )]
        }
        Ok(files) => files
            .into_iter()
            .map(|file| {
                let read = read_file(&file, namespace, Pipes::Refused);
                (file, read)
            })
            .collect(),
    }
}

/// The files of a directory that may hold Tasks, in order of name.
pub(crate) fn files_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
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

/// Whether a file of a directory is looked into, by its name. Hidden files are those of editors.
pub(crate) fn may_hold_tasks(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let known = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json");
    known && !hidden
}

/// The Tasks of one file.
pub(crate) fn read_file(path: &Path, namespace: &str, pipes: Pipes) -> Result<Vec<FileTask>, String> {
    let is_regular = || std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let bytes = if pipes == Pipes::Refused || is_regular() {
        files::read(path, MAX_FILE)
    } else {
        std::fs::File::open(path).and_then(|file| files::read_from(file, MAX_FILE))
    };
    let bytes = bytes.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "may not be read".to_owned(),
        _ => format!("failed to read: {error}"),
    })?;
    parse(&bytes, namespace)
}

fn parse(bytes: &[u8], namespace: &str) -> Result<Vec<FileTask>, String> {
    let tasks =
        sentinel_operator::resource::manifest::read_bytes(bytes).map_err(|error| error.to_string())?;
    tasks
        .into_iter()
        .map(|mut task| {
            let namespace = task.metadata.namespace.get_or_insert_with(|| namespace.to_owned()).clone();
            let name = task.metadata.name.clone().unwrap_or_default();
            let object = serde_json::to_value(&task)
                .map_err(|error| format!("failed to write {name} as JSON: {error}"))?;
            Ok(FileTask { namespace, name, object })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {name: hello}\nspec: {targets: {all: true}, run: {command: [\"true\"]}}\n";

    #[test]
    fn a_directory_is_its_yaml_and_json_files() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("b.yaml"), HELLO.replace("hello", "b")).unwrap();
        std::fs::write(directory.path().join("a.yml"), HELLO.replace("hello", "a")).unwrap();
        std::fs::write(directory.path().join("notes.txt"), "not yaml: [").unwrap();
        std::fs::write(directory.path().join(".b.yaml.swp.yaml"), "not yaml: [").unwrap();
        let tasks = read_all(&[directory.path().to_owned()], "ns", Pipes::Taken).unwrap();
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!((names, tasks[0].namespace.as_str()), (vec!["a", "b"], "ns"));
    }

    #[test]
    fn every_problem_of_every_file_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("empty.yaml"), "# nothing\n").unwrap();
        std::fs::write(directory.path().join("pod.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
            .unwrap();
        std::fs::write(directory.path().join("good.yaml"), HELLO).unwrap();
        let failure =
            read_all(&[directory.path().to_owned(), "/nowhere.yaml".into()], "ns", Pipes::Taken).unwrap_err();
        assert_eq!(failure.code, crate::exit::USAGE);
        for expected in [
            "3 problems",
            "empty.yaml: holds no Task",
            "pod.yaml: 2 problems",
            "/nowhere.yaml: there is no such file",
        ] {
            assert!(failure.message.contains(expected), "{expected:?} is not in {}", failure.message);
        }
    }

    #[test]
    fn a_file_is_not_read_beyond_its_bound_and_a_watched_one_is_a_regular_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::File::create(path("sparse.yaml")).unwrap().set_len(3 << 30).unwrap();
        for pipes in [Pipes::Taken, Pipes::Refused] {
            let error = read_file(&path("sparse.yaml"), "ns", pipes).unwrap_err();
            assert!(error.contains("more than 4194304 bytes"), "{error}");
        }
        let error = read_file(Path::new("/dev/zero"), "ns", Pipes::Taken).unwrap_err();
        assert!(error.contains("more than 4194304 bytes"), "{error}");
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe.yaml"), 0o600.into()).unwrap();
        let error = read_file(&path("pipe.yaml"), "ns", Pipes::Refused).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
        let pipe = path("pipe.yaml");
        let writer = std::thread::spawn(move || std::fs::write(pipe, HELLO).unwrap());
        assert_eq!(read_file(&path("pipe.yaml"), "ns", Pipes::Taken).unwrap().len(), 1);
        writer.join().unwrap();
        // In a folder it is passed over.
        std::fs::remove_file(path("sparse.yaml")).unwrap();
        assert!(files_in(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn a_task_that_is_there_twice_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.yaml"), HELLO).unwrap();
        std::fs::write(directory.path().join("b.yaml"), HELLO).unwrap();
        let failure = read_all(&[directory.path().to_owned()], "ns", Pipes::Taken).unwrap_err();
        assert!(failure.message.contains("Task ns/hello is there twice"), "{}", failure.message);
    }
}
