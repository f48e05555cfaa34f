//! PostgreSQL: rows that the database refuses, unreadable rows, locked rows, reads that take every
//! connection, and claims with another write between their statements.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use crate::handmade::{first_step, new_saga};

use probity_saga::store::{ClaimRequest, NewSaga, SagaStore, Verdict, Worker, WorkerId};
use probity_saga::{
    Backoff, Effect, Evidence, Executed, ListFilter, Orchestrator, Outcome, PostgresStore, Saga, SagaStep,
    StepContext, StepError, StepPolicy,
};
use sqlx::PgPool;
use tokio::time::timeout;

/// Beyond this only a defect takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Input 0 is for later.
struct Charge;
impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        if *cx.input() == 0 { Err(StepError::retryable("later")) } else { Ok(*cx.input()) }
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().retries(Backoff::constant(3, Duration::from_secs(3600)))
    }
}

async fn store() -> (PostgresStore, PgPool, impl Sized) {
    testkit::time_limit();
    let database = testkit::Postgres::shared().database();
    let pool = PgPool::connect(database.url()).await.unwrap();
    (PostgresStore::new(pool.clone()).await.unwrap(), pool, database)
}

async fn worker(store: PostgresStore) -> Orchestrator {
    let saga = Saga::named("payment").step(Charge).build().unwrap();
    Orchestrator::new(store).poll(Duration::from_millis(50)).register(saga).start().await.unwrap()
}

/// The database refuses the step rows of saga `BAD`.
async fn refuse(pool: &PgPool, sqlstate: &str) {
    let refuse = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM saga_heads WHERE id = NEW.saga_id AND business_id = 'BAD') THEN
                RAISE EXCEPTION 'not this one' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON saga_step_rows FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_row_that_the_database_refuses_costs_only_its_own_record() {
    for sqlstate in ["P0001", "54000", "44000", "21000", "22003"] {
        let (store, pool, _database) = store().await;
        refuse(&pool, sqlstate).await;
        let sagas = ["GOOD", "BAD", "FINE"].map(|business_id| new_saga(WorkerId::generate(), business_id));
        let _ = store.insert(&sagas).await.unwrap();
        let verdicts =
            store.apply(&sagas.each_ref().map(|saga| first_step(saga.id, "Charge"))).await.unwrap();
        assert!(
            matches!(&verdicts[..], [Verdict::Applied(_), Verdict::Refused(why), Verdict::Applied(_)] if why.contains("not this one")),
            "{sqlstate}: {verdicts:?}"
        );
    }
}

#[tokio::test]
async fn a_saga_whose_result_the_database_never_takes_is_paused_and_the_others_go_on() {
    for sqlstate in ["P0001", "42501", "XX000"] {
        let (store, pool, _database) = store().await;
        refuse(&pool, sqlstate).await;
        let orchestrator = worker(store).await;
        let bad = orchestrator.start("payment", "BAD", &1_u32).await.unwrap();
        for n in 0..10 {
            let outcome = orchestrator.run("payment", &format!("PAY-{n}"), &1_u32).await.unwrap();
            assert_eq!(outcome, Outcome::Completed);
        }
        let outcome = timeout(PATIENCE, orchestrator.wait(&bad)).await.unwrap().unwrap();
        assert!(
            matches!(&outcome, Outcome::Paused { reason } if reason.contains("not this one")),
            "{sqlstate}: {outcome:?}"
        );
    }
}

