//! Small files: readable JSON, a checksum in the last line, replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::JournalError;
use crate::private_dir;

/// Largest record, bytes; a longer file is not read.
const MAX_RECORD: u64 = 4 << 20;

const MARK: &str = "\ncrc32 ";

/// The bytes of a record: the JSON, then `crc32 <8 hexadecimal digits>` over it.
pub(super) fn encode<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, JournalError> {
    let mut bytes =
        serde_json::to_vec(value).map_err(|source| JournalError::Encode { path: path.to_owned(), source })?;
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(format!("{MARK}{crc:08x}\n").as_bytes());
    Ok(bytes)
}

/// The value in a record, or what is wrong with it.
fn decode<T>(bytes: &[u8], parse: impl FnOnce(&[u8]) -> serde_json::Result<T>) -> Result<T, String> {
    // The last line has a fixed length: "\ncrc32 " + 8 digits + "\n".
    let json_len = bytes.len().checked_sub(MARK.len() + 9).ok_or("too short")?;
    let (json, tail) = bytes.split_at(json_len);
    let crc = std::str::from_utf8(tail)
        .ok()
        .and_then(|tail| tail.strip_prefix(MARK)?.strip_suffix('\n'))
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or("the last line is not a checksum")?;
    if crc32fast::hash(json) != crc {
        return Err("checksum mismatch".to_owned());
    }
    parse(json).map_err(|error| format!("unexpected content: {error}"))
}

/// Reads a record; `None` when there is no such file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, JournalError> {
    read_by(path, |json| serde_json::from_slice(json))
}

/// The same, parsed by `parse`.
pub(super) fn read_by<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
) -> Result<Option<T>, JournalError> {
    // Neither follow a symbolic link nor wait for a named pipe: the agent creates neither.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io("open", path, error)),
    };
    let metadata = file.metadata().map_err(|e| JournalError::io("examine", path, e))?;
    if !metadata.is_file() || !private_dir::is_ours(&metadata) {
        let why = format!("not a regular file owned by this user or root (owner uid {})", metadata.uid());
        return Err(JournalError::Corrupt { path: path.to_owned(), why });
    }
    // Most records are read in one go.
    let mut bytes = Vec::with_capacity(4096);
    file.take(MAX_RECORD + 1).read_to_end(&mut bytes).map_err(|e| JournalError::io("read", path, e))?;
    let corrupt = |why| JournalError::Corrupt { path: path.to_owned(), why };
    if bytes.len() as u64 > MAX_RECORD {
        return Err(corrupt(format!("longer than {MAX_RECORD} bytes")));
    }
    decode(&bytes, parse).map(Some).map_err(corrupt)
}

/// Replaces a record; it is durable on return.
pub(super) fn replace<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    replace_bytes(path, &encode(path, value)?)
}

/// Replaces a file of another form; it is durable on return.
pub(super) fn replace_bytes(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    write_new(&temporary(path), path, bytes)?;
    sync_dir(parent(path))
}

/// Writes a record into a directory that is not renamed to its name yet; durable on return. What a crash leaves is
/// removed with the directory, so it needs no temporary name. Its file may exist already: to make one takes longer than to write into
/// it.
pub(super) fn write_hidden<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    let file = fill_hidden(path, value)?;
    sync(&file, path)?;
    sync_dir(parent(path))
}

/// As [`write_hidden`], for a record that is durable otherwise.
pub(super) fn write_hidden_unsynced<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    fill_hidden(path, value).map(drop)
}

fn fill_hidden<T: Serialize>(path: &Path, value: &T) -> Result<File, JournalError> {
    let bytes = encode(path, value)?;
    let mut options = OpenOptions::new();
    // Not truncated here: ext4 writes a file that was truncated to nothing to the disk when it is closed (auto_da_alloc, ext4(5)).
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = file.map_err(|e| JournalError::io("create", path, e))?;
    file.write_all(&bytes).map_err(|e| JournalError::io("write", path, e))?;
    cut(&file, path, bytes.len())?;
    Ok(file)
}

/// Removes what a file has beyond `len` bytes.
fn cut(file: &File, path: &Path, len: usize) -> Result<(), JournalError> {
    let has = file.metadata().map_err(|e| JournalError::io("examine", path, e))?.len();
    if has > len as u64 {
        file.set_len(len as u64).map_err(|e| JournalError::io("cut", path, e))?;
    }
    Ok(())
}

/// Replaces a record whose existence has to survive a power cut and whose content need not: on return the name is
/// durable. One fsync, where [`replace`] takes two. A power cut may leave a record that cannot be read.
pub(super) fn announce<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    replace_unsynced(path, value)?;
    sync_dir(parent(path))
}

/// Replaces a record that a power cut may lose, as its loss is harmless.
pub(super) fn replace_unsynced<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    let temporary = temporary(path);
    let bytes = encode(path, value)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    file.and_then(|mut file| file.write_all(&bytes)).map_err(|e| JournalError::io("write", &temporary, e))?;
    fs::rename(&temporary, path).map_err(|e| JournalError::io("rename", &temporary, e))
}

/// Writes bytes to `temporary`, syncs them and renames them to `path`.
fn write_new(temporary: &Path, path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    // Never reuse an old temporary file: its last fsync may have failed.
    let _ = fs::remove_file(temporary);
    let file = write(temporary, bytes)?;
    sync(&file, temporary)?;
    fs::rename(temporary, path).map_err(|e| JournalError::io("rename", temporary, e))
}

