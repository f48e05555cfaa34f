//! The clauses that hold under any clock of the store.

use std::time::Duration;

use super::{Clock, HOUR, Store, a_recording, acquire, any_claim, ensure_eq, ensure_matches};
use crate::core::claim::Written;
use crate::testing::violation::Violation;

/// The number of times that the record ends and is claimed again: more than a clock of milliseconds moves on a fast
/// machine.
const ROUNDS: u32 = 48;

/// The clock stands still between two holders, steps back by an hour, and stands still again.
pub(super) async fn no_fence_is_given_twice_under_any_clock(
    store: Store,
    clock: Option<Clock>,
) -> Result<(), Violation> {
    let mut now = Duration::from_secs(1_800_000_000);
    if let Some(set) = &clock {
        set(now).await;
    }
    let mut claim = any_claim()?;
    let (mut last, _) = acquire(&store, &claim).await?;
    for round in 0..ROUNDS {
        let written = store.complete(&claim.holder(), &a_recording(), Duration::ZERO).await?;
        ensure_eq!(written, Written::Applied, "ending the record");
        // Some stores forget it now, others when its next holder comes.
        if round % 4 != 3 {
            store.purge(u32::MAX).await?;
        }
        if let (Some(set), 1) = (&clock, round % 8) {
            now -= HOUR;
            set(now).await;
        }
        claim = claim.retry()?;
        let (next, _) = acquire(&store, &claim).await?;
        ensure_matches!(next.fence, fence if fence > last.fence, format!("the fence after {:?}", last.fence));
        last = next;
    }
    Ok(())
}
