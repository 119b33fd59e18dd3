//! References to keys of Secrets, and the sealed box in which their values travel. No value itself has a type here.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Largest value of one key, bytes.
pub const MAX_SECRET_VALUE: usize = 64 << 10;

/// Most bytes of all values of one `Start`.
pub const MAX_SECRET_VALUES: usize = 256 << 10;

/// Most bytes of all values of one `Start` with their names, as they are sealed.
pub const MAX_SECRETS_ENCODED: usize = 288 << 10;

/// Most bytes that the box of a `Start` adds to its frame: the values, their names and what the encoding adds.
pub const MAX_SEALED: usize = 400 << 10;

/// Values with fewer bytes are not masked in output: they would hide other text.
pub const MIN_MASKED: usize = 6;

/// The variable that no Secret may set: where programs are searched for is in messages.
pub const PUBLIC_VARIABLE: &str = "PATH";

/// A key of a Secret in the namespace of the Task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
    /// Whether the command also runs without it: the variable is not set then, and standard input is empty.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl fmt::Display for SecretKeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?} of Secret {}", self.key, self.name)
    }
}

/// The public key of an agent's Session (X25519), to which the values of its `Start`s are sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealingKey(pub [u8; 32]);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({self})")
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for SealingKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SealingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl de::Visitor<'_> for Hex {
            type Value = SealingKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 hexadecimal digits")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SealingKey, E> {
                let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
                let mut key = [0; 32];
                let pairs = text.as_bytes().as_chunks::<2>();
                if text.len() != 64 {
                    return Err(E::invalid_length(text.len(), &self));
                }
                for (byte, [high, low]) in key.iter_mut().zip(pairs.0) {
                    let wrong = || E::custom("a sealing key has a character that is not a hexadecimal digit");
                    *byte = digit(*high).ok_or_else(wrong)? << 4 | digit(*low).ok_or_else(wrong)?;
                }
                Ok(SealingKey(key))
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

/// A sealed box, as text: only the agent that has the Session's private key can open it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealing_key_is_64_hexadecimal_digits() {
        let key = SealingKey(std::array::from_fn(|at| at as u8 * 7));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<SealingKey>(&json).unwrap(), key);
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"ä".repeat(32)] {
            assert!(serde_json::from_value::<SealingKey>(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_box_is_not_printed() {
        assert_eq!(format!("{:?}", Sealed("c2VjcmV0".into())), "Sealed(8 bytes)");
    }
}
