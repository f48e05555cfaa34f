//! Clauses about many callers on one record, none of which waits for another: their answers must fit one order of
//! events.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use super::{HOUR, Store, a_recording, any_claim, other_fingerprint};
use crate::core::claim::{Answer, Claim, Effects, Renewed, Resolution, Written};
use crate::core::recording::{Recording, Tombstone, TombstoneReason};
use crate::error::StoreError;
use crate::store::manager::IdempotencyManager;
use crate::testing::history::HistoryStore;
use crate::testing::violation::Violation;

const CALLERS: u8 = 12;
const ROUNDS: u8 = 8;
const STEPS: u8 = 4;

pub(super) async fn concurrent_answers_fit_one_order_of_events(store: Store) -> Result<(), Violation> {
    let history = Arc::new(HistoryStore::new(store));
    for round in 0..ROUNDS {
        let mut claim = any_claim()?.with(if round % 4 == 3 { Effects::Opaque } else { Effects::Local });
        if round % 2 == 0 || round == 3 {
            claim = claim.lapsing();
        }
        let barrier = Arc::new(Barrier::new(usize::from(CALLERS)));
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            let (store, barrier, claim): (Store, _, _) =
                (history.clone(), Arc::clone(&barrier), claim.retry()?);
            callers.push(tokio::spawn(async move {
                barrier.wait().await;
                for step in 0..STEPS {
                    // Every mixture of the calls below meets every other, in some round.
                    let choice =
                        caller.wrapping_mul(7).wrapping_add(step.wrapping_mul(3)).wrapping_add(round);
                    // A store may give up under this much contention; what it says must then be true as well.
                    let _ = act(&store, &claim.retry()?, choice).await;
                }
                Ok::<_, Violation>(())
            }));
        }
        for caller in callers {
            caller.await.map_err(|error| Violation(error.to_string()))??;
        }
        let _ = history.get(claim.record).await?;
        let _ = history.claim(&claim.retry()?).await?;
    }
    history.check()
}

/// Claims; then completes, gives back, marks or disappears, as chosen. Settles what others left undecided.
async fn act(store: &Store, claim: &Claim, choice: u8) -> Result<(), StoreError> {
    let holder = claim.holder();
    match store.claim(claim).await? {
        Answer::Acquired(_) => {}
        Answer::Indeterminate(lost) => {
            let done = Resolution::Done(a_recording());
            let resolution = if choice.is_multiple_of(5) { done } else { Resolution::Absent };
            let _: Written = store.resolve(claim.record, lost.fence, &resolution, HOUR).await?;
            return Ok(());
        }
        _ => {
            let other = Claim { fingerprint: other_fingerprint(), ..*claim };
            let _: Answer = store.claim(&if choice.is_multiple_of(2) { other } else { *claim }).await?;
            return Ok(());
        }
    }
    match choice % 8 {
        0 => {
            let _: Written = store.complete(&holder, &Recording::new(200).body(vec![choice]), HOUR).await?;
        }
        1 | 2 => {
            let _: Written = store.release(&holder).await?;
        }
        3 => {
            let _: Written = store.mark_effect(&holder).await?;
            let _: Written = store.release(&holder).await?;
        }
        4 => {
            let tombstone = Tombstone { reason: TombstoneReason::Streaming, status: 200, location: None };
            let _: Written = store.tombstone(&holder, &tombstone, HOUR).await?;
        }
        5 => {
            let _: Renewed = store.renew(&holder, Duration::ZERO).await?;
        }
        _ => {}
    }
    Ok(())
}
