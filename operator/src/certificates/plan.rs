//! What is to be done next about the certificates, by what there is.

use std::time::Duration;

use crate::expiry::{Seconds, Validity};

impl Validity {
    /// The time when this part of its life has passed.
    fn after(&self, numerator: i64, denominator: i64) -> Seconds {
        let life = self.not_after.saturating_sub(self.not_before).max(0);
        self.not_before.saturating_add(life / denominator * numerator)
    }
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The authority that signs.
    pub authority: Option<Validity>,
    /// The authority that will sign.
    pub next: Option<Validity>,
    /// The authority that signed before.
    pub previous: Option<Validity>,
    /// The certificate of the listeners.
    pub server: Option<ServerHeld>,
    /// Whether everybody who reads the bundle now trusts the next authority.
    pub is_next_published: bool,
}

/// The certificate of the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHeld {
    /// When it is valid.
    pub validity: Validity,
    /// Whether it has the names that are wanted, and its key fits.
    pub is_as_wanted: bool,
    /// Whether the authority that signs has signed it.
    pub is_of_authority: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Make an authority: there is none that can be used.
    MakeAuthority,
    /// Make the certificate of the listeners.
    MakeServer,
    /// Make the next authority, so that it is published in time.
    MakeNext,
    /// From now on the next authority signs.
    Promote,
    /// The previous authority has expired: no client needs to trust it.
    DropPrevious,
}

/// How long the next authority is published before it signs: readers of the bundle see it within two minutes (the kubelet's
/// sync period and its cache), and some may be suspended.
pub fn overlap(authority_lifetime: Duration) -> Duration {
    (authority_lifetime / 20).min(Duration::from_hours(1))
}

/// The next step; after each the question is asked again.
pub fn next(held: &Held, now: Seconds, overlap: Duration) -> Step {
    let is_expired = |validity: &Validity| now >= validity.not_after;
    let Some(authority) = held.authority.filter(|authority| !is_expired(authority)) else {
        return Step::MakeAuthority;
    };
    let is_due = |server: &ServerHeld| now >= server.validity.after(2, 3);
    if !held.server.is_some_and(|server| server.is_as_wanted && server.is_of_authority && !is_due(&server)) {
        return Step::MakeServer;
    }
    if held.previous.is_some_and(|previous| is_expired(&previous)) {
        return Step::DropPrevious;
    }
    match held.next {
        None if now >= authority.after(2, 3) => Step::MakeNext,
        Some(next) if is_expired(&next) => Step::MakeNext,
        Some(next)
            if held.is_next_published && now >= next.not_before.saturating_add(overlap.as_secs() as i64) =>
        {
            Step::Promote
        }
        _ => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: Duration = Duration::from_secs(100);

    fn valid(not_before: Seconds, not_after: Seconds) -> Validity {
        Validity { not_before, not_after }
    }

    fn server(not_before: Seconds, not_after: Seconds) -> ServerHeld {
        ServerHeld { validity: valid(not_before, not_after), is_as_wanted: true, is_of_authority: true }
    }

    fn held() -> Held {
        Held { authority: Some(valid(0, 10_000)), server: Some(server(0, 3_000)), ..Held::default() }
    }

    #[test]
    fn first_the_authority_is_made_and_then_the_certificate() {
        assert_eq!(next(&Held::default(), 0, OVERLAP), Step::MakeAuthority);
        assert_eq!(next(&Held { server: None, ..held() }, 0, OVERLAP), Step::MakeServer);
        assert_eq!(next(&held(), 0, OVERLAP), Step::Rest);
    }

    #[test]
    fn the_certificate_is_renewed_after_two_thirds_of_its_life_or_when_it_is_not_as_wanted() {
        assert_eq!(next(&held(), 1_999, OVERLAP), Step::Rest);
        assert_eq!(next(&held(), 2_000, OVERLAP), Step::MakeServer);
        let other = |of: ServerHeld| next(&Held { server: Some(of), ..held() }, 0, OVERLAP);
        let good = held().server.unwrap();
        assert_eq!(other(ServerHeld { is_as_wanted: false, ..good }), Step::MakeServer);
        assert_eq!(other(ServerHeld { is_of_authority: false, ..good }), Step::MakeServer);
    }

    #[test]
    fn the_next_authority_signs_only_after_it_was_published_long_enough() {
        let held = Held { authority: Some(valid(0, 9_000)), ..held() };
        let aged = Held { server: Some(server(5_900, 8_900)), ..held };
        assert_eq!(next(&aged, 5_999, OVERLAP), Step::Rest);
        assert_eq!(next(&aged, 6_000, OVERLAP), Step::MakeNext);
        let made = Held { next: Some(valid(6_000, 15_000)), ..aged };
        assert_eq!(next(&made, 6_200, OVERLAP), Step::Rest, "it is not published");
        let published = Held { is_next_published: true, ..made };
        assert_eq!(next(&published, 6_099, OVERLAP), Step::Rest, "some may not have read it");
        assert_eq!(next(&published, 6_100, OVERLAP), Step::Promote);
    }

    #[test]
    fn an_expired_authority_is_replaced_at_once_and_an_expired_previous_one_is_dropped() {
        assert_eq!(next(&held(), 10_000, OVERLAP), Step::MakeAuthority);
        let rotated = Held { previous: Some(valid(-9_000, 500)), ..held() };
        assert_eq!(next(&rotated, 499, OVERLAP), Step::Rest);
        assert_eq!(next(&rotated, 500, OVERLAP), Step::DropPrevious);
    }

    #[test]
    fn whatever_there_is_the_steps_come_to_rest_with_a_valid_certificate() {
        for now in (0..60_000).step_by(50) {
            let mut held =
                Held { authority: Some(valid(0, 10_000)), server: Some(server(0, 3_000)), ..Held::default() };
            let mut steps = 0;
            loop {
                let fresh = valid(now, now + 10_000);
                match next(&held, now, OVERLAP) {
                    Step::Rest => break,
                    Step::MakeAuthority => held = Held { authority: Some(fresh), ..Held::default() },
                    Step::MakeServer => held.server = Some(server(now, now + 3_000)),
                    Step::MakeNext => (held.next, held.is_next_published) = (Some(fresh), true),
                    Step::Promote => {
                        held.previous = held.authority.take();
                        held.authority = held.next.take();
                        held.is_next_published = false;
                        held.server =
                            held.server.map(|server| ServerHeld { is_of_authority: false, ..server });
                    }
                    Step::DropPrevious => held.previous = None,
                }
                steps += 1;
                assert!(steps < 10, "no rest at {now}: {held:?}");
            }
            assert!(held.authority.is_some_and(|authority| now < authority.not_after), "{held:?} at {now}");
            assert!(held.server.is_some_and(|server| now < server.validity.not_after), "{held:?} at {now}");
        }
    }
}
