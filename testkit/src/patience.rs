//! Waiting, with an end. The only place of this crate that looks at a clock or sleeps.

use std::sync::Once;
use std::time::{Duration, Instant};

/// The time that anything local may take on a crowded machine. Only a defect takes longer, so the test then fails.
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

/// The time that is left until `deadline`; zero when it has passed.
#[expect(clippy::disallowed_methods, reason = "other processes cannot be put on a test clock")]
pub(crate) fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[expect(clippy::disallowed_methods, reason = "this crate is synchronous: there is no executor to block")]
fn sleep(pause: Duration) {
    std::thread::sleep(pause);
}

/// Ends this test process, with a message, if it still runs in twenty minutes (`PROBITY_TEST_LIMIT_SECONDS` says
/// otherwise). A test that waits for what never happens would hold up everything behind it for ever, and nobody would
/// hear which one it was. Call it where tests set up what they wait for; only the first call counts.
///
/// # Panics
///
/// If `PROBITY_TEST_LIMIT_SECONDS` is not a number.
pub fn time_limit() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let seconds = match std::env::var("PROBITY_TEST_LIMIT_SECONDS") {
            Ok(text) => match text.parse() {
                Ok(seconds) => seconds,
                Err(_) => panic!("PROBITY_TEST_LIMIT_SECONDS is {text:?}, but must be a number"),
            },
            Err(_) => 20 * 60,
        };
        std::thread::spawn(move || give_up_after(Duration::from_secs(seconds)));
    });
}

#[expect(clippy::print_stderr, reason = "the last words of the process")]
fn give_up_after(limit: Duration) {
    sleep(limit);
    let running = running_tests().join(", ");
    eprintln!("\nthis test process did not end within {limit:?}, so a test hangs; still running: {running}");
    std::process::abort();
}

/// Threads have the names of their tests, as far as the system keeps them; a system without `/proc` does not tell.
fn running_tests() -> Vec<String> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).ok();
    let mut names: Vec<String> = threads.filter_map(name).map(|name| name.trim().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
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
