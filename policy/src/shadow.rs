//! Whether a rule is never reached because an earlier one matches whatever it matches. Only what is certain counts: a part of a rule
//! covers another if it is the same, lists more, or fits everything.

use crate::effect::Effect;
use crate::identity::{Groups, Users};
use crate::rule::Rule;
use crate::surroundings::Stdin;
use crate::what::What;
use crate::who::Who;

/// Whether `earlier` certainly matches every request that `later` matches.
pub(crate) fn covers(earlier: &Rule, later: &Rule) -> bool {
    let both = who(earlier, later)
        && what(earlier, later)
        && users(earlier, later)
        && fits_all_or_lists_more(earlier.environments.as_deref(), later.environments.as_deref())
        && (earlier.hours.is_none() || earlier.hours == later.hours);
    both && match (earlier.effect, later.effect) {
        // A Deny rule matches what is not known, and an Allow rule does not.
        (Effect::Allow, Effect::Deny) => false,
        (Effect::Allow, Effect::Allow) => covers_allowed(earlier, later),
        (Effect::Deny, _) => covers_denied(earlier, later),
    }
}

/// What an `Allow` rule does not mention must be as usual.
fn covers_allowed(earlier: &Rule, later: &Rule) -> bool {
    (earlier.groups == Some(Groups::Any) || earlier.groups == later.groups)
        && same_or_lists_more(earlier.sandboxes.as_deref(), later.sandboxes.as_deref())
        && same_or_lists_more(earlier.working_dirs.as_deref(), later.working_dirs.as_deref())
        && same_or_lists_more(earlier.leftovers.as_deref(), later.leftovers.as_deref())
        && lists_more(earlier.env.as_deref().unwrap_or_default(), later.env.as_deref().unwrap_or_default())
        && earlier.umask == later.umask
        && (earlier.stdin == Some(Stdin::Any) || earlier.stdin == later.stdin)
        && earlier.limits == later.limits
        && (earlier.max_run.is_none() || earlier.max_run == later.max_run)
        && (earlier.signature.is_none() || earlier.signature == later.signature)
}

/// What a `Deny` rule does not mention fits.
fn covers_denied(earlier: &Rule, later: &Rule) -> bool {
    let is_same_kind = earlier.effect == later.effect;
    (matches!(earlier.groups, None | Some(Groups::Any)) || earlier.groups == later.groups)
        && fits_all_or_lists_more(earlier.sandboxes.as_deref(), later.sandboxes.as_deref())
        && fits_all_or_lists_more(earlier.working_dirs.as_deref(), later.working_dirs.as_deref())
        && fits_all_or_lists_more(earlier.leftovers.as_deref(), later.leftovers.as_deref())
        // An Allow rule also matches a request without any variable.
        && (earlier.env.is_none() || is_same_kind && earlier.env == later.env)
        && (matches!(earlier.stdin, None | Some(Stdin::Any)) || earlier.stdin == later.stdin)
}

fn who(earlier: &Rule, later: &Rule) -> bool {
    matches!(earlier.who, None | Some(Who::Anyone)) || earlier.who == later.who
}

fn what(earlier: &Rule, later: &Rule) -> bool {
    match (&earlier.what, &later.what) {
        (None | Some(What::AnyCommand), _) => true,
        (Some(What::OneOf(more)), Some(What::OneOf(some))) => lists_more(more, some),
        (Some(What::OneOf(_)), None | Some(What::AnyCommand)) => false,
    }
}

fn users(earlier: &Rule, later: &Rule) -> bool {
    match (&earlier.users, &later.users) {
        (None | Some(Users::Any), _) => true,
        (Some(Users::Named(more)), Some(Users::Named(some))) => lists_more(more, some),
        (one, other) => one == other,
    }
}

fn lists_more<T: PartialEq>(more: &[T], some: &[T]) -> bool {
    some.iter().all(|item| more.contains(item))
}

fn same_or_lists_more<T: PartialEq>(more: Option<&[T]>, some: Option<&[T]>) -> bool {
    match (more, some) {
        (Some(more), Some(some)) => lists_more(more, some),
        (more, some) => more.is_none() && some.is_none(),
    }
}

fn fits_all_or_lists_more<T: PartialEq>(more: Option<&[T]>, some: Option<&[T]>) -> bool {
    more.is_none() || same_or_lists_more(more, some)
}
