//! The admission webhook: the API server sends every creation and change of a Task here before it is stored, and the answer
//! stamps who asked ([`crate::resource::stamp`]). It refuses nothing.
//!
//! * [`review`]: the question and its answer, which are pure;
//! * [`service`]: over HTTP;
//! * [`keys`]: the keys by which operators sign, in a Secret that all replicas share, and the path of the webhook.
//!
//! Every replica answers, the leader or not: what it takes is the keys.
//!
//! An answer from here is a signature. The API server shows a webhook no credentials, unless its administrator
//! configures them; so the path ends in a text that follows from the key. The operator writes it into the
//! `MutatingWebhookConfiguration`, which only administrators read.

pub mod keys;
pub mod review;
pub mod service;
