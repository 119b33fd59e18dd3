//! GitOps tools and Tasks, on a real API server with a real operator and agents: kstatus, `kubectl wait`, Helm, Argo CD and
//! Flux, each by its own code (`tests/parts/gitops`), conclude the same; and none finds drift.
//!
//! The tests run one after the other, since a test removes the nodes of the one before from the one cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

mod argo_sync;
mod chart;
mod documents;
mod drift;
mod fixtures;
mod flux;
mod helm;
mod kit;
mod states;
