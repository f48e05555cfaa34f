//! Workers that die by kill -9, or stand still for longer than their lease and go on, at random moments under load. The
//! end of each saga must agree with the log of the channel.
//!
//! The test binary starts itself as the worker. A worker reports each call of the channel as a line; the parent stops
//! it at a random one. The seed is printed, and `PROBITY_TEST_SEED` repeats it; `PROBITY_TEST_KILLS` kills more, and
//! `PROBITY_TEST_FREEZE_SECONDS` freezes for longer.
#![cfg(feature = "postgres")]
#![cfg_attr(feature = "postgres", expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod channel;
mod judge;
mod steps;
mod worker;

use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};
use testkit::{Program, Rng, TestDatabase};
use tokio::time::{Instant, sleep};

use channel::CALLED;
use judge::{Ends, judge_all};
use worker::{MOST, SHARE, refusals, spawn, worker};

/// Beyond this only a defect takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// Until a count is as wanted.
async fn until(pool: &PgPool, count: &'static str, of: i64, wanted: impl Fn(i64) -> bool, otherwise: &str) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let found = sqlx::query_scalar::<_, i64>(count).bind(of).fetch_one(pool).await.unwrap();
        if wanted(found) {
            return;
        }
        assert!(Instant::now() < patience, "{otherwise} ({found})");
        sleep(Duration::from_millis(50)).await;
    }
}

/// No call of this worker goes on until it is dropped.
async fn gate(pool: &PgPool, worker: &Program) -> Transaction<'static, Postgres> {
    let mut gate = pool.begin().await.unwrap();
    let close = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(i64::from(worker.id()));
    close.execute(&mut *gate).await.unwrap();
    gate
}

/// Stops a worker inside a call of the channel, for a time after the end of its lease and until the other has taken what
/// it was driving, and wakes it again: it goes on where it stood, and whatever it then has to write is refused, and
/// counted. The other worker waits in its calls, so the sagas differ from what the zombie left only in their epoch.
async fn freeze(pool: &PgPool, zombie: &mut Program, other: &Program, still: Duration) {
    let pid = i64::from(zombie.id());
    let (others, calls) = (gate(pool, other).await, gate(pool, zombie).await);
    let inside = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until(pool, inside, pid, |calls| calls > 0, "the worker calls nobody").await;
    zombie.pause();
    calls.rollback().await.unwrap();
    let silent = "SELECT COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - max(expires_at)), -1)::bigint
        FROM saga_workers WHERE pid = $1";
    let long_enough = i64::try_from(still.as_secs()).unwrap();
    let limit = Instant::now() + still + PATIENCE;
    while sqlx::query_scalar::<_, i64>(silent).bind(pid).fetch_one(pool).await.unwrap() < long_enough {
        assert!(Instant::now() < limit, "the lease of a frozen worker goes on");
        sleep(Duration::from_millis(50)).await;
    }
    // Suspects are taken over one after the other, and the other worker does not reach the second.
    let owned = "SELECT count(*) FROM saga_heads h JOIN saga_workers w ON w.worker_id = h.owner_id
        WHERE w.pid = $1 AND h.stalled_claims < 2";
    until(pool, owned, pid, |sagas| sagas == 0, "nobody takes the sagas of a frozen worker over").await;

    zombie.resume();
    let late = "SELECT count(*) FROM calls WHERE pid = $1 AND what = 'answered' AND NOT owned";
    let refused = |late| late > 0 && refusals(zombie) >= late;
    until(pool, late, pid, refused, "a zombie knew more than it was refused to write").await;
    others.rollback().await.unwrap();
}

/// Two workers at a time. One is stopped at a random call and replaced, until the kills are used up; every fourth
/// stands still before, and goes on when its sagas are another's.
async fn stop_workers(pool: &PgPool, url: &str, kills: u64) {
    let mut rng = Rng::new(testkit::seed());
    let (mut victim, mut survivor) = (spawn(url, 0, SHARE), spawn(url, 1, SHARE));
    for kill in 0..kills {
        if kill % 4 == 3 {
            let mut zombie = spawn(url, kill + 2, MOST);
            wait_for_calls(&mut zombie, rng.between(1, SHARE)).await;
            victim.kill9();
            freeze(pool, &mut zombie, &survivor, Duration::ZERO).await;
            victim = zombie;
        } else {
            wait_for_calls(&mut victim, rng.between(1, SHARE)).await;
            victim.kill9();
            victim = std::mem::replace(&mut survivor, spawn(url, kill + 2, SHARE));
        }
    }
    victim.kill9();
    survivor.kill9();
}

async fn wait_for_calls(worker: &mut Program, calls: u64) {
    let patience = Instant::now() + PATIENCE;
    while (worker.output().matches(CALLED).count() as u64) < calls {
        let running = worker.is_running() && Instant::now() < patience;
        assert!(running, "the worker did not call {calls} times; it wrote:\n{}", worker.output());
        sleep(Duration::from_millis(5)).await;
    }
}

/// A worker that is not stopped ends the remaining sagas; then the judge reads the log.
async fn end_and_judge(pool: &PgPool, url: &str) -> Ends {
    let last = worker(url).await;
    let open = "SELECT count(*) FROM saga_instances
        WHERE status NOT IN ('completed', 'compensated', 'stuck', 'paused') AND $1 = 0";
    until(pool, open, 0, |open| open == 0, "a saga never ends").await;
    let ends = judge_all(pool).await;
    last.drain().await.unwrap();
    assert!(ends.completed > 0 && ends.compensated > 0, "{ends:?}");
    ends
}

async fn stage() -> (TestDatabase, PgPool) {
    testkit::time_limit();
    let database = testkit::Postgres::shared().database();
    let pool = PgPool::connect(database.url()).await.unwrap();
    probity_saga::PostgresStore::new(pool.clone()).await.unwrap();
    channel::create(&pool).await;
    (database, pool)
}

// proves: S-2, S-4, S-5, S-6, S-7, S-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_saga_ends_as_the_channel_saw_it_although_workers_are_killed() {
    let (database, pool) = stage().await;
    let kills = setting("PROBITY_TEST_KILLS", 24);
    stop_workers(&pool, database.url(), kills).await;
    let ends = end_and_judge(&pool, database.url()).await;
    assert!(ends.all() >= kills + 2, "only {} sagas were started", ends.all());
}

// proves: S-2, S-4, S-6, S-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_frozen_for_many_leases_writes_nothing_afterwards() {
    let (database, pool) = stage().await;
    let still = Duration::from_secs(setting("PROBITY_TEST_FREEZE_SECONDS", 5));
    let (mut zombie, mut other) = (spawn(database.url(), 0, MOST), spawn(database.url(), 1, SHARE));
    wait_for_calls(&mut zombie, SHARE).await;
    freeze(&pool, &mut zombie, &other, still).await;
    let ends = end_and_judge(&pool, database.url()).await;
    assert!(ends.stopped == 0, "{ends:?}");
    zombie.kill9();
    other.kill9();
}
