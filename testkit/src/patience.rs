//! Waiting, with an end. The only place of this crate that looks at a clock or sleeps.

use std::time::{Duration, Instant};

/// How long anything local may take on a crowded machine. Only a defect takes longer, so the test then fails.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Asks `ready` until it gives something; `None` if it did not within `limit`.
pub(crate) fn wait_for<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = deadline(limit);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = ready() {
            return Some(found);
        }
        if time_left(deadline).is_zero() {
            return None;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The instant until which to wait.
#[expect(clippy::disallowed_methods, reason = "other processes cannot be put on a test clock")]
pub(crate) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}

/// What is left until `deadline`; zero when it has passed.
#[expect(clippy::disallowed_methods, reason = "other processes cannot be put on a test clock")]
pub(crate) fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[expect(clippy::disallowed_methods, reason = "this crate is synchronous: there is no executor to block")]
fn sleep(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_gives_what_was_found_and_asks_no_further() {
        let mut asked = 0;
        let found = wait_for(LIMIT, || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!((found, asked), (Some(3), 3));
    }

    #[test]
    fn waiting_for_nothing_ends() {
        assert_eq!(wait_for(Duration::ZERO, || None::<()>), None);
    }
}
