//! The guide: chapters whose code is compiled and run with the tests. The first saga is on the front page.

#[doc = include_str!("../docs/01-unknown-outcomes.md")]
pub mod unknown_outcomes {}

#[doc = include_str!("../docs/02-undo.md")]
pub mod undo {}

#[doc = include_str!("../docs/06-payloads.md")]
pub mod payloads {}

#[doc = include_str!("../docs/07-local-steps.md")]
pub mod local_steps {}

#[doc = include_str!("../docs/08-outages.md")]
pub mod outages {}

#[doc = include_str!("../docs/03-testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/04-operating.md")]
pub mod operating {}

#[doc = include_str!("../docs/05-your-own-store.md")]
pub mod your_own_store {}
