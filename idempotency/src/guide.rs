//! The guide: chapters that compile.

#[doc = include_str!("../docs/keys.md")]
pub mod keys {}

#[cfg(feature = "axum")]
#[doc = include_str!("../docs/axum.md")]
pub mod axum {}

#[cfg(feature = "tower")]
#[doc = include_str!("../docs/wire.md")]
pub mod wire {}

#[cfg(feature = "tower")]
#[doc = include_str!("../docs/problems.md")]
pub mod problems {}

#[cfg(feature = "redis")]
#[doc = include_str!("../docs/redis.md")]
pub mod redis {}
