//! Decodes enums that are tagged within their object. serde's own decoding copies the whole object first, because the tag
//! may come last; every release writes it first, and then nothing is copied.
//!
//! A known field that is present twice is an error, as I-JSON requires (RFC 7493, section 2.3): two readers could take different ones.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use crate::unique::Unique;

/// An enum whose variant a field of its object names.
pub(crate) trait Tagged: Sized {
    /// The field.
    const TAG: &'static str;
    /// The names of its variants.
    const VARIANTS: &'static [&'static str];

    /// The variant at this place in [`Tagged::VARIANTS`], from the other fields.
    ///
    /// # Errors
    /// They are not those of the variant.
    fn variant<'de, D: Deserializer<'de>>(place: usize, fields: D) -> Result<Self, D::Error>;
}

/// Decodes it.
///
/// # Errors
/// It is not an object, has no tag or an unknown one, or the other fields are not those of its variant.
pub(crate) fn deserialize<'de, T: Tagged, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(Object(PhantomData))
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Tagged> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the field `{}`", T::TAG)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        match map.next_key_seed(Key(T::TAG))? {
            None => Err(Error::missing_field(T::TAG)),
            Some(None) => {
                let place = map.next_value_seed(Place(T::VARIANTS))?;
                T::variant(place, MapAccessDeserializer::new(Rest { map, tag: T::TAG }))
            }
            Some(Some(first)) => {
                let mut place = None;
                let mut fields = Map::new();
                fields.insert(first, map.next_value_seed(Unique)?);
                while let Some(key) = map.next_key_seed(Key(T::TAG))? {
                    let is_repeated = match key {
                        None => place.replace(map.next_value_seed(Place(T::VARIANTS))?).is_some(),
                        Some(key) if fields.contains_key(&key) => return Err(repeated(&key)),
                        Some(key) => fields.insert(key, map.next_value_seed(Unique)?).is_some(),
                    };
                    if is_repeated {
                        return Err(repeated(T::TAG));
                    }
                }
                let place = place.ok_or_else(|| Error::missing_field(T::TAG))?;
                T::variant(place, Value::Object(fields)).map_err(Error::custom)
            }
        }
    }
}

/// The fields after the tag. A second tag is an error here; another known field that is present twice is one in the variant.
struct Rest<A> {
    map: A,
    tag: &'static str,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.map.next_key_seed(NotTag { inner: seed, tag: self.tag })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.size_hint()
    }
}

/// A key that is not the tag: as a seed, its deserializer, and the visitor of its text.
struct NotTag<T> {
    inner: T,
    tag: &'static str,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for NotTag<K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        self.inner.deserialize(NotTag { inner: deserializer, tag: self.tag })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for NotTag<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(NotTag { inner: visitor, tag: self.tag })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for NotTag<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<V::Value, E> {
        if key == self.tag { Err(repeated(key)) } else { self.inner.visit_str(key) }
    }
}

fn repeated<E: Error>(name: &str) -> E {
    E::custom(format_args!("duplicate field `{name}`"))
}

/// A key: `None` for the tag.
struct Key(&'static str);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<String>, E> {
        Ok((key != self.0).then(|| key.to_owned()))
    }
}

/// The place of a variant among these.
struct Place(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Place {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Place {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a variant")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        let place = self.0.iter().position(|known| *known == name);
        place.ok_or_else(|| Error::unknown_variant(name, self.0))
    }
}

/// Implements `Deserialize` for an enum that is tagged within its object, whose variants have one value, or none.
macro_rules! tagged {
    ($name:ident by $tag:literal: $($variant:ident$(($of:ty))?),+ $(,)?) => {
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::tagged::deserialize(deserializer)
            }
        }

        impl $crate::tagged::Tagged for $name {
            const TAG: &'static str = $tag;
            const VARIANTS: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn variant<'de, D>(place: usize, fields: D) -> Result<Self, D::Error>
            where
                D: ::serde::Deserializer<'de>,
            {
                let name = Self::VARIANTS.get(place).copied().unwrap_or_default();
                $(
                    if name == stringify!($variant) {
                        return $crate::tagged::tagged!(@variant $name, $variant, fields $(, $of)?);
                    }
                )+
                Err(::serde::de::Error::unknown_variant(name, Self::VARIANTS))
            }
        }
    };
    (@variant $name:ident, $variant:ident, $fields:ident, $of:ty) => {
        <$of as ::serde::Deserialize>::deserialize($fields).map($name::$variant)
    };
    (@variant $name:ident, $variant:ident, $fields:ident) => {
        <::serde::de::IgnoredAny as ::serde::Deserialize>::deserialize($fields).map(|_| $name::$variant)
    };
}
pub(crate) use tagged;

