//! Clauses about released keys.

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches, other_fingerprint};
use crate::core::claim::{Answer, Effects, State, Written};
use crate::testing::violation::Violation;

pub(super) async fn releasing_frees_the_key_at_once_for_any_request(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
        let claim = any_claim()?.with(effects);
        let (_, holder) = acquire(&store, &claim).await?;
        ensure_eq!(store.release(&holder).await?, Written::Applied, "releasing");
        let mut other = claim.retry()?;
        other.fingerprint = other_fingerprint();
        let _ = acquire(&store, &other).await?;
        ensure_eq!(store.claim(&claim.retry()?).await?, Answer::Mismatch, "the first request, afterwards");
    }
    Ok(())
}

pub(super) async fn a_lost_token_cannot_release(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.lapsing();
    let (_, zombie) = acquire(&store, &claim).await?;
    let mut heir = claim.retry()?;
    heir.terms.lease = HOUR;
    let (grant, _) = acquire(&store, &heir).await?;
    ensure_eq!(store.release(&zombie).await?, Written::LostTo(grant.fence), "a zombie releases");
    ensure_matches!(store.claim(&claim.retry()?).await?, Answer::InFlight { .. }, "the heir's claim");
    Ok(())
}

pub(super) async fn a_completed_record_cannot_be_released(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing");
    ensure_eq!(
        store.release(&holder).await?,
        Written::Refused(State::Completed),
        "releasing what is completed"
    );
    ensure_eq!(store.claim(&claim.retry()?).await?, Answer::Replay(a_recording()), "a retry");
    Ok(())
}

pub(super) async fn a_marked_record_cannot_be_released(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
        let claim = any_claim()?.with(effects);
        let (_, holder) = acquire(&store, &claim).await?;
        ensure_eq!(store.mark_effect(&holder).await?, Written::Applied, "marking");
        ensure_eq!(store.mark_effect(&holder).await?, Written::AlreadyApplied, "marking again");
        ensure_eq!(
            store.release(&holder).await?,
            Written::Refused(State::InFlight),
            "releasing what is marked"
        );
        ensure_matches!(store.claim(&claim.retry()?).await?, Answer::InFlight { .. }, "a retry");
    }
    Ok(())
}

pub(super) async fn releasing_an_unknown_record_is_no_error(store: Store) -> Result<(), Violation> {
    ensure_eq!(store.release(&any_claim()?.holder()).await?, Written::Missing, "releasing nothing");
    Ok(())
}

pub(super) async fn releasing_again_changes_nothing(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(store.release(&holder).await?, Written::Applied, "the first time");
    ensure_eq!(store.release(&holder).await?, Written::AlreadyApplied, "the second time");
    let (grant, _) = acquire(&store, &claim.retry()?).await?;
    ensure_eq!(store.release(&holder).await?, Written::LostTo(grant.fence), "after somebody else claimed");
    Ok(())
}
