//! What surrounds a command: where it runs, its sandbox, variables, directory, umask, standard input, and what it leaves behind.

use sentinel_protocol::request::{EnvVar, Environment, Leftovers, Sandbox};
use serde::Deserialize;

use crate::asked::Asked;
use crate::effect::Effect;
use crate::fit::{Fit, listed, shown};
use crate::keyword::{keyword_or, present};
use crate::pattern::Pattern;
use crate::what::Digests;

/// A variable that a request may set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: Pattern,
    /// Its value; without this field any.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Pattern>,
}

impl Variable {
    /// The value of a Secret is not known here: where a rule asks for one, an `Allow` rule does not match, and a `Deny` rule does.
    fn matches(&self, variable: &EnvVar, effect: Effect) -> bool {
        let value_matches = |value: &Pattern| match variable.value_from {
            Some(_) => effect == Effect::Deny,
            None => value.matches(&variable.value, effect),
        };
        self.name.matches(&variable.name, effect) && self.value.as_ref().is_none_or(value_matches)
    }
}

/// The standard input of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdin {
    /// Any.
    Any,
    /// None.
    Empty,
    /// One of these.
    Digests(Digests),
}

keyword_or!(Stdin: "Any" => Stdin::Any, "Empty" => Stdin::Empty; map as Digests => Stdin::Digests; "`Any`, `Empty`, or {sha256: [DIGEST, …]}");

/// The bits that the umask of a command must have, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Umask(u32);

/// Files are not writable by group and others.
const DEFAULT_UMASK: u32 = 0o022;

impl TryFrom<String> for Umask {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = u32::from_str_radix(&text, 8).ok().filter(|bits| digits && *bits <= 0o777);
        bits.map(Self)
            .ok_or_else(|| format!("{text:?} is not a umask between \"000\" and \"777\", in quotes"))
    }
}

pub(crate) fn fit_environment(environments: Option<&[Environment]>, asked: &Asked<'_>) -> Fit {
    let Some(environments) = environments else { return Fit::Fits };
    Fit::or_differs(environments.contains(&asked.environment), || {
        let names: Vec<&str> = environments.iter().map(|one| one.as_str()).collect();
        format!("the command would run in {}; the rule is for {}", asked.environment.as_str(), listed(&names))
    })
}

/// How much a sandbox leaves to a command.
fn freedom(sandbox: Sandbox) -> u8 {
    match sandbox {
        Sandbox::Restricted => 0,
        Sandbox::Baseline => 1,
        Sandbox::Privileged => 2,
    }
}

/// Without a list an `Allow` rule allows the default of the environment, and what is stricter.
pub(crate) fn fit_sandbox(sandboxes: Option<&[Sandbox]>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let sandbox = asked.sandbox;
    match (sandboxes, effect) {
        (Some(sandboxes), _) => Fit::or_differs(sandboxes.contains(&sandbox), || {
            let names: Vec<&str> = sandboxes.iter().map(|one| one.as_str()).collect();
            format!("the sandbox is {}; the rule is for {}", sandbox.as_str(), listed(&names))
        }),
        (None, Effect::Deny) => Fit::Fits,
        (None, Effect::Allow) => {
            let most = asked.environment.default_sandbox();
            Fit::or_differs(freedom(sandbox) <= freedom(most), || {
                format!(
                    "the sandbox is {}, and the rule does not name one freer than {}",
                    sandbox.as_str(),
                    most.as_str()
                )
            })
        }
    }
}

/// An `Allow` rule must match all variables; a `Deny` rule one.
pub(crate) fn fit_env(rule: Option<&[Variable]>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let matches =
        |variable: &EnvVar| rule.unwrap_or_default().iter().any(|one| one.matches(variable, effect));
    match (effect, rule) {
        (Effect::Allow, _) => match asked.env.iter().find(|variable| !matches(variable)) {
            None => Fit::Fits,
            Some(EnvVar { name, value_from: Some(reference), .. }) => Fit::Differs(format!(
                "the variable {name:?} is {reference}, whose value is not known here; the rule must name it without a `value`"
            )),
            // Not its value, which may be a secret.
            Some(variable) => Fit::Differs(format!(
                "the rule does not allow the variable {:?} with its value",
                variable.name
            )),
        },
        (Effect::Deny, None) => Fit::Fits,
        (Effect::Deny, Some(_)) => {
            Fit::or_differs(asked.env.iter().any(matches), || "no variable is one of those".to_owned())
        }
    }
}

/// The directory by the name in the request and the one that it is without symbolic links: for an `Allow` rule both must match, for a
/// `Deny` rule one.
pub(crate) fn fit_working_dir(rule: Option<&[Pattern]>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let directory = asked.working_dir;
    let resolved = match &asked.node.working_dir {
        Ok(resolved) => resolved.as_str(),
        // Nothing can be started there.
        Err(why) => return Fit::Differs(why.clone()),
    };
    let through =
        if resolved == directory { String::new() } else { format!(", which is {}", shown(resolved)) };
    match (rule, effect) {
        (Some(patterns), _) => {
            let matches = |path: &str| patterns.iter().any(|pattern| pattern.matches(path, effect));
            let (named, real) = (matches(directory), matches(resolved));
            let fits = match effect {
                Effect::Allow => named && real,
                Effect::Deny => named || real,
            };
            Fit::or_differs(fits, || {
                format!(
                    "the working directory is {}{through}; the rule is for {}",
                    shown(directory),
                    listed(patterns)
                )
            })
        }
        (None, Effect::Deny) => Fit::Fits,
        (None, Effect::Allow) => Fit::or_differs(directory == "/" && resolved == "/", || {
            format!("the working directory is {}{through}, and the rule allows \"/\" alone", shown(directory))
        }),
    }
}

pub(crate) fn fit_umask(rule: Option<Umask>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let needed = rule.map_or(DEFAULT_UMASK, |umask| umask.0);
    Fit::or_differs(effect == Effect::Deny || asked.umask & needed == needed, || {
        format!("the umask is {:03o}, which must have the bits {needed:03o}", asked.umask)
    })
}

pub(crate) fn fit_stdin(rule: Option<&Stdin>, asked: &Asked<'_>, effect: Effect) -> Fit {
    match (rule, effect) {
        (Some(Stdin::Any), _) | (None, Effect::Deny) => Fit::Fits,
        // Its content is not known here: an `Allow` rule that asks for one does not match, a `Deny` rule does.
        _ if let Some(reference) = asked.stdin_from => Fit::or_differs(effect == Effect::Deny, || {
            format!(
                "standard input is {reference}, whose value is not known here; the rule must have `stdin: Any`"
            )
        }),
        (Some(Stdin::Empty), _) | (None, Effect::Allow) => Fit::or_differs(asked.stdin.is_empty(), || {
            format!("the request has {} bytes of standard input, and the rule allows none", asked.stdin.len())
        }),
        (Some(Stdin::Digests(digests)), _) => {
            Fit::or_differs(digests.has(asked.stdin), || "the standard input is another one".to_owned())
        }
    }
}

pub(crate) fn fit_leftovers(rule: Option<&[Leftovers]>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let allowed = match (rule, effect) {
        (Some(leftovers), _) => leftovers,
        (None, Effect::Deny) => return Fit::Fits,
        (None, Effect::Allow) => &[Leftovers::End],
    };
    Fit::or_differs(allowed.contains(&asked.leftovers), || {
        format!("processes that outlive the command: {:?}; the rule is for {allowed:?}", asked.leftovers)
    })
}
