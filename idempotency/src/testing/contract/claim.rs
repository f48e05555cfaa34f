//! Clauses about claims: one attempt may run, and the others get the reason why they may not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches, other_fingerprint};
use crate::core::claim::{Answer, Effects, Written};
use crate::core::recording::{Tombstone, TombstoneReason};
use crate::testing::violation::Violation;

pub(super) async fn a_free_key_is_acquired(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (grant, _) = acquire(&store, &claim).await?;
    ensure_eq!(grant.attempt, 1, "the first attempt");
    ensure_matches!(grant.lease, lease if lease > HOUR / 2 && lease <= HOUR, "the lease asked for");
    Ok(())
}

pub(super) async fn the_same_token_again_gets_the_same_grant(store: Store) -> Result<(), Violation> {
    for claim in
        [any_claim()?, any_claim()?.with(Effects::Opaque), any_claim()?.with(Effects::Opaque).lapsing()]
    {
        let (first, _) = acquire(&store, &claim).await?;
        let (again, _) = acquire(&store, &claim).await?;
        ensure_eq!((again.fence, again.attempt), (first.fence, first.attempt), "a repeated claim");
    }
    Ok(())
}

pub(super) async fn another_token_is_told_in_flight(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let _ = acquire(&store, &claim).await?;
    ensure_matches!(
        store.claim(&claim.retry()?).await?,
        Answer::InFlight { retry_after } if retry_after > Duration::ZERO && retry_after <= HOUR,
        "a duplicate of a running request"
    );
    Ok(())
}

pub(super) async fn another_fingerprint_is_refused_in_every_state(store: Store) -> Result<(), Violation> {
    let tombstone = Tombstone { reason: TombstoneReason::Streaming, status: 200, location: None };
    for state in ["in flight", "lapsed", "indeterminate", "completed", "tombstoned"] {
        let mut claim = any_claim()?;
        if matches!(state, "lapsed" | "indeterminate") {
            claim = claim.lapsing();
        }
        if state == "indeterminate" {
            claim = claim.with(Effects::Opaque);
        }
        let (_, holder) = acquire(&store, &claim).await?;
        let written = match state {
            "completed" => store.complete(&holder, &a_recording(), HOUR).await?,
            "tombstoned" => store.tombstone(&holder, &tombstone, HOUR).await?,
            _ => Written::Applied,
        };
        ensure_eq!(written, Written::Applied, state);
        for mut other in [claim, claim.retry()?] {
            other.fingerprint = other_fingerprint();
            ensure_eq!(
                store.claim(&other).await?,
                Answer::Mismatch,
                format!("another request while {state}")
            );
        }
    }
    Ok(())
}

pub(super) async fn another_record_is_independent(store: Store) -> Result<(), Violation> {
    let (one, two) = (any_claim()?, any_claim()?);
    let (_, holder) = acquire(&store, &one).await?;
    let _ = acquire(&store, &two).await?;
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing one");
    ensure_matches!(store.claim(&two.retry()?).await?, Answer::InFlight { .. }, "the other one");
    Ok(())
}

pub(super) async fn of_64_callers_at_once_one_acquires(store: Store) -> Result<(), Violation> {
    let (claim, barrier) = (any_claim()?, Arc::new(Barrier::new(64)));
    let mut callers = Vec::new();
    for _ in 0..64 {
        let (store, barrier, claim) = (Arc::clone(&store), Arc::clone(&barrier), claim.retry()?);
        callers.push(tokio::spawn(async move {
            barrier.wait().await;
            store.claim(&claim).await
        }));
    }
    let mut acquired = 0;
    for caller in callers {
        match caller.await.map_err(|error| Violation(error.to_string()))?? {
            Answer::Acquired(_) => acquired += 1,
            Answer::InFlight { .. } => {}
            other => return Err(Violation(format!("a caller in the race: got {other:?}"))),
        }
    }
    ensure_eq!(acquired, 1, "callers that acquired");
    Ok(())
}

/// A store that decides in two statements is outrun again and again here; that is an answer, not a failure.
pub(super) async fn callers_racing_for_lapsed_leases_are_all_answered(store: Store) -> Result<(), Violation> {
    let (claim, barrier) = (any_claim()?.lapsing(), Arc::new(Barrier::new(64)));
    let mut callers = Vec::new();
    for _ in 0..64 {
        let (store, barrier, mut claim) = (Arc::clone(&store), Arc::clone(&barrier), claim.retry()?);
        callers.push(tokio::spawn(async move {
            barrier.wait().await;
            for _ in 0..16 {
                claim = claim.retry()?;
                ensure_matches!(
                    store.claim(&claim).await?,
                    Answer::Acquired(_) | Answer::InFlight { .. },
                    "a caller of a lapsed lease"
                );
            }
            Ok(())
        }));
    }
    for caller in callers {
        caller.await.map_err(|error| Violation(error.to_string()))??;
    }
    Ok(())
}

pub(super) async fn fences_rise_across_takeovers_releases_and_expiry(store: Store) -> Result<(), Violation> {
    let mut claim = any_claim()?.lapsing();
    let (mut last, _) = acquire(&store, &claim).await?;
    for round in ["takeover", "release", "expiry", "purge", "takeover"] {
        match round {
            "release" => ensure_eq!(store.release(&claim.holder()).await?, Written::Applied, round),
            "expiry" | "purge" => {
                let written = store.complete(&claim.holder(), &a_recording(), Duration::ZERO).await?;
                ensure_eq!(written, Written::Applied, round);
            }
            _ => {}
        }
        if round == "purge" {
            store.purge(u32::MAX).await?;
        }
        claim = claim.retry()?;
        let (next, _) = acquire(&store, &claim).await?;
        ensure_matches!(next.fence, fence if fence > last.fence, format!("the fence after a {round}"));
        last = next;
    }
    Ok(())
}
