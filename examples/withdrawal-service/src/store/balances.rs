//! The balances of merchants. A credit is booked once, whatever key it came with.

use service_shell::{Id, Money, Pool, Problem, TxError};

use super::Tx;
use crate::domain::Balance;

/// Books a credit and returns the balance.
pub(crate) async fn credit(
    tx: &mut Tx<'_>,
    merchant: Id,
    credit_no: &str,
    money: Money,
    request: &str,
) -> Result<Balance, TxError> {
    let currency = money.currency().code();
    let booked = sqlx::query(
        "INSERT INTO balance_credits (merchant_id, credit_no, amount, currency, request)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(merchant)
    .bind(credit_no)
    .bind(money.amount())
    .bind(currency)
    .bind(request)
    .execute(&mut *tx)
    .await?;
    if booked.rows_affected() == 0 {
        return booked_before(tx, merchant, credit_no, money, request).await;
    }
    let balance = sqlx::query_as(
        "INSERT INTO balances (merchant_id, currency, available) VALUES ($1, $2, $3)
         ON CONFLICT (merchant_id, currency) DO UPDATE SET available = balances.available + excluded.available
         RETURNING currency, available, frozen",
    )
    .bind(merchant)
    .bind(currency)
    .bind(money.amount())
    .fetch_one(&mut *tx)
    .await?;
    Ok(balance)
}

/// By an earlier attempt of this request, or by another request that used the number.
async fn booked_before(
    tx: &mut Tx<'_>,
    merchant: Id,
    credit_no: &str,
    money: Money,
    request: &str,
) -> Result<Balance, TxError> {
    let booked: Option<(String, i64, String)> =
        sqlx::query_as("SELECT credit_no, amount, currency FROM balance_credits WHERE request = $1")
            .bind(request)
            .fetch_optional(&mut *tx)
            .await?;
    let currency = money.currency().code();
    match booked {
        Some((number, amount, of))
            if (number.as_str(), amount, of.as_str()) == (credit_no, money.amount(), currency) => {}
        Some(_) => return Err(Problem::key_reused().into()),
        None => {
            let detail = "this credit_no is booked already: use a new one";
            return Err(Problem::conflict("credit-booked", detail).into());
        }
    }
    let balance = sqlx::query_as(
        "SELECT currency, available, frozen FROM balances WHERE merchant_id = $1 AND currency = $2",
    )
    .bind(merchant)
    .bind(currency)
    .fetch_one(&mut *tx)
    .await?;
    Ok(balance)
}

pub(crate) async fn balances(pool: &Pool, merchant: Id) -> Result<Vec<Balance>, sqlx::Error> {
    sqlx::query_as(
        "SELECT currency, available, frozen FROM balances WHERE merchant_id = $1 ORDER BY currency",
    )
    .bind(merchant)
    .fetch_all(pool)
    .await
}
