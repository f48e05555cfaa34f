//! Through a real PgBouncer: the tests show that the chapter on poolers is right, its warnings included.

use probity_txn::{
    Policy, create_token_table,
    lock::{LockError, Lockable},
    on,
};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use testkit::{Cut, PgBouncer, Pooling, Postgres, TestDatabase};

use super::both::patient;
use super::lost::{a_proxy, let_pass};
use super::pitfalls::until_somebody_waits;

struct Counter;

impl Lockable for Counter {
    type Key = i64;
    const TABLE: &'static str = "counters";
}

const ADD: &str = "UPDATE counters SET n = n + $1 WHERE id = $2 RETURNING n";
const MODES: [Pooling; 2] = [Pooling::Transaction, Pooling::Session];

/// A pool as the chapter says, on a database with one counter; `settings` are the pooler's.
struct Behind {
    pool: PgPool,
    direct: PgPool,
    pooler: PgBouncer,
    _database: TestDatabase,
}

impl Behind {
    async fn open(pooling: Pooling, settings: &[&str]) -> Self {
        let database = Postgres::shared().database();
        let pooler = PgBouncer::start_with(database.url(), pooling, settings);
        let direct = PgPool::connect(database.url()).await.unwrap();
        let counters = "CREATE TABLE counters (id BIGINT PRIMARY KEY, n BIGINT NOT NULL);
            INSERT INTO counters VALUES (1, 0), (2, 0)";
        sqlx::raw_sql(counters).execute(&direct).await.unwrap();
        let pool = pool(&pooler.url()).await;
        Self { pool, direct, pooler, _database: database }
    }

    async fn counted(&self) -> i64 {
        sqlx::query_scalar("SELECT n FROM counters WHERE id = 1").fetch_one(&self.direct).await.unwrap()
    }
}

async fn pool(url: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(6);
    pool.connect_with(options.statement_cache_capacity(0)).await.unwrap()
}

fn behind() -> Policy {
    Policy { behind_pooler: true, ..patient() }
}

