//! Points in time that may be farther away than a clock can count.

use std::time::Duration;

use tokio::time::Instant;

/// As far away as no run lasts, and near enough for every clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// `wait` after `start`; a wait without an end, such as [`Duration::MAX`], ends in some decades.
pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait.min(FAR)).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_without_an_end_is_a_long_one() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(7)) - now, Duration::from_secs(7));
        assert_eq!(after(now, Duration::MAX) - now, FAR);
        assert_eq!(after(after(now, Duration::MAX), Duration::MAX) - now, 2 * FAR);
    }
}
