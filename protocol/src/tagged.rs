//! Decodes enums that are tagged within their object. serde's own decoding copies the whole object first, because the tag
//! may come last; every release writes it first, and then nothing is copied.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

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
                T::variant(place, MapAccessDeserializer::new(map))
            }
            Some(Some(first)) => {
                let mut place = None;
                let mut fields = Map::new();
                fields.insert(first, map.next_value()?);
                while let Some(key) = map.next_key_seed(Key(T::TAG))? {
                    match key {
                        // The first one counts, as above.
                        None => {
                            let this = map.next_value_seed(Place(T::VARIANTS))?;
                            place.get_or_insert(this);
                        }
                        Some(key) => drop(fields.insert(key, map.next_value()?)),
                    }
                }
                let place = place.ok_or_else(|| Error::missing_field(T::TAG))?;
                T::variant(place, Value::Object(fields)).map_err(Error::custom)
            }
        }
    }
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

    /// A message means the same whatever the order of its fields.
    #[test]
    fn the_first_of_two_tags_counts() {
        for text in
            [r#"{"stage":"Accepted","stage":"Ended","x":1}"#, r#"{"x":1,"stage":"Accepted","stage":"Ended"}"#]
        {
            assert_eq!(decode_text(text), Ok(ReportedState::Accepted), "{text}");
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
