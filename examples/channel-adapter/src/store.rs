//! The ledger: every rule that must hold under concurrency holds because of a lock or a constraint here.
//!
//! Invariant: a transaction that changes what is true about a number first takes the lock of that number's row. So a
//! cancel and a late charge meet in one order or the other, never in between.

use probity_txn::{Error, Tx};
use serde_json::json;
use service_shell::{Database, Id, Mode, Pool, Schema};

use crate::book::{Book, PAYMENTS};
use crate::domain::{Answer, Behaviour, Cancelled, Demand, Entry, Known, Status};
use crate::events;
use crate::wire::Shown;

/// The tables of the channel.
pub const SCHEMA: Schema = Schema {
    service: "channel-adapter",
    sqlite: &[
        include_str!("../schema/sqlite.sql"),
        include_str!("../schema/sqlite-2-events.sql"),
        include_str!("../schema/sqlite-3-modes.sql"),
    ],
    postgres: &[
        include_str!("../schema/postgres.sql"),
        include_str!("../schema/postgres-2-events.sql"),
        include_str!("../schema/postgres-3-modes.sql"),
    ],
};

type Row = (String, String, String, i64, String, Status, Option<String>, String, i64);

fn entry(row: Row) -> Entry {
    let (key, number, method, amount, currency, status, reason, channel_order_no, attempts) = row;
    let demand = Demand { key, number, method, amount, currency };
    Entry { demand, status, reason, channel_order_no, attempts }
}

/// Answers a demand: the row of its key if there is one, else a new row that says what happened.
///
/// # Cancel safety
/// Safe: the demand either took effect completely or not at all; ask again with the same key.
///
/// # Errors
/// When the ledger cannot be read or written.
pub async fn demand(
    pool: &Pool,
    book: &Book,
    mode: Mode,
    demand: &Demand,
) -> Result<Answer, Error<sqlx::Error>> {
    probity_txn::on(pool, "channel_demand").run(async |tx| answer(tx, book, mode, demand).await).await
}

async fn answer(
    tx: &mut Tx<'_, Database>,
    book: &Book,
    mode: Mode,
    demand: &Demand,
) -> Result<Answer, sqlx::Error> {
    let Some(state) = lock(tx, book, mode, &demand.number).await? else { return Ok(Answer::NumberTaken) };
    if let Some(found) = find_key(tx, book, &demand.key).await? {
        if found.demand != *demand {
            return Ok(Answer::KeyReused);
        }
        sqlx::query(book.count_attempt).bind(&demand.key).execute(&mut *tx).await?;
        return Ok(Answer::Entry(Entry { attempts: found.attempts + 1, ..found }));
    }
    let (status, reason) = match (state.as_str(), Behaviour::of(&demand.method)) {
        ("cancelled", _) => (Status::Refused, Some("cancelled_before")),
        (_, Some(Behaviour::Declined) | None) => (Status::Refused, Some("card_declined")),
        (_, Some(_)) => (book.done, None),
    };
    let new = Entry {
        demand: demand.clone(),
        status,
        reason: reason.map(str::to_owned),
        channel_order_no: format!("ch_{}", Id::new().0.simple()),
        attempts: 1,
    };
    let inserted = sqlx::query(book.insert)
        .bind(&demand.key)
        .bind(&demand.number)
        .bind(&demand.method)
        .bind(demand.amount)
        .bind(&demand.currency)
        .bind(status)
        .bind(reason)
        .bind(&new.channel_order_no)
        .execute(&mut *tx)
        .await?;
    if inserted.rows_affected() == 0 {
        // Another number took the same key between our look and our write.
        return Ok(Answer::KeyReused);
    }
    tell(tx, book, &new).await?;
    Ok(Answer::Entry(new))
}

/// Locks a number and reads its state; `None` if it is of the other mode.
async fn lock(
    tx: &mut Tx<'_, Database>,
    book: &Book,
    mode: Mode,
    number: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(book.lock).bind(number).bind(mode).fetch_optional(&mut *tx).await
}

