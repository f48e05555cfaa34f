//! The way between the steps of a saga and the fakes that they call, which can be cut.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The way from your steps to your fakes. Each fake asks [`arrive`](Calls::arrive) at the begin of each call, and the
/// explorer refuses some.
///
/// # Examples
///
/// ```
/// use probity_saga::testing::{Calls, Refused};
///
/// struct Channel(Calls);
///
/// impl Channel {
///     /// As the client of the real one: an error of its own, which says that nothing was sent.
///     fn charge(&self, key: &str) -> Result<String, Refused> {
///         self.0.arrive("channel charge")?;
///         Ok(format!("charge for {key}"))
///     }
/// }
/// # assert!(Channel(Calls::default()).charge("k").is_ok());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<Way>>);

#[derive(Debug, Default)]
struct Way {
    passed: Vec<&'static str>,
    refusal: Option<Refusal>,
    /// The name of the calls that do not arrive from now on.
    away: Option<&'static str>,
}

/// The call that does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This one, and those after it arrive.
    Once(usize),
    /// This one and all of its name, until the saga came to rest.
    Lasting(usize),
}

/// A call that did not arrive: a refused connection. It had no effect.
///
/// It is an error, so `?` in a step makes it unknown. Turn it into what the client of the real peer would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection was refused ({0})")]
pub struct Refused(&'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once(call) => write!(f, "call {} of the fakes is refused", call + 1),
            Self::Lasting(call) => {
                write!(f, "call {} of the fakes is refused, and so is each of its name after it", call + 1)
            }
        }
    }
}

impl Calls {
    /// Decides whether a call of this name arrives. Ask before anything else happens in the fake.
    ///
    /// # Errors
    /// [`Refused`] if the call does not arrive.
    pub fn arrive(&self, name: &'static str) -> Result<(), Refused> {
        let mut way = self.lock();
        let call = way.passed.len();
        way.passed.push(name);
        let refused = match way.refusal {
            Some(Refusal::Once(refused)) => call == refused,
            Some(Refusal::Lasting(refused)) => {
                if call == refused {
                    way.away = Some(name);
                }
                way.away == Some(name)
            }
            None => false,
        };
        if refused { Err(Refused(name)) } else { Ok(()) }
    }

    pub(super) fn refusing(refusal: Option<Refusal>) -> Self {
        Self(Arc::new(Mutex::new(Way { refusal, ..Way::default() })))
    }

    /// From now on every call arrives.
    pub(super) fn mended(&self) {
        let mut way = self.lock();
        (way.refusal, way.away) = (None, None);
    }

    /// Counts the calls, also those that did not arrive.
    pub(super) fn count(&self) -> usize {
        self.lock().passed.len()
    }

    fn lock(&self) -> MutexGuard<'_, Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
