//! Clauses about lost attempts: they are not run again without proof.

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches};
use crate::core::claim::{Answer, Effects, Indeterminate, Resolution, State, Written};
use crate::testing::violation::Violation;

async fn lost(store: &Store, claim: &crate::core::claim::Claim) -> Result<Indeterminate, Violation> {
    let _ = acquire(store, claim).await?;
    match store.claim(&claim.retry()?).await? {
        Answer::Indeterminate(lost) => Ok(lost),
        other => Err(Violation(format!("a lapsed opaque attempt: got {other:?}"))),
    }
}

pub(super) async fn a_lapsed_opaque_attempt_is_indeterminate(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.with(Effects::Opaque).lapsing();
    let lost = lost(&store, &claim).await?;
    ensure_eq!(lost.attempt, 1, "the lost attempt");
    let snapshot = store.get(claim.record).await?;
    ensure_matches!(snapshot, Some(ref snapshot) if snapshot.is_indeterminate(), "what an operator sees");
    ensure_matches!(store.claim(&claim.retry()?).await?, Answer::Indeterminate(_), "asking again");
    Ok(())
}

pub(super) async fn a_mark_makes_a_lapsed_attempt_indeterminate(store: Store) -> Result<(), Violation> {
    for effects in [Effects::Local, Effects::Marked] {
        let claim = any_claim()?.with(effects).lapsing();
        let (_, holder) = acquire(&store, &claim).await?;
        ensure_eq!(store.mark_effect(&holder).await?, Written::Applied, "marking");
        ensure_matches!(store.claim(&claim.retry()?).await?, Answer::Indeterminate(_), "a marked record");
        ensure_eq!(
            store.complete(&holder, &a_recording(), HOUR).await?,
            Written::Applied,
            "a late completion"
        );
    }
    Ok(())
}

pub(super) async fn a_lost_attempt_cannot_mark(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.with(Effects::Marked).lapsing();
    let (_, zombie) = acquire(&store, &claim).await?;
    let (heir, _) = acquire(&store, &claim.retry()?).await?;
    ensure_eq!(store.mark_effect(&zombie).await?, Written::LostTo(heir.fence), "a zombie marks");
    let _ = acquire(&store, &claim.retry()?).await?;
    Ok(())
}

pub(super) async fn a_resolution_of_done_is_replayed(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.with(Effects::Opaque).lapsing();
    let lost = lost(&store, &claim).await?;
    let done = Resolution::Done(a_recording());
    ensure_eq!(store.resolve(claim.record, lost.fence, &done, HOUR).await?, Written::Applied, "resolving");
    ensure_eq!(store.resolve(claim.record, lost.fence, &done, HOUR).await?, Written::AlreadyApplied, "again");
    ensure_eq!(store.claim(&claim.retry()?).await?, Answer::Replay(a_recording()), "a retry");
    Ok(())
}

pub(super) async fn a_resolution_of_absent_frees_the_key(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.with(Effects::Opaque).lapsing();
    let lost = lost(&store, &claim).await?;
    let absent = Resolution::Absent;
    ensure_eq!(store.resolve(claim.record, lost.fence, &absent, HOUR).await?, Written::Applied, "resolving");
    ensure_eq!(
        store.resolve(claim.record, lost.fence, &absent, HOUR).await?,
        Written::AlreadyApplied,
        "again"
    );
    let (grant, _) = acquire(&store, &claim.retry()?).await?;
    ensure_eq!(grant.attempt, 2, "the attempt after a resolution");
    ensure_matches!(grant.fence, fence if fence > lost.fence, "the fence after a resolution");
    Ok(())
}

pub(super) async fn a_live_attempt_cannot_be_resolved(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.with(Effects::Opaque);
    let (grant, holder) = acquire(&store, &claim).await?;
    for resolution in [Resolution::Absent, Resolution::Done(a_recording())] {
        let written = store.resolve(claim.record, grant.fence, &resolution, HOUR).await?;
        ensure_eq!(written, Written::Refused(State::InFlight), "resolving a live attempt");
    }
    ensure_eq!(store.complete(&holder, &a_recording(), HOUR).await?, Written::Applied, "completing");
    let nothing = any_claim()?.record;
    let written = store.resolve(nothing, grant.fence, &Resolution::Absent, HOUR).await?;
    ensure_eq!(written, Written::Missing, "resolving nothing");
    Ok(())
}

pub(super) async fn a_stale_resolution_changes_nothing(store: Store) -> Result<(), Violation> {
    let claim = any_claim()?.with(Effects::Opaque).lapsing();
    let lost = lost(&store, &claim).await?;
    let absent = Resolution::Absent;
    ensure_eq!(store.resolve(claim.record, lost.fence, &absent, HOUR).await?, Written::Applied, "resolving");
    let (heir, _) = acquire(&store, &claim.retry()?).await?;
    let written = store.resolve(claim.record, lost.fence, &absent, HOUR).await?;
    ensure_eq!(written, Written::LostTo(heir.fence), "a resolution of the attempt before");
    ensure_matches!(store.claim(&claim.retry()?).await?, Answer::Indeterminate(_), "the heir's record");
    Ok(())
}
