//! Databases that cannot be reached: the log and the error name the server, the cause and the remedy, at once and
//! without the password.

use std::error::Error as _;
use std::time::Duration;

use probity_txn::{Error, on};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::Instant;

use super::both::metrics::Journal;
use super::both::patient;
use super::lost::{host, let_pass};

const PATIENCE: Duration = Duration::from_secs(3600);

/// A pool of a server that is not there, and its address.
fn nobody_there(patience: Duration) -> (PgPool, String) {
    let address = format!("127.0.0.1:{}", testkit::free_port());
    let url = format!("postgres://app:secret@{address}/bank");
    (PgPoolOptions::new().acquire_timeout(patience).connect_lazy(&url).unwrap(), address)
}

/// Returns once a warning was logged.
async fn until_told(journal: &Journal, address: &str) {
    let server = format!("server=\"postgres://app@{address}/bank\"");
    let told = ["event WARN", "label=\"pay\"", "no connection yet", "refused", "start the server", &server];
    let limit = Instant::now() + Duration::from_secs(60);
    while !journal.has(&told) {
        assert!(Instant::now() < limit, "nobody was told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!journal.has(&["secret"]));
}

#[tokio::test]
async fn an_unreachable_server_is_named_at_once_and_is_the_cause_of_the_deadline() {
    let (journal, _listening) = Journal::listen();
    let (pool, address) = nobody_there(PATIENCE);
    let run = on(&pool, "pay").policy(patient()).run(async |_tx| Ok::<_, sqlx::Error>(()));
    let passes = async {
        until_told(&journal, &address).await;
        let_pass(patient().deadline).await;
    };
    let (outcome, ()) = tokio::join!(run, passes);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Deadline { attempts: 1, .. }), "{error:?}");
    let (text, cause) = (error.to_string(), error.source().unwrap().to_string());
    for part in [address.as_str(), "refused", "start the server"] {
        assert!(text.contains(part) && cause.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_pool_timeout_has_the_error_of_the_server_as_its_cause() {
    let (journal, _listening) = Journal::listen();
    let (pool, address) = nobody_there(Duration::from_secs(60));
    let run = on(&pool, "pay").policy(patient()).run(async |_tx| Ok::<_, sqlx::Error>(()));
    let passes = async {
        until_told(&journal, &address).await;
        let_pass(Duration::from_secs(60)).await;
    };
    let (outcome, ()) = tokio::join!(run, passes);
    let Err(Error::Pool(error)) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(error.driver(), sqlx::Error::Io(_)), "{error:?}");
    assert_eq!(error.server(), format!("postgres://app@{address}/bank"));
    assert!(error.source().unwrap().to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named_with_the_remedy() {
    let database = testkit::Postgres::shared().database();
    let url = format!("{}_not", database.url());
    let pool = PgPoolOptions::new().connect_lazy(&url).unwrap();
    let outcome = on(&pool, "pay").run(async |_tx| Ok::<_, sqlx::Error>(())).await;
    let Err(Error::Pool(error)) = outcome else { panic!("{outcome:?}") };
    let text = error.to_string();
    assert!(text.contains("create the database") && text.contains(&host(database.url())), "{text}");
}

#[tokio::test]
async fn an_exhausted_pool_is_reported_as_exhausted() {
    let database = testkit::Postgres::shared().database();
    let options = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(2));
    let pool = options.connect_lazy(database.url()).unwrap();
    let held = pool.acquire().await;
    let outcome = on(&pool, "pay").policy(patient()).run(async |_tx| Ok::<_, sqlx::Error>(())).await;
    let Err(Error::Pool(error)) = outcome else { panic!("{outcome:?}") };
    assert!(error.remedy().contains("all connections of the pool are in use"), "{error}");
    drop(held);
}
