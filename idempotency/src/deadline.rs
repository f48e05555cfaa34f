//! Ends of waiting, for limits that may be "never".

use std::time::Duration;

use tokio::time::Instant;

/// The span that stands for "never" where a point in time is needed; it is longer than any process lives.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// `limit` after `start`, or never if that is beyond what the clock can say.
pub(crate) fn deadline(start: Instant, limit: Duration) -> Instant {
    start.checked_add(limit).unwrap_or(start + NEVER)
}
