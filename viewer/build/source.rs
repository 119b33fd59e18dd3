//! The files of `page/`, and what kind each is.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// What a file is, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Script,
    Style,
    Picture,
    Text,
    Index,
}

impl Kind {
    /// The kind of a file; `None` for one that is not served.
    pub(crate) fn of(path: &str) -> Option<Self> {
        if path == "index.html" {
            return Some(Self::Index);
        }
        match Path::new(path).extension()?.to_str()? {
            "js" => Some(Self::Script),
            "css" => Some(Self::Style),
            "svg" => Some(Self::Picture),
            "txt" => Some(Self::Text),
            _ => None,
        }
    }

    /// Its media type.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Picture => "image/svg+xml",
            Self::Text => "text/plain; charset=utf-8",
            Self::Index => "text/html; charset=utf-8",
        }
    }
}

/// The text of every file that is served, by its path below the folder.
///
/// # Errors
/// A file that cannot be read, is not UTF-8, or whose kind is unknown. Types of libraries (`.d.ts`), checksums and files of
/// editors (a leading dot) are left out.
pub(crate) fn read(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    collect(folder, "", &mut files)?;
    Ok(files)
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if name.starts_with('.') || name.ends_with('~') || name.ends_with(".d.ts") || name == "SHA256SUMS" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else if Kind::of(&path).is_some() {
            let text = fs::read_to_string(entry.path())
                .map_err(|error| io::Error::new(error.kind(), format!("page/{path}: {error}")))?;
            files.insert(path, text);
        } else {
            return Err(io::Error::other(format!("page/{path}: only .js, .css, .svg and .txt are served")));
        }
    }
    Ok(())
}
