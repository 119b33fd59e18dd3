//! The interpreters of a script: what the kernel executes in its place, by its first line.
//!
//! A policy allows a script by its path, and what runs is the interpreter. It is found as the kernel finds it, with all symbolic links on
//! the way, and none of it may be replaceable.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, OFlags, fstat, readlinkat};

use super::found::{Found, writable_by};
use super::root::Root;

/// Bytes of a program that the kernel reads.
///
/// Source: `BINPRM_BUF_SIZE` in Linux's `include/uapi/linux/binfmts.h`.
const BEGIN: usize = 256;

/// Interpreters that may be scripts themselves, one after the other.
///
/// Source: execve(2), "Interpreter scripts".
const MOST: usize = 4;

/// Symbolic links on the way to a file, as the kernel follows them at most.
///
/// Source: `path_resolution(7)`.
const MOST_LINKS: usize = 40;

/// Who, other than root and the agent, can replace an interpreter of this program, if it is a script.
pub(super) fn replaceable(root: &Root, program: &str, content: io::Result<File>) -> Option<String> {
    let (mut of, mut content) = (program.to_owned(), content);
    // The last one is read too: it must not be a script.
    for _ in 0..=MOST + 1 {
        let begin = match content.and_then(|content| begin(&content)) {
            Ok(begin) => begin,
            // An interpreter could not read it either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            Err(error) => {
                return Some(format!(
                    "{of} cannot be read, so it is not known whether it is a script: {error}"
                ));
            }
        };
        let name = interpreter(&begin)?;
        let shown = name.display();
        if name.as_os_str().as_bytes().ends_with(b"\r") {
            return Some(format!(
                "the first line of {of} ends with a carriage return, which the kernel takes for a part of the interpreter's name; write it with Unix line ends"
            ));
        }
        if !name.is_absolute() {
            return Some(format!(
                "{of} is a script for {shown}, which depends on the working directory; write an absolute path in its first line"
            ));
        }
        let found = match resolve(root, &name) {
            Ok(path) => Found::open(root, path),
            Err(why) => Err(format!(
                "{why}, so {shown}, the interpreter of {of}, need not be what the policy means; make it root's alone"
            )),
        };
        let found = match found.and_then(|found| Ok((found.identity()?.path, found.content()))) {
            Ok(found) => found,
            Err(why) => return Some(why),
        };
        (of, content) = found;
    }
    Some(format!("{program} is a script for a script, and so on; more than {MOST} are not followed"))
}

/// The first bytes, with zeros after the end of the file.
fn begin(content: &File) -> io::Result<[u8; BEGIN]> {
    let (mut begin, mut len) = ([0; BEGIN], 0);
    while len < BEGIN {
        match content.read_at(&mut begin[len..], len as u64)? {
            0 => break,
            read => len += read,
        }
    }
    Ok(begin)
}

/// The interpreter that the kernel would execute; `None` if it would execute none.
///
/// Source: `load_script` in Linux's `fs/binfmt_script.c`.
fn interpreter(begin: &[u8; BEGIN]) -> Option<PathBuf> {
    let rest = begin.strip_prefix(b"#!")?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = rest.split(|byte| *byte == b'\n').next()?;
    let name = &line[line.iter().position(|byte| !is_blank(byte))?..];
    let end = name.iter().position(|byte| is_blank(byte) || *byte == 0);
    // Without an end in these bytes it is cut off, and the kernel refuses it.
    let end = end.or((line.len() < rest.len()).then_some(name.len()))?;
    (end > 0).then(|| PathBuf::from(OsStr::from_bytes(&name[..end])))
}

/// The path without symbolic links, if others than root and the agent can replace no part of the way to it.
///
/// # Errors
/// Which part they can replace, or why it cannot be examined.
fn resolve(root: &Root, path: &Path) -> Result<PathBuf, String> {
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let unknown = |at: &Path, error: io::Error| format!("{} cannot be examined: {error}", at.display());
    let open = |at: &Path| {
        let fd = root.open(at, OFlags::PATH | OFlags::NOFOLLOW).map_err(|error| unknown(at, error))?;
        let stat = fstat(&fd).map_err(|error| unknown(at, error.into()))?;
        match writable_by(&stat) {
            Some(by) => Err(format!("{} {by}", at.display())),
            None => Ok((fd, FileType::from_raw_mode(stat.st_mode))),
        }
    };
    open(&at)?;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        let (fd, kind) = open(&next)?;
        if kind != FileType::Symlink {
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(format!("{} is behind too many symbolic links", next.display()));
        }
        let target = readlinkat(&fd, "", Vec::new()).map_err(|error| unknown(&next, error.into()))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        let mut all: VecDeque<OsString> = parts(&target).collect();
        all.append(&mut rest);
        rest = all;
    }
    Ok(at)
}

