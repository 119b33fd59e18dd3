//! The verdict on a request, rule by rule.

use std::fmt;

use sentinel_protocol::shown::single_line;

use crate::asked::Asked;
use crate::document::Policy;
use crate::effect::Effect;
use crate::rule::{Difference, NO_RULE, RuleId};
use crate::signature::{Verified, verify};

/// What a policy decides about a request, and how each rule contributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// The rules that were compared, in their order; the last one decided unless the decision is [`NO_RULE`].
    pub trace: Vec<Compared>,
}

/// What a policy decides about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may run.
    Allowed {
        /// The rule that allows it.
        rule: RuleId,
        /// How many may run at a time by this rule.
        concurrent: Option<u32>,
        /// The signature, if the rule asks for one.
        signed: Option<Verified>,
    },
    /// It may not.
    Refused {
        /// The id of the rule, or [`NO_RULE`].
        rule: String,
        /// Why.
        why: String,
    },
}

/// One rule as it was compared with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Its id.
    pub rule: RuleId,
    /// What it does with a request that it matches.
    pub effect: Effect,
    /// What keeps it from matching: nothing if it matches.
    pub differences: Vec<Difference>,
}

impl Policy {
    /// Compares a request with the rules in their order; the first that matches decides.
    pub fn verdict(&self, asked: &Asked<'_>) -> Verdict {
        let mut trace = Vec::new();
        for rule in self.rules() {
            let differences = rule.differences(self.signers(), asked);
            let matches = differences.is_empty();
            trace.push(Compared { rule: rule.id.clone(), effect: rule.effect, differences });
            if matches {
                let id = rule.id.clone();
                let decision = match rule.effect {
                    Effect::Allow => Decision::Allowed {
                        rule: id,
                        concurrent: rule.concurrent.map(std::num::NonZero::get),
                        signed: rule
                            .signature
                            .as_ref()
                            .and_then(|signature| verify(signature, self.signers(), asked).ok()),
                    },
                    Effect::Deny => {
                        Decision::Refused { rule: id.to_string(), why: denied(&rule.description) }
                    }
                };
                return Verdict { decision, trace };
            }
        }
        let decision = Decision::Refused { rule: NO_RULE.to_owned(), why: no_rule(&trace) };
        Verdict { decision, trace }
    }
}

fn denied(description: &str) -> String {
    if description.is_empty() { "the rule denies it".to_owned() } else { description.to_owned() }
}

/// Names the rule that fails in the fewest parts: most likely the one that was meant.
fn no_rule(trace: &[Compared]) -> String {
    let allows = trace.iter().filter(|compared| compared.effect == Effect::Allow);
    let Some(closest) = allows.min_by_key(|compared| compared.differences.len()) else {
        return "no rule allows anything".to_owned();
    };
    let whys: Vec<&str> = closest.differences.iter().map(|difference| difference.why.as_str()).collect();
    format!("no rule allows it; the closest is {}: {}", closest.rule, whys.join("; "))
}

impl fmt::Display for Verdict {
    /// A line for each rule and each difference, and the decision at the end. What a request has in it begins no other line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |text: String| writeln!(f, "{}", single_line(text.trim_end()));
        for Compared { rule, effect, differences } in &self.trace {
            let result = if differences.is_empty() { "matches" } else { "does not match" };
            line(format!("{rule} ({effect:?}): {result}"))?;
            for Difference { part, why } in differences {
                line(format!("    {part}: {why}"))?;
            }
        }
        match &self.decision {
            Decision::Allowed { rule, concurrent, signed } => {
                let concurrent = concurrent.map_or_else(String::new, |limit| format!(", {limit} at a time"));
                let signed = signed.as_ref().map_or_else(String::new, |Verified { signer, runs, .. }| {
                    format!(", signed by {signer} for {runs} starts on each node")
                });
                line(format!("allowed by rule {rule}{concurrent}{signed}"))
            }
            Decision::Refused { rule, why } => line(format!("refused ({rule}): {why}")),
        }
    }
}
