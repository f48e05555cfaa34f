//! Many callers on one record, none of whom waits for another: what they were told must fit one order of events.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::{HOUR, Store, Violation, acquire, any_claim, ensure_eq};
use crate::{Answer, Claim, Fence, Recording, Written};

/// What one caller was told.
#[derive(Debug, Default)]
struct Told {
    granted: Vec<Fence>,
    completed: Option<Recording>,
    replayed: Option<Recording>,
}

const CALLERS: u8 = 12;
const ROUNDS: u8 = 8;

pub(super) async fn concurrent_histories_complete_once_with_rising_fences(
    store: Store,
) -> Result<(), Violation> {
    for round in 0..ROUNDS {
        let claim = any_claim()?.lapsing();
        let barrier = Arc::new(Barrier::new(usize::from(CALLERS)));
        let mut callers = Vec::new();
        for caller in 0..CALLERS {
            let (store, barrier, claim) = (Arc::clone(&store), Arc::clone(&barrier), claim.retried()?);
            callers.push(tokio::spawn(async move {
                barrier.wait().await;
                act(store, claim, caller, round).await
            }));
        }
        let mut told = Vec::new();
        for caller in callers {
            told.push(caller.await.map_err(|error| Violation(error.to_string()))??);
        }
        check(&store, &claim, &told).await?;
    }
    Ok(())
}

/// Claims; then completes, gives back, or disappears, as its number says.
async fn act(store: Store, mut claim: Claim, caller: u8, round: u8) -> Result<Told, Violation> {
    let mut told = Told::default();
    for step in 0..4u8 {
        match store.begin(&claim).await? {
            Answer::Acquired(grant) => told.granted.push(grant.fence),
            Answer::Replay(recording) => {
                told.replayed = Some(recording);
                return Ok(told);
            }
            // Its statement began before the one that claimed: by the store's clock that lease was still live.
            Answer::InFlight { .. } => continue,
            other => return Err(Violation(format!("a caller of a lapsing record: got {other:?}"))),
        }
        match caller.wrapping_mul(7).wrapping_add(step.wrapping_mul(3)).wrapping_add(round) % 4 {
            0 => {
                let recording = Recording::new(200).body(vec![caller, step]);
                if store.complete(&claim.holder(), &recording, HOUR).await? == Written::Applied {
                    told.completed = Some(recording);
                    return Ok(told);
                }
            }
            1 => {
                let _ = store.abandon(&claim.holder()).await?;
            }
            _ => {}
        }
        claim = claim.retried()?;
    }
    Ok(told)
}

async fn check(store: &Store, claim: &Claim, told: &[Told]) -> Result<(), Violation> {
    let mut fences: Vec<Fence> = told.iter().flat_map(|told| told.granted.iter().copied()).collect();
    let granted = fences.len();
    fences.sort_unstable();
    fences.dedup();
    ensure_eq!(fences.len(), granted, "fences given to two holders");
    for told in told {
        ensure_eq!(told.granted.is_sorted(), true, "the fences one caller saw rise");
    }
    let completed: Vec<&Recording> = told.iter().filter_map(|told| told.completed.as_ref()).collect();
    ensure_eq!(completed.len() <= 1, true, "completions of one record");
    for replayed in told.iter().filter_map(|told| told.replayed.as_ref()) {
        ensure_eq!(Some(&replayed), completed.first(), "a replay of what was completed");
    }
    match completed.first() {
        Some(recording) => {
            let last = store.begin(&claim.retried()?).await?;
            ensure_eq!(last, Answer::Replay((*recording).clone()), "the last answer");
        }
        None => {
            let _ = acquire(store, &claim.retried()?).await?;
        }
    }
    Ok(())
}
