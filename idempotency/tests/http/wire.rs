//! The layer on a bare hyper server, on a real socket, spoken to in raw bytes. The answers are those of the table in
//! `docs/wire.md`.
#![cfg(all(feature = "testing", feature = "tower"))]
#![cfg_attr(
    all(feature = "testing", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

mod bodies;
mod client;
mod grpc;
mod handlers;
mod keys;
mod server;
