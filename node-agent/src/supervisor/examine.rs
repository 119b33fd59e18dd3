//! What the node knows about a request before anything is decided: which file the program is, and which user and groups the command
//! would have. The process that becomes the command finds them again ([`super::permitted`]).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{OFlags, fstat};
use rustix::process::{getegid, geteuid, getgroups};
use sentinel_core::agent::{DirectoryIdentity, FileIdentity};
use sentinel_policy::asked::{IdentityFacts, NodeFacts, ProgramFacts};
use sentinel_policy::what::hex;
use sentinel_protocol::request::Environment;
use sentinel_protocol::to_agent::Start;
use sha2::{Digest, Sha256};

use super::environment::search_path;
use super::found::{Found, identity_of, writable_by};
use super::identity::{Credentials, Identity, group_names, user_names};
use super::interpreter;
use super::invocation::HostNamespaces;
use super::program::locate;
use super::root::Root;
use super::start_error::StartError;

/// What was found.
#[derive(Debug)]
pub struct Examined {
    /// What a policy decides by.
    pub facts: NodeFacts,
    /// The program as it is now, if it was found.
    pub program: Option<FileIdentity>,
    /// The working directory, if it was found.
    pub directory: Option<DirectoryIdentity>,
}

/// Largest program whose digest is computed, bytes.
const MAX_DIGESTED: u64 = 256 << 20;

/// Opens the content of a program.
pub type OpenContent<'a> = &'a dyn Fn() -> io::Result<File>;

/// The SHA-256 of a program; `None` if no rule compares it, and then its content is not opened.
pub type DigestOf<'a> = &'a mut dyn FnMut(&FileIdentity, OpenContent<'_>) -> Option<io::Result<String>>;

/// What of a program the rules of a policy compare.
pub struct Compared<'a> {
    /// Its digest.
    pub digest: DigestOf<'a>,
    /// Paths: is the program the same file?
    pub names: &'a [&'a str],
}

/// Examines a request as its command would see the node.
pub fn examine(start: &Start, host: HostNamespaces, compared: &mut Compared<'_>) -> Examined {
    let root = match Root::of(start.request.environment, host) {
        Ok(root) => root,
        Err(StartError { message, .. }) => {
            let facts = nothing(message);
            return Examined { facts, program: None, directory: None };
        }
    };
    let identity = Identity::resolve(&root, &start.request);
    let identity = match identity {
        Ok(identity) => identity,
        Err(StartError { message, .. }) => {
            // Without a user there is no `PATH` to search either, and nothing can be allowed.
            let facts = nothing(message);
            return Examined { facts, program: None, directory: None };
        }
    };
    let program = find(&root, start, &identity).and_then(|found| found.examine(&root, compared));
    let (program, file) = match program {
        Ok((facts, file)) => (Ok(facts), Some(file)),
        Err(message) => (Err(message), None),
    };
    let (working_dir, directory) = match directory_at(&root, &start.request.working_dir) {
        Ok(directory) => (Ok(directory.path.clone()), Some(directory)),
        Err(message) => (Err(message), None),
    };
    Examined {
        facts: NodeFacts { name: None, program, working_dir, identity: Ok(identity_facts(&root, identity)) },
        program: file,
        directory,
    }
}

/// Why a program is refused in this environment whatever a policy allows, as far as it is known without a request: others than root can
/// replace it, or its interpreter. One that is not there is another matter.
pub fn refused_program(path: &Path, environment: Environment, host: HostNamespaces) -> Option<String> {
    let root = Root::of(environment, host).ok()?;
    let found = Found::open(&root, path.to_owned()).ok()?;
    found.replaceable(&root, &found.identity().ok()?.path)
}

/// Nothing is known, and so nothing can be allowed.
fn nothing(why: String) -> NodeFacts {
    NodeFacts { name: None, program: Err(why.clone()), working_dir: Err(why.clone()), identity: Err(why) }
}

/// A working directory as it is now.
pub(super) fn directory_at(root: &Root, directory: &str) -> Result<DirectoryIdentity, String> {
    let unknown = |error: io::Error| format!("working directory {directory:?} cannot be examined: {error}");
    let directory = root.open(Path::new(directory), OFlags::PATH | OFlags::DIRECTORY).map_err(unknown)?;
    let stat = fstat(&directory).map_err(|error| unknown(error.into()))?;
    let resolved = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).map_err(unknown)?;
    let path = resolved.into_os_string().into_string();
    let path = path.map_err(|_| "the working directory is not UTF-8".to_owned())?;
    Ok(DirectoryIdentity { path, device: stat.st_dev, inode: stat.st_ino })
}

fn identity_facts(root: &Root, identity: Identity) -> IdentityFacts {
    let primary_gid = identity.user.as_ref().map(|user| user.gid);
    let Credentials { uid, gid, groups } = identity.effective();
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    let groups: Vec<u32> = groups.into_iter().map(rustix::process::Gid::as_raw).collect();
    let user_names = user_names(root, uid);
    IdentityFacts {
        uid,
        user: identity.user.map(|user| user.name).or_else(|| user_names.first().cloned()),
        user_names,
        gid,
        group: group_names(root, &[gid]).into_iter().next(),
        primary_gid,
        group_names: group_names(root, &[&[gid], &groups[..]].concat()),
        groups,
    }
}

