//! The delays of the slow and of the silent test methods.

use std::time::Duration;

use service_shell::{Settings, StartError};

/// The delays of the test methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// `CHANNEL_SLOW_MS`: how long after its arrival a `card_slow` demand takes effect; 1500 unless told.
    pub slow: Duration,
    /// `CHANNEL_HANG_MS`: how long `card_hangs` and `card_never_arrives` keep silent; 120000 unless told,
    /// longer than the callers' own time limits.
    pub hang: Duration,
}

impl Delays {
    /// Reads the two variables.
    ///
    /// # Errors
    /// [`StartError::Setting`] when one of them is not a number of milliseconds.
    pub fn from_settings(settings: &Settings) -> Result<Delays, StartError> {
        // No delay is a delay.
        let milliseconds = |name, default| settings.number(name, 0, default).map(Duration::from_millis);
        Ok(Delays {
            slow: milliseconds("CHANNEL_SLOW_MS", 1_500)?,
            hang: milliseconds("CHANNEL_HANG_MS", 120_000)?,
        })
    }
}
