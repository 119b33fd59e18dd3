//! The file: from its text to a [`Policy`].

use std::collections::BTreeMap;

use sentinel_protocol::present::NO_VALUE;
use serde::Deserialize;
use serde_saphyr::UserMessageFormatter;

use crate::effect::Effect;
use crate::pattern::Pattern;
use crate::rule::Rule;
use crate::signature::Signer;
use crate::what::{AbsolutePath, Runnable, What};

/// Largest file, bytes.
pub const MAX_BYTES: usize = 256 << 10;

/// Most rules.
pub const MAX_RULES: usize = 1000;

/// A policy that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    signers: Vec<Signer>,
    rules: Vec<Rule>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: ApiVersion,
    kind: Kind,
    #[serde(default)]
    signers: Vec<Signer>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
enum ApiVersion {
    #[serde(rename = "sentinelnode.dev/v1alpha1")]
    V1Alpha1,
}

#[derive(Deserialize)]
enum Kind {
    NodePolicy,
}

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The file is empty.
    #[error("the policy is empty; a policy that allows nothing has `rules: []`")]
    Empty,
    /// It is longer than [`MAX_BYTES`].
    #[error("the policy has {bytes} bytes; at most {MAX_BYTES} are allowed")]
    TooLong {
        /// Its length, bytes.
        bytes: usize,
    },
    /// It is not UTF-8.
    #[error("the policy is not valid UTF-8 at byte offset {at}")]
    NotText {
        /// Offset of the first invalid byte.
        at: usize,
    },
    /// It is not YAML, or not a policy.
    #[error("{message}")]
    Unreadable {
        /// Where and why.
        message: String,
        /// The same with the lines of the file around it.
        excerpt: String,
    },
    /// It has more than [`MAX_RULES`] rules.
    #[error("the policy has {rules} rules; at most {MAX_RULES} are allowed")]
    TooManyRules {
        /// How many.
        rules: usize,
    },
    /// Two rules have one id.
    #[error(
        "rules {first} and {second} of the policy have the same id {id:?}; a refusal would not name one of them"
    )]
    SameId {
        /// The id.
        id: String,
        /// Position of the first, from 1.
        first: usize,
        /// Position of the second.
        second: usize,
    },
    /// Two signers have one name.
    #[error("two signers of the policy have the name {name:?}; a result would not show which one signed")]
    SameSigner {
        /// The name.
        name: String,
    },
    /// A rule cannot be used.
    #[error("rule {id:?} of the policy: {message}")]
    Rule {
        /// Its id.
        id: String,
        /// Why not.
        message: String,
    },
}

impl PolicyError {
    /// The same with lines of the file, for those who may read it. A refusal has none: people read it who may not.
    pub fn with_excerpt(&self) -> String {
        match self {
            Self::Unreadable { excerpt, .. } => excerpt.clone(),
            other => other.to_string(),
        }
    }
}

/// The key at this character of a line, or the one that the value there belongs to.
fn key_at(line: &str, column: usize) -> Option<&str> {
    let at = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let (before, from) = line.split_at(at);
    let is_end = |char: char| !char.is_ascii_alphanumeric();
    let begun =
        from.split_once(':').map(|(key, _)| key).filter(|key| !key.is_empty() && !key.contains(is_end));
    // The location is that of the key, of the colon behind it, or of what is in the place of the value.
    let before = before.trim_end_matches([':', ' ']).rsplit(is_end).next();
    begun.or(before).filter(|key| !key.is_empty())
}