impl Identity {
    /// The credentials that the command will have: its own, or the agent's.
    pub(super) fn effective(&self) -> Credentials {
        self.credentials.clone().unwrap_or_else(|| Credentials {
            uid: geteuid(),
            gid: getegid(),
            groups: getgroups().unwrap_or_default(),
        })
    }
}

/// Finds the program or the interpreter of a request.
fn find(root: &Root, start: &Start, identity: &Identity) -> Result<Found, String> {
    let request = &start.request;
    let search = search_path(start, identity.user.as_ref());
    let directory = Path::new(&request.working_dir);
    let located = locate(root, &request.program, &search, directory).map_err(|error| error.message)?;
    Found::open(root, directory.join(located.path))
}

/// What a policy decides by.
impl Found {
    fn replaceable(&self, root: &Root, path: &str) -> Option<String> {
        replaceable(root, path).or_else(|| interpreter::replaceable(root, path, self.content()))
    }

    fn examine(
        &self,
        root: &Root,
        compared: &mut Compared<'_>,
    ) -> Result<(ProgramFacts, FileIdentity), String> {
        let identity = self.identity()?;
        let requested = self.requested.to_str().ok_or("the program's path is not UTF-8")?.to_owned();
        let replaceable = self.replaceable(root, &identity.path);
        // What others can replace is refused anyway, and could be anything.
        let digest =
            if replaceable.is_none() { (compared.digest)(&identity, &|| self.content()) } else { None };
        let sha256 = digest
            .transpose()
            .map_err(|error| format!("{} cannot be compared by its digest: {error}", identity.path))?;
        let is_same = |name: &&&str| {
            let other = root.open(Path::new(name), OFlags::PATH).and_then(|file| Ok(fstat(&file)?));
            other.is_ok_and(|other| (other.st_dev, other.st_ino) == (identity.device, identity.inode))
        };
        let also_named = compared.names.iter().filter(is_same).map(|name| (*name).to_owned()).collect();
        let resolved = identity.path.clone();
        Ok((ProgramFacts { requested, resolved, sha256, replaceable, also_named }, identity))
    }
}

/// The SHA-256 of a file that does not change meanwhile, in hexadecimal.
///
/// # Errors
/// When it cannot be read, or changed.
pub fn sha256_of(identity: &FileIdentity, file: &File) -> io::Result<String> {
    if identity.size > MAX_DIGESTED {
        return Err(io::Error::other(format!("it has more than {MAX_DIGESTED} bytes")));
    }
    // One more than its length shows that it grows.
    let mut content = file.take(identity.size + 1);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let after = identity_of(identity.path.clone(), &fstat(file)?);
    if after != *identity {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok(hex(&hash.finalize()))
}

/// Who, other than root and the agent, can replace the file or a directory on the way to it.
fn replaceable(root: &Root, path: &str) -> Option<String> {
    let parts = Path::new(path).ancestors().collect::<Vec<_>>();
    parts.into_iter().rev().find_map(|part| {
        let by = match root.open(part, OFlags::PATH | OFlags::NOFOLLOW).and_then(|fd| Ok(fstat(&fd)?)) {
            Ok(stat) => writable_by(&stat)?,
            Err(error) => format!("cannot be examined: {error}"),
        };
        let part = part.display();
        Some(format!("{part} {by}, so {path} need not be what the policy means; make it root's alone"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_program_that_others_can_replace_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "x").unwrap();
        let root = Root::of(sentinel_protocol::request::Environment::Container, HostNamespaces::Own).unwrap();
        let found = || replaceable(&root, program.to_str().unwrap());
        mode(&program, 0o755);
        assert_eq!(found(), None, "below a directory with the sticky bit");
        mode(&program, 0o757);
        assert!(found().unwrap().contains("program is writable by everyone"));
        mode(&program, 0o755);
        mode(dir.path(), 0o757);
        assert!(found().unwrap().contains("is writable by everyone"), "{:?}", found());
        mode(dir.path(), 0o1777);
        assert_eq!(found(), None);
        if geteuid().is_root() {
            std::os::unix::fs::chown(&program, Some(1234), None).unwrap();
            assert!(found().unwrap().contains("program belongs to user 1234"));
            std::os::unix::fs::chown(&program, Some(0), Some(0)).unwrap();
            mode(&program, 0o775);
            assert!(found().unwrap().contains("program is writable by group 0"));
        }
    }

    /// To open a pipe for its content hung the agent's thread forever.
    #[test]
    fn what_is_not_a_regular_file_is_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = Root::of(sentinel_protocol::request::Environment::Container, HostNamespaces::Own).unwrap();
        for path in [pipe, dir.path().to_owned()] {
            assert!(Found::open(&root, path).err().unwrap().contains("is not a regular file"));
        }
    }

    #[test]
    fn a_changed_file_has_another_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, "one").unwrap();
        let root = Root::of(sentinel_protocol::request::Environment::Container, HostNamespaces::Own).unwrap();
        let now = || Found::open(&root, path.clone()).unwrap();
        let before = now().identity().unwrap();
        let digest = sha256_of(&before, &now().content().unwrap()).unwrap();
        assert_eq!(digest, sentinel_policy::what::sha256_hex(b"one"));
        // The same length and the same inode.
        while now().identity().unwrap() == before {
            fs::write(&path, "two").unwrap();
        }
        assert!(sha256_of(&before, &now().content().unwrap()).unwrap_err().to_string().contains("changed"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(Found::open(&root, link).unwrap().identity().unwrap(), now().identity().unwrap());
    }
}
