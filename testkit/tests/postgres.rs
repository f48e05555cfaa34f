//! PostgreSQL as tests see it: shared, own, and broken in every way.

use testkit::Postgres;

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
