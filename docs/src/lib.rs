//! The guide, as a crate: every Rust fence of the repository's Markdown is a test of this crate.
//!
//! Each page is a module whose documentation is the page. A page that is not listed here, and holds Rust, fails
//! `cargo xtask tidy`: prose that nobody compiles goes stale first.
#![forbid(unsafe_code)]

#[doc = include_str!("../../README.md")]
pub mod readme {}

#[doc = include_str!("../TOGETHER.md")]
pub mod together {}

#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}

#[doc = include_str!("../GLOSSARY.md")]
pub mod glossary {}

#[doc = include_str!("../GUARANTEES.md")]
pub mod guarantees {}

#[doc = include_str!("../BENCHMARKS.md")]
pub mod benchmarks {}
