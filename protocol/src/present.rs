//! Fields of documents that people write and may leave out: `null` is not the same as leaving one out.

use std::fmt;
use std::marker::PhantomData;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The error of a field without a value.
pub const NO_VALUE: &str = "the field has no value; write one, or leave the field out";

/// Reads a field that may be left out. `null` is an error: what was meant to restrict something must not be left out by accident, as by a
/// comment or by a value that a template has not filled in.
///
/// # Errors
/// Those of the value, and for `null`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    struct Visitor<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Err(E::custom(NO_VALUE))
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Err(E::custom(NO_VALUE))
        }
        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            T::deserialize(deserializer).map(Some)
        }
    }
    deserializer.deserialize_option(Visitor(PhantomData))
}
