//! What may run.

use std::fmt;

use sentinel_protocol::request::Program;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::asked::{Asked, ProgramFacts};
use crate::effect::Effect;
use crate::fit::{Fit, listed};
use crate::keyword::{keyword_or, present};
use crate::pattern::{Arguments, Pattern};

/// What may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Any command and any script.
    AnyCommand,
    /// One of these.
    OneOf(Vec<Runnable>),
}

keyword_or!(What: "AnyCommand" => What::AnyCommand; list as Vec<Runnable> => What::OneOf; "`AnyCommand`, or a list of programs and scripts");

/// A program with its arguments, or a script.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runnable {
    /// Absolute paths. The path by the name in the request and the path without symbolic links must both be among them.
    #[serde(default, deserialize_with = "present")]
    pub programs: Option<Vec<AbsolutePath>>,
    /// Paths that the programs may be symbolic links to, as busybox is under many names. They may not be asked for alone.
    #[serde(default, deserialize_with = "present")]
    pub resolves_to: Option<Vec<AbsolutePath>>,
    /// What the program's content may be.
    #[serde(default, deserialize_with = "present")]
    pub sha256: Option<Vec<Sha256Hex>>,
    /// The arguments; without this field an `Allow` rule allows none.
    #[serde(default, deserialize_with = "present")]
    pub args: Option<Arguments>,
    /// A script.
    #[serde(default, deserialize_with = "present")]
    pub script: Option<ScriptRule>,
}

/// A script that the request carries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptRule {
    /// Paths of the interpreter, as of programs.
    pub interpreters: Vec<AbsolutePath>,
    /// Paths that the interpreters may be symbolic links to.
    #[serde(default, deserialize_with = "present")]
    pub resolves_to: Option<Vec<AbsolutePath>>,
    /// The argument before the path of the script, from its `#!` line; without this field an `Allow` rule allows none.
    #[serde(default, deserialize_with = "present")]
    pub argument: Option<Pattern>,
    /// Its text.
    pub text: ScriptText,
}

/// The text of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptText {
    /// Any.
    Any,
    /// One of these.
    Digests(Digests),
}

keyword_or!(ScriptText: "Any" => ScriptText::Any; map as Digests => ScriptText::Digests; "`Any`, or {sha256: [DIGEST, …]}");

/// Digests of a content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Digests {
    /// SHA-256 in hexadecimal.
    pub sha256: Vec<Sha256Hex>,
}

impl Digests {
    /// Whether the content has one of them.
    pub(crate) fn has(&self, content: &str) -> bool {
        let digest = sha256_hex(content.as_bytes());
        self.sha256.iter().any(|one| one.0 == digest)
    }
}

/// SHA-256 in lowercase hexadecimal.
pub fn sha256_hex(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Bytes in lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        hex
    })
}

/// A SHA-256 in lowercase hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Sha256Hex(String);

impl TryFrom<String> for Sha256Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Ok(Self(text));
        }
        Err(format!("{text:?} is not a SHA-256 in 64 lowercase hexadecimal digits, as sha256sum prints it"))
    }
}

/// An absolute path without `.`, `..`, empty parts and control characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AbsolutePath(String);

impl AbsolutePath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rest = text.strip_prefix('/').filter(|rest| !rest.contains(char::is_control));
        let is_plain = |rest: &str| rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if rest.is_some_and(is_plain) {
            return Ok(Self(text));
        }
        Err(format!(
            "{text:?} is not an absolute path of a program, such as /usr/bin/df (without `..`, `.` and `//`)"
        ))
    }
}

