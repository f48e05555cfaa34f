//! The SQL of orders. Every function runs on the caller's transaction, so that the idempotency record can
//! commit together with what it records.
//!
//! Invariant: create and cancel first take the lock of the number's row in `order_numbers`. So a cancel that
//! comes before its create is not forgotten, and the create that comes late is refused.

use chrono::{DateTime, Utc};
use probity_txn::Tx;
use service_shell::{Database, Id, Pool, Schema, World, sql_ago, sql_now};

use crate::domain::{Change, Item, NewOrder, Order, PayStatus, Status, Verdict};

/// The tables of orders.
pub const SCHEMA: Schema = Schema {
    service: "order-service",
    sqlite: &[
        include_str!("../schema/sqlite.sql"),
        include_str!("../schema/sqlite-2-expiry.sql"),
        include_str!("../schema/sqlite-3-modes.sql"),
    ],
    postgres: &[
        include_str!("../schema/postgres.sql"),
        include_str!("../schema/postgres-2-expiry.sql"),
        include_str!("../schema/postgres-3-modes.sql"),
    ],
};

/// The answer to a create.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an order may not have been created"]
pub enum Created {
    /// It is new.
    New(Order),
    /// It was created before, for the same payment.
    Existing(Order),
    /// This merchant used the number before, for something else.
    NumberTaken,
    /// It was cancelled before it arrived, or is closed by now.
    Cancelled,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a change may have been refused"]
pub enum Changed {
    /// The order as it is now; `changed` is false when it was so already.
    Order {
        /// The order.
        order: Order,
        /// True if this call changed it.
        changed: bool,
    },
    /// The order's state does not allow the change.
    Refused(Order),
    /// The payment differs from the order: another amount, currency or payment number.
    OtherPayment(Order),
    /// This merchant has no such order.
    Missing,
}

/// A payment that pays an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its number.
    pub payment_no: String,
    /// Minor units; must be the order's amount.
    pub amount: i64,
    /// Must be the order's currency.
    pub currency: String,
}

type Row = (Id, String, Option<String>, i64, String, Status, PayStatus, DateTime<Utc>, DateTime<Utc>);

macro_rules! columns {
    () => {
        "id, order_no, payment_no, amount, currency, status, pay_status, created_at, updated_at"
    };
}

fn order(row: Row) -> (Id, Order) {
    let (id, order_no, payment_no, amount, currency, status, pay_status, created_at, updated_at) = row;
    let items = Vec::new();
    (id, Order { order_no, payment_no, amount, currency, status, pay_status, items, created_at, updated_at })
}

/// Takes the lock of a number; true if it was cancelled before its order arrived.
async fn lock_number(tx: &mut Tx<'_, Database>, world: World, order_no: &str) -> Result<bool, sqlx::Error> {
    // The update writes nothing new; it is there because it locks and returns the row on both databases.
    sqlx::query_scalar(
        "INSERT INTO order_numbers (merchant_id, order_no, mode) VALUES ($1, $2, $3)
         ON CONFLICT (merchant_id, mode, order_no) DO UPDATE SET order_no = excluded.order_no
         RETURNING cancelled_at IS NOT NULL",
    )
    .bind(world.merchant)
    .bind(order_no)
    .bind(world.mode)
    .fetch_one(&mut *tx)
    .await
}

