//! The user and groups a command runs as. They are read from the files that the command will see, without NSS, which
//! would load code from there.

use rustix::process::{Gid, Uid, getegid, geteuid};
use sentinel_protocol::outcome::StartFailure;
use sentinel_protocol::request::{RunRequest, Sandbox};

use super::root::Root;
use super::start_error::StartError;

/// The user and group that stand for none (`fs.overflowuid`): they own nothing. `nobody` has these numbers on most systems.
const OVERFLOW: u32 = 65_534;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
    pub(super) shell: String,
}

/// The credentials that the child takes (`credentials(7)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

/// The user and groups a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Its line in `/etc/passwd`, when it has one.
    pub(super) user: Option<User>,
    /// `None` when they are the agent's own.
    pub(super) credentials: Option<Credentials>,
}

impl Identity {
    /// Resolves user and group of a request, by name or number.
    pub(super) fn resolve(root: &Root, request: &RunRequest) -> Result<Self, StartError> {
        let (user, group) = (request.user.as_deref(), request.group.as_deref());
        if user.is_none() && request.sandbox() == Sandbox::Restricted && geteuid().is_root() {
            return Self::of_overflow(root, group);
        }
        let passwd = read(root, "/etc/passwd", StartFailure::UnknownUser)?;
        let Some((uid, entry)) = find_user(&passwd, user) else {
            let user = user.unwrap_or_default();
            let message = format!("user {user:?} does not exist (not in /etc/passwd)");
            return Err(StartError::new(StartFailure::UnknownUser, message));
        };
        if user.is_none() && group.is_none() {
            return Ok(Self { user: entry, credentials: None });
        }
        let groups = group_file(root)?;
        let gid = primary_group(&groups, user, group, entry.as_ref())?;
        let all = all_groups(&groups, gid, entry.as_ref());
        let credentials = Credentials {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: all.into_iter().map(Gid::from_raw).collect(),
        };
        // Without privilege only the agent's own are possible, and need no system call, which would be denied.
        let is_own = !geteuid().is_root() && credentials.uid == geteuid() && credentials.gid == getegid();
        Ok(Self { user: entry, credentials: (!is_own).then_some(credentials) })
    }
}

impl Identity {
    /// That of a command that names no user and must not be root. It needs no line in `/etc/passwd`, which a container may not have,
    /// and has no home: that of `nobody` does not exist.
    fn of_overflow(root: &Root, group: Option<&str>) -> Result<Self, StartError> {
        let gid = match group {
            None => OVERFLOW,
            Some(_) => primary_group(&group_file(root)?, None, group, None)?,
        };
        let gid = Gid::from_raw(gid);
        let credentials = Credentials { uid: Uid::from_raw(OVERFLOW), gid, groups: vec![gid] };
        Ok(Self { user: None, credentials: Some(credentials) })
    }
}

fn group_file(root: &Root) -> Result<String, StartError> {
    read(root, "/etc/group", StartFailure::UnknownGroup)
}

fn read(root: &Root, path: &str, reason: StartFailure) -> Result<String, StartError> {
    root.read(path).map_err(|error| StartError::new(reason, format!("{path} cannot be read: {error}")))
}

/// The uid, and the line in `/etc/passwd` when it has one; `None` when there is no such user.
fn find_user(passwd: &str, user: Option<&str>) -> Option<(u32, Option<User>)> {
    let by_number = |uid| (uid, users(passwd).find(|entry| entry.uid == uid));
    match user {
        None => Some(by_number(geteuid().as_raw())),
        Some(user) => match users(passwd).find(|entry| entry.name == user) {
            Some(entry) => Some((entry.uid, Some(entry))),
            None => number(user).map(by_number),
        },
    }
}

