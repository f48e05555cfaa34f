//! Bank accounts: exactly one default per merchant, once there is one.

use service_shell::{Id, Pool, Problem, TxError, sql_now};

use super::Tx;
use crate::domain::{BankAccount, NewBankAccount};

/// Adds an account; the first one is the default, and a new default replaces the old one.
pub(crate) async fn add_account(
    tx: &mut Tx<'_>,
    merchant: Id,
    new: &NewBankAccount,
    request: &str,
) -> Result<BankAccount, TxError> {
    lock(tx, merchant).await?;
    let added = sqlx::query_as(
        "SELECT id, holder, account, currency, is_default, created_at FROM bank_accounts WHERE request = $1",
    )
    .bind(request)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(account) = added {
        let account: BankAccount = account;
        let same = (&account.holder, &account.account, &account.currency);
        let same = same == (&new.holder, &new.account, &new.currency);
        return if same { Ok(account) } else { Err(Problem::key_reused().into()) };
    }
    if new.is_default {
        clear_default(tx, merchant).await?;
    }
    let account = sqlx::query_as(
        "INSERT INTO bank_accounts (id, merchant_id, holder, account, currency, request, is_default)
         VALUES ($1, $2, $3, $4, $5, $6,
                 NOT EXISTS (SELECT 1 FROM bank_accounts d WHERE d.merchant_id = $2 AND d.is_default))
         RETURNING id, holder, account, currency, is_default, created_at",
    )
    .bind(Id::new())
    .bind(merchant)
    .bind(&new.holder)
    .bind(&new.account)
    .bind(&new.currency)
    .bind(request)
    .fetch_one(&mut *tx)
    .await?;
    Ok(account)
}

/// Makes an account the default and every other one not.
pub(crate) async fn set_default(tx: &mut Tx<'_>, merchant: Id, id: Id) -> Result<BankAccount, TxError> {
    lock(tx, merchant).await?;
    clear_default(tx, merchant).await?;
    sqlx::query_as(
        "UPDATE bank_accounts SET is_default = TRUE WHERE id = $1 AND merchant_id = $2
         RETURNING id, holder, account, currency, is_default, created_at",
    )
    .bind(id)
    .bind(merchant)
    .fetch_optional(&mut *tx)
    .await?
    // Rolls back the clearing too.
    .ok_or_else(|| Problem::not_found("bank account").into())
}

pub(crate) async fn accounts(pool: &Pool, merchant: Id) -> Result<Vec<BankAccount>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, holder, account, currency, is_default, created_at
           FROM bank_accounts WHERE merchant_id = $1 ORDER BY id",
    )
    .bind(merchant)
    .fetch_all(pool)
    .await
}

/// Holds the merchant's row until the commit: changes of one merchant's accounts happen one after the other.
async fn lock(tx: &mut Tx<'_>, merchant: Id) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "INSERT INTO withdrawal_merchants (merchant_id) VALUES ($1)
         ON CONFLICT (merchant_id) DO UPDATE SET changed_at = ",
        sql_now!()
    ))
    .bind(merchant)
    .execute(&mut *tx)
    .await
    .map(drop)
}

async fn clear_default(tx: &mut Tx<'_>, merchant: Id) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE bank_accounts SET is_default = FALSE WHERE merchant_id = $1 AND is_default")
        .bind(merchant)
        .execute(&mut *tx)
        .await
        .map(drop)
}