/// Whether the request fits one of several.
pub(crate) fn fit(what: Option<&What>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let runnables = match what {
        None | Some(What::AnyCommand) => return replaceable(asked, effect),
        Some(What::OneOf(runnables)) => runnables,
    };
    let facts = match &asked.node.program {
        Ok(facts) => facts,
        // Nothing of it can be started, so no rule is about it.
        Err(why) => return Fit::Differs(why.clone()),
    };
    let mut closest: Option<(u8, Fit)> = None;
    for runnable in runnables {
        let path = runnable.program_fit(asked.program, facts, effect);
        let is_about_it = !matches!(path, Fit::Differs(_));
        let fit =
            if is_about_it { both(path, runnable.rest_fit(asked.program, facts, effect)) } else { path };
        // What is not known may fit, which is closer than what does not, and what is about the same program than what is not.
        let distance = match fit {
            Fit::Fits => return replaceable(asked, effect),
            Fit::Unknown(_) => 0,
            Fit::Differs(_) => 2 - u8::from(is_about_it),
        };
        if closest.as_ref().is_none_or(|(least, _)| distance < *least) {
            closest = Some((distance, fit));
        }
    }
    closest.map_or_else(|| Fit::Differs("the rule names no program".to_owned()), |(_, fit)| fit)
}

/// A program that others can replace is not the one that the rule means.
fn replaceable(asked: &Asked<'_>, effect: Effect) -> Fit {
    match (&asked.node.program, effect) {
        (Ok(ProgramFacts { replaceable: Some(why), .. }), Effect::Allow) => Fit::Differs(why.clone()),
        _ => Fit::Fits,
    }
}

impl Runnable {
    /// All paths in it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &AbsolutePath> {
        let of_script = self
            .script
            .iter()
            .flat_map(|script| script.interpreters.iter().chain(script.resolves_to.iter().flatten()));
        self.programs.iter().chain(&self.resolves_to).flatten().chain(of_script)
    }

    /// Whether it is about this program at all.
    fn program_fit(&self, program: &Program, facts: &ProgramFacts, effect: Effect) -> Fit {
        match (&self.programs, &self.script, program) {
            (Some(programs), _, Program::Command(_)) => {
                path_fit(programs, self.resolves_to.as_deref().unwrap_or_default(), facts, effect)
            }
            (_, Some(rule), Program::Script { .. }) => {
                path_fit(&rule.interpreters, rule.resolves_to.as_deref().unwrap_or_default(), facts, effect)
            }
            (Some(_), _, Program::Script { .. }) => Fit::Differs("the request is a script".to_owned()),
            (_, _, Program::Command(_)) => Fit::Differs("the request is not a script".to_owned()),
            (None, None, _) => Fit::Differs("the rule names no program".to_owned()),
        }
    }

    /// Whether it allows what this program, which it is about, is to do. It costs time.
    fn rest_fit(&self, program: &Program, facts: &ProgramFacts, effect: Effect) -> Fit {
        match (program, &self.script) {
            (Program::Command(argv), _) => {
                let arguments = argv.get(1..).unwrap_or_default();
                both(self.content_fit(facts), arguments_fit(self.args.as_ref(), arguments, effect))
            }
            (Program::Script { argument, text, .. }, Some(rule)) => {
                both(rule.argument_fit(argument.as_deref(), effect), rule.text_fit(text))
            }
            (Program::Script { .. }, None) => Fit::Differs("the request is a script".to_owned()),
        }
    }

    fn content_fit(&self, facts: &ProgramFacts) -> Fit {
        match (&self.sha256, &facts.sha256) {
            (None, _) => Fit::Fits,
            (Some(_), None) => Fit::Unknown(
                // Of what others can replace, the content is not read.
                facts
                    .replaceable
                    .clone()
                    .unwrap_or_else(|| format!("the digest of {} is not known", facts.resolved)),
            ),
            (Some(allowed), Some(found)) => {
                Fit::or_differs(allowed.iter().any(|one| one.0 == *found), || {
                    format!("{} has another content (SHA-256 {found})", facts.resolved)
                })
            }
        }
    }
}

