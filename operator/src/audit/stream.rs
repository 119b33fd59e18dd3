//! A copy of the chain for those who collect it: standard output, a file, or the local syslog.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The socket of the local syslog.
const SYSLOG: &str = "/dev/log";

/// The facility `authpriv` and the severity `notice` of a message.
///
/// Source: RFC 3164, section 4.1.1.
const PRIORITY: &str = "<85>sentinel-audit: ";

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, appended to; opened again when it was renamed or removed.
    File(PathBuf),
    /// The syslog behind this socket.
    Syslog(PathBuf),
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("syslog:")) {
            ("", _) | (_, Some("")) => Err("expected -, a file, syslog, or syslog:SOCKET".to_owned()),
            ("-", _) => Ok(Self::Stdout),
            ("syslog", _) => Ok(Self::Syslog(SYSLOG.into())),
            (_, Some(socket)) => Ok(Self::Syslog(socket.into())),
            (file, None) => Ok(Self::File(file.into())),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Syslog(path) => write!(f, "the syslog at {}", path.display()),
        }
    }
}

/// An open destination.
#[derive(Debug)]
pub(super) struct Stream {
    destination: Destination,
    open: Option<Open>,
}

#[derive(Debug)]
enum Open {
    Stdout,
    File(File),
    Syslog(UnixDatagram),
}

impl Stream {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(destination: Destination) -> io::Result<Self> {
        let open = Some(open(&destination)?);
        Ok(Self { destination, open })
    }

    /// Writes a line, with its newline. After a failure it is opened again for the next.
    ///
    /// # Errors
    /// The line was not taken, or not completely.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut target = match self.open.take() {
            Some(target) => target,
            None => open(&self.destination)?,
        };
        match &mut target {
            Open::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line).and_then(|()| stdout.flush())?;
            }
            Open::File(file) => file.write_all(line)?,
            Open::Syslog(socket) => {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                socket.send(&[PRIORITY.as_bytes(), line].concat())?;
            }
        }
        self.open = Some(target);
        Ok(())
    }

    /// Opens a file again that was renamed or removed, as by the rotation of logs.
    pub(super) fn follow_rotation(&mut self) {
        if let (Some(Open::File(file)), Destination::File(path)) = (&self.open, &self.destination)
            && !is_same(file, path)
        {
            self.open = None;
        }
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), path.metadata()) else { return false };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

fn open(destination: &Destination) -> io::Result<Open> {
    match destination {
        Destination::Stdout => Ok(Open::Stdout),
        Destination::File(path) => {
            Ok(Open::File(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?))
        }
        Destination::Syslog(path) => {
            let socket = UnixDatagram::unbound()?;
            // A syslog that does not read must not stop the writer.
            socket.set_nonblocking(true)?;
            socket.connect(path)?;
            Ok(Open::Syslog(socket))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_from_the_flag() {
        let read = |text: &str| text.parse::<Destination>();
        assert_eq!(read("-"), Ok(Destination::Stdout));
        assert_eq!(read("/var/log/a.jsonl"), Ok(Destination::File("/var/log/a.jsonl".into())));
        assert_eq!(read("syslog"), Ok(Destination::Syslog("/dev/log".into())));
        assert_eq!(read("syslog:/run/s"), Ok(Destination::Syslog("/run/s".into())));
        for bad in ["", "syslog:"] {
            assert!(read(bad).unwrap_err().contains("syslog:SOCKET"), "{bad:?}");
        }
    }

    #[test]
    fn a_file_that_was_rotated_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut stream = Stream::open(Destination::File(path.clone())).unwrap();
        stream.write(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("audit.1")).unwrap();
        stream.follow_rotation();
        stream.write(b"two\n").unwrap();
        stream.follow_rotation();
        stream.write(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\nthree\n");
        assert_eq!(std::fs::read_to_string(folder.path().join("audit.1")).unwrap(), "one\n");
    }

    #[test]
    fn a_syslog_that_was_down_is_connected_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let syslog = UnixDatagram::bind(&path).unwrap();
        let mut stream = Stream::open(Destination::Syslog(path.clone())).unwrap();
        stream.write(b"{\"v\":1}\n").unwrap();
        let mut buffer = [0; 100];
        let len = syslog.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"<85>sentinel-audit: {\"v\":1}");
        drop(syslog);
        std::fs::remove_file(&path).unwrap();
        assert!(stream.write(b"lost\n").is_err());
        assert!(stream.write(b"lost\n").is_err());
        let syslog = UnixDatagram::bind(&path).unwrap();
        stream.write(b"again\n").unwrap();
        let len = syslog.recv(&mut buffer).unwrap();
        assert!(buffer[..len].ends_with(b"again"));
    }
}