#[cfg(test)]
mod tests {
    use crate::codec::decode_text;
    use crate::to_agent::ToAgent;
    use crate::to_operator::{ReportedState, ToOperator};

    fn ended(first: &str, last: &str) -> String {
        let hash = "a".repeat(64);
        format!(
            r#"{{{first}"attempt":"u/1/n/1","specHash":"{hash}","state":{{{first_state}"outcome":"Failed","exitCode":3,
               "startedAt":5,"endedAt":7,"later":[1,{{"x":null}}]{last_state}}},"later":1.5{last}}}"#,
            first_state = if first.is_empty() { "" } else { r#""stage":"Ended","# },
            last_state = if first.is_empty() { r#","stage":"Ended""# } else { "" },
        )
    }

    #[test]
    fn the_place_of_the_tag_does_not_matter() {
        let first: ToOperator = decode_text(&ended(r#""kind":"Report","#, "")).unwrap();
        let last: ToOperator = decode_text(&ended("", r#","kind":"Report""#)).unwrap();
        assert_eq!(first, last);
        let ToOperator::Report(report) = first else { panic!("not a Report") };
        let ReportedState::Ended(ended) = &report.state else { panic!("not ended") };
        assert_eq!((ended.exit_code(), ended.ended_at.0), (Some(3), 7));
        assert_eq!(decode_text(r#"{"x":{},"stage":"Accepted","y":[]}"#), Ok(ReportedState::Accepted));
    }

    /// Before, the first of two tags counted, and where the tag came last, the last of two other fields: a message that other readers
    /// take for a `Forget` could start a command.
    #[test]
    fn a_message_with_a_name_twice_is_refused_wherever_it_is() {
        for text in [
            r#"{"stage":"Accepted","stage":"Ended","x":1}"#,
            r#"{"stage":"Accepted","x":1,"stage":"Accepted"}"#,
            r#"{"x":1,"stage":"Accepted","stage":"Ended"}"#,
        ] {
            let error = decode_text::<ReportedState>(text).unwrap_err().to_string();
            assert!(error.contains("duplicate field `stage`"), "{text}: {error}");
        }
        let twice = |first: &str, last: &str| {
            format!(r#"{{{first}"attempt":"u/1/n/1","stage":"Ended","attempt":"u/1/n/2"{last}}}"#)
        };
        for text in [twice(r#""kind":"Ack","#, ""), twice("", r#","kind":"Ack""#)] {
            let error = decode_text::<ToAgent>(&text).unwrap_err().to_string();
            assert!(error.contains("duplicate field `attempt`"), "{text}: {error}");
        }
        let within = |first: &str, last: &str| {
            let task = r#""task":{"namespace":"ops","name":"a","name":"b"}"#;
            format!("{{{first}{task}{last}}}")
        };
        for text in [within(r#""kind":"Start","#, ""), within("", r#","kind":"Start""#)] {
            let error = decode_text::<ToAgent>(&text).unwrap_err().to_string();
            assert!(error.contains("duplicate field `name`"), "{text}: {error}");
        }
    }

    #[test]
    fn a_malformed_message_is_refused_with_what_is_wrong() {
        let error = |text: &str| decode_text::<ToAgent>(text).unwrap_err().to_string();
        for (text, expected) in [
            ("{}", "missing field `kind`"),
            (r#"{"attempt":"u/1/n/1"}"#, "missing field `kind`"),
            (r#"{"kind":"Stop"}"#, "unknown variant `Stop`"),
            (r#"{"kind":7}"#, "the name of a variant"),
            (r#"{"kind":"Ack","attempt":"u/1/n/1"}"#, "missing field `stage`"),
            ("[]", "an object with the field `kind`"),
            (r#""Ack""#, "an object with the field `kind`"),
        ] {
            assert!(error(text).contains(expected), "{text}: {}", error(text));
        }
    }
}
