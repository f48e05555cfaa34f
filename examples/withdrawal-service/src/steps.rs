//! The saga of a withdrawal, in the TCC form: freeze (try), bank transfer (the pivot), deduct (confirm).
//!
//! The transfer divides: while it is refused the freeze is undone; once it may have happened the saga asks
//! the bank, and what the bank cannot say stays `stuck` with the money frozen, for a person to see. Money
//! that may have left is never released, and money is never sent under a second key.
//!
//! Freeze and deduct are rows of this database, so they are local steps: balance and record commit together,
//! and neither is ever in doubt. Only the transfer needs a key and a probe. No step decides what became of the
//! withdrawal: that is the end of the saga (`store::close_ended`).

use probity_saga::{
    Evidence, Executed, ForwardStep, LocalForwardStep, LocalStep, Probe, SagaStep, StepContext, StepError,
    StepPolicy,
};
use service_shell::{Database, Pool, only_effect};

use crate::bank::{Bank, Said, Transfer};
use crate::domain::Payout;
use crate::store::{Connection, Frozen, deduct, freeze, is_frozen, note_reason, release};

/// The business name of the saga; `business_type` in `saga_instances`.
pub(crate) const WITHDRAWAL: &str = "withdrawal";

/// The reason that a merchant is shown.
const INSUFFICIENT_BALANCE: &str = "insufficient_balance";

/// Try: available becomes frozen. Undo: it becomes available again.
#[derive(Debug)]
pub(crate) struct FreezeBalance {
    pub(crate) policy: StepPolicy,
}

impl LocalStep<Database> for FreezeBalance {
    type Input = Payout;
    type Output = Frozen;
    const NAME: &'static str = "FreezeBalance";

    async fn execute(&self, cx: &StepContext<Payout>, tx: &mut Connection) -> Result<Frozen, StepError> {
        Ok(freeze(tx, cx.input()).await?)
    }

    async fn compensate(
        &self,
        cx: &StepContext<Payout>,
        done: Frozen,
        tx: &mut Connection,
    ) -> Result<Evidence, StepError> {
        if done == Frozen::NotEnough {
            return Ok(Evidence::new("nothing was frozen"));
        }
        if !release(tx, cx.input()).await? {
            return Err(StepError::fatal("the money is spent and cannot be released"));
        }
        Ok(Evidence::new(format!("released {}", cx.input().total)))
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}

/// Refuses a withdrawal for which nothing could be frozen. The refusal is a step of its own, because the next step names
/// the bank as its provider: it waits while the bank is away, and its answers say whether the bank is back.
#[derive(Debug)]
pub(crate) struct RequireFrozen {
    pub(crate) pool: Pool,
    pub(crate) policy: StepPolicy,
}

impl SagaStep for RequireFrozen {
    type Input = Payout;
    type Output = ();
    const NAME: &'static str = "RequireFrozen";
    const USES: &'static [&'static str] = &[FreezeBalance::NAME];

    async fn execute(&self, cx: &StepContext<Payout>) -> Result<(), StepError> {
        if cx.output::<FreezeBalance, _>()? == Frozen::Yes {
            return Ok(());
        }
        // The step has no effect, so a note that failed is tried again.
        let noted = note_reason(&self.pool, cx.input().withdrawal_id, INSUFFICIENT_BALANCE).await;
        noted.map_err(|error| StepError::retryable(error.to_string()))?;
        Err(StepError::rejected(INSUFFICIENT_BALANCE))
    }

    async fn compensate(&self, _: &StepContext<Payout>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("the step changed nothing"))
    }

    async fn probe(&self, _: &StepContext<Payout>) -> Result<Probe<()>, StepError> {
        Ok(Probe::NotApplied)
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}

/// The pivot: the bank has the money.
#[derive(Debug)]
pub(crate) struct BankTransfer {
    pub(crate) pool: Pool,
    pub(crate) bank: Bank,
    pub(crate) policy: StepPolicy,
}

impl ForwardStep for BankTransfer {
    type Input = Payout;
    type Output = Transfer;
    const NAME: &'static str = "BankTransfer";

    async fn execute(&self, cx: &StepContext<Payout>) -> Result<Transfer, StepError> {
        let withdrawal = cx.input().withdrawal_id;
        // An operator may have said that the steps before this one happened.
        let frozen = is_frozen(&self.pool, cx.input()).await;
        if !frozen.map_err(|error| StepError::retryable(error.to_string()))? {
            return Err(StepError::rejected("nothing_is_frozen"));
        }
        match self.bank.transfer(cx.input(), cx.idempotency_key()).await.map_err(only_effect)? {
            Said::Sent(transfer) => Ok(transfer),
            Said::Refused(reason) => {
                note_reason(&self.pool, withdrawal, &reason).await?;
                Err(StepError::rejected(reason))
            }
        }
    }

    async fn probe(&self, cx: &StepContext<Payout>) -> Result<Probe<Transfer>, StepError> {
        self.bank.look(cx.input()).await
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}

/// Confirm: frozen becomes spent; with that the saga completes.
#[derive(Debug)]
pub(crate) struct DeductBalance {
    pub(crate) policy: StepPolicy,
}

impl LocalForwardStep<Database> for DeductBalance {
    type Input = Payout;
    type Output = ();
    const NAME: &'static str = "DeductBalance";
    const USES: &'static [&'static str] = &[BankTransfer::NAME];

    async fn execute(&self, cx: &StepContext<Payout>, tx: &mut Connection) -> Result<(), StepError> {
        let transfer = cx.output::<BankTransfer, _>()?;
        if deduct(tx, cx.input(), &transfer.bank_reference).await? {
            Ok(())
        } else {
            Err(StepError::fatal("the bank has the money, but none is frozen for it"))
        }
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}
