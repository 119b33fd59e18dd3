//! One rule.

use std::fmt;
use std::num::NonZeroU32;

use sentinel_protocol::request::{Environment, Leftovers, Sandbox};
use serde::Deserialize;

use crate::asked::Asked;
use crate::effect::Effect;
use crate::hours::Hours;
use crate::identity::{self, Groups, Users};
use crate::keyword::present;
use crate::limits::{self, Duration, LimitsRule};
use crate::pattern::Pattern;
use crate::signature::{self, SignatureRule, Signer};
use crate::surroundings::{self, Stdin, Umask, Variable};
use crate::what::{self, Digests, Runnable, ScriptText, What};
use crate::who::{self, Who};

/// Refused because no rule matches.
pub const NO_RULE: &str = "no-rule";
/// Refused because the policy cannot be used.
pub const POLICY_UNUSABLE: &str = "policy-unusable";
/// Refused because the kill switch is on.
pub const KILL_SWITCH: &str = "kill-switch";

/// Ids that a rule may not have: refusals without a rule carry them.
pub const RESERVED: &[&str] = &[NO_RULE, POLICY_UNUSABLE, KILL_SWITCH];

/// Id of a rule: 1 to 63 lowercase letters, digits and `-`, as a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct RuleId(String);

impl RuleId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RuleId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_label = (1..=63).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if !is_label {
            return Err(format!(
                "{text:?} is not an id: 1 to 63 lowercase letters, digits and '-', such as disk-report"
            ));
        }
        if RESERVED.contains(&text.as_str()) {
            return Err(format!("the id {text:?} is reserved: refusals without a rule carry it"));
        }
        Ok(Self(text))
    }
}

/// A rule. All that it mentions must fit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Its id: what a refusal names.
    pub id: RuleId,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What it does.
    pub effect: Effect,
    /// Who may ask. Needed in an `Allow` rule.
    #[serde(default, deserialize_with = "present")]
    pub who: Option<Who>,
    /// What may run. Needed in an `Allow` rule.
    #[serde(default, deserialize_with = "present")]
    pub what: Option<What>,
    /// As which user. Needed in an `Allow` rule.
    #[serde(default, deserialize_with = "present")]
    pub users: Option<Users>,
    /// With which group; without this field an `Allow` rule allows the user's own.
    #[serde(default, deserialize_with = "present")]
    pub groups: Option<Groups>,
    /// Where. Needed in an `Allow` rule.
    #[serde(default, deserialize_with = "present")]
    pub environments: Option<Vec<Environment>>,
    /// In which sandbox; without this field an `Allow` rule allows the default of the environment, and what is stricter.
    #[serde(default, deserialize_with = "present")]
    pub sandboxes: Option<Vec<Sandbox>>,
    /// Variables that may be set; without this field an `Allow` rule allows none.
    #[serde(default, deserialize_with = "present")]
    pub env: Option<Vec<Variable>>,
    /// Working directories; without this field an `Allow` rule allows `/`.
    #[serde(default, deserialize_with = "present")]
    pub working_dirs: Option<Vec<Pattern>>,
    /// Bits that the umask must have; without this field 022.
    #[serde(default, deserialize_with = "present")]
    pub umask: Option<Umask>,
    /// Standard input; without this field an `Allow` rule allows none.
    #[serde(default, deserialize_with = "present")]
    pub stdin: Option<Stdin>,
    /// Whether processes may outlive the command; without this field an `Allow` rule allows `End`.
    #[serde(default, deserialize_with = "present")]
    pub leftovers: Option<Vec<Leftovers>>,
    /// Limits that the request must have.
    #[serde(default, deserialize_with = "present")]
    pub limits: Option<LimitsRule>,
    /// `timeouts.run` or `timeouts.total` must be set to at most this.
    #[serde(default, deserialize_with = "present")]
    pub max_run: Option<Duration>,
    /// How many commands may run at a time by this rule. Further ones wait, for at most `timeouts.start`.
    #[serde(default, deserialize_with = "present")]
    pub concurrent: Option<NonZeroU32>,
    /// When a command may start.
    #[serde(default, deserialize_with = "present")]
    pub hours: Option<Hours>,
    /// Who must have signed the Task.
    #[serde(default, deserialize_with = "present")]
    pub signature: Option<SignatureRule>,
}

/// A part of a rule that a request does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The part, by its name in the file.
    pub part: &'static str,
    /// Why it does not fit.
    pub why: String,
}

