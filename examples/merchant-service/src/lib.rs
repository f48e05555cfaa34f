//! merchant-service: who may call the platform.
//!
//! A merchant is created together with one test and one production API key, in one transaction, and keeps at
//! least one active key of each mode. Secrets are shown once and stored sealed. Other services ask
//! `POST /internal/v1/authenticate` whether a request was signed by a merchant.
//!
//! Reading order: `domain.rs` (rules), `store.rs` (SQL), `authenticate.rs` (the decision), `app.rs` (routes).

#![forbid(unsafe_code)]

mod app;
mod authenticate;
mod caller;
mod domain;
mod sealing;
mod start;
mod store;

pub use app::{AppState, routes};
pub use authenticate::{AuthenticateRequest, Authenticated, Authenticator};
pub use domain::{ApiKey, IssuedKey, KeyStatus, Merchant, MerchantStatus, Mode, NewMerchant};
pub use sealing::Own;
pub use start::start;
