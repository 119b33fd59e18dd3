//! The box: HPKE (RFC 9180) in its base mode, with X25519, HKDF-SHA-256 and ChaCha20-Poly1305.
//!
//! An agent makes a key pair for each Session, in memory only, so that a box that was recorded cannot be opened after the Session. A
//! box is for one Attempt: in another one, of another spec or in another Session, it cannot be opened.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use sentinel_protocol::ids::SessionId;
use sentinel_protocol::secret::{Sealed, SealingKey};
use sentinel_protocol::to_agent::Start;
use zeroize::Zeroizing;

use crate::values::SecretValues;

/// Keeps a box from being taken for one of another purpose.
const INFO: &[u8] = b"sentinelnode.dev secrets of a Start, 1";

/// Length of the encapsulated key, bytes.
const ENCAPSULATED: usize = 32;

/// The key pair of one Session. The private key is erased when it is dropped.
pub struct SessionKeys {
    private: <X25519HkdfSha256 as Kem>::PrivateKey,
    public: SealingKey,
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeys({})", self.public)
    }
}

/// Why a box was not sealed.
#[derive(Debug, thiserror::Error)]
#[error("failed to seal the values of secrets for the node's agent: its key is invalid")]
pub struct NotSealed;

/// Why a box was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It is for another Session or Attempt, or was changed.
    #[error("the sealed values of its secrets are not for this Session and Attempt")]
    Foreign,
    /// It does not have the form of a box.
    #[error("the sealed values of its secrets are malformed")]
    Malformed,
}

impl SessionKeys {
    /// A new key pair.
    ///
    /// # Panics
    /// When the kernel has no randomness, which it always has.
    pub fn generate() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&public.to_bytes());
        Self { private, public: SealingKey(bytes) }
    }

    /// The key to seal to.
    pub fn public(&self) -> SealingKey {
        self.public
    }

    /// Opens the box of a `Start`.
    ///
    /// # Errors
    /// [`NotOpened`] when it is not one for this Session and Attempt.
    pub fn open(
        &self,
        session: &SessionId,
        start: &Start,
        sealed: &Sealed,
    ) -> Result<SecretValues, NotOpened> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| NotOpened::Malformed)?;
        let (encapsulated, ciphertext) = bytes.split_at_checked(ENCAPSULATED).ok_or(NotOpened::Malformed)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)
            .map_err(|_| NotOpened::Malformed)?;
        let plain = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private,
            &encapsulated,
            INFO,
            ciphertext,
            &bound_to(session, start),
        );
        let plain = Zeroizing::new(plain.map_err(|_| NotOpened::Foreign)?);
        SecretValues::decode(&plain).map_err(|_| NotOpened::Malformed)
    }
}

/// Whether values can be sealed to this key. Not to one of low order: anyone could open the box.
///
/// Source: RFC 9180, 7.1.4.
pub fn is_usable(key: &SealingKey) -> bool {
    <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&key.0)
        .is_ok_and(|key| X25519HkdfSha256::encap(&key, None).is_ok())
}

/// Seals the values of a `Start` for one Session.
///
/// # Errors
/// [`NotSealed`] when the key is not one.
pub fn seal(
    key: &SealingKey,
    session: &SessionId,
    start: &Start,
    values: &SecretValues,
) -> Result<Sealed, NotSealed> {
    let key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&key.0).map_err(|_| NotSealed)?;
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &key,
            INFO,
            &values.encode(),
            &bound_to(session, start),
        )
        .map_err(|_| NotSealed)?;
    let bytes = [&encapsulated.to_bytes()[..], &ciphertext].concat();
    Ok(Sealed(STANDARD.encode(bytes)))
}

