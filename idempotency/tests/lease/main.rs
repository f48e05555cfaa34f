//! The lease of running work, the hook that recovers a lost attempt, and the metrics of both.

mod guard;
mod metrics;
mod recover;
