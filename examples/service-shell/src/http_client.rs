//! The client services call each other with. Every call ends: connect and total time are bounded.

use std::time::Duration;

use crate::StartError;

/// The time limits of a call. After them the outcome is unknown, not failed.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimeouts {
    /// Until the connection stands; nothing was sent when this one ends.
    pub connect: Duration,
    /// The whole call, reading the answer included.
    pub total: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> HttpTimeouts {
        HttpTimeouts { connect: Duration::from_secs(2), total: Duration::from_secs(10) }
    }
}

/// A client that never retries, follows no redirect and uses no proxy: a call is sent once, to whom it names.
///
/// # Errors
/// [`StartError::Other`] when the client cannot be built.
pub fn http_client(timeouts: HttpTimeouts) -> Result<reqwest::Client, StartError> {
    reqwest::Client::builder()
        .connect_timeout(timeouts.connect)
        .timeout(timeouts.total)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .build()
        .map_err(|error| StartError::other("the HTTP client", error))
}
