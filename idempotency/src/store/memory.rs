//! The store of one process: a sharded map around the pure state machine. The executable specification of all others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fmt;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::core::claim::{Answer, Claim, Renewed, Resolution, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::machine::{self, Decision, Entry, Phase, Write};
use crate::core::recording::{Recording, Tombstone};
use crate::error::{ErrorKind, StoreError};
use crate::store::manager::{IdempotencyManager, Snapshot};
use crate::token::Holder;

const SHARDS: usize = 64;
/// The bytes that one record costs beside its recording, about.
const ENTRY_BYTES: usize = 320;
/// The number of bytes that a shard keeps to itself before it adds them to the sum.
const LUMP: usize = 64 * 1024;
const DEFAULT_CAPACITY: usize = 256 * 1024 * 1024;

/// Records in the memory of this process, lost when it ends.
///
/// It is for tests, for work that need not survive a restart, and the specification of the other stores. It is capped
/// in bytes and evicts only expired records. When it is full of live records it refuses new claims. It still answers
/// known keys, and always keeps the answer of granted work, so answers of running work can exceed the cap.
///
/// ```
/// use probity_idempotency::MemoryStore;
/// let store = MemoryStore::new().capacity(64 * 1024 * 1024);
/// ```
pub struct MemoryStore {
    shards: Vec<Mutex<Shard>>,
    started: Instant,
    capacity: usize,
    bytes: Sum,
}

/// The records of one shard, and what only they need. Aligned so that two threads on two shards share no cache line.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    entries: HashMap<RecordId, Entry>,
    fence: u64,
    /// Bytes that the sum does not know yet, or has to give back.
    untold: isize,
}

/// The bytes of all shards, about: each tells its own in lumps, because a sum that every call writes is one cache line
/// that all processors fight for.
#[derive(Default)]
#[repr(align(128))]
struct Sum(AtomicIsize);

impl MemoryStore {
    /// An empty store that holds up to 256 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            started: Instant::now(),
            capacity: DEFAULT_CAPACITY,
            bytes: Sum::default(),
        }
    }

    /// Caps the bytes at which it takes no further keys.
    #[must_use]
    pub const fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    fn now(&self) -> u64 {
        machine::micros(self.started.elapsed())
    }

    fn shard(&self, record: RecordId) -> MutexGuard<'_, Shard> {
        locked(&self.shards[usize::from(record.as_bytes()[0]) % SHARDS])
    }

    /// Notes that `shard` has grown by `more` and shrunk by `less`.
    fn resized(&self, shard: &mut Shard, more: usize, less: usize) {
        shard.untold += more.cast_signed() - less.cast_signed();
        // Together the shards keep back a sixteenth of the capacity at most.
        if shard.untold.unsigned_abs() > (self.capacity / SHARDS / 16).min(LUMP) {
            self.bytes.0.fetch_add(std::mem::take(&mut shard.untold), Ordering::Relaxed);
        }
    }

    fn write(&self, holder: &Holder, write: &Write<'_>) -> Written {
        let (mut shard, now) = (self.shard(holder.record), self.now());
        let mut entry = shard.entries.get_mut(&holder.record);
        let written = write.apply(entry.as_deref_mut(), holder.token, now);
        if let (Written::Applied, Some(entry)) = (written, entry) {
            let more = recorded_bytes(entry);
            self.resized(&mut shard, more, 0);
        }
        written
    }

    fn has_room(&self) -> bool {
        let bytes = usize::try_from(self.bytes.0.load(Ordering::Relaxed)).unwrap_or(0);
        bytes.saturating_add(ENTRY_BYTES) <= self.capacity
    }

    /// Makes room by forgetting what has expired, everywhere. Called only when the cap is reached.
    fn make_room(&self) -> Result<(), StoreError> {
        let now = self.now();
        for shard in &self.shards {
            self.sweep(&mut locked(shard), now, usize::MAX);
        }
        if self.has_room() {
            return Ok(());
        }
        Err(StoreError::not_applied(
            ErrorKind::Full,
            "every record is live; raise the capacity or shorten the retention",
        ))
    }

    fn sweep(&self, shard: &mut Shard, now: u64, limit: usize) -> usize {
        let (mut removed, mut bytes) = (0, 0);
        shard.entries.retain(|_, entry| {
            let keep = removed == limit || !entry.is_purgeable(now);
            if !keep {
                removed += 1;
                bytes += ENTRY_BYTES + recorded_bytes(entry);
            }
            keep
        });
        self.resized(shard, 0, bytes);
        removed
    }
}

#[async_trait]
impl IdempotencyManager for MemoryStore {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        // A known key takes no more room: a full store still replays, and tells duplicates to wait.
        if !self.has_room() && !self.shard(claim.record).entries.contains_key(&claim.record) {
            self.make_room()?;
        }
        let (mut shard, now) = (self.shard(claim.record), self.now());
        // A record never leaves its shard, so its fences rise with the shard's.
        shard.fence += 1;
        let fence = shard.fence;
        let slot = shard.entries.entry(claim.record);
        let found = match &slot {
            Slot::Occupied(entry) => Some(entry.get()),
            Slot::Vacant(_) => None,
        };
        match machine::claim(found, claim, now, fence) {
            Decision::Answer(answer) => Ok(answer),
            Decision::Write(entry, grant) => {
                let (more, less) = match slot {
                    Slot::Occupied(mut old) => (0, recorded_bytes(&old.insert(entry))),
                    Slot::Vacant(slot) => {
                        slot.insert(entry);
                        (ENTRY_BYTES, 0)
                    }
                };
                self.resized(&mut shard, more, less);
                Ok(Answer::Acquired(grant))
            }
        }
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        let (mut shard, now) = (self.shard(holder.record), self.now());
        Ok(machine::renew(shard.entries.get_mut(&holder.record), holder.token, lease, now))
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        Ok(self.write(holder, &Write::Mark))
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        Ok(self.write(holder, &Write::Complete(recording, retention)))
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        Ok(self.write(holder, &Write::Tombstone(tombstone, retention)))
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        Ok(self.write(holder, &Write::Release))
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let (mut shard, now) = (self.shard(record), self.now());
        let mut entry = shard.entries.get_mut(&record);
        let written = machine::resolve(entry.as_deref_mut(), fence, resolution, retention, now);
        if let (Written::Applied, Some(entry)) = (written, entry) {
            let more = recorded_bytes(entry);
            self.resized(&mut shard, more, 0);
        }
        Ok(written)
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        let (shard, now) = (self.shard(record), self.now());
        let entry = shard.entries.get(&record).filter(|entry| !entry.is_gone(now));
        Ok(entry.map(|entry| Snapshot::of(entry, now)))
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (now, mut removed) = (self.now(), 0);
        for shard in &self.shards {
            removed += self.sweep(&mut locked(shard), now, limit - removed);
        }
        Ok(removed as u64)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("bytes", &self.bytes.0).field("capacity", &self.capacity).finish()
    }
}

fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A shard is consistent between any two statements of this module, so a panic of another thread leaves it consistent.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn recorded_bytes(entry: &Entry) -> usize {
    match &entry.phase {
        Phase::Completed(recording) => recording.size(),
        Phase::Tombstoned(tombstone) => tombstone.location.as_ref().map_or(0, bytes::Bytes::len),
        Phase::InFlight | Phase::Released => 0,
    }
}