fn primary_group(
    groups: &str,
    user: Option<&str>,
    group: Option<&str>,
    entry: Option<&User>,
) -> Result<u32, StartError> {
    let Some(group) = group else {
        return entry.map(|entry| entry.gid).ok_or_else(|| {
            let user = user.unwrap_or_default();
            let message = format!("user {user:?} is not in /etc/passwd and so has no group; set run.group");
            StartError::new(StartFailure::UnknownGroup, message)
        });
    };
    let named = group_lines(groups).find(|(name, _, _)| *name == group).map(|(_, gid, _)| gid);
    named.or_else(|| number(group)).ok_or_else(|| {
        let message = format!("group {group:?} does not exist (not in /etc/group)");
        StartError::new(StartFailure::UnknownGroup, message)
    })
}

/// All groups of the command: its primary group, and those that a login of its user has (`initgroups`), including the
/// user's own primary group when another one is requested: dropping it could open what is closed to that group.
fn all_groups(groups: &str, gid: u32, entry: Option<&User>) -> Vec<u32> {
    let mut all = vec![gid];
    if let Some(entry) = entry {
        for other in [entry.gid].into_iter().chain(memberships(groups, &entry.name)) {
            if !all.contains(&other) {
                all.push(other);
            }
        }
    }
    all
}

/// A uid or gid; the largest number means "unchanged" to the kernel and is not valid.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|n| *n != u32::MAX)
}

fn users(passwd: &str) -> impl Iterator<Item = User> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        Some(User {
            name: name.to_owned(),
            uid: number(uid)?,
            gid: number(gid)?,
            home: home.to_owned(),
            shell: shell.to_owned(),
        })
    })
}

fn group_lines(groups: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, number(fields.next()?)?);
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// The names of a user: several entries can have one number.
pub(super) fn user_names(root: &Root, uid: u32) -> Vec<String> {
    let entries = root.read("/etc/passwd").unwrap_or_default();
    users(&entries).filter(|user| user.uid == uid).map(|user| user.name).collect()
}

/// The names of these groups: several entries can have one number.
pub(super) fn group_names(root: &Root, gids: &[u32]) -> Vec<String> {
    let entries = root.read("/etc/group").unwrap_or_default();
    group_lines(&entries).filter(|(_, gid, _)| gids.contains(gid)).map(|(name, ..)| name.to_owned()).collect()
}

fn memberships(groups: &str, user: &str) -> impl Iterator<Item = u32> {
    group_lines(groups)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nweb:x:33:34:w:/var/www:/bin/sh\n+nis::::::\n7:x:70:71::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nssl:x:40:a,web\nlog:x:41:webb,xweb\n";

    #[test]
    fn finds_a_user_by_name_first_and_then_by_number() {
        let uid = |user| find_user(PASSWD, Some(user)).map(|(uid, entry)| (uid, entry.is_some()));
        assert_eq!(uid("web"), Some((33, true)));
        assert_eq!(uid("33"), Some((33, true)));
        assert_eq!(uid("7"), Some((70, true)));
        assert_eq!(uid("1234"), Some((1234, false)));
        for unknown in ["", "nosuch", "-1", "4294967295", "4294967296", "+nis", "broken", "we"] {
            assert_eq!(uid(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn a_user_is_in_exactly_the_groups_that_list_it() {
        assert_eq!(memberships(GROUP, "web").collect::<Vec<_>>(), [40]);
    }

    #[test]
    fn a_requested_group_is_added_to_the_users_groups() {
        let (_, web) = find_user(PASSWD, Some("web")).unwrap();
        assert_eq!(all_groups(GROUP, 34, web.as_ref()), [34, 40]);
        assert_eq!(all_groups(GROUP, 41, web.as_ref()), [41, 34, 40]);
        assert_eq!(all_groups(GROUP, 40, web.as_ref()), [40, 34]);
        assert_eq!(all_groups(GROUP, 99, None), [99]);
    }

    #[test]
    fn a_uid_without_an_entry_has_no_group() {
        let error = primary_group(GROUP, Some("1234"), None, None).unwrap_err();
        assert_eq!(error.reason, StartFailure::UnknownGroup);
        assert_eq!(primary_group(GROUP, Some("1234"), Some("ssl"), None).unwrap(), 40);
        assert_eq!(primary_group(GROUP, Some("1234"), Some("99"), None).unwrap(), 99);
    }
}
