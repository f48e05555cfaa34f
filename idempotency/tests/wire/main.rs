//! Golden files of everything that this crate stores or sends. Each is written by this build and compared byte for
//! byte, and each is read by this build as if an older one had stored it.
#![cfg(all(
    feature = "testing",
    feature = "axum",
    feature = "sqlite",
    feature = "postgres",
    feature = "redis"
))]
#![cfg_attr(
    all(feature = "testing", feature = "axum", feature = "sqlite", feature = "postgres", feature = "redis"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

mod ids;
mod payments;
mod problems;
mod redis_records;
mod sql_rows;

/// The path of a golden file.
macro_rules! v1 {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/v1/", $name)
    };
}
use v1;

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
