//! A small bank with refunds, and the audit that finds every coin lost, made or moved twice.
//!
//! The tables have no constraints, so a fault has to show in the audit.

use std::collections::BTreeMap;

use probity_txn::{
    Affected as _, Error, Policy, Tx, create_token_table,
    lock::{LockError, Lockable},
    on,
};
use sqlx::Pool;
use testkit::Rng;

use super::dropped::poll_then_drop;
use super::{Database, patient};

/// One payment stands from the beginning, to a wallet that no run spends from; every run wants a part
/// of it back at once.
const SCHEMA: &str = "
    CREATE TABLE wallets (id TEXT PRIMARY KEY, balance BIGINT NOT NULL);
    CREATE TABLE payments (id TEXT PRIMARY KEY, payer TEXT NOT NULL, payee TEXT NOT NULL, amount BIGINT NOT NULL);
    CREATE TABLE refunds (payment TEXT NOT NULL, amount BIGINT NOT NULL);
    CREATE TABLE effects (token TEXT NOT NULL);
    INSERT INTO wallets VALUES ('c', 0), ('d', 100), ('e', 100), ('f', 100), ('vault', 200);
    INSERT INTO payments VALUES ('opening', 'c', 'vault', 100);";

const WALLETS: [&str; 4] = ["c", "d", "e", "f"];
const WORKERS: u64 = 6;

/// The request of a client under one token.
#[derive(Debug)]
pub(crate) struct Request {
    token: String,
    order: Order,
}

#[derive(Debug)]
enum Order {
    Transfer { from: &'static str, to: &'static str, amount: i64 },
    Refund { payment: String, amount: i64 },
}

/// The answer that the client got in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused,
}

#[derive(Debug)]
enum Refused {
    TooPoor,
    NoSuchPayment,
    MoreThanPaid,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

struct Wallet;

impl Lockable for Wallet {
    type Key = String;
    const TABLE: &'static str = "wallets";
}

struct Payment;

impl Lockable for Payment {
    type Key = String;
    const TABLE: &'static str = "payments";
}

pub(crate) async fn prepare(pool: &Pool<Database>) {
    sqlx::raw_sql(SCHEMA).execute(pool).await.unwrap();
    create_token_table(pool).await.unwrap();
}

/// All workers, each with choices of its own.
pub(crate) fn workers(seed: u64) -> impl Iterator<Item = Worker> {
    (0..WORKERS).map(move |number| Worker { number, random: Rng::new(seed ^ number), asked: 0 })
}

pub(crate) struct Worker {
    number: u64,
    random: Rng,
    asked: u64,
}

impl Worker {
    /// The first wish of every run is a part of the same payment; then anything.
    pub(crate) fn next_request(&mut self) -> Request {
        let token = format!("{}-{}", self.number, self.asked);
        let random = &mut self.random;
        let order = if self.asked == 0 {
            Order::Refund { payment: "opening".to_owned(), amount: 40 }
        } else if random.between(0, 2) == 0 {
            // A recent one, perhaps of another customer, perhaps a refund or a refusal itself.
            let number = random.between(self.asked.saturating_sub(4), self.asked);
            let payment = format!("{}-{number}", random.between(0, WORKERS - 1));
            Order::Refund { payment, amount: i64::try_from(random.between(1, 60)).unwrap() }
        } else {
            let mut wallets = WALLETS;
            random.shuffle(&mut wallets);
            let amount = i64::try_from(random.between(1, 80)).unwrap();
            Order::Transfer { from: wallets[0], to: wallets[1], amount }
        };
        self.asked += 1;
        Request { token, order }
    }

