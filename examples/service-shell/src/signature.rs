//! The signature by which a merchant proves that a request is theirs.
//!
//! `X-Signature` is the lower-case hex HMAC-SHA256, with the key's secret, over five lines joined by `\n`:
//! method, path and query, timestamp, nonce, and the hex SHA-256 of the body. Nothing about the request can
//! be changed without the secret, and the nonce makes each signature good for one use.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Problem;

/// Names the key; not a secret.
pub const API_KEY: &str = "x-api-key";
/// Unix seconds at signing.
pub const TIMESTAMP: &str = "x-timestamp";
/// Never used twice inside the window.
pub const NONCE: &str = "x-nonce";
/// The signature itself.
pub const SIGNATURE: &str = "x-signature";

/// The most by which the signer's clock and ours may differ, in seconds.
pub const WINDOW_SECONDS: u64 = 120;

/// The four headers of a signed request, as they were sent. Nothing is verified yet.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// `X-API-Key`.
    pub api_key: String,
    /// `X-Timestamp`, as text: it is signed as it was sent.
    pub timestamp: String,
    /// `X-Nonce`.
    pub nonce: String,
    /// `X-Signature`.
    pub signature: String,
}

impl SignedBy {
    /// Reads the headers.
    ///
    /// # Errors
    /// 401 without a reason when one is missing, repeated, empty, too long or not printable ASCII.
    pub fn from_headers(headers: &HeaderMap) -> Result<SignedBy, Problem> {
        let one = |name: &str| {
            let mut all = headers.get_all(name).iter();
            match (all.next().map(|value| value.to_str()), all.next()) {
                (Some(Ok(text)), None) if (1..=128).contains(&text.len()) => Ok(text.to_owned()),
                _ => Err(Problem::unauthenticated()),
            }
        };
        Ok(SignedBy {
            api_key: one(API_KEY)?,
            timestamp: one(TIMESTAMP)?,
            nonce: one(NONCE)?,
            signature: one(SIGNATURE)?,
        })
    }

    /// Signs a request: what a merchant's client, the demo and the tests do.
    ///
    /// # Examples
    /// ```
    /// use http::Method;
    /// use service_shell::signature::SignedBy;
    /// let signed = SignedBy::sign("pk_test_1", b"secret", &Method::GET, "/api/v1/payments?limit=5", 1_700_000_000, "n-1", b"");
    /// assert_eq!(signed.signature.len(), 64);
    /// ```
    #[must_use]
    pub fn sign(
        api_key: &str,
        secret: &[u8],
        method: &Method,
        path_and_query: &str,
        timestamp: i64,
        nonce: &str,
        body: &[u8],
    ) -> SignedBy {
        let timestamp = timestamp.to_string();
        let text = canonical(method.as_str(), path_and_query, &timestamp, nonce, &body_sha256(body));
        SignedBy {
            api_key: api_key.to_owned(),
            timestamp,
            nonce: nonce.to_owned(),
            signature: sign(secret, text.as_bytes()),
        }
    }

    /// The headers to send.
    #[must_use]
    pub fn headers(&self) -> [(&'static str, &str); 4] {
        [
            (API_KEY, &self.api_key),
            (TIMESTAMP, &self.timestamp),
            (NONCE, &self.nonce),
            (SIGNATURE, &self.signature),
        ]
    }
}

impl std::fmt::Debug for SignedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedBy").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

/// The text that is signed.
#[must_use]
pub fn canonical(
    method: &str,
    path_and_query: &str,
    timestamp: &str,
    nonce: &str,
    body_sha256: &str,
) -> String {
    [method, path_and_query, timestamp, nonce, body_sha256].join("\n")
}

/// Lower-case hex SHA-256 of a body.
#[must_use]
pub fn body_sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// Lower-case hex HMAC-SHA256: merchants' requests and channels' webhooks alike.
#[must_use]
pub fn sign(secret: &[u8], message: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

/// Compares a signature in constant time.
#[must_use]
pub fn verify(secret: &[u8], message: &[u8], signature: &str) -> bool {
    sign(secret, message).as_bytes().ct_eq(signature.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_plain_hmac_sha256() {
        // RFC 4231, test case 2.
        assert_eq!(
            sign(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn the_canonical_text_is_five_lines() {
        let text = canonical("POST", "/api/v1/payments", "1700000000", "n", &body_sha256(b""));
        assert_eq!(
            text,
            "POST\n/api/v1/payments\n1700000000\nn\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn any_other_signature_is_refused() {
        let good = sign(b"secret", b"text");
        assert!(verify(b"secret", b"text", &good));
        assert!(!verify(b"secret", b"text", &good.to_uppercase()));
        assert!(!verify(b"secret", b"text2", &good));
        assert!(!verify(b"other", b"text", &good));
        assert!(!verify(b"secret", b"text", ""));
    }

    #[test]
    fn a_missing_repeated_or_endless_header_is_the_same_refusal() {
        let full = || {
            let signed = SignedBy::sign("k", b"s", &Method::GET, "/", 1, "n", b"");
            let pairs = signed.headers().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            pairs.into_iter().collect::<HeaderMap>()
        };
        assert!(SignedBy::from_headers(&full()).is_ok());
        let mut missing = full();
        missing.remove(NONCE);
        let mut repeated = full();
        repeated.append(NONCE, "m".parse().unwrap());
        let mut endless = full();
        endless.insert(NONCE, "n".repeat(129).parse().unwrap());
        for headers in [missing, repeated, endless] {
            let problem = SignedBy::from_headers(&headers).expect_err("refused");
            assert_eq!(problem.detail(), "Authentication failed");
        }
    }
}