/// Order, items and log row, in the caller's transaction.
pub(crate) async fn create(
    tx: &mut Tx<'_, Database>,
    world: World,
    new: &NewOrder,
) -> Result<Created, sqlx::Error> {
    if lock_number(tx, world, &new.order_no).await? {
        return Ok(Created::Cancelled);
    }
    let inserted: Option<Row> = sqlx::query_as(concat!(
        "INSERT INTO orders (id, merchant_id, order_no, payment_no, amount, currency, mode, status, pay_status)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', 'unpaid')
         ON CONFLICT (merchant_id, mode, order_no) DO NOTHING RETURNING ",
        columns!()
    ))
    .bind(Id::new())
    .bind(world.merchant)
    .bind(&new.order_no)
    .bind(&new.payment_no)
    .bind(new.money.amount())
    .bind(new.money.currency().code())
    .bind(world.mode)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((id, mut order)) = inserted.map(order) else {
        return match find(&mut *tx, world, &new.order_no).await? {
            Some((id, mut order)) if is_same(new, &order) => match order.status {
                Status::Pending | Status::Paid | Status::Completed => {
                    order.items = items(&mut *tx, id).await?;
                    Ok(Created::Existing(order))
                }
                Status::Cancelled | Status::Expired | Status::Refunded => Ok(Created::Cancelled),
            },
            _ => Ok(Created::NumberTaken),
        };
    };
    for (line, item) in (1_i64..).zip(&new.items) {
        sqlx::query(
            "INSERT INTO order_items (order_id, line, name, quantity, unit_price) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id)
        .bind(line)
        .bind(&item.name)
        .bind(item.quantity)
        .bind(item.unit_price)
        .execute(&mut *tx)
        .await?;
    }
    log(tx, id, None, Status::Pending, "created").await?;
    order.items.clone_from(&new.items);
    Ok(Created::New(order))
}

/// Returns true if an order was made for the same payment, amount and currency.
fn is_same(new: &NewOrder, order: &Order) -> bool {
    new.payment_no.is_some()
        && order.payment_no == new.payment_no
        && (order.amount, order.currency.as_str()) == (new.money.amount(), new.money.currency().code())
}

/// One UPDATE guarded by the status and by the payment's own figures, plus the log.
pub(crate) async fn pay(
    tx: &mut Tx<'_, Database>,
    world: World,
    order_no: &str,
    payment: &Payment,
) -> Result<Changed, sqlx::Error> {
    let paid: Option<Row> = sqlx::query_as(concat!(
        "UPDATE orders SET status = 'paid', pay_status = 'paid', payment_no = $3, paid_at = ",
        sql_now!(),
        ", updated_at = ",
        sql_now!(),
        " WHERE merchant_id = $1 AND order_no = $2 AND status = 'pending'
            AND (payment_no IS NULL OR payment_no = $3) AND amount = $4 AND currency = $5
            AND mode = $6
         RETURNING ",
        columns!()
    ))
    .bind(world.merchant)
    .bind(order_no)
    .bind(&payment.payment_no)
    .bind(payment.amount)
    .bind(&payment.currency)
    .bind(world.mode)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some((id, order)) = paid.map(order) {
        log(tx, id, Some(Status::Pending), Status::Paid, &payment.payment_no).await?;
        return Ok(Changed::Order { order, changed: true });
    }
    let Some(order) = find(&mut *tx, world, order_no).await?.map(|(_, order)| order) else {
        return Ok(Changed::Missing);
    };
    let same = order.amount == payment.amount
        && order.currency == payment.currency
        && order.payment_no.as_ref().is_none_or(|number| *number == payment.payment_no);
    Ok(match Change::Pay.verdict(order.status) {
        _ if !same => Changed::OtherPayment(order),
        Verdict::Already => Changed::Order { order, changed: false },
        Verdict::Apply | Verdict::Refuse => Changed::Refused(order),
    })
}

/// Cancels an order, or leaves a barrier against one that may still come: then `Missing`, and no order with
/// this number will ever be created. With a payment number only an order made for that payment is cancelled.
pub(crate) async fn cancel(
    tx: &mut Tx<'_, Database>,
    world: World,
    order_no: &str,
    payment_no: Option<&str>,
    reason: &str,
) -> Result<Changed, sqlx::Error> {
    let _cancelled = lock_number(tx, world, order_no).await?;
    if let (Some(payment), Some((_, order))) = (payment_no, find(&mut *tx, world, order_no).await?)
        && order.payment_no.as_deref() != Some(payment)
    {
        return Ok(Changed::OtherPayment(order));
    }
    let answer = change(tx, world, order_no, Change::Cancel, reason).await?;
    if answer == Changed::Missing {
        sqlx::query(concat!(
            "UPDATE order_numbers SET cancelled_at = COALESCE(cancelled_at, ",
            sql_now!(),
            ") WHERE merchant_id = $1 AND order_no = $2 AND mode = $3"
        ))
        .bind(world.merchant)
        .bind(order_no)
        .bind(world.mode)
        .execute(&mut *tx)
        .await?;
    }
    Ok(answer)
}

/// Marks a paid order as given back. With a payment number only an order that this payment paid.
pub(crate) async fn refund(
    tx: &mut Tx<'_, Database>,
    world: World,
    order_no: &str,
    payment_no: Option<&str>,
    reason: &str,
) -> Result<Changed, sqlx::Error> {
    // A payment number never changes once it is there, so no lock is needed for this look.
    if let (Some(payment), Some((_, order))) = (payment_no, find(&mut *tx, world, order_no).await?)
        && order.payment_no.as_deref() != Some(payment)
    {
        return Ok(Changed::OtherPayment(order));
    }
    change(tx, world, order_no, Change::Refund, reason).await
}

async fn change(
    tx: &mut Tx<'_, Database>,
    world: World,
    order_no: &str,
    change: Change,
    reason: &str,
) -> Result<Changed, sqlx::Error> {
    let sql = match change {
        Change::Refund => concat!(
            "UPDATE orders SET status = $3, pay_status = 'refunded', updated_at = ",
            sql_now!(),
            " WHERE merchant_id = $1 AND order_no = $2 AND status = $4 AND mode = $5 RETURNING ",
            columns!()
        ),
        Change::Cancel | Change::Pay => concat!(
            "UPDATE orders SET status = $3, cancelled_at = ",
            sql_now!(),
            ", updated_at = ",
            sql_now!(),
            " WHERE merchant_id = $1 AND order_no = $2 AND status = $4 AND mode = $5 RETURNING ",
            columns!()
        ),
    };
    let changed: Option<Row> = sqlx::query_as(sql)
        .bind(world.merchant)
        .bind(order_no)
        .bind(change.to())
        .bind(change.from())
        .bind(world.mode)
        .fetch_optional(&mut *tx)
        .await?;
    if let Some((id, order)) = changed.map(order) {
        log(tx, id, Some(change.from()), change.to(), reason).await?;
        return Ok(Changed::Order { order, changed: true });
    }
    Ok(match find(&mut *tx, world, order_no).await? {
        None => Changed::Missing,
        Some((_, order)) if change.verdict(order.status) == Verdict::Already => {
            Changed::Order { order, changed: false }
        }
        Some((_, order)) => Changed::Refused(order),
    })
}

async fn log(
    tx: &mut Tx<'_, Database>,
    order: Id,
    from: Option<Status>,
    to: Status,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO order_logs (id, order_id, from_status, to_status, reason) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(Id::new())
    .bind(order)
    .bind(from)
    .bind(to)
    .bind(reason)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn find<'e>(
    executor: impl sqlx::Executor<'e, Database = Database>,
    world: World,
    order_no: &str,
) -> Result<Option<(Id, Order)>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM orders WHERE merchant_id = $1 AND order_no = $2 AND mode = $3"
    ))
    .bind(world.merchant)
    .bind(order_no)
    .bind(world.mode)
    .fetch_optional(executor)
    .await?;
    Ok(row.map(order))
}

