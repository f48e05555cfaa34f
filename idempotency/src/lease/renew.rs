//! Renews a lease while its work runs.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::handle::{Held, Lease};
use crate::core::claim::Renewed;
use crate::metrics;

/// Polls `work`, and renews its lease. It costs no task, and no timer either while the work does not wait; work
/// that blocks its thread is not renewed in that time, as if its process were paused, and at once when it waits at last.
pub(crate) async fn renewing<F: Future>(lease: Lease, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut renewal = pin!(renew_while_held(lease.0));
    let (mut waits, mut renewed) = (false, true);
    poll_fn(|cx| {
        // First the lease, so that work which waits for the loss of it does not end before the loss is noted.
        if waits && renewed {
            renewed = renewal.as_mut().poll(cx).is_pending();
        }
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if !waits {
            waits = true;
            renewed = renewal.as_mut().poll(cx).is_pending();
        }
        Poll::Pending
    })
    .await
}

/// Renews every third of the lease, counted from before the claim was sent, until it is stopped. Belief in the lease is
/// measured from before a renewal was sent, so a slow store or a paused process can only make us give up sooner.
pub(crate) async fn renew_while_held(held: Arc<Held>) {
    loop {
        tokio::select! {
            biased;
            () = held.no_longer_renewed() => return,
            () = sleep_until(held.renew_at()) => {}
        }
        let asked_at = Instant::now();
        let renewed = metrics::time_call("renew", held.manager.renew(&held.holder, held.terms.lease)).await;
        held.asked_at(asked_at);
        match renewed {
            // The lease was settled in that time, so it is not lost.
            _ if held.is_renewed_no_longer() => return,
            Ok(Renewed::Held(left)) if !left.is_zero() => held.believe_until(asked_at + left),
            Ok(Renewed::Settled(_)) => return,
            Ok(Renewed::Held(_) | Renewed::LostTo(_) | Renewed::Missing) => {
                held.believe_until(asked_at);
                metrics::count_lost_lease();
                warn!(record = ?held.holder.record, marked = held.may_have_had_effect(), "the lease is lost");
                return;
            }
            Err(error) => {
                warn!(record = ?held.holder.record, %error, "the lease could not be renewed; the renewal is tried again")
            }
        }
    }
}
