//! Two processes, dying connections, dying servers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use probity_idempotency::store::{Answer, Claim, Written};
use probity_idempotency::*;
use sqlx::Row;
use sqlx::postgres::PgPoolOptions;
use tokio::time::Instant;

use super::{Database, KEPT, PATIENCE, a_claim, connect, database, recording, reported};

// proves: I-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_fight_over_the_same_keys_do_not_deadlock() {
    let Database { pool, database, .. } = database().await;
    // A deadlock is only counted if it is found before the lock timeout ends it.
    sqlx::query(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = $t$1ms$t$', current_database()); END $$",
    )
    .execute(&pool)
    .await
    .unwrap();
    // Rows stay locked while the statement goes on to others; otherwise hardly two statements ever overlap.
    sqlx::raw_sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
         CREATE TRIGGER linger BEFORE UPDATE ON idempotency_records FOR EACH ROW EXECUTE FUNCTION linger()",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    let (pool, store) = connect(&database).await;
    let (other_pool, other) = connect(&database).await;
    let mut workers = Vec::new();
    for worker in 0..32_u32 {
        let store = if worker % 2 == 0 { store.clone() } else { other.clone() };
        workers.push(tokio::spawn(async move {
            let mut completed = Vec::new();
            for round in 0..40 {
                let mut claim = a_claim((worker * 5 + round * 3) % 24);
                claim.terms.lease = Duration::ZERO;
                if !matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)) {
                    continue;
                }
                match round % 3 {
                    0 => {
                        let _ = store.release(&claim.holder()).await.unwrap();
                    }
                    // A completed record is only read, so no call waits for its lock.
                    1 if round >= 30 => {
                        let kept = recording(worker * 1000 + round);
                        if store.complete(&claim.holder(), &kept, KEPT).await.unwrap() == Written::Applied {
                            completed.push(claim.record);
                        }
                    }
                    _ => {
                        let _ = store.renew(&claim.holder(), Duration::ZERO).await.unwrap();
                    }
                }
            }
            completed
        }));
    }
    let mut completed = Vec::new();
    for worker in workers {
        completed.extend(worker.await.unwrap());
    }
    let number = completed.len();
    completed.sort_unstable();
    completed.dedup();
    assert_eq!(completed.len(), number, "a record was completed twice");
    assert!(number > 0);
    let pool = reported(&database, [pool, other_pool]).await;
    let deadlocks: i64 =
        sqlx::query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(&pool)
            .await
            .unwrap()
            .get(0);
    assert_eq!(deadlocks, 0);
}

// proves: I-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_under_a_shared_statement_leaves_each_call_unknown() {
    let Database { pool, store, database } = database().await;
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE idempotency_records IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    let claims: Vec<Claim> = (0..32).map(a_claim).collect();
    let calls: Vec<_> = claims
        .iter()
        .map(|claim| {
            let (store, claim) = (store.clone(), *claim);
            tokio::spawn(async move { store.claim(&claim).await })
        })
        .collect();
    let give_up_at = Instant::now() + PATIENCE;
    while calls.iter().any(|call| !call.is_finished()) {
        assert!(Instant::now() < give_up_at, "a call waits for ever");
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .execute(&pool) // in a transaction the view would not change
        .await
        .unwrap();
        tokio::task::yield_now().await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap_err().effect(), Effect::Unknown);
    }
    tx.rollback().await.unwrap();
    for claim in &claims {
        assert!(matches!(store.claim(claim).await.unwrap(), Answer::Acquired(grant) if grant.attempt == 1));
    }
    drop(database);
}

// proves: I-2
// proves: I-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_under_load_loses_no_answer() {
    let mut server = tokio::task::spawn_blocking(testkit::Postgres::start).await.unwrap();
    let options = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(60));
    let store = PostgresStore::new(options.connect(server.url()).await.unwrap()).await.unwrap();
    let (done, mut progress) = tokio::sync::watch::channel(0_u32);
    let done = Arc::new(done);
    let workers: Vec<_> = (0..16_u32)
        .map(|worker| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut failures = 0;
                for round in 0..30 {
                    let number = worker * 30 + round;
                    let claim = a_claim(number);
                    // Each call is repeated with the same token until a server answers.
                    let (granted, failed) = persist(|| store.claim(&claim)).await;
                    assert!(matches!(granted, Answer::Acquired(grant) if grant.attempt == 1));
                    let (holder, kept) = (claim.holder(), recording(number));
                    let (written, failed_too) = persist(|| store.complete(&holder, &kept, KEPT)).await;
                    assert!(matches!(written, Written::Applied | Written::AlreadyApplied), "{written:?}");
                    failures += failed + failed_too;
                    done.send_modify(|done| *done += 1);
                }
                failures
            })
        })
        .collect();
    progress.wait_for(|done| *done >= 40).await.unwrap();
    let server = tokio::task::spawn_blocking(move || {
        server.kill9();
        server.restart();
        server
    })
    .await
    .unwrap();
    let mut failures = 0;
    for worker in workers {
        failures += worker.await.unwrap();
    }
    assert!(failures > 0, "the restart was noticed");
    for number in 0..480 {
        let answer = store.claim(&a_claim(number)).await.unwrap();
        assert_eq!(answer, Answer::Replay(recording(number)));
    }
    drop(server);
}

/// Repeats a call until it is answered, and says how often it failed.
async fn persist<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> (T, u32) {
    let (mut failed, give_up_at) = (0, Instant::now() + PATIENCE);
    loop {
        match call().await {
            Ok(answer) => return (answer, failed),
            Err(error) => assert!(Instant::now() < give_up_at, "{error:?}"),
        }
        failed += 1;
        tokio::task::yield_now().await;
    }
}

// proves: I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_dropped_under_load_is_an_error_for_every_caller() {
    let Database { pool, store, database } = database().await;
    let before = a_claim(0);
    assert!(matches!(store.claim(&before).await.unwrap(), Answer::Acquired(_)));
    sqlx::query("DROP TABLE idempotency_records").execute(&pool).await.unwrap();
    for store in [Arc::new(store.clone()) as Arc<dyn IdempotencyManager>, Arc::new(store.direct())] {
        let calls: Vec<_> = (0..16)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { store.claim(&a_claim(number)).await })
            })
            .collect();
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
        }
        let error = store.complete(&before.holder(), &recording(0), KEPT).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
    }
    drop(database);
}