/// Writes a new file.
fn write(path: &Path, bytes: &[u8]) -> Result<File, JournalError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| JournalError::io("create", path, e))?;
    file.write_all(bytes).map_err(|e| JournalError::io("write", path, e))?;
    Ok(file)
}

/// Creates an empty file whose first `len` bytes are allocated, for [`fill_reserve`]. Where the file system cannot allocate in advance,
/// zeros are written.
pub(super) fn reserve(path: &Path, len: u64) -> Result<(), JournalError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| JournalError::io("create", path, e))?;
    // Not synced: a power cut loses the allocation and nothing else. Beyond the end of the file, so that it need not be truncated
    // later: with the mount option `discard` each freed extent is a command to the disk, and the truncating process waits for it.
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; usize::try_from(len).unwrap_or(0)];
            file.write_all(&zeros).map_err(|e| JournalError::io("reserve", path, e))
        }
        Err(errno) => Err(JournalError::io("reserve", path, errno)),
    }
}

/// Writes a record into the blocks of `reserve` and renames it to `path`: it needs no additional room on the disk.
/// Durable on return. Without a reserve it is an ordinary [`replace`].
pub(super) fn fill_reserve<T: Serialize>(reserve: &Path, path: &Path, value: &T) -> Result<(), JournalError> {
    let bytes = encode(path, value)?;
    let Some(file) = write_reserve(reserve, path, &bytes)? else {
        write_new(&temporary(path), path, &bytes)?;
        return sync_dir(parent(path));
    };
    sync(&file, reserve)?;
    fs::rename(reserve, path).map_err(|e| JournalError::io("rename", reserve, e))?;
    sync_dir(parent(path))
}

/// As [`fill_reserve`], for a record that is durable otherwise.
pub(super) fn fill_reserve_unsynced<T: Serialize>(
    reserve: &Path,
    path: &Path,
    value: &T,
) -> Result<(), JournalError> {
    match write_reserve(reserve, path, &encode(path, value)?)? {
        Some(_) => fs::rename(reserve, path).map_err(|e| JournalError::io("rename", reserve, e)),
        None => replace_unsynced(path, value),
    }
}

/// Writes into the reserve; `None` when there is none.
fn write_reserve(reserve: &Path, path: &Path, bytes: &[u8]) -> Result<Option<File>, JournalError> {
    let mut file = match OpenOptions::new().write(true).open(reserve) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io("open", reserve, error)),
    };
    file.rewind().and_then(|()| file.write_all(bytes)).map_err(|e| JournalError::io("write", path, e))?;
    cut(&file, reserve, bytes.len())?;
    Ok(Some(file))
}

/// Makes a file or directory durable, if it exists.
pub(super) fn sync_existing(path: &Path) -> Result<(), JournalError> {
    match File::open(path) {
        Ok(file) => sync(&file, path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(JournalError::io("open", path, error)),
    }
}

/// Makes the contents of a file durable.
pub(super) fn sync(file: &File, path: &Path) -> Result<(), JournalError> {
    file.sync_all().map_err(|source| JournalError::Unsafe { path: path.to_owned(), source })
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), JournalError> {
    let dir = File::open(path).map_err(|e| JournalError::io("open", path, e))?;
    sync(&dir, path)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("."))
}

fn temporary(path: &Path) -> std::path::PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_protocol::ids::Epoch;

    fn epoch_of(record: &[u8]) -> Result<Epoch, String> {
        decode(record, |json| serde_json::from_slice(json))
    }

    #[test]
    fn rejects_a_record_with_any_byte_missing_or_bit_flipped() {
        let bytes = encode(Path::new("x"), &Epoch::from(123_456)).unwrap();
        assert_eq!(epoch_of(&bytes).unwrap(), Epoch::from(123_456));
        for len in 0..bytes.len() {
            assert!(epoch_of(&bytes[..len]).is_err(), "cut to {len} bytes was accepted");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(epoch_of(&flipped).is_err(), "bit {bit} of byte {at} flipped was accepted");
            }
        }
    }

    /// An earlier release filled it with zeros, and so does this one where the file system cannot allocate.
    #[test]
    fn a_reserve_that_is_longer_than_its_record_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (reserve_path, path) = (dir.path().join("r"), dir.path().join("x"));
        fs::write(&reserve_path, [0; 8192]).unwrap();
        fill_reserve(&reserve_path, &path, &Epoch::from(7)).unwrap();
        assert_eq!(read::<Epoch>(&path).unwrap(), Some(Epoch::from(7)));
    }

    /// The disk was full while a longer request was written, which was refused; the prepared directory is used for the next.
    #[test]
    fn nothing_of_an_earlier_request_is_left_behind_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("request");
        fs::write(&path, [b'x'; 5000]).unwrap();
        write_hidden_unsynced(&path, &Epoch::from(7)).unwrap();
        assert_eq!(read::<Epoch>(&path).unwrap(), Some(Epoch::from(7)));
    }

    #[test]
    fn filling_the_reserve_writes_the_record_and_consumes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (reserve_path, path) = (dir.path().join("r"), dir.path().join("x"));
        reserve(&reserve_path, 8192).unwrap();
        fill_reserve(&reserve_path, &path, &Epoch::from(7)).unwrap();
        assert_eq!(read::<Epoch>(&path).unwrap(), Some(Epoch::from(7)));
        assert!(!reserve_path.exists());
        fill_reserve(&reserve_path, &path, &Epoch::from(8)).unwrap();
        assert_eq!(read::<Epoch>(&path).unwrap(), Some(Epoch::from(8)));
    }
}
