//! The bearer secret that services of one platform share.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

use crate::Problem;

/// A shared bearer secret. Compared in constant time, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceToken(Arc<str>);

impl ServiceToken {
    /// A token with this text.
    #[must_use]
    pub fn new(text: &str) -> ServiceToken {
        ServiceToken(Arc::from(text))
    }

    /// The token of services that run with no configuration and listen on loopback only, by the name of the
    /// variable that replaces it. It is no secret: `Settings` refuses it on any other address.
    #[must_use]
    pub fn for_this_machine(variable: &str) -> ServiceToken {
        ServiceToken(format!("loopback-only-{}", variable.to_lowercase()).into())
    }

    /// Checks `Authorization: Bearer …`.
    ///
    /// # Errors
    /// 401 without a reason.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let sent = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.strip_prefix("Bearer "))
            .unwrap_or_default();
        if sent.as_bytes().ct_eq(self.0.as_bytes()).into() { Ok(()) } else { Err(Problem::unauthenticated()) }
    }

    /// The text, for a client's `bearer_auth`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The header value to send.
    ///
    /// # Errors
    /// When the token holds characters a header cannot carry.
    pub fn header(&self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_bearer_passes() {
        let token = ServiceToken::new("0123456789abcdef");
        let with = |text: &str| HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
        assert!(token.check(&with("Bearer 0123456789abcdef")).is_ok());
        for text in ["Bearer 0123456789abcdeF", "0123456789abcdef", "Bearer ", "Basic 0123456789abcdef"] {
            assert!(token.check(&with(text)).is_err(), "{text}");
        }
        assert!(token.check(&HeaderMap::new()).is_err());
    }
}
