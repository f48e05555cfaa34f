//! Names derived by hashing: the record of a (scope, key), and the keys handed to systems downstream.
//!
//! Invariant: every part that is hashed is preceded by its length, so no two different lists of parts share an input.

use std::fmt;
use std::ops::Deref;

use bytes::BufMut;

use crate::core::fence::Fence;
use crate::core::key::{IdempotencyKey, Scope};

/// Parts that fit into this many bytes are hashed at once.
const SMALL: usize = 1024;

/// The key of every hash this crate makes. All processes that share a store must share it.
///
/// The default is a published constant: fine when the store is as private as the requests themselves. With
/// [`HashKey::secret`], a reader of the store cannot test guesses (card numbers, amounts) against the
/// fingerprints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// Keys all hashes with 32 secret bytes. Changing it later makes every earlier key unknown.
    #[must_use]
    pub const fn secret(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// A keyed hash over length-prefixed `parts`, for one `purpose`.
    pub(crate) fn hash(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let all = || std::iter::once(purpose.as_bytes()).chain(parts.iter().copied());
        // Most requests are small, and one block is hashed in a third of the time of many pieces.
        let mut block = [0; SMALL];
        let length: usize = all().map(|part| 8 + part.len()).sum();
        if let Some(mut rest) = block.get_mut(..length) {
            for part in all() {
                rest.put_u64_le(part.len() as u64);
                rest.put_slice(part);
            }
            return *blake3::keyed_hash(&self.0, &block[..length]).as_bytes();
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in all() {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

impl Default for HashKey {
    fn default() -> Self {
        Self(*b"probity-idempotency hash key v1\0")
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

/// The name of one record: a keyed hash of scope and key (I-8). Stable across attempts and processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId([u8; 32]);

impl RecordId {
    /// The record of `key` in `scope`.
    ///
    /// ```
    /// use probity_idempotency::{HashKey, IdempotencyKey, Scope, store::RecordId};
    /// let (hash, key) = (HashKey::default(), IdempotencyKey::new("k")?);
    /// let of = |scope: &str| Ok::<_, probity_idempotency::KeyError>(RecordId::derive(&hash, &Scope::new(scope)?, &key));
    /// assert_eq!(of("merchant:1")?, of("merchant:1")?);
    /// assert_ne!(of("merchant:1")?, of("merchant:2")?);
    /// # Ok::<(), probity_idempotency::KeyError>(())
    /// ```
    #[must_use]
    pub fn derive(hash: &HashKey, scope: &Scope, key: &IdempotencyKey) -> Self {
        Self(hash.hash("record", &[scope.as_bytes(), key.as_str().as_bytes()]))
    }

    /// Rebuilds an id that was read from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The id as stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id as 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        (*self.hex()).to_owned()
    }

    /// The same, not on the heap.
    pub(crate) fn hex(&self) -> impl Deref<Target = str> {
        blake3::Hash::from_bytes(self.0).to_hex()
    }

    /// The idempotency key to send to the system `step` names: 40 characters, the same for every attempt.
    ///
    /// It is derived one way, so that system learns neither our client's key nor the other steps' keys.
    #[must_use]
    pub fn downstream_key(&self, step: &str) -> String {
        let hash = HashKey::default().hash("downstream", &[&self.0, step.as_bytes()]);
        blake3::Hash::from_bytes(hash).to_hex().as_str().chars().take(40).collect()
    }

    /// The record that is held by the caller who asks what became of the attempt with this fence.
    pub(crate) fn inquiry(&self, lost: Fence) -> Self {
        Self(HashKey::default().hash("inquiry", &[&self.0, &lost.0.to_le_bytes()]))
    }
}

impl fmt::Debug for RecordId {
    /// Only a prefix: enough to correlate log lines, too little to name a record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.to_hex();
        write!(f, "RecordId({}..)", hex.get(..8).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The stored hash must not depend on the way in which it was computed.
        #[test]
        fn a_hash_is_that_of_the_length_prefixed_parts(
            secret: [u8; 32],
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..4),
        ) {
            let mut whole = Vec::new();
            for part in std::iter::once(&b"p"[..]).chain(parts.iter().map(Vec::as_slice)) {
                whole.extend_from_slice(&(part.len() as u64).to_le_bytes());
                whole.extend_from_slice(part);
            }
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(HashKey::secret(secret).hash("p", &parts), *blake3::keyed_hash(&secret, &whole).as_bytes());
        }
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let hash = HashKey::default();
        assert_ne!(hash.hash("p", &[b"ab", b"c"]), hash.hash("p", &[b"a", b"bc"]));
        assert_ne!(hash.hash("p", &[b"ab"]), hash.hash("p", &[b"ab", b""]));
    }

    // proves: I-8
    #[test]
    fn one_key_in_two_scopes_is_two_records_with_two_downstream_keys() {
        let (hash, key) = (HashKey::default(), IdempotencyKey::new("k").expect("valid"));
        let one = RecordId::derive(&hash, &Scope::new("m:1").expect("valid"), &key);
        let two = RecordId::derive(&hash, &Scope::new("m:2").expect("valid"), &key);
        assert_ne!(one, two);
        assert_ne!(one.downstream_key("channel"), two.downstream_key("channel"));
        assert_ne!(one.downstream_key("channel"), one.downstream_key("ledger"));
        assert_eq!(one.downstream_key("channel").len(), 40);
    }

    #[test]
    fn another_secret_gives_another_record() {
        let key = IdempotencyKey::new("k").expect("valid");
        let scope = Scope::single_tenant();
        let secret = HashKey::secret([7; 32]);
        assert_ne!(
            RecordId::derive(&secret, &scope, &key),
            RecordId::derive(&HashKey::default(), &scope, &key)
        );
    }
}
