//! COMMITs whose answer never comes: the saga is claimed again and read, and the effect is there once.

use std::time::Duration;

use probity_saga::{Orchestrator, Outcome, PostgresStore, Saga};

use super::proxy::{Cut, Proxy, host};
use super::scenarios::postgres::{Ship, effects, take};
use super::script::Script;
use super::stores;

/// How often each break is tried.
const RUNS: u32 = 20;

/// Runs sagas that lose the COMMIT of their local step, or of its undo if a later step refuses. Answers the calls of
/// both.
async fn cut_each(cut: Cut, refuses: bool) -> (u32, u32) {
    let database = testkit::Postgres::shared().database();
    let proxy = Proxy::to(host(database.url())).await;
    let direct = stores::postgres_at(database.url()).await;
    let store =
        PostgresStore::new(stores::postgres_at(&proxy.instead_of(database.url())).await).await.unwrap();
    let (does, undoes) = (Script::of([]), Script::of([]));
    let saga = Saga::named("order").local_step(take(does, undoes)).step(Ship { refuses }).build().unwrap();
    let builder = Orchestrator::new(store).poll(Duration::from_millis(20)).register(saga);
    let orchestrator = builder.start().await.unwrap();
    for number in 0..RUNS {
        let id = format!("O-{number}");
        // The first COMMIT of a saga is that of its step, the second that of its undo.
        proxy.cut_after(u32::from(refuses), cut);
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
