//! Probes a step that may have happened and must not run again.
//!
//! Invariant: it is asked on the schedules of the step, and the number of times is in the row of the step, so it ends
//! also if several workers take the saga up one after the other.

use std::time::Duration;

use super::known::Known;
use super::{Attempts, Waited, why};
use crate::core::Finding;
use crate::engine::lease::Lost;
use crate::engine::providers::Closed;
use crate::policy::Failure;
use crate::step::Probe;

impl Attempts<'_> {
    /// Asks what became of the step as often as it would be tried. `reason` is why that is asked. With `ahead`, the time
    /// that is left until the next question is due, it asks once, and that question counts as none.
    pub(in crate::engine) async fn find_out(
        &self,
        reason: &str,
        failures: u32,
        ahead: Option<Duration>,
    ) -> Result<(Finding, u32), Lost> {
        let policy = self.step.policy();
        let _hears_requests = self.engine.requests.trying();
        let tries = self.tries(&policy.retries, &policy, failures);
        let mut known = Known::new(&policy, true, tries, self.noted.clone());
        loop {
            if self.lapsed().await? {
                return Ok(known.later(Duration::ZERO));
            }
            let turn = self.turn(&policy).await;
            if self.lapsed().await? {
                return Ok(known.later(Duration::ZERO));
            }
            let failure = match turn {
                Ok(mut turn) => {
                    let asked = self.question(&policy).await;
                    turn.observe(asked.as_ref().err());
                    match asked {
                        Ok(Probe::Applied(output)) => {
                            return Ok((Finding::Succeeded(output), known.failures()));
                        }
                        Ok(Probe::NotApplied) => {
                            return Ok((Finding::NotApplied(reason.into()), known.failures()));
                        }
                        Ok(Probe::NotSeenYet) => Failure::Away,
                        Ok(Probe::Unknown) => Failure::Definite,
                        Err(error) => {
                            known.error = Some(why(error));
                            Failure::Away
                        }
                    }
                }
                // It has not failed.
                Err(closed @ Closed::Full(..)) if known.fresh => {
                    known.turned_away(&closed);
                    return Ok(known.later(closed.left()));
                }
                Err(closed) => known.turned_away(&closed),
            };
            if let Some(left) = ahead {
                return Ok(known.later(left));
            }
            let waited = match known.pause(failure) {
                // The request to turn back is known already, so it does not end the wait.
                Some(pause) => self.wait_heeding(pause, &policy, false).await,
                None => Waited::Late,
            };
            match waited {
                Waited::Over => {}
                Waited::Leaving(retry_in) | Waited::Asked(retry_in) => return Ok(known.later(retry_in)),
                Waited::Late => {
                    return Ok(known.found(self.exhausted(&policy, true, reason.into()).await));
                }
            }
        }
    }
}