/// Writes the event of an entry, of a book that tells.
async fn tell(tx: &mut Tx<'_, Database>, book: &Book, entry: &Entry) -> Result<(), sqlx::Error> {
    let Some(prefix) = book.events else { return Ok(()) };
    events::record(tx, &format!("{prefix}.{}", entry.status), &json!(Shown::row(book, entry))).await
}

async fn find_key(tx: &mut Tx<'_, Database>, book: &Book, key: &str) -> Result<Option<Entry>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(book.find_key).bind(key).fetch_optional(&mut *tx).await?;
    Ok(row.map(entry))
}

/// Reads what is known about a number. A row that moved money decides over a refusal.
///
/// # Cancel safety
/// Safe: it only reads.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn look_up(pool: &Pool, book: &Book, mode: Mode, number: &str) -> Result<Known, sqlx::Error> {
    // The rows are read first: a cancel that commits in between can only make the answer more final.
    let rows: Vec<Row> = sqlx::query_as(book.find_rows).bind(number).fetch_all(pool).await?;
    let entries: Vec<_> = rows.into_iter().map(entry).collect();
    let state: Option<String> =
        sqlx::query_scalar(book.find_number).bind(number).bind(mode).fetch_optional(pool).await?;
    let decided = entries.iter().find(|e| e.status == book.done).or(entries.first()).cloned();
    Ok(match (decided, state.as_deref()) {
        (_, None) => Known::NeverSeen,
        (Some(entry), Some(_)) => Known::Entry(entry),
        (None, Some("cancelled")) => Known::CancelledUnseen,
        (None, Some(_)) => Known::NeverSeen,
    })
}

/// Cancels a number, seen or not. Afterwards nothing is charged under it, now or later.
///
/// # Cancel safety
/// Safe: repeat it until it answers; the answer does not change.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn cancel(
    pool: &Pool,
    book: &Book,
    mode: Mode,
    number: &str,
) -> Result<Cancelled, Error<sqlx::Error>> {
    probity_txn::on(pool, "channel_cancel")
        .run(async |tx| {
            if lock(tx, book, mode, number).await?.is_none() {
                return Ok(Cancelled::NeverSeen);
            }
            let rows: Vec<Row> = sqlx::query_as(book.find_rows).bind(number).fetch_all(&mut *tx).await?;
            let entries: Vec<_> = rows.into_iter().map(entry).collect();
            let done = entries.iter().any(|e| e.status == book.done);
            if done && !book.voidable {
                return Ok(Cancelled::TooLate(book.done));
            }
            if done && refunded(tx, number).await? > 0 {
                return Ok(Cancelled::TooLate(Status::Refunded));
            }
            sqlx::query(book.close_number).bind(number).execute(&mut *tx).await?;
            if done {
                sqlx::query(book.void_rows).bind(number).execute(&mut *tx).await?;
                for voided in entries.iter().filter(|e| e.status == book.done).cloned() {
                    tell(tx, book, &Entry { status: Status::Cancelled, ..voided }).await?;
                }
            }
            let voided = done || entries.iter().any(|e| e.status == Status::Cancelled);
            Ok(Cancelled::Done { voided })
        })
        .await
}

/// Sums what was refunded of a payment so far, in minor units.
pub(crate) async fn refunded(tx: &mut Tx<'_, Database>, payment_no: &str) -> Result<i64, sqlx::Error> {
    // PostgreSQL sums BIGINT into NUMERIC; the cast keeps one type on both databases.
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM channel_refunds
          WHERE payment_no = $1 AND status = 'refunded'",
    )
    .bind(payment_no)
    .fetch_one(&mut *tx)
    .await
}

/// Locks a payment and says what was charged under it, if anything is.
pub(crate) async fn lock_charge(
    tx: &mut Tx<'_, Database>,
    mode: Mode,
    payment_no: &str,
) -> Result<Option<Entry>, sqlx::Error> {
    if lock(tx, &PAYMENTS, mode, payment_no).await?.is_none() {
        return Ok(None);
    }
    let rows: Vec<Row> = sqlx::query_as(PAYMENTS.find_rows).bind(payment_no).fetch_all(&mut *tx).await?;
    Ok(rows.into_iter().map(entry).find(|entry| entry.status == Status::Charged))
}
