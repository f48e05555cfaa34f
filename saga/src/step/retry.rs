//! Failures without an effect, after which a step is tried again.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::StepError;

/// The longest pause that a provider can ask for: a header must not park a saga for a century.
const MOST_ASKED: Duration = crate::policy::FARTHEST;

/// A [`Retry`] says that an attempt certainly had no effect, why it failed, and when the next one makes sense.
///
/// [`StepError::retryable`] and [`StepError::unreachable`] make one.
pub struct Retry {
    reason: String,
    provider: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
    after: Option<Duration>,
}

impl Retry {
    /// The reason for which the attempt failed.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The name of the provider that could not be reached, if the attempt failed for that.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The pause that the other side asked for; see [`StepError::retry_after`].
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        self.after
    }

    /// The error that made the provider unreachable, if there was one.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

impl From<String> for Retry {
    fn from(reason: String) -> Self {
        Self { reason, provider: None, cause: None, after: None }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = &self.provider {
            write!(f, "waits for {provider}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StepError {
    /// The provider cannot be reached, and this attempt certainly had no effect: a refused connection, a name that does
    /// not resolve, an answer that says "not now" before anything was done.
    ///
    /// The step waits for the provider as long as [`StepPolicy::patience`](crate::StepPolicy::patience) says, up to an
    /// hour by default, instead of the few seconds of a [`StepError::retryable`]. The saga's row says for whom it
    /// waits. A request that was sent and not answered is [`StepError::Unknown`], not this.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use probity_saga::StepError;
    ///
    /// # fn connect() -> std::io::Result<()> { Ok(()) }
    /// # fn call() -> Result<(), StepError> {
    /// connect().map_err(|refused| StepError::unreachable("channel", refused))?;
    /// # Ok(()) }
    /// // The provider answered 503 with `Retry-After: 30`, and promises that such an answer has no effect.
    /// let busy = StepError::unreachable("channel", "it answered 503").retry_after(Duration::from_secs(30));
    /// # let _ = busy;
    /// ```
    #[must_use]
    pub fn unreachable(provider: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        let reason = whole(&*cause);
        Self::Retryable(Retry { reason, provider: Some(provider.into()), cause: Some(cause), after: None })
    }

    /// Asks for a pause of at least this length before the next attempt, an hour at most. It says nothing about other
    /// errors than [`StepError::Retryable`], and gives no attempt that the policy does not.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        if let Self::Retryable(retry) = &mut self {
            retry.after = Some(pause.min(MOST_ASKED));
        }
        self
    }
}

/// An error with everything that caused it: "connection refused" often stands last.
pub(crate) fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        // Many errors quote their cause themselves.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the channel cannot be reached")]
    struct NoRoute(#[source] std::io::Error);

    #[test]
    fn an_unreachable_provider_is_named_with_the_whole_cause() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = StepError::unreachable("channel", NoRoute(refused));
        let StepError::Retryable(retry) = &error else { panic!("{error}") };
        assert_eq!(retry.to_string(), "waits for channel: the channel cannot be reached: connection refused");
        assert_eq!((retry.provider(), retry.after()), (Some("channel"), None));
        assert!(retry.cause().is_some_and(|cause| cause.is::<NoRoute>()));
    }

    #[test]
    fn retry_after_is_kept_up_to_an_hour_and_only_before_another_try() {
        let asked = |error: StepError| match error.retry_after(Duration::MAX) {
            StepError::Retryable(retry) => retry.after(),
            _ => None,
        };
        assert_eq!(asked(StepError::retryable("busy")), Some(MOST_ASKED));
        assert_eq!(asked(StepError::unreachable("bank", "busy")), Some(MOST_ASKED));
        assert_eq!(asked(StepError::rejected("no")), None);
    }
}
