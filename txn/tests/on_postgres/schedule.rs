//! Schedules of the crate `backoff`.

use std::collections::VecDeque;
use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;
use probity_txn::{Error, on};

use super::Bank;
use super::both::patient;

const CONFLICT: &str = "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$";

/// Pauses until there are none left.
#[derive(Clone)]
struct Planned(VecDeque<Duration>);

impl Backoff for Planned {
    fn next_backoff(&mut self) -> Option<Duration> {
        self.0.pop_front()
    }
}

#[tokio::test]
async fn an_exponential_backoff_is_a_schedule() {
    // proves: T-4
    let bank = Bank::open(1).await;
    let schedule = ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(1))
        .with_max_elapsed_time(None)
        .build();
    let run = on(&bank.pool, "fight").policy(patient()).backoff(schedule).run(async |tx| {
        if tx.attempt() < 8 {
            sqlx::raw_sql(CONFLICT).execute(&mut *tx).await?;
        }
        Ok::<_, sqlx::Error>(tx.attempt())
    });
    assert_eq!(run.await.unwrap(), 8);
}

#[tokio::test]
async fn a_run_gives_up_with_its_schedule_and_the_next_one_begins_anew() {
    let bank = Bank::open(1).await;
    let planned = Planned(VecDeque::from([Duration::from_millis(1); 2]));
    for _ in 0..2 {
        let run = on(&bank.pool, "fight").policy(patient()).backoff(planned.clone());
        let outcome = run.run(async |tx| sqlx::raw_sql(CONFLICT).execute(&mut *tx).await).await;
        assert!(matches!(outcome, Err(Error::Conflict { attempts: 3, .. })), "{outcome:?}");
    }
}
