//! As whom a command may run.

use crate::asked::{Asked, IdentityFacts};
use crate::effect::Effect;
use crate::fit::{Fit, listed};
use crate::keyword::keyword_or;

/// The users that a command may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// Any.
    Any,
    /// Any without the user and the group of root.
    AnyButRoot,
    /// These, by name or number.
    Named(Vec<String>),
}

keyword_or!(Users: "Any" => Users::Any, "AnyButRoot" => Users::AnyButRoot; list as Vec<String> => Users::Named; "`Any`, `AnyButRoot`, or a list of user names and numbers");

/// The groups that a command may have instead of its user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// Any.
    Any,
    /// These, by name or number.
    Named(Vec<String>),
}

keyword_or!(Groups: "Any" => Groups::Any; list as Vec<String> => Groups::Named; "`Any`, or a list of group names and numbers");

/// By number or by name. Number 0 is root by whatever name, so a list that means it names `root` or `0`.
fn is_listed(list: &[String], number: u32, name: Option<&str>) -> bool {
    list.iter().any(|item| match item.parse::<u32>() {
        Ok(listed) => listed == number,
        Err(_) if number == 0 => item == "root",
        Err(_) => name == Some(item),
    })
}

fn described(number: u32, name: Option<&str>) -> String {
    name.map_or_else(|| number.to_string(), |name| format!("{name} ({number})"))
}

pub(crate) fn fit_user(users: Option<&Users>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let identity = match (users, &asked.node.identity) {
        (None | Some(Users::Any), _) => return Fit::Fits,
        (_, Err(why)) => return Fit::Differs(why.clone()),
        (_, Ok(identity)) => identity,
    };
    let who = described(identity.uid, identity.user.as_deref());
    match users {
        Some(Users::AnyButRoot) => Fit::or_differs(!identity.is_root(), || {
            format!("the command would run as {who} with group {}, and root is not allowed", identity.gid)
        }),
        Some(Users::Named(list)) => {
            let is_alias =
                effect == Effect::Deny && identity.user_names.iter().any(|name| list.contains(name));
            Fit::or_differs(is_alias || is_listed(list, identity.uid, identity.user.as_deref()), || {
                format!("the command would run as {who}; the rule is for {}", listed(list))
            })
        }
        None | Some(Users::Any) => Fit::Fits,
    }
}

/// Without a list an `Allow` rule allows the user's own primary group.
pub(crate) fn fit_group(groups: Option<&Groups>, asked: &Asked<'_>, effect: Effect) -> Fit {
    let identity = match (groups, effect, &asked.node.identity) {
        (Some(Groups::Any), ..) | (None, Effect::Deny, _) => return Fit::Fits,
        (.., Err(why)) => return Fit::Differs(why.clone()),
        (.., Ok(identity)) => identity,
    };
    let IdentityFacts { gid, group, primary_gid, groups: further, group_names, .. } = identity;
    if let (Some(Groups::Named(list)), Effect::Deny) = (groups, effect) {
        let is_further = further.iter().any(|gid| is_listed(list, *gid, None))
            || group_names.iter().any(|name| list.contains(name));
        if is_further {
            return Fit::Fits;
        }
    }
    let who = described(*gid, group.as_deref());
    match groups {
        Some(Groups::Named(list)) => Fit::or_differs(is_listed(list, *gid, group.as_deref()), || {
            format!("the command would have group {who}; the rule is for {}", listed(list))
        }),
        _ => Fit::or_differs(!asked.asks_for_group || *primary_gid == Some(*gid), || {
            format!("the command would have group {who}, and the rule allows the user's own alone")
        }),
    }
}
