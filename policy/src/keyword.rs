//! Fields that are a keyword or something longer, and fields that may be left out.

pub(crate) use sentinel_protocol::present::present;

/// Implements `Deserialize` for a type that is written as one of some words, or as a map or a list that becomes its variant.
macro_rules! keyword_or {
    ($type:ident: $($word:literal => $value:expr),+; $visit:ident as $inner:ty => $variant:expr; $expected:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        match text {
                            $($word => Ok($value),)+
                            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                        }
                    }
                    $crate::keyword::visit!($visit, $type, $inner, $variant);
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

/// The visit of the longer form.
macro_rules! visit {
    (map, $type:ident, $inner:ty, $variant:expr) => {
        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$type, A::Error> {
            let inner: $inner =
                serde::Deserialize::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
            Ok($variant(inner))
        }
    };
    (list, $type:ident, $inner:ty, $variant:expr) => {
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<$type, A::Error> {
            let inner: $inner =
                serde::Deserialize::deserialize(serde::de::value::SeqAccessDeserializer::new(list))?;
            Ok($variant(inner))
        }
    };
}

pub(crate) use {keyword_or, visit};
