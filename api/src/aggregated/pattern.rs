//! Paths with open parts.

use crate::path::{escape, unescape};

/// The open parts of a path, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts(Vec<(&'static str, String)>);

impl Parts {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name, value.to_owned())),
        }
    }
}

/// The name of an open part.
fn open(part: &'static str) -> Option<&'static str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

/// The open parts of a path that matches the pattern.
pub(super) fn matches(pattern: &'static str, path: &str) -> Option<Parts> {
    let mut parts = Parts::default();
    let mut segments = path.trim_matches('/').split('/');
    for expected in pattern.trim_matches('/').split('/') {
        let segment = unescape(segments.next()?)?;
        let (names, values) = (expected.split(':'), segment.split(':'));
        if names.clone().count() == 1 {
            matches_part(expected, &segment, &mut parts)?;
            continue;
        }
        if names.clone().count() != values.clone().count() {
            return None;
        }
        for (name, value) in names.zip(values) {
            matches_part(name, value, &mut parts)?;
        }
    }
    segments.next().is_none().then_some(parts)
}

/// A value that could leave its segment is none.
fn matches_part(expected: &'static str, value: &str, parts: &mut Parts) -> Option<()> {
    let Some(name) = open(expected) else { return (expected == value).then_some(()) };
    let is_plain = !value.is_empty() && value != "." && value != ".." && !value.contains(['/', '\\', '\0']);
    is_plain.then(|| parts.set(name, value))
}

/// The path of a pattern; `None` when a part is missing.
pub(super) fn fill(pattern: &'static str, parts: &Parts) -> Option<String> {
    let mut path = String::new();
    for segment in pattern.trim_matches('/').split('/') {
        path.push('/');
        for (index, part) in segment.split(':').enumerate() {
            if index > 0 {
                path.push(':');
            }
            match open(part) {
                None => path.push_str(part),
                Some(name) => path.push_str(&escape(parts.get(name)?)),
            }
        }
    }
    Some(path)
}
