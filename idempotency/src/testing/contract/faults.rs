//! Clauses about callers that go away during a call.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::{HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches};
use crate::core::claim::{Answer, Effects, Written};
use crate::testing::violation::Violation;

/// Polls `call` at most `polls` times, the later ones after it was woken, then drops it. Says whether it was done.
async fn dropped_after(polls: u32, call: impl Future) -> bool {
    let (mut call, mut left) = (pin!(call), polls);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match call.as_mut().poll(cx) {
            Poll::Pending if left > 0 => Poll::Pending,
            polled => Poll::Ready(polled.is_ready()),
        }
    })
    .await
}

pub(super) async fn every_call_can_be_dropped_at_every_point_and_repeated(
    store: Store,
) -> Result<(), Violation> {
    for polls in 0..40 {
        let claim = any_claim()?.with(Effects::Marked);
        let holder = claim.holder();
        let mut done = dropped_after(polls, store.claim(&claim)).await;
        let _ = acquire(&store, &claim).await?;
        done &= dropped_after(polls, store.renew(&holder, HOUR)).await;
        done &= dropped_after(polls, store.mark_effect(&holder)).await;
        let marked = store.mark_effect(&holder).await?;
        ensure_matches!(marked, Written::Applied | Written::AlreadyApplied, "a repeated mark");
        done &= dropped_after(polls, store.complete(&holder, &a_recording(), HOUR)).await;
        let completed = store.complete(&holder, &a_recording(), HOUR).await?;
        ensure_matches!(completed, Written::Applied | Written::AlreadyApplied, "a repeated completion");
        ensure_eq!(store.claim(&claim.retry()?).await?, Answer::Replay(a_recording()), "a retry");
        let claim = any_claim()?;
        let _ = acquire(&store, &claim).await?;
        done &= dropped_after(polls, store.release(&claim.holder())).await;
        let released = store.release(&claim.holder()).await?;
        ensure_matches!(released, Written::Applied | Written::AlreadyApplied, "a repeated release");
        let _ = acquire(&store, &claim.retry()?).await?;
        if done {
            return Ok(());
        }
    }
    Err(Violation("a call was not done after 39 wake-ups, so its last points were not tried".to_owned()))
}
