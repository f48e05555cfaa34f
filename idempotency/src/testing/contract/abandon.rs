//! Giving a key back.

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches, other_fingerprint};
use crate::core::claim::{Answer, Effects, State, Written};
use crate::testing::violation::Violation;

pub(super) async fn abandoning_frees_the_key_at_once_for_any_request(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
        let claim = any_claim()?.with(effects);
        let (_, holder) = acquire(&store, &claim).await?;
        ensure_eq!(store.abandon(&holder).await?, Written::Applied, "abandoning");
        let mut other = claim.retried()?;
        other.fingerprint = other_fingerprint();
        let _ = acquire(&store, &other).await?;
        ensure_eq!(store.begin(&claim.retried()?).await?, Answer::Mismatch, "the first request, afterwards");
    }
    Ok(())
}

pub(super) async fn a_lost_token_cannot_abandon(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.lapsing();
    let (_, zombie) = acquire(&store, &claim).await?;
    let mut heir = claim.retried()?;
    heir.terms.lease = HOUR;
    let (grant, _) = acquire(&store, &heir).await?;
    ensure_eq!(store.abandon(&zombie).await?, Written::LostTo(grant.fence), "a zombie abandons");
    ensure_matches!(store.begin(&claim.retried()?).await?, Answer::InFlight { .. }, "the heir's claim");
    Ok(())
}

pub(super) async fn a_completed_record_cannot_be_abandoned(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing");
    ensure_eq!(
        store.abandon(&holder).await?,
        Written::Refused(State::Completed),
        "abandoning what is completed"
    );
    ensure_eq!(store.begin(&claim.retried()?).await?, Answer::Replay(a_recording()), "a retry");
    Ok(())
}

pub(super) async fn a_marked_record_cannot_be_abandoned(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
        let claim = any_claim()?.with(effects);
        let (_, holder) = acquire(&store, &claim).await?;
        ensure_eq!(store.mark_effect(&holder).await?, Written::Applied, "marking");
        ensure_eq!(store.mark_effect(&holder).await?, Written::AlreadyApplied, "marking again");
        ensure_eq!(
            store.abandon(&holder).await?,
            Written::Refused(State::InFlight),
            "abandoning what is marked"
        );
        ensure_matches!(store.begin(&claim.retried()?).await?, Answer::InFlight { .. }, "a retry");
    }
    Ok(())
}

pub(super) async fn abandoning_an_unknown_record_is_no_error(store: Store) -> Result<(), Violation> {
    ensure_eq!(store.abandon(&any_claim()?.holder()).await?, Written::Missing, "abandoning nothing");
    Ok(())
}

pub(super) async fn abandoning_again_changes_nothing(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?;
    let (_, holder) = acquire(&store, &claim).await?;
    ensure_eq!(store.abandon(&holder).await?, Written::Applied, "the first time");
    ensure_eq!(store.abandon(&holder).await?, Written::AlreadyApplied, "the second time");
    let (grant, _) = acquire(&store, &claim.retried()?).await?;
    ensure_eq!(store.abandon(&holder).await?, Written::LostTo(grant.fence), "after somebody else claimed");
    Ok(())
}
