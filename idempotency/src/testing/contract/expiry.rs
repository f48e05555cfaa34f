//! Clauses about the end of a record.

use std::sync::Arc;
use std::time::Duration;

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches, other_fingerprint};
use crate::core::claim::{Answer, Effects, Written};
use crate::core::recording::{Tombstone, TombstoneReason};
use crate::testing::violation::Violation;

pub(super) async fn a_finished_record_ends_with_its_retention(store: Store) -> Result<(), Violation> {
    let tombstone = Tombstone { reason: TombstoneReason::Streaming, status: 200, location: None };
    for by_tombstone in [false, true] {
        let claim = any_claim()?;
        let (_, holder) = acquire(&store, &claim).await?;
        let written = if by_tombstone {
            store.tombstone(&holder, &tombstone, Duration::ZERO).await?
        } else {
            store.complete(&holder, &a_recording(), Duration::ZERO).await?
        };
        ensure_eq!(written, Written::Applied, "finishing");
        ensure_eq!(store.get(claim.record).await?, None, "the record after its retention");
        let mut other = claim.retry()?;
        other.fingerprint = other_fingerprint();
        let (grant, _) = acquire(&store, &other).await?;
        ensure_eq!(grant.attempt, 1, "the attempt after the retention");
    }
    Ok(())
}

pub(super) async fn purging_forgets_no_running_and_no_indeterminate_record(
    store: Store,
) -> Result<(), Violation> {
    let mut lapsing = any_claim()?.with(Effects::Opaque).lapsing();
    lapsing.terms.lease_cap = Duration::ZERO;
    lapsing.terms.retention = Duration::ZERO;
    let mut marked = any_claim()?.with(Effects::Marked).lapsing();
    marked.terms = lapsing.terms;
    let (running, completed) = (any_claim()?, any_claim()?);
    let _ = acquire(&store, &lapsing).await?;
    let (_, marker) = acquire(&store, &marked).await?;
    ensure_eq!(store.mark_effect(&marker).await?, Written::Applied, "marking");
    let _ = acquire(&store, &running).await?;
    let (_, holder) = acquire(&store, &completed).await?;
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing");
    store.purge(u32::MAX).await?;
    ensure_matches!(store.claim(&lapsing.retry()?).await?, Answer::Indeterminate(_), "an opaque record");
    ensure_matches!(store.claim(&marked.retry()?).await?, Answer::Indeterminate(_), "a marked record");
    ensure_matches!(store.claim(&running.retry()?).await?, Answer::InFlight { .. }, "a running record");
    ensure_matches!(store.claim(&completed.retry()?).await?, Answer::Replay(_), "a completed record");
    Ok(())
}

pub(super) async fn purging_under_claims_loses_nothing(store: Store) -> Result<(), Violation> {
    let sweeper = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                store.purge(16).await?;
                tokio::task::yield_now().await;
            }
            #[expect(unreachable_code, reason = "it gives the task its type")]
            Ok::<(), crate::error::StoreError>(())
        })
    };
    for _ in 0..100 {
        let (ending, staying) = (any_claim()?, any_claim()?);
        let (_, holder) = acquire(&store, &ending).await?;
        ensure_eq!(
            store.complete(&holder, &a_recording(), Duration::ZERO).await?,
            Written::Applied,
            "completing"
        );
        let (_, holder) = acquire(&store, &staying).await?;
        let _ = acquire(&store, &ending.retry()?).await?;
        ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing");
        ensure_matches!(store.claim(&staying.retry()?).await?, Answer::Replay(_), "a kept record");
    }
    sweeper.abort();
    match sweeper.await {
        Ok(Err(error)) => Err(error.into()),
        _ => Ok(()),
    }
}
