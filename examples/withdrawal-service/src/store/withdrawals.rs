//! Withdrawals. Each change of status is one UPDATE that names the status it comes from: of two people who
//! decide at once, one is first and the other is told.

use service_shell::{Id, Mode, Money, Pool, Problem, TxError, World, public_number, sql_now};

use super::Tx;
use crate::domain::{NewWithdrawal, Payout, Status, Withdrawal, approvals_required};

macro_rules! columns {
    () => {
        "id, withdrawal_no, merchant_id, mode, bank_account_id, amount, fee, currency, speed, status,
         approvals_required, approvals, CASE WHEN status <> 'processing' THEN reason END AS reason,
         bank_reference, created_at, updated_at"
    };
}

macro_rules! payouts {
    () => {
        "SELECT w.id AS withdrawal_id, w.withdrawal_no, w.merchant_id, w.mode, w.amount, w.amount + w.fee AS total,
                w.currency, a.account
           FROM withdrawals w JOIN bank_accounts a ON a.id = w.bank_account_id"
    };
}

/// A decision about a withdrawal.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// By the merchant, before the money is on its way.
    Cancel,
    /// By an operator, before the money is on its way. The merchant reads the reason and not the name.
    Reject { operator: String, reason: String },
}

/// Inserts a withdrawal to the named account, or to the default one.
pub(crate) async fn create(
    tx: &mut Tx<'_>,
    world: World,
    new: &NewWithdrawal,
    money: Money,
    request: &str,
) -> Result<Withdrawal, TxError> {
    let created: Option<Withdrawal> =
        sqlx::query_as(concat!("SELECT ", columns!(), " FROM withdrawals WHERE request = $1"))
            .bind(request)
            .fetch_optional(&mut *tx)
            .await?;
    if let Some(withdrawal) = created {
        return if is_of(&withdrawal, new, money) {
            Ok(withdrawal)
        } else {
            Err(Problem::key_reused().into())
        };
    }
    let account: Option<(Id, String)> = sqlx::query_as(
        "SELECT id, currency FROM bank_accounts
          WHERE merchant_id = $1 AND mode = $3 AND (id = $2 OR ($2 IS NULL AND is_default))",
    )
    .bind(world.merchant)
    .bind(new.bank_account_id)
    .bind(world.mode)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((account, currency)) = account else {
        let detail = "must be one of this merchant's accounts: add one with POST /api/v1/bank-accounts";
        return Err(Problem::invalid("bank_account_id", detail).into());
    };
    if currency != money.currency().code() {
        return Err(Problem::invalid("currency", format!("must be the account's, {currency}")).into());
    }
    let withdrawal = sqlx::query_as(concat!(
        "INSERT INTO withdrawals (id, withdrawal_no, merchant_id, mode, bank_account_id, amount, fee, currency,
                                  speed, approvals_required, request)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING ",
        columns!()
    ))
    .bind(Id::new())
    .bind(public_number("WD"))
    .bind(world.merchant)
    .bind(world.mode)
    .bind(account)
    .bind(money.amount())
    .bind(new.speed.fee(money))
    .bind(currency)
    .bind(new.speed)
    .bind(approvals_required(money))
    .bind(request)
    .fetch_one(&mut *tx)
    .await?;
    Ok(withdrawal)
}

/// Returns true if a request for `new` may have made this withdrawal.
fn is_of(withdrawal: &Withdrawal, new: &NewWithdrawal, money: Money) -> bool {
    let made = (withdrawal.amount, withdrawal.currency.as_str(), withdrawal.speed);
    made == (money.amount(), money.currency().code(), new.speed)
        && new.bank_account_id.is_none_or(|account| account == withdrawal.bank_account_id)
}

