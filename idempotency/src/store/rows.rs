//! A record as a store outside this process returned it. Each field is checked.

use crate::core::claim::Effects;
use crate::core::fence::Fence;
use crate::core::fingerprint::Fingerprint;
use crate::core::machine::{Entry, Phase};
use crate::core::recording::{Recording, Tombstone, TombstoneReason};
use crate::error::{StoreError, Unreadable};
use crate::token::OwnerToken;

/// The fields of a record, as read.
pub(crate) struct StoredRow {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) effects: String,
    pub(crate) state: String,
    pub(crate) token: Vec<u8>,
    pub(crate) fence: i64,
    pub(crate) attempt: i64,
    pub(crate) effect_at: Option<i64>,
    pub(crate) lease_until: i64,
    pub(crate) cap_until: i64,
    pub(crate) expires_at: i64,
    pub(crate) status: Option<i64>,
    pub(crate) headers: Option<Vec<u8>>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) location: Option<Vec<u8>>,
    pub(crate) reason: Option<String>,
    pub(crate) now: i64,
}

impl StoredRow {
    /// The record, and the database's time when it was read.
    pub(crate) fn into_entry(self) -> Result<(Entry, u64), StoreError> {
        let time = |value: i64| u64::try_from(value).map_err(|_| Unreadable("time"));
        let entry = Entry {
            fingerprint: Fingerprint::from_bytes(fixed(&self.fingerprint, "fingerprint")?),
            effects: Effects::parse(self.effects.as_bytes())?,
            token: OwnerToken::from_bytes(fixed(&self.token, "token")?),
            fence: Fence(time(self.fence)?),
            attempt: u32::try_from(self.attempt).map_err(|_| Unreadable("attempt"))?,
            marked: self.effect_at.is_some(),
            lease_until: time(self.lease_until)?,
            cap_until: time(self.cap_until)?,
            expires_at: time(self.expires_at)?,
            phase: Phase::InFlight,
        };
        let now = time(self.now)?;
        let phase = self.into_phase()?;
        Ok((Entry { phase, ..entry }, now))
    }

    fn into_phase(self) -> Result<Phase, StoreError> {
        let status = u16::try_from(self.status.unwrap_or_default()).map_err(|_| Unreadable("status"))?;
        match self.state.as_str() {
            "in_flight" => Ok(Phase::InFlight),
            "released" => Ok(Phase::Released),
            "completed" => {
                let headers = self.headers.ok_or(Unreadable("headers"))?;
                let body = self.body.ok_or(Unreadable("body"))?;
                Recording::decode(status, &headers, body.into()).map(Phase::Completed)
            }
            "tombstoned" => {
                let reason = TombstoneReason::parse(self.reason.unwrap_or_default().as_bytes())?;
                Ok(Phase::Tombstoned(Tombstone { reason, status, location: self.location.map(Into::into) }))
            }
            _ => Err(Unreadable("state").into()),
        }
    }
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], Unreadable> {
    bytes.try_into().map_err(|_| Unreadable(what))
}