// proves: S-7, S-8
#[tokio::test]
async fn a_saga_whose_rows_cannot_be_read_is_parked_and_shown_and_can_be_closed() {
    let (store, pool, _database) = store().await;
    let orchestrator = worker(store).await;
    let edits = [
        ("retry_count", "UPDATE saga_step_rows SET retry_count = -1"),
        (
            "status",
            "ALTER TABLE saga_step_rows DROP CONSTRAINT saga_step_rows_status_check;
             UPDATE saga_step_rows SET status = 'wondering'",
        ),
        ("stalled_claims", "UPDATE saga_heads SET stalled_claims = -7"),
    ];
    for (column, edit) in edits {
        let started = orchestrator.start("payment", column, &0_u32).await.unwrap();
        let waits = "SELECT count(*) FROM saga_heads WHERE business_id = $1 AND owner_id IS NULL";
        let rests = async {
            while sqlx::query_scalar::<_, i64>(waits).bind(column).fetch_one(&pool).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, rests).await.unwrap();
        sqlx::raw_sql(edit).execute(&pool).await.unwrap();
        sqlx::query("UPDATE saga_heads SET run_at = now() WHERE business_id = $1")
            .bind(column)
            .execute(&pool)
            .await
            .unwrap();
        let outcome = timeout(PATIENCE, orchestrator.wait(&started)).await.unwrap().unwrap();
        assert!(
            matches!(&outcome, Outcome::Paused { reason } if reason.contains(column)),
            "{column}: {outcome:?}"
        );
        let operator = orchestrator.operator("ann");
        if column != "stalled_claims" {
            assert!(
                operator.resume("payment", column, "again").await.is_err(),
                "{column} is still as it was"
            );
        }
        assert!(orchestrator.get("payment", column).await.unwrap().is_some());
        operator.abort("payment", column, "settled by hand").await.unwrap();
    }
    assert_eq!(orchestrator.list(&ListFilter::default()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_retiring_worker_releases_all_sagas_except_locked_ones() {
    let (store, pool, _database) = store().await;
    let (me, other) = (beating(&store).await, beating(&store).await);
    let sagas = [new_saga(me, "HELD"), new_saga(me, "FREE")];
    let _ = store.insert(&sagas).await.unwrap();
    let mut somebody = pool.begin().await.unwrap();
    let hold = "SELECT 1 FROM saga_heads WHERE business_id = 'HELD' FOR UPDATE";
    sqlx::query(hold).execute(&mut *somebody).await.unwrap();
    assert_eq!(store.retire(me).await.unwrap(), 1);
    somebody.rollback().await.unwrap();
    // Its worker is gone, so the other worker takes it.
    assert_eq!(store.claim(&claim_by(other)).await.unwrap().len(), 2);
}

// proves: S-6
#[tokio::test]
async fn a_lease_is_renewed_while_reads_take_every_connection() {
    let (store, pool, _database) = store().await;
    let store = Arc::new(store);
    let mut somebody = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE saga_heads IN ACCESS EXCLUSIVE MODE").execute(&mut *somebody).await.unwrap();
    let mut reads = tokio::task::JoinSet::new();
    // Each takes half a second of a connection: more than a queue of ten seconds.
    for _ in 0..400 {
        let store = Arc::clone(&store);
        reads.spawn(async move { store.list(&ListFilter::default()).await.is_err() });
    }
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probity-saga'
        AND wait_event_type = 'Lock' AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() < 6 {
        tokio::task::yield_now().await;
    }
    let (beat, mut read) = (beating(&store), 0);
    tokio::pin!(beat);
    loop {
        tokio::select! {
            biased;
            _me = &mut beat => break,
            _ = reads.join_next() => read += 1,
        }
        assert!(read < 100, "the lease waits behind reads");
    }
}

async fn beating(store: &PostgresStore) -> WorkerId {
    let id = WorkerId::generate();
    let _first = store.heartbeat(&Worker { id, lease: Duration::from_secs(3600), pid: 1 }).await.unwrap();
    id
}

/// A store with one saga of a dead worker, and the request of a living one.
async fn claimable() -> (PostgresStore, PgPool, NewSaga, ClaimRequest, impl Sized) {
    let (store, pool, database) = store().await;
    let new = new_saga(WorkerId::generate(), "PAY-1");
    let _ = store.insert(std::slice::from_ref(&new)).await.unwrap();
    let request = claim_by(beating(&store).await);
    (store, pool, new, request, database)
}

fn claim_by(worker: WorkerId) -> ClaimRequest {
    ClaimRequest {
        worker,
        runnable: vec![("other".into(), "v1".into())],
        own: Vec::new(),
        limit: 10,
        stalled_max: 5,
        suspect_at: 2,
        suspects: 1,
    }
}

/// A decision of an operator that comes right after the statement that claims, and before the one that loads.
const DECIDES_AT_ONCE: &str = "
    CREATE FUNCTION decide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE saga_heads SET owner_id = NULL, lease_epoch = lease_epoch + 1, row_version = row_version + 1
        WHERE id = NEW.id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER decide AFTER UPDATE ON saga_heads FOR EACH ROW WHEN (NEW.owner_id IS NOT NULL)
        EXECUTE FUNCTION decide()";

// proves: S-6
#[tokio::test]
async fn a_saga_that_a_decision_took_away_before_it_was_loaded_is_not_handed_out() {
    let (store, pool, new, request, _database) = claimable().await;
    sqlx::raw_sql(DECIDES_AT_ONCE).execute(&pool).await.unwrap();
    let claimed = store.claim(&request).await.unwrap();
    assert!(claimed.is_empty(), "handed out, and whoever claims it next gets it as well: {claimed:?}");
    let instance = store.load(&[new.id]).await.unwrap().remove(0).instance;
    assert_eq!((instance.owner, instance.epoch), (None, 3));
}

// proves: S-7
#[tokio::test]
async fn a_claim_that_could_not_be_loaded_may_have_been_written() {
    let (store, pool, new, request, _database) = claimable().await;
    let mut somebody = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE saga_step_rows IN ACCESS EXCLUSIVE MODE").execute(&mut *somebody).await.unwrap();
    let failed = store.claim(&request).await.unwrap_err();
    assert_eq!(failed.effect(), Effect::Unknown, "{failed}");
    somebody.rollback().await.unwrap();
    assert_eq!(store.owned(request.worker).await.unwrap(), [new.id]);
}
