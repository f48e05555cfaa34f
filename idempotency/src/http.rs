//! The tower layer: any `Service<http::Request<B>>` becomes safe to retry.
//!
//! The checks, in order, and what the client is told. Every refusal is `application/problem+json` with a stable `type`:
//!
//! | what | status | `type` ends with | the client should |
//! |---|---|---|---|
//! | no `Idempotency-Key` where one is required | 400 | `#key-missing` | send one key per intended effect |
//! | two keys, parameters, more than 255 bytes, not visible ASCII | 400 | `#key-malformed` | send one bare or quoted key |
//! | the scope function refused | its own | `#refused` | as it says |
//! | the body is larger than the cap | 413 | `#body-too-large` | send less; nothing was claimed |
//! | the body broke off, or lied about its length | 400 | `#body-incomplete` | send it again, with the same key |
//! | the store cannot be asked | 503, `Retry-After` | `#store-unavailable` | try again with the same key; nothing ran |
//! | the key was used for another request | 422 | `#mismatch` | use a new key, or the old request |
//! | the first request is still running | 409, `Retry-After` | `#in-flight` | try again with the same key |
//! | it ran, and the answer was not kept | 409 | `#not-replayable` | look the result up (`Location`, `original-status`) |
//! | it may have run, and nobody knows | 409 | `#outcome-unknown` | ask a person; do not use a new key |
//!
//! Otherwise the answer is the handler's own, with `Idempotency-Status: created`, or the recorded one, with
//! `Idempotent-Replayed: true`, `Idempotency-Status: replayed` and `Cache-Control: no-store`.
//!
//! Put the layer inside authentication and rate limits (their 401 and 429 must not stick), inside compression (the
//! recording must fit every client), and outside of nothing that changes the body.

mod body;
mod config;
#[cfg(feature = "axum")]
mod extract;
mod layer;
mod problem;
mod record;
mod request;
mod run;

pub use body::ReplayBody;
pub use config::Refusal;
pub use layer::{IdempotencyLayer, IdempotencyService, Scoped, Unscoped};
pub use record::Verdict;
pub use run::Tasks;
