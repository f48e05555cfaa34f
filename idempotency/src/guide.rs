//! The guide: chapters whose code is compiled and run with the tests.

#[doc = include_str!("../docs/keys.md")]
pub mod keys {}

#[doc = include_str!("../docs/effects.md")]
pub mod effects {}

#[doc = include_str!("../docs/sql.md")]
pub mod sql {}

#[doc = include_str!("../docs/jobs.md")]
pub mod jobs {}

#[doc = include_str!("../docs/your-own-store.md")]
pub mod your_own_store {}

#[doc = include_str!("../docs/pitfalls.md")]
pub mod pitfalls {}

#[doc = include_str!("../docs/operating.md")]
pub mod operating {}

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
