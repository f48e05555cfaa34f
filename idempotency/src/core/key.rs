//! The names that a caller gives: an idempotency key, inside a scope that the server derives.
//!
//! Invariant: a value of these types has been validated, so nothing behind it (a SQL row, a Redis key, a log line)
//! ever sees an unbounded or unprintable name. `Debug` prints lengths only: a key can give access to a recording.

use std::fmt;

use thiserror::Error;

/// The key a client chose for one intended effect: 1 to 255 visible ASCII characters.
///
/// ```
/// use probity_idempotency::IdempotencyKey;
/// let key = IdempotencyKey::new("0192f1c8-7c1e-7b0a-9c43-0b7d1f6f9a21")?;
/// assert_eq!(key.as_str().len(), 36);
/// assert!(IdempotencyKey::new("").is_err());
/// # Ok::<(), probity_idempotency::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// The length of the longest key that is accepted, in bytes.
    pub const LENGTH_MAX: usize = 255;

    /// Takes the key itself, without any header syntax around it.
    ///
    /// # Errors
    /// [`KeyError`] says which rule was broken.
    pub fn new(key: impl Into<String>) -> Result<Self, KeyError> {
        let key = key.into();
        check_length(key.len(), Self::LENGTH_MAX)?;
        if key.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(key.into_boxed_str()))
        } else {
            Err(KeyError::NotVisibleAscii)
        }
    }

    /// Reads the value of an `Idempotency-Key` header: `"k"` (a structured-field string) and `k` are the same key.
    ///
    /// A bare value may not contain quotes, backslashes, commas or semicolons: a comma is two keys folded into one
    /// line, a semicolon starts a parameter, and guessing at either could merge or split payments.
    ///
    /// # Errors
    /// [`KeyError`] says which rule was broken.
    ///
    /// ```
    /// use probity_idempotency::IdempotencyKey;
    /// assert_eq!(IdempotencyKey::from_header(b"\"k-1\"")?, IdempotencyKey::from_header(b"k-1")?);
    /// # Ok::<(), probity_idempotency::KeyError>(())
    /// ```
    pub fn from_header(value: &[u8]) -> Result<Self, KeyError> {
        let value = value.trim_ascii();
        match value.strip_prefix(b"\"") {
            Some(rest) => Self::new(unquote(rest)?),
            None if value.iter().any(|byte| b"\"\\,;".contains(byte)) => Err(KeyError::Malformed),
            None => Self::new(std::str::from_utf8(value).map_err(|_| KeyError::NotVisibleAscii)?),
        }
    }

    /// The key as the client meant it. Do not log it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({} bytes)", self.0.len())
    }
}

/// Whose keys these are: derived by the server from the authenticated caller, never read from the request body.
///
/// The same key in two scopes is two keys (I-8).
///
/// ```
/// use probity_idempotency::Scope;
/// let scope = Scope::new("merchant:M-1")?;
/// # Ok::<(), probity_idempotency::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scope(Box<str>);

impl Scope {
    /// The length of the longest scope that is accepted, in bytes.
    pub const LENGTH_MAX: usize = 255;

    /// Takes any non-empty text up to 255 bytes; it is hashed, so it needs no escaping.
    ///
    /// # Errors
    /// [`KeyError::Empty`] or [`KeyError::TooLong`].
    pub fn new(scope: impl Into<String>) -> Result<Self, KeyError> {
        let scope = scope.into();
        check_length(scope.len(), Self::LENGTH_MAX)?;
        Ok(Self(scope.into_boxed_str()))
    }

    /// The one scope of a service that has a single tenant.
    #[must_use]
    pub fn single_tenant() -> Self {
        Self("single-tenant".into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} bytes)", self.0.len())
    }
}

/// The reason why a key or a scope is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is nothing in it.
    #[error("it is empty; send 1 to 255 characters")]
    Empty,
    /// It is longer than the limit.
    #[error("it is {0} bytes long; send at most 255")]
    TooLong(usize),
    /// It contains spaces, control characters or something that is not ASCII.
    #[error("it contains a character that is not visible ASCII; a UUID is a good key")]
    NotVisibleAscii,
    /// It is not one bare token or one quoted string.
    #[error("it is not one bare token or one quoted string; send a single key without parameters")]
    Malformed,
}

fn check_length(length: usize, limit: usize) -> Result<(), KeyError> {
    match length {
        0 => Err(KeyError::Empty),
        length if length > limit => Err(KeyError::TooLong(length)),
        _ => Ok(()),
    }
}

/// Reads the rest of a structured-field string, after its opening quote.
fn unquote(rest: &[u8]) -> Result<String, KeyError> {
    let mut key = String::with_capacity(rest.len());
    let mut bytes = rest.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if bytes.len() == 0 => return Ok(key),
            b'"' => return Err(KeyError::Malformed),
            b'\\' => match bytes.next() {
                Some(escaped @ (b'"' | b'\\')) => key.push(char::from(escaped)),
                _ => return Err(KeyError::Malformed),
            },
            byte if byte.is_ascii() => key.push(char::from(byte)),
            _ => return Err(KeyError::NotVisibleAscii),
        }
    }
    Err(KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_and_a_bare_key_are_one_key() {
        assert_eq!(IdempotencyKey::from_header(b"\"a-1\""), IdempotencyKey::from_header(b" a-1 "));
        let escaped = IdempotencyKey::from_header(b"\"a\\\"b\\\\c\"").expect("escapes are legal");
        assert_eq!(escaped.as_str(), "a\"b\\c");
    }

    #[test]
    fn every_malformed_header_is_refused_with_its_reason() {
        let long = "k".repeat(256);
        let cases: [(&[u8], KeyError); 12] = [
            (b"", KeyError::Empty),
            (b"\"\"", KeyError::Empty),
            (long.as_bytes(), KeyError::TooLong(256)),
            (b"a b", KeyError::NotVisibleAscii),
            (b"a\x07b", KeyError::NotVisibleAscii),
            ("schl\u{fc}ssel".as_bytes(), KeyError::NotVisibleAscii),
            (b"\xff", KeyError::NotVisibleAscii),
            (b"a,b", KeyError::Malformed),
            (b"\"a\", \"b\"", KeyError::Malformed),
            (b"\"a\";ttl=5", KeyError::Malformed),
            (b"a;ttl=5", KeyError::Malformed),
            (b"\"a", KeyError::Malformed),
        ];
        for (header, reason) in cases {
            assert_eq!(IdempotencyKey::from_header(header), Err(reason), "{header:?}");
        }
        assert!(IdempotencyKey::from_header("k".repeat(255).as_bytes()).is_ok());
    }

    #[test]
    fn debug_shows_neither_key_nor_scope() {
        let key = IdempotencyKey::new("secret-key").expect("valid");
        let scope = Scope::new("merchant:secret").expect("valid");
        assert!(!format!("{key:?} {scope:?}").contains("secret"));
    }
}