/// The names in a path, `..` included.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    fn first_line(text: &[u8]) -> Option<PathBuf> {
        let mut begin = [0; BEGIN];
        let len = text.len().min(BEGIN);
        begin[..len].copy_from_slice(&text[..len]);
        interpreter(&begin)
    }

    #[test]
    fn the_first_line_is_read_as_the_kernel_reads_it() {
        let sh = Some(PathBuf::from("/bin/sh"));
        for line in ["#!/bin/sh\n", "#! \t/bin/sh -e x\nmore", "#!/bin/sh", "#!/bin/sh\t\n", "#!/bin/sh \n"] {
            assert_eq!(first_line(line.as_bytes()), sh, "{line:?}");
        }
        let long = |name: usize, after: &str| format!("#!/{}{after}", "x".repeat(name));
        assert_eq!(first_line(long(252, "\n").as_bytes()).unwrap().as_os_str().len(), 253);
        assert_eq!(first_line(long(300, "\n").as_bytes()), None, "it is cut off");
        assert_eq!(first_line(long(100, &" a".repeat(200)).as_bytes()).unwrap().as_os_str().len(), 101);
        for nothing in ["", "#", "\x7fELF", "#!", "#!\n/bin/sh", "#! \t\n", " #!/bin/sh\n", "#!\0/bin/sh\n"] {
            assert_eq!(first_line(nothing.as_bytes()), None, "{nothing:?}");
        }
        assert_eq!(first_line(b"#!sh\n"), Some("sh".into()));
    }

    /// What the kernel executes by such lines is what was read from them.
    #[test]
    fn the_kernel_executes_what_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        for line in ["#!/bin/echo\n", "#! \t/bin/echo a b \nx", "#!/bin/echo", "#!/bin/echo\t\n"] {
            fs::write(&script, line).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            let output = Command::new(&script).output().unwrap();
            assert!(String::from_utf8_lossy(&output.stdout).contains("script"), "{line:?}");
            assert_eq!(first_line(line.as_bytes()), Some("/bin/echo".into()), "{line:?}");
        }
    }

    struct Scripts(tempfile::TempDir);

    impl Scripts {
        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }

        fn replaceable(&self, name: &str) -> Option<String> {
            let path = self.0.path().join(name);
            replaceable(&Root::own(), path.to_str().unwrap(), File::open(&path))
        }
    }

    #[test]
    fn an_interpreter_that_others_can_replace_is_found_also_behind_links_and_scripts() {
        let scripts = Scripts(tempfile::tempdir().unwrap());
        let at = scripts.0.path().display().to_string();
        scripts.write("plain", "#!/bin/sh\n");
        assert_eq!(scripts.replaceable("plain"), None);
        scripts.write("tool", "#!/bin/sh\n");
        scripts.write("script", &format!("#!{at}/tool -x\n"));
        scripts.write("second", &format!("#!{at}/script\n"));
        assert_eq!((scripts.replaceable("script"), scripts.replaceable("second")), (None, None));
        fs::set_permissions(scripts.0.path().join("tool"), fs::Permissions::from_mode(0o777)).unwrap();
        for name in ["script", "second"] {
            let why = scripts.replaceable(name).unwrap();
            assert!(
                why.contains("tool is writable by everyone") || why.contains("tool is writable by group"),
                "{why}"
            );
            assert!(why.contains(&format!("the interpreter of {at}/script,")), "{why}");
        }
        // A link in a directory where others can write may name anything a moment later.
        let shared = scripts.0.path().join("shared");
        fs::create_dir(&shared).unwrap();
        symlink("/bin/sh", shared.join("sh")).unwrap();
        scripts.write("linked", &format!("#!{at}/shared/sh\n"));
        assert_eq!(scripts.replaceable("linked"), None);
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(scripts.replaceable("linked").unwrap().contains("shared is writable by"));
        scripts.write("upwards", &format!("#!{at}/shared/../plain\n"));
        assert!(scripts.replaceable("upwards").unwrap().contains("shared is writable by"));
    }

    /// The kernel ends a chain of scripts somewhere, and one that is not examined to its end must not run.
    #[test]
    fn as_many_interpreters_are_scripts_as_the_kernel_takes() {
        let scripts = Scripts(tempfile::tempdir().unwrap());
        let at = scripts.0.path().display().to_string();
        scripts.write("0", "#!/bin/true\n");
        let mut taken = Vec::new();
        for number in 1..=7 {
            let path = scripts.write(&number.to_string(), &format!("#!{at}/{}\n", number - 1));
            let runs = Command::new(path).output().is_ok_and(|output| output.status.success());
            assert_eq!(scripts.replaceable(&number.to_string()).is_none(), runs, "{number}");
            taken.push(runs);
        }
        assert!(taken[0] && !taken[6], "{taken:?}");
    }

    #[test]
    fn interpreters_that_cannot_be_followed_are_refused() {
        let scripts = Scripts(tempfile::tempdir().unwrap());
        let at = scripts.0.path().display().to_string();
        scripts.write("relative", "#!sh\n");
        assert!(scripts.replaceable("relative").unwrap().contains("depends on the working directory"));
        scripts.write("windows", "#!/bin/sh\r\necho\r\n");
        assert!(scripts.replaceable("windows").unwrap().contains("carriage return"));
        scripts.write("missing", &format!("#!{at}/nothing\n"));
        assert!(scripts.replaceable("missing").unwrap().contains("nothing cannot be examined"));
        scripts.write("itself", &format!("#!{at}/itself\n"));
        assert!(scripts.replaceable("itself").unwrap().contains("more than 4 are not followed"));
        symlink("loop", scripts.0.path().join("loop")).unwrap();
        scripts.write("looped", &format!("#!{at}/loop\n"));
        assert!(scripts.replaceable("looped").unwrap().contains("too many symbolic links"));
        scripts.write("directory", "#!/tmp\n");
        assert!(scripts.replaceable("directory").unwrap().contains("is not a regular file"));
    }
}
