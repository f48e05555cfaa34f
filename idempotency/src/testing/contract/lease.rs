//! Clauses about leases: their length and their end.

use std::time::Duration;

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches};
use crate::core::claim::{Answer, Effects, Renewed, State, Written};
use crate::testing::violation::Violation;

pub(super) async fn a_live_lease_is_not_taken_over(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
        let claim = any_claim()?.with(effects);
        let (_, holder) = acquire(&store, &claim).await?;
        ensure_matches!(store.claim(&claim.retry()?).await?, Answer::InFlight { .. }, "a live lease");
        ensure_eq!(
            store.complete(&holder, &a_recording(), HOUR).await?,
            Written::Applied,
            "the holder finishes"
        );
    }
    Ok(())
}

pub(super) async fn a_lapsed_lease_is_taken_over_by_the_next_attempt(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Marked] {
        let claim = any_claim()?.with(effects).lapsing();
        let (first, _) = acquire(&store, &claim).await?;
        let (next, _) = acquire(&store, &claim.retry()?).await?;
        ensure_eq!((first.attempt, next.attempt), (1, 2), "attempts");
    }
    Ok(())
}

pub(super) async fn a_lost_token_cannot_renew(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.lapsing();
    let (_, zombie) = acquire(&store, &claim).await?;
    let (heir, _) = acquire(&store, &claim.retry()?).await?;
    ensure_eq!(store.renew(&zombie, HOUR).await?, Renewed::LostTo(heir.fence), "a zombie's renewal");
    ensure_eq!(store.renew(&any_claim()?.holder(), HOUR).await?, Renewed::Missing, "renewing nothing");
    Ok(())
}

pub(super) async fn renewing_does_not_revive_a_finished_record(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing");
    ensure_eq!(
        store.renew(&holder, HOUR).await?,
        Renewed::Settled(State::Completed),
        "renewing what is finished"
    );
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(
        store.complete(&holder, &a_recording(), Duration::ZERO).await?,
        Written::Applied,
        "completing"
    );
    ensure_eq!(store.renew(&holder, HOUR).await?, Renewed::Missing, "renewing what has ended");
    ensure_matches!(store.claim(&claim.retry()?).await?, Answer::Acquired(_), "after the retention");
    Ok(())
}

pub(super) async fn the_cap_holds_under_endless_renewal(store: Store) -> Result<(), Violation> {
    let mut claim = any_claim()?.lapsing();
    claim.terms.lease_cap = Duration::ZERO;
    let (_, holder) = acquire(&store, &claim).await?;
    for _ in 0..3 {
        ensure_eq!(
            store.renew(&holder, HOUR).await?,
            Renewed::Held(Duration::ZERO),
            "a renewal past the cap"
        );
    }
    ensure_matches!(store.claim(&claim.retry()?).await?, Answer::Acquired(_), "after the cap");
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_matches!(store.renew(&holder, HOUR * 9).await?, Renewed::Held(left) if left <= HOUR, "a long renewal");
    Ok(())
}

pub(super) async fn an_expired_lease_is_over(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.with(Effects::Opaque);
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(store.renew(&holder, Duration::ZERO).await?, Renewed::Held(Duration::ZERO), "expiring");
    ensure_matches!(
        store.claim(&claim.retry()?).await?,
        Answer::Indeterminate(_),
        "after the end of the lease"
    );
    Ok(())
}
