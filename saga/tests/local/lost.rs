//! COMMITs whose answer never comes: the saga is claimed again and read, and the effect is there once.

use std::time::Duration;

use probity_saga::{Orchestrator, Outcome, PostgresStore, Saga};
use testkit::{Cut, PostgresProxy};

use super::scenarios::postgres::{Ship, effects, take};
use super::script::{Fate, Script};
use super::stores;

/// The number of tries of each break.
const RUNS: u32 = 20;

/// Runs sagas that lose the COMMIT of their local step, or of its undo if a later step refuses. Answers the calls of
/// both.
async fn cut_each(cut: Cut, refuses: bool) -> (u32, u32) {
    let database = testkit::Postgres::shared().database();
    let proxy = PostgresProxy::before(database.url()).await;
    let direct = stores::postgres_at(database.url()).await;
    let through_it = stores::postgres_at(&proxy.url(database.url())).await;
    let store = PostgresStore::new(through_it).await.unwrap();
    let (does, undoes) = (Script::of([]), Script::of([]));
    let saga = Saga::named("order").local_step(take(does, undoes)).step(Ship { refuses }).build().unwrap();
    let builder = Orchestrator::new(store).poll(Duration::from_millis(20)).register(saga);
    let orchestrator = builder.start().await.unwrap();
    for number in 0..RUNS {
        let id = format!("O-{number}");
        // The first COMMIT of a saga is that of its step, the second that of its undo.
        proxy.pass_next(u32::from(refuses));
        proxy.cut_next(cut);
        let outcome = orchestrator.run("order", &id, &number).await.unwrap();
        assert!(!proxy.is_armed(), "{id} was not cut");
        if refuses {
            assert_eq!(outcome, Outcome::Compensated { reason: "Ship: no ship".into() });
            assert_eq!(effects(&direct, &id).await, ["Take", "Undo"], "{id}");
        } else {
            assert_eq!(outcome, Outcome::Completed);
            assert_eq!(effects(&direct, &id).await, ["Take"], "{id}");
        }
    }
    (does.calls(), undoes.calls())
}

// proves: S-9
#[tokio::test]
async fn a_commit_that_never_arrived_is_done_again_once() {
    assert_eq!(cut_each(Cut::BeforeTheServer, false).await, (2 * RUNS, 0));
}

// proves: S-2, S-9
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_done_again() {
    assert_eq!(cut_each(Cut::BeforeTheAnswer, false).await, (RUNS, 0));
}

// proves: S-9
#[tokio::test]
async fn an_undo_whose_commit_is_lost_is_committed_once() {
    assert_eq!(cut_each(Cut::BeforeTheServer, true).await, (RUNS, 2 * RUNS));
    assert_eq!(cut_each(Cut::BeforeTheAnswer, true).await, (RUNS, RUNS));
}

/// Runs one saga that loses the COMMIT of a local step, which stated an effect outside of it.
async fn cut_after_an_effect_elsewhere(cut: Cut) -> (Outcome, Vec<String>, u32) {
    let database = testkit::Postgres::shared().database();
    let proxy = PostgresProxy::before(database.url()).await;
    let direct = stores::postgres_at(database.url()).await;
    let through_it = stores::postgres_at(&proxy.url(database.url())).await;
    let store = PostgresStore::new(through_it).await.unwrap();
    let does = Script::of([Fate::WorksOutside]);
    let take = take(does, Script::of([]));
    let saga = Saga::named("order").local_step(take).step(Ship { refuses: false }).build().unwrap();
    let builder = Orchestrator::new(store).poll(Duration::from_millis(20)).register(saga);
    let orchestrator = builder.start().await.unwrap();
    proxy.cut_next(cut);
    let outcome = orchestrator.run("order", "O-1", &1_u32).await.unwrap();
    assert!(!proxy.is_armed(), "it was not cut");
    (outcome, effects(&direct, "O-1").await, does.calls())
}

// proves: S-9, S-12
#[tokio::test]
async fn a_lost_commit_after_an_effect_in_another_system_pauses_the_saga_if_it_never_arrived() {
    let (outcome, there, calls) = cut_after_an_effect_elsewhere(Cut::BeforeTheServer).await;
    let stopped = matches!(&outcome, Outcome::Paused { reason } if reason.contains("mail m-1"));
    assert!(stopped && there.is_empty() && calls == 1, "{outcome:?}, {there:?}, {calls} calls");
    let (outcome, there, calls) = cut_after_an_effect_elsewhere(Cut::BeforeTheAnswer).await;
    assert_eq!((outcome, there, calls), (Outcome::Completed, vec!["Take".into()], 1));
}
