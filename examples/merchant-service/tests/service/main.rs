//! merchant-service over real HTTP; `platform.rs` decides on which database.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod authentication;
mod command_line;
mod keys;
mod merchants;
mod platform;
