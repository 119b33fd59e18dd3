//! Whether one part of a request fits one part of a rule.

use crate::effect::Effect;

/// Whether a part of a request fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does.
    Fits,
    /// It does not, and why.
    Differs(String),
    /// What decides it is not known.
    Unknown(String),
}

impl Fit {
    /// Fits, or differs as described.
    pub(crate) fn or_differs(fits: bool, why: impl FnOnce() -> String) -> Self {
        if fits { Self::Fits } else { Self::Differs(why()) }
    }

    /// Why it keeps a rule with this effect from matching; `None` if it does not.
    pub(crate) fn keeps_from(self, effect: Effect) -> Option<String> {
        match (self, effect) {
            (Self::Differs(why), _) | (Self::Unknown(why), Effect::Allow) => Some(why),
            (Self::Fits, _) | (Self::Unknown(_), Effect::Deny) => None,
        }
    }
}

/// A text of a request as a message quotes it, which may be long.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
    }
}

/// Words for a list, as in a message.
pub(crate) fn listed<T: std::fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
