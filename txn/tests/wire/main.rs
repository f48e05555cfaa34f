//! Golden files of everything that this crate stores or sends. Each is written by this build and compared byte for
//! byte, and each is read by this build as if an older one had stored it.
#![cfg(all(feature = "sqlite", feature = "postgres"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod locks;
mod tokens;

/// The path of a golden file.
macro_rules! v1 {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/v1/", $name)
    };
}
use v1;
