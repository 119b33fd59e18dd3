//! What the Secret has: the authorities, the certificate of the listeners, and their keys.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;

use super::issue::{self, IssueError, Issued, describe, is_signed_by};
use super::plan::{Held, ServerHeld, Step};
use crate::expiry::{self, Seconds, Validity};

/// What the Secret has. Every part may be missing, or unusable: then it is made anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    authority: Option<Issued>,
    next: Option<Issued>,
    previous: Option<String>,
    server: Option<Issued>,
}

/// Names and lifetimes of what is made.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// DNS names of the certificate.
    pub names: &'a [String],
    /// How long the certificate is valid.
    pub lifetime: Duration,
    /// How long an authority is valid.
    pub authority_lifetime: Duration,
}

impl Contents {
    /// Reads the data of the Secret.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key: &str| {
            let bytes = data.get(key)?;
            let text = String::from_utf8(bytes.0.clone()).ok()?;
            (!text.trim().is_empty()).then_some(text)
        };
        let pair = |certificate: &str, key: &str| {
            Some(Issued { certificate: text(certificate)?, key: text(key)? })
                .filter(|pair| describe(&pair.certificate).is_some())
        };
        Self {
            authority: pair("ca.crt", "ca.key"),
            next: pair("ca-next.crt", "ca-next.key"),
            previous: text("ca-previous.crt").filter(|previous| describe(previous).is_some()),
            server: pair("tls.crt", "tls.key"),
        }
    }

    /// The data of the Secret; keys that are not ours stay.
    pub fn write(&self, data: &mut BTreeMap<String, ByteString>) {
        let mut put = |key: &str, text: Option<&String>| match text {
            Some(text) => {
                data.insert(key.to_owned(), ByteString(text.clone().into_bytes()));
            }
            None => {
                data.remove(key);
            }
        };
        for (pair, certificate, key) in [
            (&self.authority, "ca.crt", "ca.key"),
            (&self.next, "ca-next.crt", "ca-next.key"),
            (&self.server, "tls.crt", "tls.key"),
        ] {
            put(certificate, pair.as_ref().map(|pair| &pair.certificate));
            put(key, pair.as_ref().map(|pair| &pair.key));
        }
        put("ca-previous.crt", self.previous.as_ref());
    }

    /// Every authority that a client must trust, PEM.
    pub fn bundle(&self) -> String {
        let of = |pair: &Option<Issued>| pair.as_ref().map(|pair| pair.certificate.clone());
        let all = [of(&self.authority), of(&self.next), self.previous.clone()];
        let lines = all.iter().flatten().flat_map(|pem| [pem.trim_end(), "\n"]);
        lines.collect()
    }

    /// The certificate of the listeners.
    pub fn server(&self) -> Option<&Issued> {
        self.server.as_ref()
    }

    /// When the certificate of the listeners is valid, and when the authority that signed it.
    pub fn validity(&self) -> [Option<Validity>; 2] {
        [&self.server, &self.authority].map(|pair| expiry::of_chain(pair.as_ref()?.certificate.as_bytes()))
    }

    /// What there is, for the plan; `published` is the bundle that clients read now.
    pub fn held(&self, wanted: Wanted<'_>, published: &str) -> Held {
        let validity = |pem: &str| describe(pem).map(|described| described.validity);
        let of = |pair: &Option<Issued>| pair.as_ref().and_then(|pair| validity(&pair.certificate));
        let next = self.next.as_ref().map(|next| next.certificate.trim());
        Held {
            authority: of(&self.authority),
            next: of(&self.next),
            previous: self.previous.as_deref().and_then(validity),
            server: self.server_held(wanted),
            is_next_published: next.is_some_and(|next| published.contains(next)),
        }
    }

    fn server_held(&self, wanted: Wanted<'_>) -> Option<ServerHeld> {
        let server = self.server.as_ref()?;
        let described = describe(&server.certificate)?;
        let names = issue::canonical(wanted.names);
        let authority = self.authority.as_ref();
        Some(ServerHeld {
            validity: described.validity,
            is_as_wanted: described.names == names,
            is_of_authority: authority
                .is_some_and(|authority| is_signed_by(&server.certificate, &authority.certificate)),
        })
    }

    /// After a step.
    ///
    /// # Errors
    /// [`IssueError`] when a certificate cannot be made.
    pub fn after(mut self, step: Step, wanted: Wanted<'_>, now: Seconds) -> Result<Self, IssueError> {
        match step {
            Step::Rest => {}
            Step::MakeAuthority => {
                self = Self {
                    authority: Some(issue::authority(now, wanted.authority_lifetime)?),
                    ..Self::default()
                };
            }
            Step::MakeServer => {
                if let Some(authority) = &self.authority {
                    let names = issue::canonical(wanted.names);
                    self.server = Some(issue::server(&names, now, wanted.lifetime, authority)?);
                }
            }
            Step::MakeNext => self.next = Some(issue::authority(now, wanted.authority_lifetime)?),
            Step::Promote => {
                if let Some(next) = self.next.take() {
                    self.previous = self.authority.replace(next).map(|old| old.certificate);
                }
            }
            Step::DropPrevious => self.previous = None,
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;

    const NOW: Seconds = 1_800_000_000;
    const DAY: Duration = Duration::from_hours(24);

    fn wanted(names: &[String]) -> Wanted<'_> {
        Wanted { names, lifetime: 9 * DAY, authority_lifetime: 30 * DAY }
    }

    /// Steps until rest; what is published is always the bundle of before.
    fn rested(mut contents: Contents, names: &[String], now: Seconds, published: &str) -> Contents {
        for _ in 0..10 {
            let held = contents.held(wanted(names), published);
            match plan::next(&held, now, Duration::from_hours(1)) {
                Step::Rest => return contents,
                step => contents = contents.after(step, wanted(names), now).unwrap(),
            }
        }
        panic!("it does not come to rest");
    }

    #[test]
    fn what_is_made_is_read_again() {
        let names = ["a.ns.svc".to_owned()];
        let made = rested(Contents::default(), &names, NOW, "");
        let mut data = BTreeMap::from([("other".to_owned(), ByteString(b"stays".to_vec()))]);
        made.write(&mut data);
        assert_eq!(Contents::read(&data), made);
        assert!(data.contains_key("other") && data.contains_key("tls.key"));
        assert_eq!(rested(made.clone(), &names, NOW, &made.bundle()), made, "nothing more is to be done");
        let broken = BTreeMap::from([("ca.crt".to_owned(), ByteString(b"x".to_vec()))]);
        assert_eq!(Contents::read(&broken), Contents::default());
    }

    #[test]
    fn other_names_make_another_certificate_of_the_same_authority() {
        let (one, two) = (["a.ns.svc".to_owned()], ["a.ns.svc".to_owned(), "b.ns.svc".to_owned()]);
        let before = rested(Contents::default(), &one, NOW, "");
        let after = rested(before.clone(), &two, NOW, &before.bundle());
        assert_ne!(before.server, after.server);
        assert_eq!(before.bundle(), after.bundle());
    }

    #[test]
    fn at_no_time_is_a_server_presented_that_the_bundle_of_before_does_not_trust() {
        let names = ["a.ns.svc".to_owned()];
        let mut contents = rested(Contents::default(), &names, NOW, "");
        let mut published = contents.bundle();
        let (mut authorities, mut servers) = (1, 1);
        for hour in 0..24 * 70 {
            let now = NOW + hour * 3_600;
            let after = rested(contents.clone(), &names, now, &published);
            if after.server != contents.server {
                servers += 1;
                let server = &after.server().unwrap().certificate;
                let is_trusted = published
                    .split_inclusive("-----END CERTIFICATE-----\n")
                    .any(|authority| is_signed_by(server, authority));
                assert!(is_trusted, "at hour {hour} clients do not trust the new certificate");
            }
            authorities += usize::from(after.authority != contents.authority);
            contents = after;
            published = contents.bundle();
        }
        assert!(authorities >= 3 && servers >= 10, "{authorities} authorities, {servers} certificates");
    }
}
