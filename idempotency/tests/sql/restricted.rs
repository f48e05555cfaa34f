//! Restricted databases: roles without DDL rights, several services on one database, a pooler in between.
#![cfg(all(feature = "postgres", feature = "sqlite"))]
#![cfg_attr(
    all(feature = "postgres", feature = "sqlite"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use probity_idempotency::store::{
    Answer, Claim, Dialect, OwnerToken, RecordId, Renewed, SqlStore, Terms, Written,
};
use probity_idempotency::*;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::{PgBouncer, Pooling, TestDatabase};

const KEPT: Duration = Duration::from_secs(3600);

async fn database() -> TestDatabase {
    tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap()
}

async fn pool(url: &str, connections: u32) -> PgPool {
    PgPoolOptions::new().max_connections(connections).connect(url).await.unwrap()
}

fn a_claim(number: u8) -> Claim {
    Claim {
        record: RecordId::from_bytes([number; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects: Effects::Local,
        terms: Terms::default(),
    }
}

fn retried(claim: &Claim) -> Claim {
    Claim { token: OwnerToken::generate().unwrap(), ..*claim }
}

fn answer(number: u8) -> Recording {
    Recording::new(201).header("n", vec![number]).body(vec![number; 100])
}

/// The reason why a store could not be opened.
fn reason<T>(opened: Result<T, StoreError>) -> String {
    let Err(error) = opened else { panic!("it opened") };
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{error:?}");
    error.source().unwrap().to_string()
}

/// Everything a store does, for records from `first` on; each call of its own, many at once.
async fn everything(
    store: &dyn IdempotencyManager,
    in_transactions: &SqlStore<sqlx::Postgres>,
    pool: &PgPool,
    first: u8,
) {
    let calls = (first..first + 30).map(async |number| {
        let claim = a_claim(number);
        assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        assert!(matches!(store.claim(&retried(&claim)).await.unwrap(), Answer::InFlight { .. }));
        assert!(matches!(store.renew(&claim.holder(), KEPT).await.unwrap(), Renewed::Held(_)));
        assert_eq!(store.mark_effect(&claim.holder()).await.unwrap(), Written::Applied);
        if number % 2 == 0 {
            let mut tx = pool.begin().await.unwrap();
            in_transactions.complete_in(&mut *tx, &claim.holder(), &answer(number), KEPT).await.unwrap();
            tx.commit().await.unwrap();
        } else {
            let completed = store.complete(&claim.holder(), &answer(number), KEPT).await.unwrap();
            assert_eq!(completed, Written::Applied);
        }
        let mut tx = pool.begin().await.unwrap();
        let replayed = in_transactions.claim_in(&mut *tx, &retried(&claim)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(replayed, Answer::Replay(answer(number)));
    });
    join_all(calls).await;
    // Again, over connections that have prepared their statements.
    for number in first..first + 30 {
        let claim = a_claim(number);
        assert_eq!(store.claim(&claim).await.unwrap(), Answer::Replay(answer(number)));
        let snapshot = store.get(claim.record).await.unwrap().unwrap();
        assert_eq!(snapshot.recording, Some(answer(number)));
    }
    assert_eq!(store.purge(10).await.unwrap(), 0);
}

// proves: I-9
#[tokio::test]
async fn a_role_that_may_only_read_and_write_the_tables_starts_and_does_everything() {
    let database = database().await;
    let owner = pool(database.url(), 2).await;
    let role = database.role();
    let service = pool(role.url(), 8).await;
    let absent = reason(PostgresStore::verify(service.clone()).await);
    assert!(absent.contains("run the files of `sql/postgres`"), "{absent}");
    let ddl = PostgresStore::builder(owner.clone()).ddl().unwrap();
    let _ = database.query(&ddl);
    let lacks = reason(PostgresStore::verify(service.clone()).await);
    assert!(lacks.contains("GRANT SELECT"), "{lacks}");
    let grants =
        include_str!("../../sql/postgres/grants.sql").replace("TO service", &format!("TO {}", role.name()));
    let _ = database.query(&grants);
    let refused = sqlx::query("CREATE TABLE another (id int)").execute(&service).await;
    assert!(refused.is_err(), "the role is not restricted");
    let store = PostgresStore::new(service.clone()).await.unwrap();
    everything(&store, &store.clone().direct(), &service, 0).await;
    let store = PostgresStore::verify(service.clone()).await.unwrap().direct();
    everything(&store, &store, &service, 100).await;
}

#[tokio::test]
async fn verify_refuses_older_tables_and_lost_tables_are_not_created_again() {
    let database = database().await;
    let owner = pool(database.url(), 2).await;
    let _ = database.query(include_str!("../../sql/postgres/0001_records.sql"));
    let old = reason(PostgresStore::verify(owner.clone()).await);
    assert!(old.contains("have version 1"), "{old}");
    PostgresStore::new(owner.clone()).await.unwrap();
    PostgresStore::verify(owner.clone()).await.unwrap();
    let _ = database.query("DROP TABLE idempotency_records");
    let gone = reason(PostgresStore::new(owner).await);
    assert!(gone.contains("restore it"), "{gone}");

    let memory = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let memory = memory.connect("sqlite::memory:").await.unwrap();
    let absent = reason(SqliteStore::verify(memory.clone()).await);
    assert!(absent.contains("have version 0"), "{absent}");
    sqlx::raw_sql(include_str!("../../sql/sqlite/0001_records.sql")).execute(&memory).await.unwrap();
    sqlx::raw_sql(include_str!("../../sql/sqlite/0002_fences.sql")).execute(&memory).await.unwrap();
    SqliteStore::verify(memory.clone()).await.unwrap();
    sqlx::raw_sql("DROP TABLE idempotency_records").execute(&memory).await.unwrap();
    let gone = reason(SqliteStore::new(memory).await);
    assert!(gone.contains("restore it"), "{gone}");
}

/// One key of two services that both say `single_tenant`; each pays once, in a transaction of its own tables.
async fn each_pays_once<DB: Dialect>(stores: [impl IdempotencyManager + Clone; 2], pool: sqlx::Pool<DB>)
where
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
{
    let key = IdempotencyKey::new("order-17").unwrap();
    let print = Fingerprint::of(&HashKey::default(), &[b"pay"]);
    let policy = Policy::default().effects(Effects::Local);
    for expected in [Execution::Fresh as fn(usize) -> _, Execution::Replayed] {
        for (number, store) in stores.iter().enumerate() {
            let manager: Arc<dyn IdempotencyManager> = Arc::new(store.clone());
            let pay = async |lease: Lease| {
                let mut tx = pool.begin().await.unwrap();
                let paid = lease.complete_result_in(&mut *tx, number).await?;
                tx.commit().await.unwrap();
                Ok::<_, StoreError>(paid)
            };
            let paid = execute(&manager, &Scope::single_tenant(), &key, print, &policy, pay).await.unwrap();
            assert_eq!(paid, expected(number));
        }
    }
}

// proves: I-8
#[tokio::test]
async fn services_with_names_of_their_own_do_not_replay_each_others_answers() {
    let database = database().await;
    let both = pool(database.url(), 8).await;
    let order = PostgresStore::builder(both.clone()).table_prefix("order_").build().await.unwrap();
    let gateway = PostgresStore::builder(both.clone()).table_prefix("gateway_").build().await.unwrap();
    each_pays_once([order, gateway], both.clone()).await;
    let missing = reason(PostgresStore::builder(both.clone()).schema("pay ments").build().await);
    assert!(missing.contains("CREATE SCHEMA \"pay ments\""), "{missing}");
    let _ = database.query("CREATE SCHEMA \"pay ments\"");
    let schema = PostgresStore::builder(both.clone()).schema("pay ments").build().await.unwrap();
    let usual = PostgresStore::new(both.clone()).await.unwrap();
    each_pays_once([schema, usual], both.clone()).await;
    let odd = reason(PostgresStore::builder(both).table_prefix("Robert'); --").build().await);
    assert!(odd.contains("must have 1 to 32 characters"), "{odd}");

    let memory = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let memory = memory.connect("sqlite::memory:").await.unwrap();
    let order = SqliteStore::builder(memory.clone()).table_prefix("order_").build().await.unwrap();
    let usual = SqliteStore::new(memory.clone()).await.unwrap();
    each_pays_once([order, usual], memory).await;
}

// proves: I-1
#[tokio::test]
async fn the_search_path_of_a_transaction_changes_nothing() {
    let database = database().await;
    let pool = pool(database.url(), 4).await;
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    let _ = database.query("CREATE SCHEMA tenant");
    PostgresStore::builder(pool.clone()).schema("tenant").build().await.unwrap();
    let claim = a_claim(1);
    let mut tx = pool.begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL search_path TO tenant").execute(&mut *tx).await.unwrap();
    assert!(matches!(store.claim_in(&mut *tx, &claim).await.unwrap(), Answer::Acquired(_)));
    store.complete_in(&mut *tx, &claim.holder(), &answer(1), KEPT).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.claim(&retried(&claim)).await.unwrap(), Answer::Replay(answer(1)));
    assert_eq!(database.query("SELECT count(*) FROM tenant.idempotency_records"), "0");
}

#[tokio::test]
async fn a_session_that_may_lose_acknowledged_commits_is_refused() {
    let database = database().await;
    let role = database.role();
    let _ = database.query(&format!("ALTER ROLE {} SET synchronous_commit = off", role.name()));
    let refused = reason(PostgresStore::new(pool(role.url(), 2).await).await);
    assert!(refused.contains("synchronous_commit is off"), "{refused}");
}

// proves: I-2
#[tokio::test]
async fn behind_pgbouncer_in_transaction_mode_nothing_is_lost() {
    let database = database().await;
    let url = database.url().to_owned();
    let start = move || PgBouncer::start(&url, Pooling::Transaction);
    let pooler = tokio::task::spawn_blocking(start).await.unwrap();
    let through = pool(&pooler.url(), 6).await;
    let refused = reason(PostgresStore::new(through.clone()).await);
    assert!(refused.contains("behind_pooler"), "{refused}");
    let open = async || PostgresStore::builder(through.clone()).behind_pooler().build().await.unwrap();
    let store = open().await;
    everything(&store, &store.clone().direct(), &through, 0).await;
    let direct = open().await.direct();
    everything(&direct, &direct, &through, 100).await;
    // Another process has other statements under the same names.
    let other = pool(&pooler.url(), 6).await;
    let elsewhere = PostgresStore::builder(other.clone()).behind_pooler().verify().await.unwrap();
    everything(&elsewhere, &elsewhere.clone().direct(), &other, 200).await;
    let kept = sqlx::raw_sql("SELECT name FROM pg_prepared_statements").fetch_all(&through).await.unwrap();
    assert!(kept.is_empty(), "{} statements stayed in a session", kept.len());
}

// proves: I-2
#[tokio::test]
async fn behind_pgbouncer_in_session_mode_the_store_works_unchanged() {
    let database = database().await;
    let url = database.url().to_owned();
    let start = move || PgBouncer::start_with(&url, Pooling::Session, &["default_pool_size = 8"]);
    let pooler = tokio::task::spawn_blocking(start).await.unwrap();
    let through = pool(&pooler.url(), 6).await;
    let store = PostgresStore::new(through.clone()).await.unwrap();
    everything(&store, &store.clone().direct(), &through, 0).await;
    let direct = store.direct();
    everything(&direct, &direct, &through, 100).await;
    let store = PostgresStore::builder(through.clone()).behind_pooler().build().await.unwrap();
    everything(&store, &store.clone().direct(), &through, 200).await;
}
