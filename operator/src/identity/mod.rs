//! Who a client is, and what it may do: asked of the API server, never decided here.
//!
//! A [`Principal`] comes from one of three places: a bearer token that the API server has reviewed ([`token_review`]), the
//! headers of its front proxy on the aggregated API's listener, or those of a trusted proxy ([`proxy`]); the latter two count
//! only on a connection whose certificate proves the proxy. What a person may is asked by `SubjectAccessReview`
//! ([`access_review`]). Agents are reviewed by the same code with other rules (`gateway::TokenRules`).
//!
//! In reading order: `credentials` → `error` → `principal` → [`rates`], [`token_review`], [`access_review`], [`proxy`], [`front_proxy`] →
//! [`people`].

pub mod access_review;
pub mod credentials;
mod error;
pub mod front_proxy;
pub mod local;
pub mod people;
mod principal;
pub mod proxy;
pub mod rates;
pub mod token_review;

pub use self::error::AuthError;
pub use self::principal::Principal;
