//! Tests of what the metrics show. The test of the logs is a program of its own, `observed.rs`: a subscriber of one thread
//! misses events that a thread without one met first.

mod durations;
mod gauges;