/// One order with its items.
pub(crate) async fn get(pool: &Pool, world: World, order_no: &str) -> Result<Option<Order>, sqlx::Error> {
    let Some((id, mut order)) = find(pool, world, order_no).await? else { return Ok(None) };
    order.items = items(pool, id).await?;
    Ok(Some(order))
}

async fn items<'e>(
    executor: impl sqlx::Executor<'e, Database = Database>,
    order: Id,
) -> Result<Vec<Item>, sqlx::Error> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT name, quantity, unit_price FROM order_items WHERE order_id = $1 ORDER BY line",
    )
    .bind(order)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|(name, quantity, unit_price)| Item { name, quantity, unit_price }).collect())
}

/// The orders of a merchant to list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    pub(crate) status: Option<Status>,
    pub(crate) before: Option<Id>,
    pub(crate) limit: i64,
}

/// The newest orders of a merchant, without their items, each with the cursor that continues after it.
pub(crate) async fn list(
    pool: &Pool,
    world: World,
    selection: Selection,
) -> Result<Vec<(Id, Order)>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM orders
          WHERE merchant_id = $1 AND mode = $5 AND ($2 IS NULL OR status = $2) AND ($3 IS NULL OR id < $3)
          ORDER BY id DESC LIMIT $4"
    ))
    .bind(world.merchant)
    .bind(selection.status)
    .bind(selection.before)
    .bind(selection.limit)
    .bind(world.mode)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(order).collect())
}

/// Lets orders expire that are pending for so many seconds by the database's clock. One that was made for a payment is
/// left to the undo of that payment: its money may be on its way.
pub(crate) async fn expire(tx: &mut Tx<'_, Database>, seconds: i64) -> Result<u64, sqlx::Error> {
    let expired: Vec<Id> = sqlx::query_scalar(concat!(
        "UPDATE orders SET status = 'expired', updated_at = ",
        sql_now!(),
        " WHERE status = 'pending' AND payment_no IS NULL
            AND id IN (SELECT id FROM orders
                        WHERE status = 'pending' AND payment_no IS NULL AND created_at < ",
        sql_ago!("$1"),
        "       ORDER BY created_at LIMIT 100)
         RETURNING id"
    ))
    .bind(seconds)
    .fetch_all(&mut *tx)
    .await?;
    for id in &expired {
        log(tx, *id, Some(Status::Pending), Status::Expired, "not paid in time").await?;
    }
    Ok(u64::try_from(expired.len()).unwrap_or(u64::MAX))
}
