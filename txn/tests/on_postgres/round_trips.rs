//! Counts the round trips of a run.

use probity_txn::{create_token_table, lock::LockError, on};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::PostgresProxy;

use super::both::lock::Account;
use super::lost::a_proxy;

const UPDATE: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = 'a'";
const TIMES: u64 = 10;

struct Counter {
    proxy: PostgresProxy,
    pool: PgPool,
    _database: testkit::TestDatabase,
}

impl Counter {
    /// One connection, so that each transaction waits for the end of the one before it.
    async fn open() -> Self {
        let database = testkit::Postgres::shared().database();
        let proxy = a_proxy(database.url()).await;
        let pool = PgPoolOptions::new().max_connections(1).connect(&proxy.url(database.url())).await.unwrap();
        sqlx::raw_sql(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY, balance BIGINT NOT NULL);
             INSERT INTO accounts VALUES ('a', 100), ('b', 0)",
        )
        .execute(&pool)
        .await
        .unwrap();
        create_token_table(&pool).await.unwrap();
        Self { proxy, pool, _database: database }
    }

    /// The round trips of each call, once its statements are prepared and the server is known. All calls
    /// borrow from the pool and give back, which costs the same for all sides.
    async fn count(&self, call: impl AsyncFn(u64)) -> u64 {
        call(0).await;
        drop(self.pool.acquire().await.unwrap());
        let before = self.proxy.round_trips();
        for number in 1..=TIMES {
            call(number).await;
        }
        drop(self.pool.acquire().await.unwrap());
        let spent = self.proxy.round_trips() - before;
        spent / TIMES
    }

    async fn raw(&self, statements: &[&'static str]) -> u64 {
        self.count(async |_| {
            let mut tx = self.pool.begin().await.unwrap();
            for statement in statements {
                sqlx::query(*statement).execute(&mut *tx).await.unwrap();
            }
            tx.commit().await.unwrap();
        })
        .await
    }
}

#[tokio::test]
async fn a_run_takes_as_many_round_trips_as_begin_update_and_commit() {
    let counter = Counter::open().await;
    let raw = counter.raw(&[UPDATE]).await;
    assert!(raw >= 3, "BEGIN, UPDATE and COMMIT are three, and the pool's pings come on top: {raw}");
    let ours = counter
        .count(async |_| {
            on(&counter.pool, "update")
                .run(async |tx| sqlx::query(UPDATE).execute(&mut *tx).await)
                .await
                .unwrap();
        })
        .await;
    assert_eq!(ours, raw);
    let tenant = counter
        .count(async |number| {
            on(&counter.pool, "update")
                .set_local("app.tenant", number.to_string())
                .run(async |tx| sqlx::query(UPDATE).execute(&mut *tx).await)
                .await
                .unwrap();
        })
        .await;
    assert_eq!(tenant, raw, "settings travel with BEGIN");
}

#[tokio::test]
async fn an_uncontended_lock_takes_no_more_round_trips_than_one_written_by_hand() {
    let counter = Counter::open().await;
    let by_hand = counter.raw(&["SELECT id FROM accounts WHERE id = 'a' FOR NO KEY UPDATE", UPDATE]).await;
    let one = counter
        .count(async |_| {
            on(&counter.pool, "one")
                .run(async |tx| {
                    tx.lock_one::<Account>("a").await?;
                    Ok::<_, LockError>(sqlx::query(UPDATE).execute(&mut *tx).await?)
                })
                .await
                .unwrap();
        })
        .await;
    let many = counter
        .count(async |_| {
            on(&counter.pool, "many")
                .run(async |tx| {
                    tx.lock_many::<Account>(["b", "a"]).await?;
                    Ok::<_, LockError>(sqlx::query(UPDATE).execute(&mut *tx).await?)
                })
                .await
                .unwrap();
        })
        .await;
    assert_eq!((one, many), (by_hand, by_hand));
}

#[tokio::test]
async fn a_token_costs_two_statements_and_no_more() {
    let counter = Counter::open().await;
    let raw = counter.raw(&[UPDATE]).await;
    let once = counter
        .count(async |number| {
            on(&counter.pool, "once")
                .once(format!("request {number}"))
                .run(async |tx| {
                    sqlx::query(UPDATE).execute(&mut *tx).await?;
                    Ok::<_, sqlx::Error>(())
                })
                .await
                .unwrap();
        })
        .await;
    assert_eq!(once, raw + 2);
}