async fn add(tx: &mut probity_txn::Tx<'_, sqlx::Postgres>) -> Result<i64, LockError> {
    let counter = tx.lock_one::<Counter>(1).await?;
    tx.advisory("counter", "1").await?;
    let scope = tx.scope(async |tx| {
        sqlx::query("INSERT INTO counters VALUES (1, $1)").bind(7_i64).execute(&mut *tx).await
    });
    assert!(scope.await.is_err(), "the counter is there");
    Ok(sqlx::query_scalar(ADD).bind(1_i64).bind(counter.key()).fetch_one(&mut *tx).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_share_two_server_sessions_and_leave_no_statement_there() {
    // proves: T-1
    // proves: T-6
    for mode in MODES {
        // In session mode a client keeps its server session, so there has to be one for each.
        let behind_it =
            Behind::open(mode, if mode == Pooling::Session { &["default_pool_size = 6"] } else { &[] }).await;
        create_token_table(&behind_it.direct).await.unwrap();
        let working: Vec<_> = (0..6)
            .map(|worker| {
                let pool = behind_it.pool.clone();
                tokio::spawn(async move {
                    for number in 0..20 {
                        on(&pool, "add").policy(behind()).run(async |tx| add(tx).await).await.unwrap();
                        let once = on(&pool, "add").policy(behind()).once(format!("{worker}-{number}"));
                        let (first, again) = (once.run(async |tx| add(tx).await).await.unwrap(), {
                            let once = on(&pool, "add").policy(behind()).once(format!("{worker}-{number}"));
                            once.run(async |tx| add(tx).await).await.unwrap()
                        });
                        assert_eq!(first, again);
                    }
                })
            })
            .collect();
        for worker in working {
            worker.await.unwrap();
        }
        assert_eq!(behind_it.counted().await, 240, "{mode:?}");
        // All connections at once, so that each server session is asked.
        let mut asked = Vec::new();
        for _ in 0..6 {
            let mut connection = behind_it.pool.acquire().await.unwrap();
            let left = sqlx::raw_sql("SELECT count(*)::text FROM pg_prepared_statements");
            let left = left.fetch_one(&mut *connection).await.unwrap();
            assert_eq!(sqlx::Row::get::<&str, _>(&left, 0), "0", "{mode:?}");
            asked.push(connection);
        }
    }
}

#[tokio::test]
async fn without_behind_pooler_statements_stay_in_the_servers_sessions() {
    let behind_it = Behind::open(Pooling::Transaction, &["default_pool_size = 1"]).await;
    let options: PgConnectOptions = behind_it.pooler.url().parse().unwrap();
    // One client: the names of a second one would meet those of the first.
    let single = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let single = single.connect_with(options.statement_cache_capacity(0)).await.unwrap();
    for _ in 0..3 {
        let run = on(&single, "add").policy(patient());
        let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Postgres>| {
            sqlx::query_scalar::<_, i64>(ADD).bind(1_i64).bind(1_i64).fetch_one(&mut *tx).await
        };
        run.run(body).await.unwrap();
    }
    let left = sqlx::raw_sql("SELECT count(*)::text FROM pg_prepared_statements");
    let left = left.fetch_one(&single).await.unwrap();
    assert_eq!(
        sqlx::Row::get::<&str, _>(&left, 0),
        "3",
        "the damage; if not, the driver has learnt what a cache of no size means"
    );
}

#[tokio::test]
async fn behind_a_pooler_limits_end_with_the_run_and_abandoned_statements_are_cancelled() {
    // proves: T-5
    for mode in MODES {
        // One server session for each client in session mode, and one to spare for the cancellation.
        let behind_it = Behind::open(mode, &["default_pool_size = 7"]).await;
        let limits = on(&behind_it.pool, "limits")
            .behind_pooler()
            .run(async |tx| sqlx::query_scalar::<_, String>("SHOW lock_timeout").fetch_one(&mut *tx).await);
        assert_eq!(limits.await.unwrap(), "2s");
        let sleeping = on(&behind_it.pool, "sleep").policy(behind()).run(async |tx| {
            add(tx).await?;
            sqlx::query("SELECT pg_sleep(36000)").execute(&mut *tx).await?;
            Ok::<_, LockError>(())
        });
        tokio::select! {
            outcome = sleeping => panic!("it sleeps: {outcome:?}"),
            () = until_asleep(&behind_it.direct) => {}
        }
        // Waits for the row, and so for the end of the abandoned transaction.
        let next = on(&behind_it.pool, "next").policy(behind()).run(async |tx| add(tx).await);
        let next = tokio::time::timeout(std::time::Duration::from_secs(120), next);
        assert_eq!(next.await.expect("the lock is free").unwrap(), 1, "nothing is left of it: {mode:?}");
        let left = sqlx::raw_sql("SHOW lock_timeout").fetch_one(&behind_it.pool).await.unwrap();
        assert_eq!(sqlx::Row::get::<&str, _>(&left, 0), "0", "{mode:?}");
        assert_eq!(behind_it.counted().await, 1, "{mode:?}");
    }
}

#[tokio::test]
async fn a_late_cancellation_spares_the_next_transaction_of_the_session() {
    // proves: T-5
    const STATEMENT: i64 = 1;
    const CANCELLATION: i64 = 2;
    const NEXT: i64 = 3;
    let wait = "SELECT pg_advisory_xact_lock($1)";
    let behind_it = Behind::open(Pooling::Transaction, &["default_pool_size = 1"]).await;
    let (direct, next) = (&behind_it.direct, pool(&behind_it.pooler.url()).await);
    // The cancellation looks for its transaction in this view, which waits before it answers.
    let late = format!(
        "CREATE FUNCTION late() RETURNS SETOF pg_catalog.pg_stat_activity LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_lock({CANCELLATION}); RETURN QUERY SELECT * FROM pg_catalog.pg_stat_activity; END';
         CREATE VIEW pg_stat_activity AS SELECT * FROM late()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(late)).execute(direct).await.unwrap();
    let beside = (*direct.connect_options()).clone().options([("search_path", "public,pg_catalog")]);
    behind_it.pool.set_connect_options(beside.application_name("canceller"));
    let mut holders = Vec::new();
    for lock in [STATEMENT, CANCELLATION, NEXT] {
        let mut holder = direct.begin().await.unwrap();
        sqlx::query(wait).bind(lock).execute(&mut *holder).await.unwrap();
        holders.push(holder);
    }
    let [statement, cancellation, others] = <[_; 3]>::try_from(holders).unwrap();

    {
        let abandoned = on(&behind_it.pool, "abandoned").policy(behind());
        let abandoned = abandoned.run(async |tx| sqlx::query(wait).bind(STATEMENT).execute(&mut *tx).await);
        tokio::select! {
            outcome = abandoned => panic!("it waits: {outcome:?}"),
            () = until_waiting(direct, &[STATEMENT]) => {}
        }
    }
    until_waiting(direct, &[STATEMENT, CANCELLATION]).await;
    // The statement ends by itself, and the only session of the server is the next client's.
    statement.commit().await.unwrap();
    let next = on(&next, "next").policy(behind());
    let next = next.run(async |tx| sqlx::query(wait).bind(NEXT).execute(&mut *tx).await);
    let cancelled = async {
        until_waiting(direct, &[CANCELLATION, NEXT]).await;
        cancellation.commit().await.unwrap();
        until(direct, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'canceller'").await;
        others.commit().await.unwrap();
    };
    tokio::join!(next, cancelled).0.expect("it was not cancelled");
}

/// Returns once a session waits for each of these advisory locks, and none for another.
async fn until_waiting(direct: &PgPool, locks: &[i64]) {
    let waiting = format!(
        "SELECT coalesce(array_agg(objid::int8 ORDER BY objid), '{{}}') = ARRAY{locks:?}::int8[] FROM pg_locks
         WHERE locktype = 'advisory' AND NOT granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    until(direct, &waiting).await;
}

async fn until_asleep(direct: &PgPool) {
    let asleep = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    until(direct, asleep).await;
}

/// Returns once the answer to `question` is yes.
async fn until(direct: &PgPool, question: &str) {
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(question)).fetch_one(direct).await.unwrap() {
        assert!(tokio::time::Instant::now() < limit, "{question}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_on_the_way_to_the_pooler_is_settled() {
    // proves: T-2
    // proves: T-6
    for mode in MODES {
        let behind_it = Behind::open(mode, &["default_pool_size = 4"]).await;
        create_token_table(&behind_it.direct).await.unwrap();
        let proxy = a_proxy(&behind_it.pooler.url()).await;
        let pool = pool(&proxy.url(&behind_it.pooler.url())).await;
        let mut expected = 0;
        for cut in [Cut::BeforeTheServer, Cut::BeforeTheAnswer] {
            for token in [false, true] {
                expected += 1;
                proxy.cut_next(cut);
                let run = on(&pool, "add").policy(behind());
                let n = if token {
                    run.once(format!("{cut:?}")).run(async |tx| add(tx).await).await
                } else {
                    run.run(async |tx| add(tx).await).await
                };
                assert_eq!((n.unwrap(), behind_it.counted().await), (expected, expected), "{mode:?} {cut:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_pooler_that_dies_is_a_lost_connection() {
    // proves: T-4
    for mode in MODES {
        let mut behind_it = Behind::open(mode, &[]).await;
        let pooler = std::sync::Mutex::new(Some(&mut behind_it.pooler));
        let run = on(&behind_it.pool, "add").policy(behind()).run(async |tx| {
            let n = add(tx).await?;
            if let Some(pooler) = pooler.lock().unwrap().take() {
                pooler.restart();
            }
            sqlx::query("SELECT 1").execute(&mut *tx).await?;
            Ok::<_, LockError>((tx.attempt(), n))
        });
        assert_eq!(run.await.unwrap(), (2, 1), "{mode:?}");
        assert_eq!(behind_it.counted().await, 1, "{mode:?}");
    }
}

#[tokio::test]
async fn a_deadline_passes_behind_a_pooler_as_well() {
    let behind_it = Behind::open(Pooling::Transaction, &[]).await;
    let mut holder = behind_it.direct.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM counters WHERE id = 1 FOR UPDATE").execute(&mut *holder).await.unwrap();
    let run = on(&behind_it.pool, "add").policy(behind()).run(async |tx| add(tx).await);
    let passes = async {
        until_somebody_waits(&behind_it.direct).await;
        let_pass(behind().deadline).await;
    };
    let (outcome, ()) = tokio::join!(run, passes);
    assert!(matches!(outcome, Err(probity_txn::Error::Deadline { .. })), "{outcome:?}");
    holder.rollback().await.unwrap();
    on(&behind_it.pool, "add").policy(behind()).run(async |tx| add(tx).await).await.unwrap();
    assert_eq!(behind_it.counted().await, 1);
}

#[tokio::test]
async fn prepare_is_refused_behind_a_pooler() {
    let behind_it = Behind::open(Pooling::Transaction, &[]).await;
    let outcome = on(&behind_it.pool, "prepare").behind_pooler().run(async |tx| {
        let sql = sqlx::SqlSafeStr::into_sql_str("SELECT 1");
        sqlx::Executor::prepare(&mut *tx, sql).await.map(drop)
    });
    let error = outcome.await.unwrap_err();
    assert!(error.to_string().contains("send the query itself"), "the remedy: {error}");
}