/// What a box is bound to: the Session, the Attempt and its spec.
fn bound_to(session: &SessionId, start: &Start) -> Vec<u8> {
    [session.as_str(), &start.attempt.to_string(), start.spec_hash.as_str()].join("\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::values::SecretValue;
    use sentinel_protocol::secret::{MAX_SEALED, MAX_SECRET_VALUE, MAX_SECRETS_ENCODED, SecretKeyRef};

    use super::*;

    fn start() -> Start {
        serde_json::from_value(serde_json::json!({
            "attempt": "u/1/n/1", "specHash": "0".repeat(64), "epoch": 1,
            "task": {"namespace": "ops", "name": "t"},
            "request": {"program": {"command": ["true"]}, "workingDir": "/", "umask": 18,
                "environment": "Container", "successExitCodes": [0],
                "output": {"limit": 1, "spool": 1, "maxBlockMs": 1}},
            "deadlines": {"startMs": 1, "graceMs": 1}, "credit": 0
        }))
        .unwrap()
    }

    fn values(value: &[u8], count: usize) -> SecretValues {
        let mut values = SecretValues::default();
        for number in 0..count {
            let reference =
                SecretKeyRef { name: "n".repeat(253), key: format!("{number:0>253}"), optional: false };
            values.insert(&reference, SecretValue::new(value.to_vec()));
        }
        values
    }

    #[test]
    fn nothing_is_sealed_to_a_key_of_low_order() {
        assert!(is_usable(&SessionKeys::generate().public()));
        let mut one = [0; 32];
        one[0] = 1;
        for key in [SealingKey([0; 32]), SealingKey(one)] {
            assert!(!is_usable(&key));
            let session = SessionId::new("s").unwrap();
            assert!(seal(&key, &session, &start(), &values(b"hunter2", 1)).is_err());
        }
    }

    #[test]
    fn a_box_opens_for_its_session_attempt_and_spec_alone() {
        let (keys, others) = (SessionKeys::generate(), SessionKeys::generate());
        let (session, other) = (SessionId::new("s1").unwrap(), SessionId::new("s2").unwrap());
        let (start, secret) = (start(), values(b"hunter2", 1));
        let sealed = seal(&keys.public(), &session, &start, &secret).unwrap();
        assert_eq!(keys.open(&session, &start, &sealed), Ok(secret));
        assert_eq!(keys.open(&other, &start, &sealed), Err(NotOpened::Foreign));
        assert_eq!(others.open(&session, &start, &sealed), Err(NotOpened::Foreign));
        let mut second = start.clone();
        second.attempt.attempt = 2;
        assert_eq!(keys.open(&session, &second, &sealed), Err(NotOpened::Foreign));
        let mut changed = start.clone();
        changed.spec_hash = sentinel_protocol::ids::SpecHash::new("1".repeat(64)).unwrap();
        assert_eq!(keys.open(&session, &changed, &sealed), Err(NotOpened::Foreign));
        for at in [0, 40, sealed.0.len() - 8] {
            let mut text = sealed.0.clone().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            let broken = Sealed(String::from_utf8(text).unwrap());
            assert!(keys.open(&session, &start, &broken).is_err(), "byte {at}");
        }
        for bad in ["", "AAAA", "not base64"] {
            assert_eq!(
                keys.open(&session, &start, &Sealed(bad.into())),
                Err(NotOpened::Malformed),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn two_boxes_of_the_same_values_differ_and_show_nothing() {
        let keys = SessionKeys::generate();
        let session = SessionId::new("s1").unwrap();
        let seal = || seal(&keys.public(), &session, &start(), &values(b"hunter2", 1)).unwrap();
        let (one, two) = (seal(), seal());
        assert_ne!(one, two);
        let bytes = STANDARD.decode(one.0).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn the_largest_box_fits_into_what_a_frame_keeps_free_for_it() {
        let keys = SessionKeys::generate();
        let session = SessionId::new("s1").unwrap();
        // Few large values, and many names.
        let all = [values(&vec![7; MAX_SECRET_VALUE], 4), values(&[7; 600], MAX_SECRETS_ENCODED / 1118)];
        for largest in all {
            assert_eq!(largest.check(&start().request), Ok(()));
            let sealed = seal(&keys.public(), &session, &start(), &largest).unwrap();
            assert!(sealed.0.len() < MAX_SEALED, "{}", sealed.0.len());
        }
    }
}
