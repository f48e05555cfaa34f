//! Tests of what the logs and the metrics show.

mod durations;
mod gauges;
mod observed;
