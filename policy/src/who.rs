//! Who may ask. A node knows it only from the operator.

use sentinel_protocol::requester::{MAX_GROUPS, RequestedBy, Requester};
use serde::Deserialize;

use crate::asked::Asked;
use crate::effect::Effect;
use crate::fit::{Fit, listed};
use crate::keyword::{keyword_or, present};
use crate::pattern::Pattern;

/// Who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Anyone who can create a Task, also where it is not known who that was.
    Anyone,
    /// Requests that fit each of the lists.
    Named(Named),
}

keyword_or!(Who: "Anyone" => Who::Anyone; map as Named => Who::Named; "`Anyone`, or a map with namespaces, users or groups");

/// Lists: each that is present must have a match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Named {
    /// Namespace of the Task.
    #[serde(default, deserialize_with = "present")]
    pub namespaces: Option<Vec<Pattern>>,
    /// User name of the requester.
    #[serde(default, deserialize_with = "present")]
    pub users: Option<Vec<Pattern>>,
    /// A group of the requester.
    #[serde(default, deserialize_with = "present")]
    pub groups: Option<Vec<Pattern>>,
}

impl Named {
    /// The lists with their names.
    pub(crate) fn lists(&self) -> [(&'static str, Option<&Vec<Pattern>>); 3] {
        [
            ("namespaces", self.namespaces.as_ref()),
            ("users", self.users.as_ref()),
            ("groups", self.groups.as_ref()),
        ]
    }

    fn names_people(&self) -> bool {
        self.users.is_some() || self.groups.is_some()
    }

    fn fits(&self, requester: &Requester, effect: Effect) -> Fit {
        let user = requester.user.as_str();
        if let Some(users) = &self.users
            && !users.iter().any(|pattern| pattern.matches(user, effect))
        {
            return Fit::Differs(format!("{user:?} asked; allowed are the users {}", listed(users)));
        }
        let has_one_of = |groups: &[Pattern]| {
            requester.groups.iter().any(|group| groups.iter().any(|pattern| pattern.matches(group, effect)))
        };
        match &self.groups {
            // Further groups are left out on the way to the node.
            Some(groups) if !has_one_of(groups) && requester.groups.len() >= MAX_GROUPS => {
                Fit::Unknown(format!(
                    "{user:?} asked, who is in {MAX_GROUPS} groups or more, and it is not known whether in one of {}",
                    listed(groups)
                ))
            }
            Some(groups) if !has_one_of(groups) => {
                Fit::Differs(format!("{user:?} asked, who is in none of the groups {}", listed(groups)))
            }
            _ => Fit::Fits,
        }
    }
}

/// For an `Allow` rule all who are behind the request must fit; for a `Deny` rule one.
pub(crate) fn fit(who: Option<&Who>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let named = match who {
        None | Some(Who::Anyone) => return Fit::Fits,
        Some(Who::Named(named)) => named,
    };
    let namespace = asked.task.namespace.as_str();
    if let Some(namespaces) = &named.namespaces
        && !namespaces.iter().any(|pattern| pattern.matches(namespace, effect))
    {
        return Fit::Differs(format!(
            "the Task is in namespace {namespace:?}; the rule is for {}",
            listed(namespaces)
        ));
    }
    if !named.names_people() {
        return Fit::Fits;
    }
    let Some(requested_by) = asked.requested_by else {
        return Fit::Unknown(
            "who asked is not known (no admission webhook, or an older operator)".to_owned(),
        );
    };
    // Without `..`: for a new person it is decided here whether rules judge them.
    let RequestedBy { author, rerun, creator: _, approver: _ } = requested_by;
    let behind = [Some(author), rerun.as_ref()].into_iter().flatten();
    let mut fits = behind.map(|requester| named.fits(requester, effect));
    match effect {
        Effect::Allow => fits.find(|fit| *fit != Fit::Fits).unwrap_or(Fit::Fits),
        Effect::Deny => {
            let fits: Vec<Fit> = fits.collect();
            let unknown = |fit: &&Fit| matches!(fit, Fit::Unknown(_));
            let one = fits.iter().find(|fit| **fit == Fit::Fits);
            one.or(fits.iter().find(unknown)).or(fits.first()).cloned().unwrap_or(Fit::Fits)
        }
    }
}