/// One person's approval; the last one needed makes the withdrawal `approved`.
pub(crate) async fn approve(
    tx: &mut Tx<'_>,
    id: Id,
    person: &str,
    request: &str,
) -> Result<Withdrawal, TxError> {
    // First, so that its row lock puts approvals of one withdrawal into an order.
    let approved: Option<Withdrawal> = sqlx::query_as(concat!(
        "UPDATE withdrawals SET approvals = approvals + 1, updated_at = ",
        sql_now!(),
        ", status = CASE WHEN approvals + 1 = approvals_required THEN 'approved' ELSE status END
          WHERE id = $1 AND status = 'pending'
            AND NOT EXISTS (SELECT 1 FROM withdrawal_approvals a WHERE a.request = $2) RETURNING ",
        columns!()
    ))
    .bind(id)
    .bind(request)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(approved) = approved else { return approved_before(tx, id, request).await };
    let counted = sqlx::query(
        "INSERT INTO withdrawal_approvals (withdrawal_id, person, request) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(person)
    .bind(request)
    .execute(&mut *tx)
    .await?;
    if counted.rows_affected() == 0 {
        let detail = "this person approved it already: another one is needed";
        return Err(Problem::conflict("approved-already", detail).into());
    }
    Ok(approved)
}

/// By an earlier attempt of this request, or it cannot be approved any more.
async fn approved_before(tx: &mut Tx<'_>, id: Id, request: &str) -> Result<Withdrawal, TxError> {
    let approved = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM withdrawals
          WHERE id = $1 AND id IN (SELECT withdrawal_id FROM withdrawal_approvals WHERE request = $2)"
    ))
    .bind(id)
    .bind(request)
    .fetch_optional(&mut *tx)
    .await?;
    match approved {
        Some(withdrawal) => Ok(withdrawal),
        None => {
            let of_another: Option<Id> =
                sqlx::query_scalar("SELECT withdrawal_id FROM withdrawal_approvals WHERE request = $1")
                    .bind(request)
                    .fetch_optional(&mut *tx)
                    .await?;
            let unchanged = unchanged(tx, id, "approved").await?;
            Err(of_another.map_or(unchanged, |_| Problem::key_reused()).into())
        }
    }
}

/// Cancels or rejects, as long as the money is not on its way. Doing it again changes nothing.
pub(crate) async fn change(
    tx: &mut Tx<'_>,
    world: Option<World>,
    id: Id,
    change: &Change,
) -> Result<Withdrawal, TxError> {
    let (status, operator, reason) = match change {
        Change::Cancel => (Status::Cancelled, None, None),
        Change::Reject { operator, reason } => (Status::Rejected, Some(operator), Some(reason)),
    };
    let changed = sqlx::query_as(concat!(
        "UPDATE withdrawals SET status = $3, reason = COALESCE(reason, $4), rejected_by = COALESCE(rejected_by, $5),
                updated_at = ",
        sql_now!(),
        " WHERE id = $1 AND (merchant_id = $2 OR $2 IS NULL) AND (mode = $6 OR $6 IS NULL)
            AND status IN ('pending', 'approved', $3) RETURNING ",
        columns!()
    ))
    .bind(id)
    .bind(world.map(|world| world.merchant))
    .bind(status)
    .bind(reason)
    .bind(operator)
    .bind(world.map(|world| world.mode))
    .fetch_optional(&mut *tx)
    .await?;
    match changed {
        Some(withdrawal) => Ok(withdrawal),
        None if visible(tx, world, id).await? => Err(unchanged(tx, id, status.as_str()).await?.into()),
        None => Err(Problem::not_found("withdrawal").into()),
    }
}

/// Sends an approved withdrawal on its way. Doing it again changes nothing: one that is on its way, or has arrived or
/// failed since, is returned as it is, so that a request whose answer was lost is not told that it came too late.
pub(crate) async fn execute(
    tx: &mut Tx<'_>,
    id: Id,
    operator: &str,
) -> Result<(Withdrawal, Payout), TxError> {
    let executed = sqlx::query_as(concat!(
        "UPDATE withdrawals SET status = 'processing', executed_by = $2, updated_at = ",
        sql_now!(),
        " WHERE id = $1 AND status = 'approved' RETURNING ",
        columns!()
    ))
    .bind(id)
    .bind(operator)
    .fetch_optional(&mut *tx)
    .await?;
    let executed = match executed {
        Some(started) => Some(started),
        None => {
            sqlx::query_as(concat!(
                "SELECT ",
                columns!(),
                " FROM withdrawals WHERE id = $1 AND status IN ('processing', 'completed', 'failed')"
            ))
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?
        }
    };
    let Some(executed) = executed else { return Err(unchanged(tx, id, "executed").await?.into()) };
    let payout = sqlx::query_as(concat!(payouts!(), " WHERE w.id = $1")).bind(id).fetch_one(&mut *tx).await?;
    Ok((executed, payout))
}

