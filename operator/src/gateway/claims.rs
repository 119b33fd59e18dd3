//! The unverified claims of a token: enough to refuse what cannot be an agent's without asking the API server.
//!
//! Nothing here authenticates an agent. A token that passes is reviewed like any other; one that does not would have been
//! refused by that review, and a stranger that sends many of them costs the API server nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sentinel_protocol::text::Name;
use sentinel_protocol::time::UnixMillis;
use serde::Deserialize;

use super::token_rules::TokenRules;
use crate::identity::AuthError;

/// Tolerated difference between the clocks of the API server and this machine.
const CLOCK_SKEW_MS: u64 = 300_000;

/// Audiences of a token that are compared.
const MAX_AUDIENCES: usize = 16;

/// The claims of a service account's token that decide (RFC 7519, section 4.1).
#[derive(Debug, Deserialize)]
struct Claims {
    sub: Option<Name>,
    aud: Option<Audiences>,
    exp: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(Name),
    Many(Vec<Name>),
}

impl Audiences {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => *one == audience,
            Self::Many(many) => many.iter().take(MAX_AUDIENCES).any(|one| *one == audience),
        }
    }
}

/// Checks that the token can be an agent's.
///
/// # Errors
/// The [`AuthError`] that its review would return.
pub(super) fn check_claims(token: &str, rules: &TokenRules, now: UnixMillis) -> Result<(), AuthError> {
    let invalid = |message: &str| AuthError::Invalid(message.to_owned());
    let claims = claims(token).ok_or_else(|| invalid("it is not a token of a service account"))?;
    if !claims.aud.is_some_and(|audiences| audiences.contains(&rules.audience)) {
        return Err(AuthError::Invalid(format!("it is not for the audience {:?}", rules.audience)));
    }
    // Seconds since the epoch; the cast saturates for a number out of range.
    let expires = claims.exp.map(|seconds| UnixMillis(seconds as i64).0.saturating_mul(1000));
    if expires.is_none_or(|at| UnixMillis(at).plus(CLOCK_SKEW_MS) < now) {
        return Err(invalid("it has expired"));
    }
    let subject = claims.sub.unwrap_or_default();
    if subject.strip_prefix("system:serviceaccount:") != Some(rules.service_account.as_str()) {
        let allowed = &rules.service_account;
        return Err(AuthError::NotAnAgent(format!(
            "it belongs to {subject:?}, agents are system:serviceaccount:{allowed}"
        )));
    }
    Ok(())
}

fn claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if signature.is_empty() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn checked(token: &str) -> Result<(), &'static str> {
        check_claims(token, &TokenRules::new("sentinel", "agent"), NOW).map_err(|error| error.category())
    }

    #[test]
    fn accepts_an_unexpired_token_of_the_agents_account_and_audience() {
        const SUB: &str = "\"sub\":\"system:serviceaccount:sentinel:agent\"";
        const AUD: &str = "\"aud\":[\"x\",\"sentinel-operator\"]";
        let (later, now, long_ago) = ("\"exp\":1800003600", "\"exp\":1800000000", "\"exp\":1799999000");
        let of = |parts: &[&str]| checked(&token(&format!("{{{}}}", parts.join(","))));
        assert_eq!(of(&[SUB, AUD, later]), Ok(()));
        assert_eq!(of(&[SUB, "\"aud\":\"sentinel-operator\"", now]), Ok(()));
        assert_eq!(of(&[SUB, AUD, long_ago]), Err("Invalid"));
        assert_eq!(of(&[SUB, AUD]), Err("Invalid"));
        assert_eq!(of(&[SUB, AUD, "\"exp\":1e300"]), Ok(()));
        assert_eq!(of(&[SUB, "\"aud\":[\"x\"]", later]), Err("Invalid"));
        assert_eq!(of(&[SUB, later]), Err("Invalid"));
        assert_eq!(of(&["\"sub\":\"system:serviceaccount:sentinel:other\"", AUD, later]), Err("NotAnAgent"));
        assert_eq!(of(&["\"sub\":\"sentinel:agent\"", AUD, later]), Err("NotAnAgent"));
        assert_eq!(of(&[AUD, later]), Err("NotAnAgent"));
    }

    #[test]
    fn refuses_text_that_is_not_a_service_account_token() {
        for text in
            ["", "abc", "a.b", "a.b.c.d", "x.y.z", "e30.e30.", &token("[]"), &token("{\"exp\":\"x\"}")]
        {
            assert_eq!(checked(text), Err("Invalid"), "{text:?}");
        }
    }
}
