//! The clock by which a service lets things expire: the database's, moved by nothing but a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The distance of a service's time from the database's. It is zero, except in tests that do not want to wait.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Moves the time forward by whole seconds; every copy of the clock moves with it.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let clock = service_shell::Clock::default();
    /// assert_eq!(clock.seconds_since(Duration::from_secs(1800)), 1800);
    /// clock.advance(Duration::from_secs(3600));
    /// assert_eq!(clock.seconds_since(Duration::from_secs(1800)), -1800);
    /// ```
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The number of seconds before the database's now at which something began that has lasted for `age`.
    #[must_use]
    pub fn seconds_since(&self, age: Duration) -> i64 {
        i64::try_from(age.as_secs()).unwrap_or(i64::MAX).saturating_sub(self.0.load(Ordering::Relaxed))
    }
}
