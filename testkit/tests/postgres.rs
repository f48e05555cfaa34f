//! PostgreSQL as tests see it: shared, own, and broken in every way.

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use testkit::{PgBouncer, Pooling, Postgres};

#[test]
fn databases_of_one_server_do_not_see_each_other() {
    let (one, other) = (Postgres::shared().database(), Postgres::shared().database());
    assert_eq!(one.query("CREATE TABLE payment (id int)"), "");
    assert_eq!(other.query("SELECT count(*) FROM pg_tables WHERE tablename = 'payment'"), "0");
}

#[test]
fn a_database_is_gone_with_its_value_even_when_somebody_is_connected() {
    let database = Postgres::shared().database();
    let name = database.query("SELECT current_database()");
    drop(database);
    let count = Postgres::shared()
        .database()
        .query(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"));
    assert_eq!(count, "0");
}

#[test]
fn tests_run_with_the_durability_of_production_unless_they_ask_for_less() {
    let question = "SELECT concat_ws(',', current_setting('fsync'), current_setting('synchronous_commit'))";
    assert_eq!(Postgres::shared().database().query(question), "on,on");
    assert_eq!(Postgres::start_with(&["fsync=off"]).database().query(question), "off,on");
}

#[test]
fn what_was_committed_survives_kill_9_and_the_url_stays() {
    let mut server = Postgres::start();
    let database = server.database();
    assert_eq!(database.query("CREATE TABLE charge AS SELECT 100 AS minor_units"), "");
    server.kill9();
    server.restart();
    assert_eq!(database.query("SELECT minor_units FROM charge"), "100");
    server.stop();
    server.restart();
    assert_eq!(database.query("SELECT minor_units FROM charge"), "100");
}

#[tokio::test]
async fn kill_9_ends_the_sessions_too_so_nothing_commits_after_it() {
    let mut server = Postgres::start();
    let database = server.database();
    let pool = sqlx::PgPool::connect(database.url()).await.expect("a running server");
    let mut session = pool.acquire().await.expect("a connection");
    let busy = tokio::spawn(async move {
        // Never waits for anything, so it would not notice that its server is gone.
        sqlx::query("DO $$ BEGIN LOOP END LOOP; END $$").execute(&mut *session).await
    });
    let active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'";
    while database.query(active) != "1" {
        tokio::task::yield_now().await;
    }
    server.kill9();
    assert!(busy.await.expect("no panic").is_err(), "the session must have died with its server");
}

#[tokio::test]
async fn a_paused_server_answers_nothing_and_goes_on_when_resumed() {
    let mut server = Postgres::start();
    let database = server.database();
    let pool = sqlx::PgPool::connect(database.url()).await.expect("a running server");
    sqlx::query("SELECT 1").execute(&pool).await.expect("a running server");
    server.pause();
    let mut asked = tokio::spawn(async move { sqlx::query("SELECT 1").execute(&pool).await });
    let answer = tokio::time::timeout(std::time::Duration::from_millis(300), &mut asked).await;
    assert!(answer.is_err(), "a paused server answered: {answer:?}");
    server.resume();
    asked.await.expect("no panic").expect("the answer that was only late");
}

#[test]
fn a_paused_server_can_be_killed_and_restarted() {
    let mut server = Postgres::start();
    let database = server.database();
    server.pause();
    server.kill9();
    server.restart();
    server.pause();
    server.restart();
    assert_eq!(database.query("SELECT 1"), "1");
}

#[test]
fn a_role_can_do_what_it_was_granted_and_no_more() {
    let database = Postgres::shared().database();
    let _created = database.query("CREATE TABLE payment AS SELECT 1 AS id");
    let role = database.role();
    let question = format!(
        "SELECT has_table_privilege('{0}', 'payment', 'SELECT'), has_schema_privilege('{0}', 'public', 'CREATE')",
        role.name()
    );
    assert_eq!(database.query(&question), "f|f");
    let _granted = database.query(&format!("GRANT SELECT ON payment TO {}", role.name()));
    assert_eq!(database.query(&question), "t|f");
    let (name, role_count) = (role.name().to_owned(), "SELECT count(*) FROM pg_roles WHERE rolname = ");
    drop(role);
    assert_eq!(database.query(&format!("{role_count}'{name}'")), "0");
}

#[tokio::test]
async fn sessions_behind_a_pooler_in_transaction_mode_are_other_ones_after_each_transaction() {
    let database = Postgres::shared().database();
    let mut pooler = PgBouncer::start_with(database.url(), Pooling::Transaction, &["default_pool_size = 1"]);
    let one_connection = || async {
        let options: PgConnectOptions = pooler.url().parse().expect("a URL");
        PgPoolOptions::new()
            .max_connections(1)
            .connect_with(options.statement_cache_capacity(0))
            .await
            .expect("a running pooler")
    };
    let (one, other) = (one_connection().await, one_connection().await);
    let session = "SELECT pg_backend_pid()";
    let pid = |pool: PgPool| async move {
        sqlx::query_scalar::<_, i32>(session)
            .persistent(false)
            .fetch_one(&pool)
            .await
            .expect("a running server")
    };
    assert_eq!(pid(one.clone()).await, pid(other.clone()).await, "two clients, one session of the server");
    pooler.kill9();
    assert!(sqlx::query(session).persistent(false).execute(&one).await.is_err());
    pooler.restart();
    assert!(pid(other).await > 0, "it came back on its port");
}
