//! The policy of a node: a file of rules about what may run there, for whom, as whom and how. The file is on the node, and the
//! operator cannot write it: the node decides.
//!
//! A request is compared with the rules in their order; the first that matches decides, and without one the request is refused.
//! Everything errs towards refusal:
//!
//! * An `Allow` rule matches only a request whose parts all fit. What the rule does not mention may not differ from what is
//!   harmless: no environment variables, no standard input, no root.
//! * A `Deny` rule matches unless a part of the request certainly does not fit. What it does not mention fits.
//! * A part that is not known (who asked, a digest) fits no `Allow` rule and every `Deny` rule.
//!
//! The world is closed: [`asked::Asked::of`] names each field of a `Start`, so that a new one does not compile until it is decided
//! which part of a rule it belongs to.
//!
//! The modules, in reading order:

pub mod document;
pub mod pattern;
pub mod effect;
pub mod rule;
pub mod who;
pub mod what;
pub mod identity;
pub mod surroundings;
pub mod limits;
pub mod hours;
pub mod signature;
pub mod asked;
mod fit;
pub mod verdict;
pub mod lint;
mod shadow;
mod keyword;
