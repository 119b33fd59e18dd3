//! Patterns of single texts. They are compared byte by byte: another Unicode form of the same letters is another text.

use std::fmt;

use serde::Deserialize;

use crate::effect::Effect;
use crate::fit::shown;
use crate::keyword::keyword_or;

/// What a text may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Exactly this.
    Exact(String),
    /// One of several.
    OneOf(Vec<String>),
    /// What a glob matches.
    Glob(Glob),
}

impl Pattern {
    /// Whether it matches a text, in a rule with this effect: see [`Glob`].
    pub fn matches(&self, text: &str, effect: Effect) -> bool {
        match (self, effect) {
            (Self::Exact(exact), _) => exact == text,
            (Self::OneOf(texts), _) => texts.iter().any(|one| one == text),
            (Self::Glob(glob), Effect::Allow) => glob.matches(text),
            (Self::Glob(glob), Effect::Deny) => glob.may_match(text),
        }
    }

    /// Whether nothing can match it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::OneOf(texts) if texts.is_empty())
    }

    /// Whether what it matches is not written out.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Glob(_))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => write!(f, "{exact:?}"),
            Self::OneOf(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
                write!(f, "one of {}", texts.join(", "))
            }
            Self::Glob(glob) => write!(f, "glob {:?}", glob.0),
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        enum Long {
            Glob(Glob),
            OneOf(Vec<String>),
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pattern;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text (a number or `true` in quotes), {glob: TEXT} or {oneOf: [TEXT, …]}")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Pattern, E> {
                Ok(Pattern::Exact(text.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Pattern, A::Error> {
                let long = Long::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(match long {
                    Long::Glob(glob) => Pattern::Glob(glob),
                    Long::OneOf(texts) => Pattern::OneOf(texts),
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A glob: `?` is one character, `*` any number of them, `**` also `/`. All of it must match, and what it stands for never includes
/// control characters.
///
/// So that a wildcard for a name does not become an option or another directory, a glob of an `Allow` rule that begins with a wildcard
/// does not match a text that begins with `-`, and none matches a text with `..` between slashes. In a `Deny` rule these exceptions,
/// and that for control characters, would let through what the rule means, so it has none of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob(String);

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.contains("***") {
            return Err(format!("the glob {text:?} has three `*` in a row; `**` also matches `/`"));
        }
        if text.len() > MAX_GLOB {
            return Err(format!("a glob has {} bytes; allowed are {MAX_GLOB}", text.len()));
        }
        Ok(Self(text))
    }
}

/// Longest glob, bytes.
const MAX_GLOB: usize = 1024;

/// A part of a glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Char(char),
    One,
    Within,
    Across,
}

impl Glob {
    /// The glob as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches all that any glob can match.
    pub fn is_everything(&self) -> bool {
        self.0.contains("**") && self.0.chars().all(|char| char == '*')
    }

    /// Whether it matches the whole text, as an `Allow` rule means it.
    pub fn matches(&self, text: &str) -> bool {
        let parts = self.parts();
        let is_ordinary = |char: char| !char.is_control();
        if text.split('/').any(|segment| segment == "..") {
            return false;
        }
        if text.starts_with('-') && parts.first().is_some_and(|first| !matches!(first, Part::Char(_))) {
            return false;
        }
        run(&parts, text, is_ordinary)
    }

    /// Whether it matches the whole text, as a `Deny` rule means it: wildcards stand for every character.
    pub fn may_match(&self, text: &str) -> bool {
        run(&self.parts(), text, |_| true)
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for char in self.0.chars() {
            match (char, parts.last()) {
                ('*', Some(Part::Within)) => {
                    parts.pop();
                    parts.push(Part::Across);
                }
                ('*', _) => parts.push(Part::Within),
                ('?', _) => parts.push(Part::One),
                (char, _) => parts.push(Part::Char(char)),
            }
        }
        parts
    }
}

/// Whether the parts match the whole text, where wildcards stand for such characters.
fn run(parts: &[Part], text: &str, is_ordinary: impl Fn(char) -> bool) -> bool {
    // The parts that may begin at the current character: time is the product of both lengths, whatever the glob is.
    let mut at = vec![false; parts.len() + 1];
    let mut next = at.clone();
    at[0] = true;
    skip_empty(parts, &mut at);
    for char in text.chars() {
        next.fill(false);
        for (index, part) in parts.iter().enumerate().filter(|(index, _)| at[*index]) {
            match part {
                Part::Char(exact) if *exact == char => next[index + 1] = true,
                Part::One if is_ordinary(char) && char != '/' => next[index + 1] = true,
                Part::Within if is_ordinary(char) && char != '/' => next[index] = true,
                Part::Across if is_ordinary(char) => next[index] = true,
                _ => {}
            }
        }
        skip_empty(parts, &mut next);
        std::mem::swap(&mut at, &mut next);
    }
    at[parts.len()]
}

/// A wildcard for any number of characters may stand for none.
fn skip_empty(parts: &[Part], at: &mut [bool]) {
    for (index, part) in parts.iter().enumerate() {
        if at[index] && matches!(part, Part::Within | Part::Across) {
            at[index + 1] = true;
        }
    }
}

/// The arguments that a program may get, without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// Any.
    Any,
    /// These in this order.
    List(ArgumentList),
}

keyword_or!(Arguments: "Any" => Arguments::Any; list as Vec<Argument> => arguments; "`Any` or a list of patterns");

/// Patterns for each argument, and one for any number of further ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArgumentList {
    /// One for each.
    pub each: Vec<Pattern>,
    /// For all that follow; `None` if none may.
    pub rest: Option<Pattern>,
    /// Whether something follows `rest`, which is an error.
    pub(crate) continues: bool,
}

impl ArgumentList {
    /// The first argument that does not match, or is missing or too many.
    pub fn difference(&self, arguments: &[String], effect: Effect) -> Option<String> {
        let most = arguments.len().max(self.each.len());
        (0..most).find_map(|index| {
            let number = index + 1;
            match (self.each.get(index).or(self.rest.as_ref()), arguments.get(index)) {
                (Some(pattern), None) => {
                    Some(format!("argument {number} is missing, which must be {pattern}"))
                }
                (None, Some(argument)) => {
                    Some(format!("argument {number}, {}, is one too many", shown(argument)))
                }
                (Some(pattern), Some(argument)) if !pattern.matches(argument, effect) => {
                    Some(format!("argument {number} is {}, which must be {pattern}", shown(argument)))
                }
                (Some(_), Some(_)) | (None, None) => None,
            }
        })
    }
}

/// An item of the list as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Argument {
    One(Pattern),
    Rest(Pattern),
}

