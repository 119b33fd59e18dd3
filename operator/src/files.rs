//! Bounded reads of files that others wrote: anything but a regular file of at most `max` bytes is refused before it is
//! read. A pipe without a writer, an endless device or a sparse file of a terabyte blocks nothing.

use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens without blocking: a pipe may not have a writer.
fn open(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// Reads a whole regular file.
///
/// # Errors
/// When it cannot be read, is not a regular file, or has more than `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if metadata.len() > max {
        return Err(too_large(max));
    }
    read_from(file, max)
}

/// The same as text.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_text(path: &Path, max: u64) -> Result<String> {
    String::from_utf8(read(path, max)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Whether [`read`] would accept a file, for files that a library reads.
///
/// # Errors
/// As [`read`].
pub fn check(path: &Path, max: u64) -> Result<()> {
    let metadata = open(path)?.metadata()?;
    match metadata.is_file() {
        true if metadata.len() <= max => Ok(()),
        true => Err(too_large(max)),
        false => Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Reads to the end, at most `max` bytes.
///
/// # Errors
/// When it cannot be read, or has more bytes.
pub fn read_from(from: impl std::io::Read, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(too_large(max)) } else { Ok(bytes) }
}

fn too_large(max: u64) -> Error {
    Error::new(ErrorKind::FileTooLarge, format!("it has more than {max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_bound_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("good"), "abc").unwrap();
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();
        assert_eq!(read(&path("good"), 3).unwrap(), b"abc");
        assert_eq!(read_text(&path("link"), 3).unwrap(), "abc");
        assert_eq!(read(&path("good"), 2).unwrap_err().kind(), ErrorKind::FileTooLarge);
        File::create(path("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&path("sparse"), 1 << 20).unwrap_err().kind(), ErrorKind::FileTooLarge);
        // Without a writer, opening it the usual way would block forever.
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), 0o600.into()).unwrap();
        for name in ["pipe", "."] {
            assert_eq!(read(&path(name), 10).unwrap_err().to_string(), "it is not a regular file");
        }
        let devices = ["/dev/zero", "/dev/null"].map(Path::new);
        for device in devices {
            assert_eq!(read(device, 10).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(read_from(std::io::repeat(b'x'), 10).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
