//! The path below which an ingress has the page.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{ASSETS_FOLDER, PLACES};

/// Longest base path, bytes.
const MAX_LENGTH: usize = 256;

/// First segments that are taken by other paths of the operator.
const TAKEN: [&str; 5] = ["api", ASSETS_FOLDER, "healthz", "readyz", "metrics"];

/// The path below which an ingress has page and API: empty, or segments such as `/ops/sentinel`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

/// A text that is not a base path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; expected a path such as /sentinel: segments of letters, digits and -._~, at most {MAX_LENGTH} bytes"
)]
pub struct InvalidBasePath(&'static str);

impl BasePath {
    /// The rest of an escaped path below this one, which begins with a slash; `None` when it is elsewhere.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&*self.0)?;
        match rest {
            "" => Some("/"),
            rest if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }

    /// Whether there is none: page and API are at the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for BasePath {
    fn default() -> Self {
        Self("".into())
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BasePath {
    type Err = InvalidBasePath;

    /// A slash at the end is left out; `/` and the empty text are the root.
    fn from_str(text: &str) -> Result<Self, InvalidBasePath> {
        let path = text.strip_suffix('/').unwrap_or(text);
        if path.is_empty() {
            return Ok(Self::default());
        }
        if path.len() > MAX_LENGTH {
            return Err(InvalidBasePath("it is too long"));
        }
        let rest = path.strip_prefix('/').ok_or(InvalidBasePath("it does not begin with a slash"))?;
        for segment in rest.split('/') {
            // These stand in HTML and in headers as they are.
            let is_plain =
                segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
            if segment.is_empty() || segment == "." || segment == ".." || !is_plain {
                return Err(InvalidBasePath("a segment is empty or has other characters"));
            }
        }
        let first = rest.split('/').next().unwrap_or_default();
        if TAKEN.contains(&first) || PLACES.contains(&first) {
            return Err(InvalidBasePath("its first segment is a path of the operator itself"));
        }
        Ok(Self(path.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_it_are_stripped() {
        let base: BasePath = "/ops/sentinel/".parse().unwrap();
        assert_eq!(base.to_string(), "/ops/sentinel");
        assert_eq!(base.strip("/ops/sentinel"), Some("/"));
        assert_eq!(base.strip("/ops/sentinel/"), Some("/"));
        assert_eq!(base.strip("/ops/sentinel/api/v1/tasks"), Some("/api/v1/tasks"));
        for other in ["/", "/api/v1/tasks", "/ops/sentinels", "/ops", "/OPS/sentinel/x"] {
            assert_eq!(base.strip(other), None, "{other}");
        }
    }

    #[test]
    fn without_one_every_path_is_below_it() {
        for text in ["", "/"] {
            let base: BasePath = text.parse().unwrap();
            assert!(base.is_root());
            assert_eq!(base.strip("/tasks"), Some("/tasks"));
        }
    }

    #[test]
    fn what_cannot_stand_in_a_page_or_hides_another_path_is_refused() {
        let long = format!("/{}", "a".repeat(MAX_LENGTH));
        for text in [
            "sentinel", "//x", "/a//b", "/..", "/a/./b", "/a b", "/\"", "/<", "/%41", "/ä", "/api",
            "/tasks/x", &long,
        ] {
            assert!(text.parse::<BasePath>().is_err(), "{text}");
        }
    }
}
