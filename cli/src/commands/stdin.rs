//! Our own standard input: what `run --stdin` takes of it, and whether one was offered that nothing takes.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use sentinel_protocol::limits::MAX_STDIN_BYTES;

use crate::exit::Failure;

/// All of our standard input, as a Task can carry it.
///
/// # Errors
/// It cannot be read, is longer than a Task can carry, or is not text.
pub(super) fn read() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    // One byte more than fits, to know that there is more.
    std::io::stdin()
        .lock()
        .take(MAX_STDIN_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("failed to read standard input: {error}")))?;
    text(bytes)
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    if bytes.len() > MAX_STDIN_BYTES {
        let limit = MAX_STDIN_BYTES >> 10;
        return Err(Failure::usage(format!(
            "standard input is longer than {limit} KiB, the most that a Task carries"
        ))
        .hint("Put it where the nodes can fetch it, and give the command its address."));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!(
            "standard input is not UTF-8 text: the byte at offset {at} is not part of a character"
        ))
        .hint("Encode it: base64 FILE | sentinel run --stdin … -- sh -c 'base64 -d | COMMAND'")
    })
}

/// Whether our standard input is meant for us: a pipe or file with something in it, given to this process and not to the
/// one that started it.
///
/// In a loop (`while read node; do sentinel run --node "$node" …; done < nodes`), in CI and under cron our input is that
/// of our parent, which shares it with us without a thought; there it is not offered. A terminal and `/dev/null` offer
/// nothing. Where the parent's input cannot be seen, nothing is claimed.
pub(super) fn is_offered() -> bool {
    let Ok(own) = std::fs::metadata("/proc/self/fd/0") else { return false };
    let kind = own.file_type();
    if kind.is_fifo() || kind.is_socket() {
        let waiting = rustix::io::ioctl_fionread(std::io::stdin().as_fd());
        return waiting.is_ok_and(|waiting| waiting > 0) && !is_parents(&own);
    }
    let position = rustix::fs::tell(std::io::stdin().as_fd());
    match position {
        Ok(position) if kind.is_file() && position < own.len() => {
            // Some shells redirect their own input while a command with `< file` runs. They have not read of it, as a
            // loop has.
            position == 0 || !is_parents(&own)
        }
        _ => false,
    }
}

/// Whether the process that started us has the same input, as far as can be seen.
fn is_parents(own: &std::fs::Metadata) -> bool {
    let parent = format!("/proc/{}/fd/0", std::os::unix::process::parent_id());
    match std::fs::metadata(parent) {
        Ok(parent) => (parent.dev(), parent.ino()) == (own.dev(), own.ino()),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_a_task_cannot_carry_is_refused_with_what_to_do() {
        assert_eq!(text(b"a\xc3\xa4".to_vec()).unwrap(), "aä");
        assert_eq!(text(vec![b'x'; MAX_STDIN_BYTES]).unwrap().len(), MAX_STDIN_BYTES);
        let long = text(vec![b'x'; MAX_STDIN_BYTES + 1]).unwrap_err();
        assert!(long.message.contains("64 KiB") && long.hint.is_some(), "{long}");
        let binary = text(b"ab\xff".to_vec()).unwrap_err();
        assert!(binary.message.contains("offset 2"), "{binary}");
    }
}