impl ScriptRule {
    fn argument_fit(&self, argument: Option<&str>, effect: Effect) -> Fit {
        match (&self.argument, argument, effect) {
            (None, None, _) | (None, Some(_), Effect::Deny) => Fit::Fits,
            (None, Some(argument), Effect::Allow) => Fit::Differs(format!(
                "the interpreter has the argument {argument:?}, and the rule allows none"
            )),
            (Some(pattern), argument, _) => {
                Fit::or_differs(argument.is_some_and(|argument| pattern.matches(argument, effect)), || {
                    format!("the interpreter's argument is {argument:?}, which must be {pattern}")
                })
            }
        }
    }

    fn text_fit(&self, text: &str) -> Fit {
        match &self.text {
            ScriptText::Any => Fit::Fits,
            ScriptText::Digests(digests) => Fit::or_differs(digests.has(text), || {
                format!("the script is another one (SHA-256 {})", sha256_hex(text.as_bytes()))
            }),
        }
    }
}

/// For an `Allow` rule both paths must be listed; for a `Deny` rule one, or another name of the same file.
fn path_fit(
    programs: &[AbsolutePath],
    targets: &[AbsolutePath],
    facts: &ProgramFacts,
    effect: Effect,
) -> Fit {
    let lists = |paths: &[AbsolutePath], path: &str| paths.iter().any(|listed| listed.0 == path);
    let requested = lists(programs, &facts.requested);
    let resolved = lists(programs, &facts.resolved) || lists(targets, &facts.resolved);
    let fits = match effect {
        Effect::Allow => requested && resolved,
        Effect::Deny => {
            let same = |name: &String| lists(programs, name) || lists(targets, name);
            requested || resolved || facts.also_named.iter().any(same)
        }
    };
    Fit::or_differs(fits, || {
        let is_plain = AbsolutePath::try_from(facts.requested.clone()).is_ok();
        let through = if facts.requested == facts.resolved {
            String::new()
        } else if !is_plain {
            format!(", which is {} (write it without `..`, `.` and `//`)", facts.resolved)
        } else {
            format!(
                ", which is {} without symbolic links (a rule must list that too, in `programs` or `resolvesTo`)",
                facts.resolved
            )
        };
        format!("the program is {}{through}; the rule is for {}", facts.requested, listed(programs))
    })
}

fn arguments_fit(rule: Option<&Arguments>, arguments: &[String], effect: Effect) -> Fit {
    let difference = match (rule, effect) {
        (Some(Arguments::Any), _) | (None, Effect::Deny) => None,
        (Some(Arguments::List(list)), _) => list.difference(arguments, effect),
        (None, Effect::Allow) => {
            (!arguments.is_empty()).then(|| "the program has arguments, and the rule allows none".to_owned())
        }
    };
    difference.map_or(Fit::Fits, Fit::Differs)
}

/// A difference counts before what is not known.
fn both(one: Fit, other: Fit) -> Fit {
    match (one, other) {
        (Fit::Differs(why), _) | (_, Fit::Differs(why)) => Fit::Differs(why),
        (Fit::Unknown(why), _) | (_, Fit::Unknown(why)) => Fit::Unknown(why),
        (Fit::Fits, Fit::Fits) => Fit::Fits,
    }
}

impl Runnable {
    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let args = match &self.args {
            Some(Arguments::List(list)) => Some(list),
            _ => None,
        };
        match (&self.programs, &self.script) {
            (None, None) => Some("an item of `what` has neither `programs` nor `script`"),
            (Some(_), Some(_)) => Some("an item of `what` has both `programs` and `script`; write two items"),
            (None, Some(_)) if self.args.is_some() || self.sha256.is_some() || self.resolves_to.is_some() => {
                Some(
                    "`args`, `sha256` and `resolvesTo` of an item of `what` are for programs; a script has them in `script`",
                )
            }
            (Some(programs), _) if programs.is_empty() => Some("`programs` is empty"),
            (_, Some(script)) if script.interpreters.is_empty() => Some("`script.interpreters` is empty"),
            _ if args.is_some_and(|list| list.continues) => Some("nothing may follow `rest` in `args`"),
            _ => None,
        }
    }
}
