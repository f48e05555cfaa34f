//! The signature of a message that one side sends to the other unasked: a channel's webhooks to the gateway, and the
//! gateway's notifications to merchants.
//!
//! `X-Webhook-Signature` is the lower-case hex HMAC-SHA256, with the shared secret, over the timestamp, a line feed and the
//! body. A receiver refuses a timestamp that is too far away from its own clock.

use http::{HeaderMap, HeaderName};

use crate::Problem;
use crate::signature::{sign, verify};

/// Unix seconds at signing.
const TIMESTAMP: HeaderName = HeaderName::from_static("x-webhook-timestamp");
/// The signature itself.
const SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");

/// The most by which the sender's clock and ours may differ, in seconds.
const WINDOW_SECONDS: u64 = 300;

/// Signs a message; answers the headers to send with it.
///
/// # Examples
/// ```
/// use service_shell::{sign_webhook, verify_webhook};
/// let headers = sign_webhook(b"secret", 1_700_000_000, b"{}").into_iter().map(|(name, value)| {
///     (name, value.parse().expect("hex and digits"))
/// });
/// let headers = http::HeaderMap::from_iter(headers);
/// assert!(verify_webhook(b"secret", &headers, 1_700_000_060, b"{}").is_ok());
/// assert!(verify_webhook(b"secret", &headers, 1_700_000_060, b"{ }").is_err());
/// ```
#[must_use]
pub fn sign_webhook(secret: &[u8], now: i64, body: &[u8]) -> [(HeaderName, String); 2] {
    let timestamp = now.to_string();
    let signature = sign(secret, &message(&timestamp, body));
    [(TIMESTAMP, timestamp), (SIGNATURE, signature)]
}

/// Checks the signature of a message that arrived at `now`, in Unix seconds.
///
/// # Errors
/// 401 without a reason.
pub fn verify_webhook(secret: &[u8], headers: &HeaderMap, now: i64, body: &[u8]) -> Result<(), Problem> {
    let one = |name: HeaderName| {
        let mut all = headers.get_all(name).iter();
        match (all.next().map(|value| value.to_str()), all.next()) {
            (Some(Ok(text)), None) => Ok(text),
            _ => Err(Problem::unauthenticated()),
        }
    };
    let (timestamp, signature) = (one(TIMESTAMP)?, one(SIGNATURE)?);
    let sent: i64 = timestamp.parse().map_err(|_| Problem::unauthenticated())?;
    if now.abs_diff(sent) <= WINDOW_SECONDS && verify(secret, &message(timestamp, body), signature) {
        Ok(())
    } else {
        Err(Problem::unauthenticated())
    }
}

fn message(timestamp: &str, body: &[u8]) -> Vec<u8> {
    [timestamp.as_bytes(), b"\n", body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_secret_body_or_time_and_a_missing_or_repeated_header_are_refused() {
        let now = 1_700_000_000;
        let headers = |secret: &[u8]| {
            let signed = sign_webhook(secret, now, b"{}");
            HeaderMap::from_iter(signed.map(|(name, value)| (name, value.parse().unwrap())))
        };
        let checked =
            |headers: &HeaderMap, at: i64, body: &[u8]| verify_webhook(b"secret", headers, at, body).is_ok();
        let good = headers(b"secret");
        assert!(
            checked(&good, now, b"{}")
                && checked(&good, now - 300, b"{}")
                && checked(&good, now + 300, b"{}")
        );
        assert!(!checked(&good, now + 301, b"{}") && !checked(&good, now - 301, b"{}"));
        assert!(!checked(&good, now, b"{} ") && !checked(&headers(b"other"), now, b"{}"));
        let mut later = good.clone();
        later.insert(TIMESTAMP, "1700000001".parse().unwrap());
        let mut repeated = good.clone();
        repeated.append(SIGNATURE, good[SIGNATURE].clone());
        let mut missing = good.clone();
        missing.remove(TIMESTAMP);
        for wrong in [later, repeated, missing] {
            assert!(!checked(&wrong, now, b"{}"));
        }
    }
}
