//! Clauses about finished records: what was recorded is kept and replayed.

use bytes::Bytes;

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches};
use crate::core::claim::{Answer, Effects, State, Written};
use crate::core::recording::{Recording, Tombstone, TombstoneReason};
use crate::testing::violation::Violation;

async fn survives(store: &Store, recording: Recording) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(store, &claim).await?;
    ensure_eq!(store.complete(&holder, &recording, HOUR).await?, Written::Applied, "completing");
    match store.claim(&claim.retry()?).await? {
        Answer::Replay(replayed) if replayed.headers() != recording.headers() => Err(Violation(format!(
            "headers changed: {:?} became {:?}",
            recording.headers(),
            replayed.headers()
        ))),
        Answer::Replay(replayed) if replayed == recording => Ok(()),
        other => Err(Violation(format!("the replay of {recording:?}: got {other:?}"))),
    }
}

pub(super) async fn headers_are_replayed_in_order_with_repeats_and_raw_bytes(
    store: Store,
) -> Result<(), Violation> {
    let recording = Recording::new(303)
        .header("b", "1")
        .header("a", "2")
        .header("b", "3")
        .header("raw", &b"\xff\x00\xfe"[..])
        .header("empty", "");
    survives(&store, recording).await
}

pub(super) async fn bodies_of_any_size_are_replayed_whole(store: Store) -> Result<(), Violation> {
    for body in [Bytes::new(), Bytes::from_static(b"\x00\xff{}"), vec![0xa5; 1024 * 1024].into()] {
        survives(&store, Recording::new(200).body(body.clone())).await?;
        survives(&store, Recording::payload(body)).await?;
    }
    Ok(())
}

pub(super) async fn a_lost_token_cannot_complete(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.lapsing();
    let (_, zombie) = acquire(&store, &claim).await?;
    let (grant, heir) = acquire(&store, &claim.retry()?).await?;
    let late = Recording::new(500).body("zombie");
    let tombstone = Tombstone { reason: TombstoneReason::Broken, status: 500, location: None };
    for _ in 0..2 {
        ensure_eq!(
            store.complete(&zombie, &late, HOUR).await?,
            Written::LostTo(grant.fence),
            "a zombie completes"
        );
        let tombstoned = store.tombstone(&zombie, &tombstone, HOUR).await?;
        ensure_eq!(tombstoned, Written::LostTo(grant.fence), "the tombstone of a zombie");
        let _ = store.complete(&heir, &a_recording(), HOUR).await?;
    }
    ensure_eq!(store.claim(&claim.retry()?).await?, Answer::Replay(a_recording()), "the winner's recording");
    Ok(())
}

pub(super) async fn completing_again_changes_nothing(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "the first time");
    let other = Recording::new(200).body("second answer");
    ensure_eq!(store.complete(&holder, &other, HOUR).await?, Written::AlreadyApplied, "the second time");
    for claim in [claim, claim.retry()?] {
        ensure_eq!(store.claim(&claim).await?, Answer::Replay(a_recording()), "the recording");
    }
    Ok(())
}

pub(super) async fn a_late_completion_counts_without_a_takeover(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Opaque] {
        let claim = any_claim()?.with(effects).lapsing();
        let (_, holder) = acquire(&store, &claim).await?;
        ensure_eq!(
            store.complete(&holder, &a_recording(), HOUR).await?,
            Written::Applied,
            "a late completion"
        );
        ensure_eq!(store.claim(&claim.retry()?).await?, Answer::Replay(a_recording()), "its replay");
    }
    Ok(())
}

pub(super) async fn completing_an_unclaimed_key_creates_nothing(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let completed = store.complete(&claim.holder(), &a_recording(), HOUR).await?;
    ensure_eq!(completed, Written::Missing, "completing nothing");
    ensure_eq!(store.mark_effect(&claim.holder()).await?, Written::Missing, "marking nothing");
    ensure_eq!(store.get(claim.record).await?, None, "the record");
    let _ = acquire(&store, &claim).await?;
    Ok(())
}

pub(super) async fn a_tombstone_forbids_to_run_again(store: Store) -> Result<(), Violation> {
    for location in [None, Some(Bytes::from_static(b"/payments/1"))] {
        let claim = any_claim()?;
        let (_, holder) = acquire(&store, &claim).await?;
        let tombstone = Tombstone { reason: TombstoneReason::TooLarge, status: 201, location };
        ensure_eq!(store.tombstone(&holder, &tombstone, HOUR).await?, Written::Applied, "a tombstone");
        ensure_eq!(
            store.tombstone(&holder, &tombstone, HOUR).await?,
            Written::AlreadyApplied,
            "the same tombstone again"
        );
        for claim in [claim, claim.retry()?] {
            ensure_eq!(store.claim(&claim).await?, Answer::NotReplayable(tombstone.clone()), "a retry");
        }
    }
    Ok(())
}

pub(super) async fn a_finished_record_cannot_be_finished_differently(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    let tombstone = Tombstone { reason: TombstoneReason::Broken, status: 200, location: None };
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing");
    let tombstoned = store.tombstone(&holder, &tombstone, HOUR).await?;
    ensure_eq!(tombstoned, Written::Refused(State::Completed), "a tombstone on what is completed");
    let marked = store.mark_effect(&holder).await?;
    ensure_eq!(marked, Written::Refused(State::Completed), "marking what is completed");
    ensure_matches!(store.claim(&claim.retry()?).await?, Answer::Replay(_), "a retry");
    Ok(())
}
