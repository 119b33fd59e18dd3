//! A page of a list.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// The `page` parameter of the next request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why items that exist may be missing; absent when none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

impl<T> List<T> {
    /// A complete list.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None, partial: None }
    }
}

/// Why an answer is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Partial {
    /// For people.
    pub message: String,
}

impl Partial {
    /// With this sentence.
    pub fn of(message: String) -> Self {
        Self { message }
    }
}
