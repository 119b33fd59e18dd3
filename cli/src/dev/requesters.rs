//! Who asks for Tasks in dev mode: the user who runs it, or root at its socket. The stamps are signed as in a cluster, by a key
//! in the state directory.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sentinel_operator::admission::keys::random_key;
use sentinel_operator::files;
use sentinel_operator::resource::stamp::{KEY_BYTES, Key, Stamps};

use crate::exit::Failure;

/// The file with the key.
const FILE: &str = "requesters.key";

/// The stamps of this state directory, whose key is made when it has none.
pub(super) fn stamps(state: &Path) -> Result<Stamps, Failure> {
    let file = state.join(FILE);
    let key = match files::read(&file, KEY_BYTES as u64).map(<[u8; KEY_BYTES]>::try_from) {
        Ok(Ok(key)) => key,
        // None yet, or one that a power cut has left: then it is unknown who asked for the Tasks of before.
        Ok(Err(_)) => make(&file)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&file)?,
        Err(error) => return Err(unusable(&file, "read", &error)),
    };
    Ok(Stamps::of(Key::from(key)))
}

fn make(file: &Path) -> Result<[u8; KEY_BYTES], Failure> {
    let key = random_key().map_err(|error| Failure::new(error.to_string()))?;
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
        opened.write_all(&key)?;
        opened.sync_all()
    };
    write().map_err(|error| unusable(file, "write", &error))?;
    Ok(key)
}

fn unusable(file: &Path, doing: &str, error: &std::io::Error) -> Failure {
    let file = file.display();
    Failure::new(format!("failed to {doing} {file}, the key that shows who asked for a Task: {error}")).hint(
        "Make the state directory readable and writable for your user, or name another with --state DIR",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_kept_and_private_and_a_torn_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let first = stamps(directory.path()).unwrap().keys();
        assert_eq!(stamps(directory.path()).unwrap().keys(), first);
        let file = directory.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "torn").unwrap();
        assert_ne!(stamps(directory.path()).unwrap().keys(), first);
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let failure = stamps(directory.path()).unwrap_err();
        assert!(failure.message.contains("requesters.key"), "{failure}");
    }
}
