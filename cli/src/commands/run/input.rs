//! What `run` reads: a script, or standard input for the command. And the warning about input that nothing reads.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sentinel_protocol::limits::{MAX_COMMAND_BYTES, MAX_STDIN_BYTES};

use crate::args::RunArgs;
use crate::exit::Failure;
use crate::output::format::note;
use crate::output::text::Text;

/// All of standard input, for `spec.run.stdin`.
///
/// # Errors
/// It cannot be read, exceeds the limit, or is not UTF-8.
pub(super) fn stdin() -> Result<String, Failure> {
    let bytes = read_up_to(&mut std::io::stdin().lock(), MAX_STDIN_BYTES)
        .map_err(|error| Failure::usage(format!("failed to read standard input: {error}")))?;
    stdin_text(bytes)
}

fn stdin_text(bytes: Vec<u8>) -> Result<String, Failure> {
    if bytes.len() > MAX_STDIN_BYTES {
        return Err(too_long("standard input", MAX_STDIN_BYTES)
            .hint("Put it where the nodes can fetch it, and pass the command its address."));
    }
    utf8("standard input", bytes).map_err(|failure| {
        failure.hint("Encode it: base64 FILE | sentinel run --stdin … -- sh -c 'base64 -d | COMMAND'")
    })
}

/// The text of a script, for `spec.run.script`; `-` is standard input.
///
/// # Errors
/// It cannot be read, exceeds the limit, or is not UTF-8.
pub(super) fn script(file: &Path) -> Result<String, Failure> {
    let name = format!("script {}", file.display());
    let read = if file == Path::new("-") {
        read_up_to(&mut std::io::stdin().lock(), MAX_COMMAND_BYTES)
    } else {
        std::fs::File::open(file).and_then(|mut file| read_up_to(&mut file, MAX_COMMAND_BYTES))
    };
    let bytes = read.map_err(|error| Failure::usage(format!("failed to read {name}: {error}")))?;
    if bytes.len() > MAX_COMMAND_BYTES {
        return Err(too_long(&name, MAX_COMMAND_BYTES)
            .hint("Put it where the nodes can fetch it, and run a command that fetches it."));
    }
    utf8(&name, bytes)
}

/// Reads at most one byte more than the limit, so that the caller can tell that it is exceeded.
fn read_up_to(reader: &mut dyn Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_long(name: &str, limit: usize) -> Failure {
    Failure::usage(format!("{name} exceeds the limit of {} KiB", limit >> 10))
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        Failure::usage(format!("{name} is not UTF-8 text: invalid byte at offset {offset}"))
    })
}

/// Warns if standard input was redirected to us and nothing reads it; returns whether it did.
pub(super) fn warn_unread(args: &RunArgs) -> bool {
    let is_read = args.stdin || args.script.as_deref() == Some(Path::new("-"));
    let unread = !is_read && is_redirected();
    if unread {
        note(Text::message().plain("standard input is not passed to the command; use --stdin"));
    }
    unread
}

/// Whether standard input was redirected for this process: a pipe or file with data that its parent process does not
/// have as its own standard input.
///
/// In a loop (`while read node; do sentinel run --node "$node" …; done < nodes`), in CI and under cron the input is
/// inherited unintentionally; that does not count, and neither do a terminal and `/dev/null`. If the input of the parent
/// cannot be determined, it counts as inherited.
fn is_redirected() -> bool {
    let Ok(own) = std::fs::metadata("/proc/self/fd/0") else { return false };
    let kind = own.file_type();
    if kind.is_fifo() || kind.is_socket() {
        let available = rustix::io::ioctl_fionread(std::io::stdin().as_fd());
        return available.is_ok_and(|available| available > 0) && !is_inherited(&own);
    }
    let position = rustix::fs::tell(std::io::stdin().as_fd());
    match position {
        Ok(position) if kind.is_file() && position < own.len() => {
            // Some shells redirect their own input while a command with `< file` runs, at position 0; a loop has read
            // from the file by then.
            position == 0 || !is_inherited(&own)
        }
        _ => false,
    }
}

/// Whether the parent process has the same standard input, or that cannot be determined.
fn is_inherited(own: &std::fs::Metadata) -> bool {
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
    fn rejects_input_that_a_task_cannot_hold() {
        assert_eq!(stdin_text(b"a\xc3\xa4".to_vec()).unwrap(), "aä");
        assert_eq!(stdin_text(vec![b'x'; MAX_STDIN_BYTES]).unwrap().len(), MAX_STDIN_BYTES);
        let long = stdin_text(vec![b'x'; MAX_STDIN_BYTES + 1]).unwrap_err();
        assert!(long.message.contains("64 KiB") && long.hint.is_some(), "{long}");
        let binary = stdin_text(b"ab\xff".to_vec()).unwrap_err();
        assert!(binary.message.contains("offset 2") && binary.hint.is_some(), "{binary}");
    }
}
