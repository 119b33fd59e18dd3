//! Finds the program and checks whether it can be executed, before the fork, so that the message can be precise. The
//! kernel decides all the same.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::Program;

use super::root::Root;
use super::start_error::StartError;

/// The path under which the interpreter reads the script.
const SCRIPT_PATH: &str = "/dev/fd/3";

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    /// For messages: `program` or `interpreter`.
    pub(super) what: &'static str,
    /// Its name in the Task.
    pub(super) named: String,
    /// The path for `execve`.
    pub(super) path: PathBuf,
    pub(super) argv: Vec<String>,
}

/// Finds the program, by its path or along `PATH`.
pub(super) fn locate(
    root: &Root,
    program: &Program,
    search: &str,
    directory: &Path,
) -> Result<Located, StartError> {
    let (what, named, argv) = match program {
        Program::Command(argv) => ("program", argv.first().cloned().unwrap_or_default(), argv.clone()),
        Program::Script { interpreter, argument, .. } => {
            let script = SCRIPT_PATH.to_owned();
            let argv = [Some(interpreter.clone()), argument.clone(), Some(script)];
            ("interpreter", interpreter.clone(), argv.into_iter().flatten().collect())
        }
    };
    let fail = |(reason, wrong): (StartFailure, String)| {
        StartError::new(reason, format!("{what} {named:?} {wrong}"))
    };
    if named.is_empty() {
        return Err(StartError::new(StartFailure::ProgramNotFound, format!("{what} is empty")));
    }
    let path = if named.contains('/') {
        // The path for `execve` stays relative to the directory; the check needs an absolute one.
        check_executable(root, &directory.join(&named)).map_err(fail)?;
        PathBuf::from(&named)
    } else {
        search_path(root, &named, search, directory).map_err(fail)?
    };
    Ok(Located { what, named: named.clone(), path, argv })
}

type Wrong = (StartFailure, String);

fn search_path(root: &Root, name: &str, search: &str, directory: &Path) -> Result<PathBuf, Wrong> {
    let mut first_wrong = None;
    for folder in search.split(':') {
        let path = directory.join(folder).join(name);
        match check_executable(root, &path) {
            Ok(()) => return Ok(path),
            Err((StartFailure::ProgramNotFound, _)) => {}
            Err((reason, wrong)) => {
                first_wrong
                    .get_or_insert((reason, format!("was found as {}, which {wrong}", path.display())));
            }
        }
    }
    Err(first_wrong.unwrap_or_else(|| (StartFailure::ProgramNotFound, format!("is not in PATH ({search})"))))
}

fn check_executable(root: &Root, path: &Path) -> Result<(), Wrong> {
    let fd = root.open(path, OFlags::PATH).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => (StartFailure::ProgramNotFound, "does not exist".to_owned()),
        io::ErrorKind::NotADirectory => (
            StartFailure::ProgramNotFound,
            "does not exist: a part of its path is not a directory".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (
            StartFailure::NotExecutable,
            "cannot be reached: permission denied on a parent directory".to_owned(),
        ),
        _ => (StartFailure::Other, format!("cannot be examined: {error}")),
    })?;
    let stat = fstat(&fd).map_err(|error| (StartFailure::Other, format!("cannot be examined: {error}")))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err((StartFailure::NotAFile, "is a directory".to_owned())),
        other => return Err((StartFailure::NotAFile, format!("is not a regular file ({other:?})"))),
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH) {
        return Ok(());
    }
    Err((StartFailure::NotExecutable, format!("is not executable (mode {:04o})", stat.st_mode & 0o7777)))
}

/// Checks the directory in which the command starts.
pub(super) fn check_directory(root: &Root, directory: &str) -> Result<(), StartError> {
    let fail = |wrong: &str| {
        StartError::new(StartFailure::WorkingDirectory, format!("working directory {directory:?} {wrong}"))
    };
    if !directory.starts_with('/') {
        return Err(fail("is not an absolute path"));
    }
    match root.open(Path::new(directory), OFlags::PATH | OFlags::DIRECTORY) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(fail("does not exist")),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(fail("is not a directory")),
        Err(error) => Err(fail(&format!("cannot be entered: {error}"))),
    }
}
