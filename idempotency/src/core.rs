//! The pure core: records and their state machine, names, fingerprints and recordings.
//!
//! Invariant: nothing here awaits, reads a clock or draws randomness. Times and tokens are arguments.

pub(crate) mod claim;
pub(crate) mod fence;
pub(crate) mod fingerprint;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod machine;
pub(crate) mod recording;
