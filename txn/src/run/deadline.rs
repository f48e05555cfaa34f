//! Points in time that may be farther away than a clock can count.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

/// A time longer than any run, and short enough for every clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Gives the time `wait` after `start`; a wait without an end, such as [`Duration::MAX`], ends in some decades.
pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait.min(FAR)).unwrap_or(start)
}

/// The time was over before the work was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Late;

/// Does `work` unless the time of `clock` is over first. One clock serves all parts of an attempt, so that
/// the runtime's timers are touched once for all of them.
pub(crate) async fn run_until<F: Future>(
    mut clock: Pin<&mut Sleep>,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Late> {
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = work.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        // Work that always has something to do uses up the task's budget; the clock must count all the same.
        let mut clock = std::pin::pin!(unconstrained(clock.as_mut()));
        clock.as_mut().poll(context).map(|()| Err(Late))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::sleep_until;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_deadline_covers_all_parts_of_a_run() {
        let start = Instant::now();
        let mut clock = pin!(sleep_until(start + Duration::from_secs(3)));
        let nap = || tokio::time::sleep(Duration::from_secs(2));
        assert_eq!(run_until(clock.as_mut(), pin!(nap())).await, Ok(()));
        assert_eq!(run_until(clock.as_mut(), pin!(nap())).await, Err(Late));
        assert_eq!(start.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn work_that_is_always_ready_ends_at_the_deadline() {
        let mut clock = pin!(sleep_until(Instant::now() + Duration::from_millis(5)));
        let busy = async {
            loop {
                // Each of them takes from the budget of the task, so that in the end nothing else is polled.
                tokio::task::coop::consume_budget().await;
            }
        };
        assert_eq!(run_until(clock.as_mut(), pin!(busy)).await, Err(Late));
    }

    #[test]
    fn an_unlimited_wait_is_a_long_one() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(7)) - now, Duration::from_secs(7));
        assert_eq!(after(now, Duration::MAX) - now, FAR);
        assert_eq!(after(after(now, Duration::MAX), Duration::MAX) - now, 2 * FAR);
    }
}
