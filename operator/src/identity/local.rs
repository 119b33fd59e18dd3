//! Users of this machine, in dev mode: who runs it, and root.

use std::path::Path;

use sentinel_protocol::requester::Requester;

use crate::files;

/// Where the names of users are.
const PASSWD: &str = "/etc/passwd";

/// Largest file of users that is read, bytes.
const MAX_PASSWD: u64 = 1 << 20;

/// The user whose dev mode it is: who holds its token, and its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    name: Option<String>,
}

impl Owner {
    /// The user with this uid, whose name is read once.
    pub fn new(uid: u32) -> Self {
        Self { uid, name: name_of(Path::new(PASSWD), uid) }
    }

    /// The owner, as a requester.
    pub fn requester(&self) -> Requester {
        requester(self.uid, self.name.as_deref())
    }

    /// The user at the other end of a socket.
    pub fn of_uid(&self, uid: u32) -> Requester {
        if uid == self.uid { self.requester() } else { requester(uid, Some("root").filter(|_| uid == 0)) }
    }
}

/// A user without a name is called by the number.
fn requester(uid: u32, name: Option<&str>) -> Requester {
    let user = name.map_or_else(|| format!("uid:{uid}"), str::to_owned);
    Requester { user: user.into(), uid: Some(uid.to_string().into()), groups: Vec::new() }
}

fn name_of(file: &Path, uid: u32) -> Option<String> {
    let users = files::read_text(file, MAX_PASSWD).ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_their_name_or_is_called_by_the_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwd");
        std::fs::write(
            &file,
            "root:x:0:0:root:/root:/bin/sh\n\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n",
        )
        .unwrap();
        assert_eq!(name_of(&file, 1000).as_deref(), Some("alice"));
        assert_eq!(name_of(&file, 1001), None);
        assert_eq!(name_of(Path::new("/nowhere"), 0), None);
        let owner = Owner { uid: 1000, name: Some("alice".to_owned()) };
        assert_eq!(owner.of_uid(1000), owner.requester());
        assert_eq!(owner.of_uid(0).user, "root");
        assert_eq!(requester(1001, None).user, "uid:1001");
        assert_eq!(requester(1001, None).uid.unwrap(), "1001");
    }
}
