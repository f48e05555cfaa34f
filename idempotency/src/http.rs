//! The tower layer: any `Service<http::Request<B>>` becomes safe to retry.
//!
//! What the wire says is in `docs/wire.md`; start reading at `layer.rs`, then `run.rs`.

mod body;
mod config;
#[cfg(feature = "axum")]
mod extract;
mod layer;
mod outliving;
mod problem;
mod record;
mod request;
mod run;
mod trailers;
mod wait;

pub use body::ReplayBody;
pub use config::Refusal;
pub use layer::{IdempotencyLayer, IdempotencyService, Scoped, Unscoped};
pub use record::Verdict;
pub use run::Tasks;