    /// Asks under the same token until there is an answer. Some runs are dropped on the way: their
    /// outcome is then unknown.
    pub(crate) async fn settle(&mut self, pool: &Pool<Database>, request: &Request) -> Answer {
        let policy = Policy { attempts: 50, ..patient() };
        for _ in 0..1000 {
            let run = on(pool, "ledger")
                .policy(policy.clone())
                .once(request.token.as_str())
                .run(async |tx| carry_out(tx, request).await);
            let polls = u32::try_from(self.random.between(1, 36)).unwrap();
            let outcome = if polls <= 12 { poll_then_drop(run, polls).await } else { Some(run.await) };
            match outcome {
                Some(Ok(_)) => return Answer::Done,
                Some(Err(Error::App(Refused::Database(error)))) => panic!("{request:?}: {error}"),
                Some(Err(Error::App(_))) => return Answer::Refused,
                Some(Err(Error::Misuse(_) | Error::ResultUnreadable(_) | Error::RolledBack(_))) => {
                    panic!("{request:?}: {outcome:?}")
                }
                // Unknown, or not applied: the token makes it the same.
                Some(Err(_)) | None => tokio::task::yield_now().await,
            }
        }
        panic!("{request:?} was never answered");
    }
}

impl Request {
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

async fn carry_out(tx: &mut Tx<'_, Database>, request: &Request) -> Result<i64, Refused> {
    let moved = match &request.order {
        &Order::Transfer { from, to, amount } => {
            shift(tx, from, to, amount).await?;
            sqlx::query("INSERT INTO payments VALUES ($1, $2, $3, $4)")
                .bind(&request.token)
                .bind(from)
                .bind(to)
                .bind(amount)
                .execute(&mut *tx)
                .await?;
            amount
        }
        Order::Refund { payment, amount } => refund(tx, payment, *amount).await?,
    };
    sqlx::query("INSERT INTO effects VALUES ($1)").bind(&request.token).execute(&mut *tx).await?;
    Ok(moved)
}

async fn refund(tx: &mut Tx<'_, Database>, payment: &str, amount: i64) -> Result<i64, Refused> {
    let payment = tx.lock_one::<Payment>(payment).await.map_err(|error| match error {
        LockError::Missing { .. } => Refused::NoSuchPayment,
        other => Refused::Database(other.into()),
    })?;
    let (payer, payee, paid): (String, String, i64) =
        sqlx::query_as("SELECT payer, payee, amount FROM payments WHERE id = $1")
            .bind(payment.key())
            .fetch_one(&mut *tx)
            .await?;
    let refunded: i64 =
        sqlx::query_scalar("SELECT CAST(coalesce(sum(amount), 0) AS BIGINT) FROM refunds WHERE payment = $1")
            .bind(payment.key())
            .fetch_one(&mut *tx)
            .await?;
    if refunded + amount > paid {
        return Err(Refused::MoreThanPaid);
    }
    shift(tx, &payee, &payer, amount).await?;
    sqlx::query("INSERT INTO refunds VALUES ($1, $2)")
        .bind(payment.key())
        .bind(amount)
        .execute(&mut *tx)
        .await?;
    Ok(amount)
}

/// Takes from one wallet and gives to the other.
async fn shift(tx: &mut Tx<'_, Database>, from: &str, to: &str, amount: i64) -> Result<(), Refused> {
    tx.lock_many::<Wallet>([from, to]).await.map_err(|error| Refused::Database(error.into()))?;
    sqlx::query("UPDATE wallets SET balance = balance - $1 WHERE id = $2 AND balance >= $1")
        .bind(amount)
        .bind(from)
        .execute(&mut *tx)
        .await?
        .expect_one()
        .map_err(|_| Refused::TooPoor)?;
    sqlx::query("UPDATE wallets SET balance = balance + $1 WHERE id = $2")
        .bind(amount)
        .bind(to)
        .execute(&mut *tx)
        .await?
        .expect_one()
        .map_err(|error| Refused::Database(error.into()))
}

/// Checks the invariants that hold at any moment, also in the middle of everything.
pub(crate) async fn audit(pool: &Pool<Database>) {
    let none = async |sql: &'static str, complaint: &str| {
        let wrong: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        assert_eq!(wrong, 0, "{complaint}");
    };
    none("SELECT CAST(sum(balance) AS BIGINT) - 500 FROM wallets", "money was made or lost").await;
    none("SELECT count(*) FROM wallets WHERE balance < 0", "a wallet was overdrawn").await;
    none(
        "SELECT count(*) FROM wallets AS w WHERE balance <> 100
            - coalesce((SELECT sum(amount) FROM payments WHERE payer = w.id), 0)
            + coalesce((SELECT sum(amount) FROM payments WHERE payee = w.id), 0)
            + coalesce((SELECT sum(r.amount) FROM refunds r JOIN payments p ON p.id = r.payment WHERE p.payer = w.id), 0)
            - coalesce((SELECT sum(r.amount) FROM refunds r JOIN payments p ON p.id = r.payment WHERE p.payee = w.id), 0)",
        "a wallet does not hold what its payments and refunds say",
    )
    .await;
    none(
        "SELECT count(*) FROM payments AS p
         WHERE amount < (SELECT sum(amount) FROM refunds WHERE payment = p.id)",
        "more was refunded than paid",
    )
    .await;
    none(
        "SELECT count(*) FROM (SELECT token FROM effects GROUP BY token HAVING count(*) > 1) AS twice",
        "a token took effect twice",
    )
    .await;
}

/// [`audit`], and that each answer was the truth.
pub(crate) async fn audit_answers(pool: &Pool<Database>, answers: &BTreeMap<String, Answer>) {
    audit(pool).await;
    let effects: Vec<String> =
        sqlx::query_scalar("SELECT token FROM effects ORDER BY token").fetch_all(pool).await.unwrap();
    let mut done: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| **answer == Answer::Done)
        .map(|(token, _)| token.clone())
        .collect();
    done.sort_unstable();
    let mut effects_sorted = effects;
    effects_sorted.sort_unstable();
    assert_eq!(effects_sorted, done, "exactly what was answered with success took effect, once");
    // Each run wanted 40 of the same 100.
    let refunded: i64 = sqlx::query_scalar(
        "SELECT CAST(coalesce(sum(amount), 0) AS BIGINT) FROM refunds WHERE payment = 'opening'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(refunded, 80);
}
