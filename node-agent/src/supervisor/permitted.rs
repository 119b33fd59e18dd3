//! What the node's policy has allowed, compared with what would be executed, in the process that becomes the command. What was
//! compared is what runs: a program is executed by its descriptor.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sentinel_core::agent::{FileIdentity, Permit};
use sentinel_protocol::refusal::Refusal;

use super::examine::directory_at;
use super::found::Found;
use super::identity::{Credentials, Identity};
use super::program::Located;
use super::root::Root;

/// How to execute a program that was compared.
#[derive(Debug)]
pub(super) enum Executable {
    /// By this descriptor.
    Descriptor(OwnedFd),
    /// By this path, which has no symbolic links: the kernel gives a script's path to its interpreter, which opens it again. The
    /// agent has refused a path with a part that others than root can replace; links on the way to it they may.
    Resolved(CString),
    /// By the path of the plan: there was nothing to compare.
    Path,
}

/// Compares the program and the identity of a command with what was allowed.
///
/// # Errors
/// The Refusal if something has changed since.
pub(super) fn check(
    permit: &Permit,
    root: &Root,
    located: &Located,
    directory: &Path,
    identity: &Identity,
) -> Result<Executable, Refusal> {
    let changed = |what: String| Refusal::Policy {
        rule: permit.rule.clone(),
        why: Some(format!("{what} has changed since the rule allowed it").into()),
    };
    let text = directory.to_str().unwrap_or_default();
    let Some(allowed) = &permit.directory else {
        return Err(Refusal::Policy {
            rule: permit.rule.clone(),
            why: Some(
                format!(
                    "an earlier agent accepted it and did not record which directory {text} was; run it again"
                )
                .into(),
            ),
        });
    };
    if directory_at(root, text).map_err(&changed)? != *allowed {
        return Err(changed(format!("the working directory {text}")));
    }
    let found = Found::open(root, directory.join(&located.path)).map_err(&changed)?;
    let now = found.identity().map_err(&changed)?;
    if now != permit.program {
        return Err(changed(difference(&permit.program, &now)));
    }
    let Credentials { uid, gid, groups } = identity.effective();
    let groups: Vec<u32> = groups.into_iter().map(rustix::process::Gid::as_raw).collect();
    if (uid.as_raw(), gid.as_raw(), &groups) != (permit.uid, permit.gid, &permit.groups) {
        return Err(changed(format!("the user or the groups of the command (user {uid}, group {gid})")));
    }
    if !found.content().is_ok_and(|content| begins_a_script(&content)) {
        return Ok(Executable::Descriptor(found.into_fd()));
    }
    let resolved = Found::open(root, PathBuf::from(&now.path)).and_then(|found| found.identity());
    let path = CString::new(now.path.as_bytes()).ok().filter(|_| resolved.is_ok_and(|found| found == now));
    path.map(Executable::Resolved).ok_or_else(|| changed(format!("the program {}", now.path)))
}

fn difference(allowed: &FileIdentity, now: &FileIdentity) -> String {
    if allowed.path == now.path {
        format!("the program {}", now.path)
    } else {
        format!("the program (now {}, before {})", now.path, allowed.path)
    }
}

fn begins_a_script(content: &File) -> bool {
    let mut begin = [0; 2];
    content.read_exact_at(&mut begin, 0).is_ok() && begin == *b"#!"
}
