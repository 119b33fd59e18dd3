//! Values that must not be seen.

use std::collections::BTreeMap;
use std::fmt;

use sentinel_protocol::request::RunRequest;
use sentinel_protocol::secret::{MAX_SECRET_VALUE, MAX_SECRET_VALUES, MAX_SECRETS_ENCODED, SecretKeyRef};
use zeroize::Zeroizing;

/// The value of one key of a Secret. It is erased when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes the bytes over, without a copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What is masked in output: the bytes without the end of a line that many Secrets end with.
    pub fn without_end_of_line(&self) -> &[u8] {
        let mut value = self.expose();
        while let [rest @ .., b'\r' | b'\n'] = value {
            value = rest;
        }
        value
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// The values that one request refers to, by Secret and key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretValues(BTreeMap<(String, String), SecretValue>);

impl fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValues({})", self.0.len())
    }
}

/// Why bytes are not [`SecretValues`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the values of secrets cannot be decoded: {0}")]
pub struct Malformed(&'static str);

impl SecretValues {
    /// Adds the value of a key.
    pub fn insert(&mut self, reference: &SecretKeyRef, value: SecretValue) {
        self.0.insert((reference.name.clone(), reference.key.clone()), value);
    }

    /// The value of a key.
    pub fn get(&self, reference: &SecretKeyRef) -> Option<&SecretValue> {
        self.0.get(&(reference.name.clone(), reference.key.clone()))
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &SecretValue> {
        self.0.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request can be run with these values.
    ///
    /// # Errors
    /// The first thing that is wrong, with the field, the Secret and the key, and never with a part of a value.
    pub fn check(&self, request: &RunRequest) -> Result<(), String> {
        for (field, reference) in request.secrets() {
            let Some(value) = self.get(reference) else {
                if reference.optional {
                    continue;
                }
                return Err(format!("{field}: no value of {reference} was sent"));
            };
            let len = value.expose().len();
            if len > MAX_SECRET_VALUE {
                return Err(format!(
                    "{field}: {reference} has {len} bytes; at most {MAX_SECRET_VALUE} are allowed"
                ));
            }
            let is_variable = request.stdin_from.as_ref() != Some(reference)
                || request.env.iter().any(|variable| variable.value_from.as_ref() == Some(reference));
            if is_variable {
                self.check_variable(&field, reference)?;
            }
        }
        let total: usize = self.values().map(|value| value.expose().len()).sum();
        if total > MAX_SECRET_VALUES {
            return Err(format!(
                "the Secrets of run.env and run.stdinFrom have {total} bytes together; at most {MAX_SECRET_VALUES} are allowed"
            ));
        }
        let encoded = self.encoded_len();
        if encoded > MAX_SECRETS_ENCODED {
            return Err(format!(
                "the Secrets of run.env and run.stdinFrom have {encoded} bytes together with their names; at most {MAX_SECRETS_ENCODED} \
                 are allowed"
            ));
        }
        Ok(())
    }

    /// The kernel ends the value of a variable at a NUL, and programs expect text.
    fn check_variable(&self, field: &str, reference: &SecretKeyRef) -> Result<(), String> {
        let bytes = self.get(reference).map_or(&[][..], SecretValue::expose);
        if bytes.contains(&0) {
            return Err(format!(
                "{field}: {reference} contains a zero byte, which a variable cannot; use run.stdinFrom"
            ));
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            return Err(format!(
                "{field}: {reference} is not valid UTF-8 at byte {}; use run.stdinFrom",
                error.valid_up_to()
            ));
        }
        Ok(())
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flat_map(|((name, key), value)| [name.as_bytes(), key.as_bytes(), value.expose()])
    }

    fn encoded_len(&self) -> usize {
        self.parts().map(|part| 4 + part.len()).sum()
    }

    /// As bytes, for the box and for the pipe to a supervisor.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Never grown: a move would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.encoded_len()));
        for part in self.parts() {
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// From [`SecretValues::encode`].
    ///
    /// # Errors
    /// [`Malformed`] when it is something else.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut values = Self::default();
        while !bytes.is_empty() {
            let name = text(take(&mut bytes)?)?;
            let key = text(take(&mut bytes)?)?;
            let value = SecretValue::new(take(&mut bytes)?.to_vec());
            values.0.insert((name, key), value);
        }
        Ok(values)
    }
}

fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let truncated = Malformed("they are truncated");
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| truncated.clone())?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or(truncated)?;
    *bytes = rest;
    Ok(part)
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(key: &str) -> SecretKeyRef {
        SecretKeyRef { name: "db".into(), key: key.into(), optional: false }
    }

    fn values(pairs: &[(&str, &[u8])]) -> SecretValues {
        let mut values = SecretValues::default();
        for (key, value) in pairs {
            values.insert(&reference(key), SecretValue::new(value.to_vec()));
        }
        values
    }

    #[test]
    fn only_the_end_of_a_line_is_not_masked() {
        for (value, masked) in [("abc  \r\n\n", "abc  "), ("\n", ""), ("a\nb", "a\nb")] {
            assert_eq!(SecretValue::new(value.into()).without_end_of_line(), masked.as_bytes());
        }
    }

    fn request(env: Option<SecretKeyRef>, stdin: Option<SecretKeyRef>) -> RunRequest {
        use sentinel_protocol::request::{EnvVar, Program};
        let variable = |value_from| EnvVar { name: "A".into(), value: String::new(), value_from };
        RunRequest {
            env: env.map(|reference| variable(Some(reference))).into_iter().collect(),
            stdin_from: stdin,
            ..RunRequest::new(Program::Command(vec!["true".into()]))
        }
    }

    #[test]
    fn values_are_not_printed() {
        let printed = format!("{:?} {:?}", values(&[("k", b"hunter2")]), SecretValue::new(b"hunter2".into()));
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn encoding_round_trips_and_truncated_bytes_are_refused() {
        let all = values(&[("empty", b""), ("k", b"a\0b\xff"), ("z", &[7; 1000])]);
        let bytes = all.encode();
        assert_eq!(SecretValues::decode(&bytes).unwrap(), all);
        for end in 1..bytes.len() {
            // A prefix that ends between two values is shorter, not wrong; the request is compared with what arrived.
            if let Ok(less) = SecretValues::decode(&bytes[..end]) {
                assert!(less != all, "{end}");
            }
        }
        assert!(SecretValues::decode(&[255; 20]).is_err());
    }

    #[test]
    fn what_a_request_cannot_be_run_with_is_named_without_the_value() {
        let wrong = |values: &SecretValues, request: &RunRequest| values.check(request).unwrap_err();
        let env = request(Some(reference("k")), None);
        let stdin = request(None, Some(reference("k")));
        assert_eq!(
            wrong(&SecretValues::default(), &env),
            "run.env variable A: no value of key \"k\" of Secret db was sent"
        );
        assert!(wrong(&values(&[("k", b"hun\0ter2")]), &env).contains("zero byte"));
        assert!(wrong(&values(&[("k", b"hunter2\xff")]), &env).contains("not valid UTF-8 at byte 7"));
        let large = vec![b'x'; MAX_SECRET_VALUE + 1];
        assert!(wrong(&values(&[("k", &large)]), &stdin).contains("65537 bytes; at most 65536"));
        assert_eq!(
            values(&[("k", b"hun\0ter2\xff")]).check(&stdin),
            Ok(()),
            "standard input takes any bytes"
        );
        let both = request(Some(reference("k")), Some(reference("k")));
        assert!(wrong(&values(&[("k", b"\0")]), &both).contains("zero byte"));
        let mut optional = reference("k");
        optional.optional = true;
        assert_eq!(SecretValues::default().check(&request(Some(optional), None)), Ok(()));
        let many: Vec<(String, Vec<u8>)> = (0..5).map(|n| (n.to_string(), large[1..].to_vec())).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(key, value)| (key.as_str(), &value[..])).collect();
        assert!(wrong(&values(&many), &request(None, None)).contains("327680 bytes together"));
        let mut wide = SecretValues::default();
        for number in 0..1000 {
            let (name, key) = ("n".repeat(253), format!("{number:0>253}"));
            wide.insert(&SecretKeyRef { name, key, optional: false }, SecretValue::new(vec![7]));
        }
        assert!(wrong(&wide, &request(None, None)).contains("bytes together with their names"));
    }
}
