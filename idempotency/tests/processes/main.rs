//! Processes that are killed or stopped at random moments. This binary starts itself as those processes.

mod kill;
mod paused;
