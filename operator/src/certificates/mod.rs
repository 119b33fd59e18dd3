//! Certificates that the operator makes itself: an authority and one certificate for all of its listeners, kept in a Secret,
//! published for those who must trust them, and renewed in time.
//!
//! What is to be done follows from what the Secret has ([`plan`], which is pure); [`issue`] makes keys and certificates,
//! [`secret`] is what the Secret has, and [`keeper`] does it. Every replica keeps them: the Secret decides, by its
//! `resourceVersion`, whose write counts.
//!
//! With a certificate that is provided, by cert-manager or in an existing Secret, only its authority is published ([`publisher`]);
//! `webhook` is one of the places.
//!
//! A new authority is published before anything is signed by it, and the old one stays published until it has expired, so
//! that at no time a client trusts less than what a server presents.

pub mod issue;
pub mod keeper;
pub mod plan;
pub mod publisher;
pub mod secret;
mod webhook;
