//! Line and column of the fields of a YAML document, for messages about them.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

/// A line and a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl Place {
    /// From the parser.
    pub(super) fn of(location: &Location) -> Self {
        let number = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The places of all fields of a document.
#[derive(Debug)]
pub(super) struct Places(Option<Spanned<Node>>);

impl Places {
    /// Parses a document again, for its places.
    pub(super) fn of(text: &str) -> Self {
        Self(serde_saphyr::from_str(text).ok())
    }

    /// The place of a field of an item of the document, both as paths such as `spec.run.env[0].name`. A missing field has
    /// the place of its parent.
    pub(super) fn find(&self, item: &str, field: &str) -> Place {
        let Some(root) = &self.0 else { return Place { line: 1, column: 1 } };
        let (mut node, mut place) = (&root.value, Place::of(&root.referenced));
        for step in steps(item).chain(steps(field)) {
            let next = match (&step, node) {
                (Step::Key(key), Node::Map(entries)) => entries
                    .iter()
                    .find(|(known, _)| known.value == *key)
                    .map(|(key, value)| (&key.referenced, value)),
                (Step::Index(index), Node::List(items)) => {
                    items.get(*index).map(|item| (&item.referenced, item))
                }
                _ => None,
            };
            let Some((location, value)) = next else { break };
            place = Place::of(location);
            node = &value.value;
        }
        place
    }
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The steps of a path. Brackets hold an index, or the key of a map.
fn steps(path: &str) -> impl Iterator<Item = Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = inner.split_once(']').unwrap_or((inner, ""));
            steps.push(key.parse().map_or_else(|_| Step::Key(key.to_owned()), Step::Index));
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end > 0 {
                steps.push(Step::Key(rest[..end].to_owned()));
            }
            rest = &rest[end..];
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
    }
    steps.into_iter()
}

/// The structure of a document, with places.
#[derive(Debug)]
enum Node {
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Scalar,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_split_into_steps() {
        let key = |text: &str| Step::Key(text.to_owned());
        let found: Vec<Step> = steps("spec.run.env[12].name").collect();
        assert_eq!(found, [key("spec"), key("run"), key("env"), Step::Index(12), key("name")]);
        let found: Vec<Step> = steps("metadata.labels[a.b/c]").collect();
        assert_eq!(found, [key("metadata"), key("labels"), key("a.b/c")]);
        assert_eq!(steps("").count(), 0);
    }

    #[test]
    fn field_is_found_through_an_alias_and_a_missing_one_at_its_parent() {
        let places = Places::of("a: &x\n  b: 1\nc:\n  - *x\n  - d: 2\n");
        let at = |field: &str| (places.find("", field).line, places.find("", field).column);
        assert_eq!(at("a.b"), (2, 3));
        assert_eq!(at("c[1].d"), (5, 5));
        assert_eq!(at("c[1].e"), (5, 5));
        assert_eq!(at("c[7]"), (3, 1));
        assert_eq!(places.find("c[1]", "d").line, 5);
    }
}
