//! Bank accounts: exactly one default per merchant and mode, once there is one.

use service_shell::{Id, Pool, Problem, TxError, World, sql_now};

use super::Tx;
use crate::domain::{BankAccount, NewBankAccount};

/// Adds an account; the first one is the default, and a new default replaces the old one.
pub(crate) async fn add_account(
    tx: &mut Tx<'_>,
    world: World,
    new: &NewBankAccount,
    request: &str,
) -> Result<BankAccount, TxError> {
    lock(tx, world).await?;
    let added = sqlx::query_as(
        "SELECT id, holder, account, currency, is_default, created_at FROM bank_accounts
          WHERE request = $1 AND holder = $2 AND account = $3 AND currency = $4 AND asked_default = $5",
    )
    .bind(request)
    .bind(&new.holder)
    .bind(&new.account)
    .bind(&new.currency)
    .bind(new.is_default)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(account) = added {
        return Ok(account);
    }
    if new.is_default {
        clear_default(tx, world).await?;
    }
    sqlx::query_as(
        "INSERT INTO bank_accounts (id, merchant_id, mode, holder, account, currency, request, asked_default, is_default)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
                 NOT EXISTS (SELECT 1 FROM bank_accounts d WHERE d.merchant_id = $2 AND d.mode = $3 AND d.is_default))
         ON CONFLICT (request) DO NOTHING RETURNING id, holder, account, currency, is_default, created_at",
    )
    .bind(Id::new())
    .bind(world.merchant)
    .bind(world.mode)
    .bind(&new.holder)
    .bind(&new.account)
    .bind(&new.currency)
    .bind(request)
    .bind(new.is_default)
    .fetch_optional(&mut *tx)
    .await?
    // The row of this request says something else.
    .ok_or_else(|| Problem::key_reused().into())
}

/// Makes an account the default and every other one not.
pub(crate) async fn set_default(tx: &mut Tx<'_>, world: World, id: Id) -> Result<BankAccount, TxError> {
    lock(tx, world).await?;
    clear_default(tx, world).await?;
    sqlx::query_as(
        "UPDATE bank_accounts SET is_default = TRUE WHERE id = $1 AND merchant_id = $2 AND mode = $3
         RETURNING id, holder, account, currency, is_default, created_at",
    )
    .bind(id)
    .bind(world.merchant)
    .bind(world.mode)
    .fetch_optional(&mut *tx)
    .await?
    // Rolls back the clearing too.
    .ok_or_else(|| Problem::not_found("bank account").into())
}

pub(crate) async fn accounts(pool: &Pool, world: World) -> Result<Vec<BankAccount>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, holder, account, currency, is_default, created_at
           FROM bank_accounts WHERE merchant_id = $1 AND mode = $2 ORDER BY id",
    )
    .bind(world.merchant)
    .bind(world.mode)
    .fetch_all(pool)
    .await
}

/// Holds the merchant's row until the commit: changes of one merchant's accounts happen one after the other.
async fn lock(tx: &mut Tx<'_>, world: World) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "INSERT INTO withdrawal_merchants (merchant_id, mode) VALUES ($1, $2)
         ON CONFLICT (merchant_id, mode) DO UPDATE SET changed_at = ",
        sql_now!()
    ))
    .bind(world.merchant)
    .bind(world.mode)
    .execute(&mut *tx)
    .await
    .map(drop)
}

async fn clear_default(tx: &mut Tx<'_>, world: World) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE bank_accounts SET is_default = FALSE WHERE merchant_id = $1 AND mode = $2 AND is_default",
    )
    .bind(world.merchant)
    .bind(world.mode)
    .execute(&mut *tx)
    .await
    .map(drop)
}
