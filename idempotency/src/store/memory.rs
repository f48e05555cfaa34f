//! The store of one process: a sharded map around the pure state machine. The executable specification of all others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::machine::{self, Begin, Entry, Phase, Write};
use crate::{
    Answer, Claim, ErrorKind, Fence, Holder, IdempotencyManager, RecordId, Recording, Renewed, Resolution,
    Snapshot, StoreError, Tombstone, Written,
};

const SHARDS: usize = 64;
/// What one record costs beside its recording, about.
const ENTRY_BYTES: usize = 320;
const DEFAULT_CAPACITY: usize = 256 * 1024 * 1024;

/// Records in the memory of this process, lost when it ends.
///
/// For tests, for work that need not survive a restart, and as the specification of the other stores. It is capped in
/// bytes and evicts only what has expired; when it is full of live records it refuses new claims rather than forget
/// one. Known keys are answered all the same, and the answer of work that was let in is always kept, so the cap can be
/// exceeded by the answers of what is running.
///
/// ```
/// use probity_idempotency::MemoryStore;
/// let store = MemoryStore::new().capacity(64 * 1024 * 1024);
/// ```
pub struct MemoryStore {
    shards: Vec<Mutex<HashMap<RecordId, Entry>>>,
    started: Instant,
    fence: AtomicU64,
    bytes: AtomicUsize,
    capacity: usize,
}

impl MemoryStore {
    /// An empty store that holds up to 256 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            started: Instant::now(),
            fence: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            capacity: DEFAULT_CAPACITY,
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

    fn shard(&self, record: RecordId) -> MutexGuard<'_, HashMap<RecordId, Entry>> {
        let shard = &self.shards[usize::from(record.as_bytes()[0]) % SHARDS];
        // The map is consistent between any two statements of this module, so a panic elsewhere cannot have torn it.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, holder: &Holder, write: &Write<'_>) -> Written {
        let (mut shard, now) = (self.shard(holder.record), self.now());
        let mut entry = shard.get_mut(&holder.record);
        let written = write.apply(entry.as_deref_mut(), holder.token, now);
        if let (Written::Applied, Some(entry)) = (written, entry) {
            self.bytes.fetch_add(recorded_bytes(entry), Ordering::Relaxed);
        }
        written
    }

    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed).saturating_add(ENTRY_BYTES) <= self.capacity
    }

    /// Makes room by forgetting what has expired, everywhere. Called only when the cap is reached.
    fn make_room(&self) -> Result<(), StoreError> {
        let now = self.now();
        for shard in &self.shards {
            self.sweep(&mut shard.lock().unwrap_or_else(PoisonError::into_inner), now, usize::MAX);
        }
        if self.has_room() {
            return Ok(());
        }
        Err(StoreError::not_applied(
            ErrorKind::Full,
            "every record is live; raise the capacity or shorten the retention",
        ))
    }

    fn sweep(&self, shard: &mut HashMap<RecordId, Entry>, now: u64, limit: usize) -> usize {
        let mut removed = 0;
        shard.retain(|_, entry| {
            let keep = removed == limit || !entry.is_purgeable(now);
            if !keep {
                removed += 1;
                self.bytes.fetch_sub(ENTRY_BYTES + recorded_bytes(entry), Ordering::Relaxed);
            }
            keep
        });
        removed
    }
}

#[async_trait]
impl IdempotencyManager for MemoryStore {
    async fn begin(&self, claim: &Claim) -> Result<Answer, StoreError> {
        // What is known already takes no more room: a full store still replays, and tells duplicates to wait.
        if !self.has_room() && !self.shard(claim.record).contains_key(&claim.record) {
            self.make_room()?;
        }
        let (mut shard, now) = (self.shard(claim.record), self.now());
        let slot = shard.entry(claim.record);
        let found = match &slot {
            Slot::Occupied(entry) => Some(entry.get()),
            Slot::Vacant(_) => None,
        };
        let fence = self.fence.fetch_add(1, Ordering::Relaxed) + 1;
        match machine::begin(found, claim, now, fence) {
            Begin::Answer(answer) => Ok(answer),
            Begin::Write(entry, grant) => {
                match slot {
                    Slot::Occupied(mut old) => {
                        self.bytes.fetch_sub(recorded_bytes(old.get()), Ordering::Relaxed);
                        old.insert(entry);
                    }
                    Slot::Vacant(slot) => {
                        self.bytes.fetch_add(ENTRY_BYTES, Ordering::Relaxed);
                        slot.insert(entry);
                    }
                }
                Ok(Answer::Acquired(grant))
            }
        }
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        let (mut shard, now) = (self.shard(holder.record), self.now());
        Ok(machine::renew(shard.get_mut(&holder.record), holder.token, lease, now))
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

    async fn abandon(&self, holder: &Holder) -> Result<Written, StoreError> {
        Ok(self.write(holder, &Write::Abandon))
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let (mut shard, now) = (self.shard(record), self.now());
        let mut entry = shard.get_mut(&record);
        let written = machine::resolve(entry.as_deref_mut(), fence, resolution, retention, now);
        if let (Written::Applied, Some(entry)) = (written, entry) {
            self.bytes.fetch_add(recorded_bytes(entry), Ordering::Relaxed);
        }
        Ok(written)
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        let (shard, now) = (self.shard(record), self.now());
        Ok(shard.get(&record).filter(|entry| !entry.is_gone(now)).map(|entry| Snapshot::of(entry, now)))
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (now, mut removed) = (self.now(), 0);
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            removed += self.sweep(&mut shard, now, limit - removed);
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
        f.debug_struct("MemoryStore").field("bytes", &self.bytes).field("capacity", &self.capacity).finish()
    }
}

fn recorded_bytes(entry: &Entry) -> usize {
    match &entry.phase {
        Phase::Completed(recording) => recording.size(),
        Phase::Tombstoned(tombstone) => tombstone.location.as_ref().map_or(0, bytes::Bytes::len),
        Phase::InFlight | Phase::Released => 0,
    }
}