/// The error of the parser, with the field that it is about where the parser does not name it.
fn unreadable(text: &str, error: &serde_saphyr::Error) -> PolicyError {
    let key = error.location().and_then(|location| {
        let line = text.lines().nth((location.line() as usize).checked_sub(1)?)?;
        key_at(line, (location.column() as usize).checked_sub(1)?)
    });
    let named = |message: String| {
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        match key {
            Some(key) => message
                .replace(NO_VALUE, &NO_VALUE.replace("the field has", &format!("the field `{key}` has"))),
            None => message.to_owned(),
        }
    };
    PolicyError::Unreadable {
        message: named(error.without_snippet().render_with_formatter(&UserMessageFormatter)),
        excerpt: named(error.render_with_formatter(&UserMessageFormatter)),
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// About the first thing that is wrong with it. Nothing of such a policy is used.
    pub fn read(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_BYTES {
            return Err(PolicyError::TooLong { bytes: bytes.len() });
        }
        let text =
            std::str::from_utf8(bytes).map_err(|error| PolicyError::NotText { at: error.valid_up_to() })?;
        let is_content =
            |line: &str| !matches!(line.trim(), "" | "---" | "...") && !line.trim().starts_with('#');
        if !text.lines().any(is_content) {
            return Err(PolicyError::Empty);
        }
        let document: Document =
            serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
                .map_err(|error| unreadable(text, &error))?;
        let Document { api_version: ApiVersion::V1Alpha1, kind: Kind::NodePolicy, signers, rules } = document;
        Self::new(signers, rules)
    }

    fn new(signers: Vec<Signer>, rules: Vec<Rule>) -> Result<Self, PolicyError> {
        if rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules { rules: rules.len() });
        }
        let mut ids = BTreeMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let id = rule.id.to_string();
            if let Some(first) = ids.insert(id.clone(), index + 1) {
                return Err(PolicyError::SameId { id, first, second: index + 1 });
            }
            let unknown = rule.signature.iter().flat_map(|signature| &signature.by);
            let unknown =
                unknown.into_iter().find(|name| !signers.iter().any(|signer| signer.name == **name));
            let unknown =
                unknown.map(|name| format!("`signature.by` names {name:?}, who is not in `signers`"));
            if let Some(message) = rule.problem().or(unknown) {
                return Err(PolicyError::Rule { id, message });
            }
        }
        for (index, signer) in signers.iter().enumerate() {
            if signers[..index].iter().any(|other| other.name == signer.name) {
                return Err(PolicyError::SameSigner { name: signer.name.clone() });
            }
        }
        Ok(Self { signers, rules })
    }

    /// The signers that rules mention.
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The paths of programs and interpreters that `Deny` rules list: a file has as many names as links lead to it.
    pub fn denied_paths(&self) -> impl Iterator<Item = &str> {
        let denying = self.rules.iter().filter(|rule| rule.effect == Effect::Deny);
        let runnables = denying.filter_map(|rule| match &rule.what {
            Some(What::OneOf(runnables)) => Some(runnables),
            Some(What::AnyCommand) | None => None,
        });
        runnables.flatten().flat_map(Runnable::paths).map(AbsolutePath::as_str)
    }

    /// Whether a rule compares the content of this program, so that its digest has to be computed.
    pub fn asks_for_digests(&self, resolved: &str) -> bool {
        let asks = |what: &What| match what {
            What::AnyCommand => false,
            What::OneOf(runnables) => runnables.iter().any(|runnable| {
                let paths = runnable.programs.iter().chain(&runnable.resolves_to).flatten();
                runnable.sha256.is_some() && paths.into_iter().any(|path| path.as_str() == resolved)
            }),
        };
        self.rules.iter().filter_map(|rule| rule.what.as_ref()).any(asks)
    }
}

impl Rule {
    /// All patterns of the rule, each with the part in which it is.
    pub(crate) fn patterns(&self) -> Vec<(&'static str, &Pattern)> {
        let mut found = Vec::new();
        if let Some(crate::who::Who::Named(named)) = &self.who {
            let lists = named.lists().into_iter().filter_map(|(_, list)| list);
            found.extend(lists.flatten().map(|pattern| ("who", pattern)));
        }
        for variable in self.env.iter().flatten() {
            found.push(("env", &variable.name));
            found.extend(variable.value.iter().map(|value| ("env", value)));
        }
        found.extend(self.working_dirs.iter().flatten().map(|pattern| ("workingDirs", pattern)));
        if let Some(What::OneOf(runnables)) = &self.what {
            for runnable in runnables {
                if let Some(crate::pattern::Arguments::List(list)) = &runnable.args {
                    found.extend(list.each.iter().chain(&list.rest).map(|pattern| ("what", pattern)));
                }
                let argument = runnable.script.as_ref().and_then(|script| script.argument.as_ref());
                found.extend(argument.map(|pattern| ("what", pattern)));
            }
        }
        found
    }
}