fn arguments(items: Vec<Argument>) -> Arguments {
    let mut list = ArgumentList::default();
    for item in items {
        list.continues |= list.rest.is_some();
        match item {
            Argument::One(pattern) => list.each.push(pattern),
            Argument::Rest(pattern) => list.rest = Some(pattern),
        }
    }
    Arguments::List(list)
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        enum Long {
            Glob(Glob),
            OneOf(Vec<String>),
            Rest(Pattern),
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Argument;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text (a number or `true` in quotes), {glob: TEXT}, {oneOf: [TEXT, …]} or {rest: PATTERN}")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Argument, E> {
                Ok(Argument::One(Pattern::Exact(text.to_owned())))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Argument, A::Error> {
                let long = Long::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(match long {
                    Long::Glob(glob) => Argument::One(Pattern::Glob(glob)),
                    Long::OneOf(texts) => Argument::One(Pattern::OneOf(texts)),
                    Long::Rest(pattern) => Argument::Rest(pattern),
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_wildcard_stays_within_one_name() {
        for (pattern, text) in
            [("a*c", "abbc"), ("*", ""), ("/var/log/*.log", "/var/log/x.log"), ("?", "ä"), ("**", "a/b")]
        {
            assert!(glob(pattern).matches(text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("/var/log/*.log", "/var/log/../../etc/x.log"),
            ("/var/log/**", "/var/log/../shadow"),
            ("/var/log/*", "/var/log/a/b"),
            ("*", "--exec=x"),
            ("**", "-rf"),
            ("?f", "-f"),
            ("*", ".."),
            ("*", "a\nb"),
            ("a", "A"),
            ("caf?", "cafe\u{301}"),
        ] {
            assert!(!glob(pattern).matches(text), "{pattern} {text:?}");
        }
        assert!(glob("-*").matches("-rf"), "an option that is asked for");
    }

    /// Each let a request through that a `Deny` rule meant.
    #[test]
    fn the_exceptions_of_a_glob_do_not_open_a_deny_rule() {
        for (pattern, text) in [
            ("/backup/**", "/backup/a/.."),
            ("**", "/tmp/../x.so"),
            ("**", "-c"),
            ("*", "a\nb"),
            ("?f", "-f"),
        ] {
            assert!(!glob(pattern).matches(text) && glob(pattern).may_match(text), "{pattern} {text:?}");
        }
        assert!(!glob("/backup/**").may_match("/other"));
    }

    #[test]
    fn other_unicode_forms_are_other_texts() {
        let composed = Pattern::Exact("caf\u{e9}".to_owned());
        assert!(composed.matches("caf\u{e9}", Effect::Allow));
        assert!(!composed.matches("cafe\u{301}", Effect::Deny) && !composed.matches("ｃafé", Effect::Deny));
    }

    #[test]
    fn each_argument_has_its_pattern() {
        let list = ArgumentList {
            each: vec![Pattern::Exact("-h".into())],
            rest: Some(Pattern::Glob(glob("/data/*"))),
            continues: false,
        };
        let difference = |items: &[&str]| {
            list.difference(&items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>(), Effect::Allow)
        };
        assert_eq!(difference(&["-h"]), None);
        assert_eq!(difference(&["-h", "/data/a", "/data/b"]), None);
        assert_eq!(difference(&[]).unwrap(), "argument 1 is missing, which must be \"-h\"");
        assert!(difference(&["-h /data/a"]).unwrap().starts_with("argument 1 is \"-h /data/a\""));
        assert!(difference(&["-h", "/data/a", "/etc"]).unwrap().starts_with("argument 3"));
        let none = ArgumentList::default();
        assert_eq!(
            none.difference(&["x".into()], Effect::Allow).unwrap(),
            "argument 1, \"x\", is one too many"
        );
    }

    fn by_regex(pattern: &str, text: &str) -> bool {
        let mut expression = String::from(r"\A");
        let mut chars = pattern.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '*' if chars.peek() == Some(&'*') => {
                    chars.next();
                    expression.push_str(r"[^\p{Cc}]*");
                }
                '*' => expression.push_str(r"[^/\p{Cc}]*"),
                '?' => expression.push_str(r"[^/\p{Cc}]"),
                char => expression.push_str(&regex::escape(&char.to_string())),
            }
        }
        expression.push_str(r"\z");
        let is_option = text.starts_with('-') && pattern.starts_with(['*', '?']);
        regex::Regex::new(&expression).unwrap().is_match(text)
            && !is_option
            && !text.split('/').any(|part| part == "..")
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_the_same_regular_expression_matches(
            pattern in r"[ab/*?.\-]{0,10}".prop_filter("three stars", |pattern| !pattern.contains("***")),
            text in r"[ab/.\-\n]{0,12}",
        ) {
            prop_assert_eq!(glob(&pattern).matches(&text), by_regex(&pattern, &text));
        }

        #[test]
        fn what_is_exact_matches_itself_alone(one in ".{0,8}", other in ".{0,8}") {
            prop_assert_eq!(Pattern::Exact(one.clone()).matches(&other, Effect::Allow), one == other);
        }
    }
}
