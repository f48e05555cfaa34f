//! The saga of a withdrawal, in the TCC form: freeze (try), bank transfer (the pivot), deduct (confirm).
//!
//! The transfer divides: while it is refused the freeze is undone; once it may have happened the saga asks
//! the bank, and what the bank cannot say stays `stuck` with the money frozen, for a person to see. Money
//! that may have left is never released, and money is never sent under a second key.

use probity_saga::{Evidence, Executed, ForwardStep, Probe, SagaStep, StepContext, StepError, StepPolicy};
use serde::{Deserialize, Serialize};
use service_shell::{Id, Pool};

use crate::bank::{Bank, Transfer};
use crate::store::{Frozen, Released, freeze, is_held, note_reason, release, spend};

/// The business name of the saga; `business_type` in `saga_instances`.
pub(crate) const WITHDRAWAL: &str = "withdrawal";

/// What the saga is started with; stored with it, so it survives deploys: only ever add optional fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub(crate) struct Payout {
    pub(crate) withdrawal_id: Id,
    /// The saga's business id, and what the bank knows.
    pub(crate) withdrawal_no: String,
    pub(crate) merchant_id: Id,
    /// What the bank receives.
    pub(crate) amount: i64,
    /// What leaves the merchant's balance: the amount and the fee.
    pub(crate) total: i64,
    pub(crate) currency: String,
    pub(crate) account: String,
}

/// Try: available becomes frozen. Undo: it becomes available again, and the withdrawal has failed.
#[derive(Debug)]
pub(crate) struct FreezeBalance {
    pub(crate) pool: Pool,
    pub(crate) policy: StepPolicy,
}

impl SagaStep for FreezeBalance {
    type Input = Payout;
    type Output = ();
    const NAME: &'static str = "FreezeBalance";

    async fn execute(&self, cx: &StepContext<Payout>) -> Result<(), StepError> {
        match freeze(&self.pool, cx.input()).await? {
            Frozen::Yes => Ok(()),
            Frozen::NotEnough => Err(StepError::rejected("the balance is too small")),
            Frozen::Released => Err(StepError::rejected("released before it was frozen")),
        }
    }

    async fn compensate(&self, cx: &StepContext<Payout>, _: Executed<()>) -> Result<Evidence, StepError> {
        match release(&self.pool, cx.input()).await? {
            Released::Yes => Ok(Evidence::new(format!("released {}", cx.input().total))),
            Released::NothingFrozen => Ok(Evidence::new("nothing was frozen, and a late freeze is refused")),
            Released::Spent => Err(StepError::fatal("the money has left and cannot be released")),
        }
    }

    async fn probe(&self, cx: &StepContext<Payout>) -> Result<Probe<()>, StepError> {
        Ok(match is_held(&self.pool, cx.input().withdrawal_id).await? {
            Some(true) => Probe::Applied(()),
            Some(false) => Probe::NotApplied,
            None => Probe::NotSeenYet,
        })
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
        let answer = self.bank.transfer(cx.input(), cx.idempotency_key()).await;
        if let Err(StepError::Rejected(reason)) = &answer {
            note_reason(&self.pool, cx.input().withdrawal_id, reason).await?;
        }
        answer
    }

    async fn probe(&self, cx: &StepContext<Payout>) -> Result<Probe<Transfer>, StepError> {
        self.bank.look(cx.input()).await
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}

/// Confirm: frozen becomes spent, and the withdrawal is completed.
#[derive(Debug)]
pub(crate) struct DeductBalance {
    pub(crate) pool: Pool,
    pub(crate) policy: StepPolicy,
}

impl ForwardStep for DeductBalance {
    type Input = Payout;
    type Output = ();
    const NAME: &'static str = "DeductBalance";

    async fn execute(&self, cx: &StepContext<Payout>) -> Result<(), StepError> {
        let transfer = cx.forward_output::<BankTransfer>()?;
        if spend(&self.pool, cx.input(), &transfer.bank_reference).await? {
            Ok(())
        } else {
            Err(StepError::fatal("the bank has the money, but none was frozen for it"))
        }
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}
