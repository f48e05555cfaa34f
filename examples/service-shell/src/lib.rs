//! The shell that every example service wears, so that a service's own files hold nothing but its business.
//!
//! Reading order: [`run`] is the life of a process; [`Settings`] is everything the environment may say;
//! [`database`] decides, in one type alias, which database a build serves; [`shell()`] is what stands between
//! the network and a handler (body limit, panics, problems, metrics, health).
//!
//! Invariant: whatever leaves a service as a 4xx or 5xx is `application/problem+json` with a `detail` that
//! says what to fix (see [`Problem`]).

#![forbid(unsafe_code)]

mod boundary;
mod clock;
pub mod database;
mod drain;
mod environment;
mod health;
mod http_client;
mod id;
mod json;
mod merchant_header;
mod metrics;
mod money;
mod openapi;
mod operators;
mod page;
mod peer;
mod problem;
mod process;
mod public_number;
mod purging;
mod records;
mod saga_steps;
mod schema;
mod server;
mod service_token;
mod settings;
pub mod signature;
mod sql_words;
mod start_error;
mod telemetry;
mod text_enum;
mod trace;
mod tx_error;
mod webhook_signature;

pub use boundary::{BODY_LIMIT, shell};
pub use clock::Clock;
pub use database::{Database, POSTGRES, Pool};
pub use drain::Drain;
pub use health::Health;
pub use http_client::{HttpTimeouts, http_client};
pub use id::Id;
pub use json::Json;
pub use merchant_header::{MERCHANT_HEADER, MODE_HEADER, MerchantId, Mode, World};
pub use money::{Currency, Money, MoneyError};
pub use openapi::{Credential, Guarded, api};
pub use operators::{Operator, Operators, Role};
pub use page::Page;
pub use peer::{CallError, Peer, Reply};
pub use problem::{PROBLEM_JSON, PROBLEM_TYPES, Problem};
pub use process::{run, run_with};
pub use public_number::{public_number, random_text};
pub use purging::Purging;
pub use records::{REDIS, Records};
pub use saga_steps::{only_effect, step_policy};
pub use schema::Schema;
pub use server::{bind, serve, shutdown_signal};
pub use service_token::ServiceToken;
pub use settings::{DatabaseChoice, Peers, Settings, in_flight, milliseconds, token};
pub use start_error::StartError;
pub use telemetry::{Telemetry, TelemetrySettings};
pub use text_enum::UnknownWord;
#[doc(hidden)]
pub use text_enum::words_schema;
pub use trace::{traced, traced_sagas};
pub use tx_error::TxError;
#[doc(hidden)]
pub use utoipa;
pub use webhook_signature::{sign_webhook, verify_webhook};