/// Withdrawals on their way whose saga was not started yet, oldest first.
pub(crate) async fn without_saga(pool: &Pool) -> Result<Vec<Payout>, sqlx::Error> {
    sqlx::query_as(concat!(
        payouts!(),
        " WHERE w.status = 'processing'
            AND NOT EXISTS (SELECT 1 FROM saga_instances
                             WHERE business_type = 'withdrawal' AND business_id = w.withdrawal_no)
          ORDER BY w.id"
    ))
    .fetch_all(pool)
    .await
}

/// Withdrawals whose saga is stuck because the bank could not tell what became of the transfer, oldest first.
pub(crate) async fn in_doubt(pool: &Pool) -> Result<Vec<Payout>, sqlx::Error> {
    sqlx::query_as(concat!(
        payouts!(),
        " WHERE w.status = 'processing'
            AND EXISTS (SELECT 1 FROM saga_instances si JOIN saga_steps s ON s.saga_id = si.id
                         WHERE si.business_type = 'withdrawal' AND si.business_id = w.withdrawal_no
                           AND si.status = 'stuck' AND s.step_name = 'BankTransfer' AND s.status = 'unknown')
          ORDER BY w.id"
    ))
    .fetch_all(pool)
    .await
}

async fn visible(tx: &mut Tx<'_>, world: Option<World>, id: Id) -> Result<bool, sqlx::Error> {
    let found: Option<(Id, Mode)> = sqlx::query_as("SELECT merchant_id, mode FROM withdrawals WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
    Ok(found.is_some_and(|(merchant, mode)| world.is_none_or(|world| world == World { merchant, mode })))
}

/// Explains that an UPDATE met no row.
async fn unchanged(tx: &mut Tx<'_>, id: Id, wanted: &str) -> Result<Problem, sqlx::Error> {
    let status: Option<Status> = sqlx::query_scalar("SELECT status FROM withdrawals WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
    Ok(match status {
        None => Problem::not_found("withdrawal"),
        Some(status) => Problem::conflict(
            "withdrawal-state",
            format!("the withdrawal is {status} and cannot be {wanted}"),
        )
        .with("state", status.as_str()),
    })
}

/// Any merchant's withdrawal.
pub(crate) async fn find(pool: &Pool, id: Id) -> Result<Option<Withdrawal>, sqlx::Error> {
    sqlx::query_as(concat!("SELECT ", columns!(), " FROM withdrawals WHERE id = $1"))
        .bind(id)
        .fetch_optional(pool)
        .await
}

/// A merchant's own.
pub(crate) async fn find_of(pool: &Pool, world: World, id: Id) -> Result<Option<Withdrawal>, sqlx::Error> {
    let found = find(pool, id).await?;
    Ok(found.filter(|found| (found.merchant_id, found.mode) == (world.merchant, world.mode)))
}

/// A merchant's own, in the order of creation, after the given one.
pub(crate) async fn list(
    pool: &Pool,
    world: World,
    after: Option<Id>,
    limit: i64,
) -> Result<Vec<Withdrawal>, sqlx::Error> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM withdrawals WHERE merchant_id = $1 AND mode = $2 AND id > $3 ORDER BY id LIMIT $4"
    ))
    .bind(world.merchant)
    .bind(world.mode)
    .bind(after.unwrap_or(Id(uuid::Uuid::nil())))
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Lists the withdrawals of all merchants that wait for a person, in the order of creation, after the given one.
pub(crate) async fn waiting(
    pool: &Pool,
    after: Option<Id>,
    limit: i64,
) -> Result<Vec<Withdrawal>, sqlx::Error> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM withdrawals WHERE status IN ('pending', 'approved') AND id > $1 ORDER BY id LIMIT $2"
    ))
    .bind(after.unwrap_or(Id(uuid::Uuid::nil())))
    .bind(limit)
    .fetch_all(pool)
    .await
}
