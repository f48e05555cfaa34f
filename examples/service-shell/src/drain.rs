//! The work that a service still has to do after it stopped listening.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

const STEP_TIMEOUT: Duration = Duration::from_secs(30);

type Step = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Steps to run, in order, between the last response and the end of the process.
#[derive(Default)]
#[must_use = "run it after the server stopped"]
pub struct Drain(Vec<(&'static str, Step)>);

impl Drain {
    /// Makes a drain that has no work.
    pub fn nothing() -> Drain {
        Drain::default()
    }

    /// Then do this.
    pub fn then<F, A>(mut self, name: &'static str, step: F) -> Drain
    where
        F: FnOnce() -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        self.0.push((name, Box::new(move || Box::pin(step()))));
        self
    }

    /// Closes the pool last: it waits for connections still in use.
    pub fn close(self, pool: &crate::Pool) -> Drain {
        let pool = pool.clone();
        self.then("database", move || async move { pool.close().await })
    }

    /// Runs every step, each for at most 30 s: what is interrupted then is what a crash would interrupt.
    ///
    /// # Cancel safety
    /// Dropping the future skips the remaining steps; durable state is what a crash leaves, which the next
    /// start resumes from.
    pub async fn run(self) {
        for (name, step) in self.0 {
            if timeout(STEP_TIMEOUT, step()).await.is_err() {
                tracing::warn!(step = name, "did not drain in time");
            }
        }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
