//! The body of the fuzz target `redis_record`.

use bytes::Bytes;

use super::packed;
use crate::core::claim::{Claim, Effects, Terms};
use crate::core::fingerprint::Fingerprint;
use crate::core::identity::RecordId;
use crate::core::machine::{self, Phase};
use crate::token::OwnerToken;

/// Reads `data` as the time of a claim (8 bytes) and a record as Redis returned it, judges a claim by it, and writes again
/// what is finished.
///
/// # Panics
/// If a rule is broken: that is what the fuzzer looks for.
pub fn redis_record(data: &[u8]) {
    let Some((since, record)) = data.split_first_chunk::<8>() else { return };
    let Ok(Some(entry)) = packed::read(record.to_vec(), u64::from_le_bytes(*since)) else { return };
    let claim = Claim {
        record: RecordId::from_bytes([0; 32]),
        token: OwnerToken::from_bytes([0; 16]),
        fingerprint: Fingerprint::from_bytes(*entry.fingerprint.as_bytes()),
        effects: Effects::Local,
        terms: Terms::default(),
    };
    for now in [0, 1 << 50, u64::MAX / 2] {
        let _answer = machine::claim(Some(&entry), &claim, now, 0);
    }
    // The head alone stands for a finished record whose answer was not asked for.
    match &entry.phase {
        Phase::Completed(recording) if record.len() > 136 => {
            let again = packed::recording(&Bytes::from(packed::completed(recording)));
            assert_eq!(again.ok().as_ref(), Some(recording));
        }
        Phase::Tombstoned(tombstone) if record.len() > 136 => {
            let again = packed::tombstone(&Bytes::from(packed::tombstoned(tombstone)));
            assert_eq!(again.ok().as_ref(), Some(tombstone));
        }
        _ => {}
    }
}