impl Rule {
    /// What keeps the rule from matching: nothing if it matches.
    pub(crate) fn differences(&self, signers: &[Signer], asked: &Asked<'_>) -> Vec<Difference> {
        let Self {
            id: _,
            description: _,
            effect,
            who,
            what,
            users,
            groups,
            environments,
            sandboxes,
            env,
            working_dirs,
            umask,
            stdin,
            leftovers,
            limits,
            max_run,
            // Counted by the agent, which knows what runs.
            concurrent: _,
            hours,
            signature,
        } = self;
        let effect = *effect;
        let fits = [
            ("who", who::fit(who.as_ref(), asked, effect)),
            ("what", what::fit(what.as_ref(), asked, effect)),
            ("users", identity::fit_user(users.as_ref(), asked, self.effect)),
            ("groups", identity::fit_group(groups.as_ref(), asked, effect)),
            ("environments", surroundings::fit_environment(environments.as_deref(), asked)),
            ("sandboxes", surroundings::fit_sandbox(sandboxes.as_deref(), asked, effect)),
            ("env", surroundings::fit_env(env.as_deref(), asked, effect)),
            ("workingDirs", surroundings::fit_working_dir(working_dirs.as_deref(), asked, effect)),
            ("umask", surroundings::fit_umask(*umask, asked, effect)),
            ("stdin", surroundings::fit_stdin(stdin.as_ref(), asked, effect)),
            ("leftovers", surroundings::fit_leftovers(leftovers.as_deref(), asked, effect)),
            ("limits", limits::fit_limits(limits.as_ref(), asked, effect)),
            ("maxRun", limits::fit_max_run(*max_run, asked)),
            ("hours", hours.as_ref().map_or(crate::fit::Fit::Fits, |hours| hours.fit(asked.now))),
            ("signature", signature::fit(signature.as_ref(), signers, asked)),
        ];
        let difference = |(part, fit): (&'static str, crate::fit::Fit)| {
            fit.keeps_from(effect).map(|why| Difference { part, why })
        };
        fits.into_iter().filter_map(difference).collect()
    }

    /// What is wrong with the rule as a whole.
    pub(crate) fn problem(&self) -> Option<String> {
        let needed = [
            ("who", self.who.is_none()),
            ("what", self.what.is_none()),
            ("users", self.users.is_none()),
            ("environments", self.environments.is_none()),
        ];
        let allow_only = [
            ("umask", self.umask.is_some()),
            ("limits", self.limits.is_some()),
            ("maxRun", self.max_run.is_some()),
            ("concurrent", self.concurrent.is_some()),
            ("signature", self.signature.is_some()),
        ];
        let first = |parts: &[(&'static str, bool)]| parts.iter().find(|(_, is)| *is).map(|(part, _)| *part);
        match self.effect {
            Effect::Allow => {
                if let Some(part) = first(&needed) {
                    return Some(format!("an Allow rule must have `{part}`"));
                }
            }
            Effect::Deny => {
                if let Some(part) = first(&allow_only) {
                    return Some(format!("a Deny rule cannot have `{part}`, which is for Allow rules"));
                }
            }
        }
        self.empty_list()
            .or_else(|| self.empty_inside())
            .map(|part| format!("`{part}` is empty, so nothing fits it; leave the rule out"))
            .or_else(|| self.misshapen())
    }

    fn empty_list(&self) -> Option<&'static str> {
        let named = match &self.who {
            Some(Who::Named(named)) => {
                let lists = named.lists();
                if lists.iter().all(|(_, list)| list.is_none()) {
                    return Some("who");
                }
                lists.into_iter().find(|(_, list)| list.is_some_and(Vec::is_empty)).map(|(name, _)| name)
            }
            _ => None,
        };
        let what = matches!(&self.what, Some(What::OneOf(list)) if list.is_empty()).then_some("what");
        let users = matches!(&self.users, Some(Users::Named(list)) if list.is_empty()).then_some("users");
        let groups = matches!(&self.groups, Some(Groups::Named(list)) if list.is_empty()).then_some("groups");
        let environments = self.environments.as_ref().is_some_and(Vec::is_empty).then_some("environments");
        let sandboxes = self.sandboxes.as_ref().is_some_and(Vec::is_empty).then_some("sandboxes");
        let dirs = self.working_dirs.as_ref().is_some_and(Vec::is_empty).then_some("workingDirs");
        let leftovers = self.leftovers.as_ref().is_some_and(Vec::is_empty).then_some("leftovers");
        named.or(what).or(users).or(groups).or(environments).or(sandboxes).or(dirs).or(leftovers)
    }

    /// A part deeper in the rule that is empty, so that nothing fits it.
    fn empty_inside(&self) -> Option<&'static str> {
        let digests = |digests: &Digests| digests.sha256.is_empty();
        let is_empty_text = |runnable: &Runnable| {
            let text = runnable.script.as_ref().map(|script| &script.text);
            matches!(text, Some(ScriptText::Digests(inside)) if digests(inside))
                || runnable.sha256.as_ref().is_some_and(Vec::is_empty)
        };
        let what = matches!(&self.what, Some(What::OneOf(list)) if list.iter().any(is_empty_text));
        let stdin = matches!(&self.stdin, Some(Stdin::Digests(inside)) if digests(inside));
        let days = self.hours.as_ref().and_then(|hours| hours.days.as_ref()).is_some_and(Vec::is_empty);
        let env = self.effect == Effect::Deny && self.env.as_ref().is_some_and(Vec::is_empty);
        let one_of =
            self.patterns().into_iter().find(|(_, pattern)| pattern.is_empty()).map(|(part, _)| part);
        what.then_some("what: sha256")
            .or(stdin.then_some("stdin"))
            .or(days.then_some("hours.days"))
            .or(env.then_some("env"))
            .or(one_of)
    }

    fn misshapen(&self) -> Option<String> {
        if self.signature.as_ref().is_some_and(|signature| signature.by.is_empty()) {
            return Some("`signature.by` is empty, so nothing fits it; leave the rule out".to_owned());
        }
        if self.hours.as_ref().is_some_and(|hours| hours.from == hours.to) {
            return Some("`hours` begin when they end".to_owned());
        }
        let Some(What::OneOf(runnables)) = &self.what else { return None };
        runnables.iter().find_map(crate::what::Runnable::problem).map(str::to_owned)
    }
}
