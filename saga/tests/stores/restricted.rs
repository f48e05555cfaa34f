//! Restricted databases: a role without the right to create, other table names, few connections, a pooler.
#![cfg(all(feature = "postgres", feature = "sqlite", feature = "testing"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::OnceLock;

use probity_saga::store::SagaStore;
use probity_saga::{
    Evidence, ForwardStep, ListFilter, LocalStep, Orchestrator, Outcome, PostgresStore, Saga, SqliteStore,
    StepContext, StepError, StepPolicy,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row as _, raw_sql};
use testkit::{PgBouncer, Pooling, TestDatabase};

const GRANTS: &str = include_str!("../../sql/postgres/grants.sql");

async fn pool(url: &str) -> PgPool {
    testkit::time_limit();
    PgPool::connect(url).await.unwrap()
}

/// Runs the published grants for a role, in a schema, with a prefix of the tables.
async fn grant(owner: &PgPool, role: &str, schema: &str, prefix: &str) {
    let grants = GRANTS
        .replace("ON SCHEMA public", &format!("ON SCHEMA {schema}"))
        .replace("ON saga_", &format!("ON {schema}.{prefix}"))
        .replace("TO payments;", &format!("TO {role};"));
    raw_sql(AssertSqlSafe(grants)).execute(owner).await.unwrap();
}

async fn tables_in(pool: &PgPool) -> Vec<String> {
    let list = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog',
        'information_schema') ORDER BY 1";
    sqlx::query_scalar(list).fetch_all(pool).await.unwrap()
}

/// The whole contract where each transaction may have another session, with the published rights and no other, in a
/// schema and with a prefix of the service's own.
mod behind_a_pooler_without_the_right_to_create {
    use super::*;

    async fn store() -> (PostgresStore, impl Sized) {
        let (server, pooler) = pooled_server();
        let database = server.database();
        let owner = pool(database.url()).await;
        let made = PostgresStore::builder(owner.clone()).schema("payments").table_prefix("flow_");
        made.build().await.unwrap();
        grant(&owner, "service", "payments", "flow_").await;
        owner.close().await;
        let theirs = pool_without_statements(&with_database_of(&pooler.url(), database.url())).await;
        let theirs = PostgresStore::builder(theirs).schema("payments").table_prefix("flow_").behind_pooler();
        (theirs.verify().await.unwrap(), database)
    }
    probity_saga::store_contract!(store);
}

/// A server, and a pooler that connects to it as the role `service`.
fn pooled_server() -> &'static (testkit::Postgres, PgBouncer) {
    static SERVER: OnceLock<(testkit::Postgres, PgBouncer)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = testkit::Postgres::start();
        let _created = server.database().query("CREATE ROLE service LOGIN");
        let url = server.url().replace("postgres@", "service@");
        let pooler = PgBouncer::start_with(&url, Pooling::Transaction, &["default_pool_size = 2"]);
        (server, pooler)
    })
}

fn with_database_of(url: &str, other: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{}", other.rsplit_once('/').unwrap().1)
}

async fn pool_without_statements(url: &str) -> PgPool {
    testkit::time_limit();
    let options: PgConnectOptions = url.parse().unwrap();
    PgPoolOptions::new().connect_with(options.statement_cache_capacity(0)).await.unwrap()
}

struct Note;
impl LocalStep<Postgres> for Note {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Note";
    async fn execute(&self, cx: &StepContext<u32>, tx: &mut PgConnection) -> Result<(), StepError> {
        if *cx.input() == 1 {
            // The record goes to the tables of the store, even if a step changes its session.
            raw_sql("SET LOCAL search_path TO elsewhere").execute(&mut *tx).await?;
        }
        let note = sqlx::query("INSERT INTO public.notes VALUES ($1)").persistent(false);
        note.bind(cx.business_id()).execute(tx).await?;
        Ok(())
    }
    async fn compensate(
        &self,
        _: &StepContext<u32>,
        _: (),
        _: &mut PgConnection,
    ) -> Result<Evidence, StepError> {
        Ok(Evidence::new("none"))
    }
}

undoable!(Charge);

async fn worker(store: PostgresStore) -> Orchestrator {
    let saga = Saga::named("payment").local_step(Note).step(Charge).build().unwrap();
    Orchestrator::new(store).register(saga).start().await.unwrap()
}

#[tokio::test]
async fn tables_that_exist_need_no_right_to_create_and_missing_ones_are_made_only_when_asked() {
    let database = testkit::Postgres::shared().database();
    let owner = pool(database.url()).await;
    let missing = PostgresStore::verify(owner.clone()).await.unwrap_err().to_string();
    assert!(missing.contains("sql/postgres") && missing.contains("saga_heads"), "{missing}");
    assert_eq!(tables_in(&owner).await, Vec::<String>::new(), "verify writes nothing");

    let role = database.role();
    let refused = PostgresStore::new(pool(role.url()).await).await.unwrap_err().to_string();
    assert!(refused.contains("permission denied"), "{refused}");

    // The owner's statements make the same tables as the store.
    let ddl = PostgresStore::builder(owner.clone()).ddl().unwrap();
    raw_sql(AssertSqlSafe(ddl)).execute(&owner).await.unwrap();
    let rights = PostgresStore::new(pool(role.url()).await).await.unwrap_err().to_string();
    assert!(rights.contains("grants.sql") || rights.contains("permission denied"), "{rights}");
    grant(&owner, role.name(), "public", "saga_").await;
    let less = format!("REVOKE DELETE ON saga_step_rows FROM {}", role.name());
    raw_sql(AssertSqlSafe(less)).execute(&owner).await.unwrap();
    let rights = PostgresStore::new(pool(role.url()).await).await.unwrap_err().to_string();
    assert!(
        rights.contains("DELETE on \"public\".saga_step_rows") && rights.contains("grants.sql"),
        "{rights}"
    );
    grant(&owner, role.name(), "public", "saga_").await;
    PostgresStore::new(pool(role.url()).await).await.unwrap();
    PostgresStore::verify(pool(role.url()).await).await.unwrap();
}

#[tokio::test]
async fn stores_with_other_prefixes_do_not_see_each_others_sagas() {
    let database = testkit::Postgres::shared().database();
    let owner = pool(database.url()).await;
    raw_sql("CREATE TABLE notes (saga text)").execute(&owner).await.unwrap();
    let of = async |prefix: &str| {
        let store = PostgresStore::builder(owner.clone()).table_prefix(prefix).build().await.unwrap();
        (worker(store.clone()).await, store)
    };
    let ((one, one_store), (other, other_store)) = (of("one_").await, of("other_").await);
    assert_eq!(one.run("payment", "PAY-1", &7_u32).await.unwrap(), Outcome::Completed);
    assert_eq!(other.run("payment", "PAY-1", &8_u32).await.unwrap(), Outcome::Completed);
    for store in [&one_store, &other_store] {
        assert_eq!(store.list(&ListFilter::default()).await.unwrap().len(), 1);
    }
    let refused = PostgresStore::builder(owner).table_prefix("No-").build().await.unwrap_err().to_string();
    assert!(refused.contains("lower-case letters"), "{refused}");
}

#[tokio::test]
async fn two_prefixes_in_one_file_are_two_stores() {
    let folder = testkit::temp_dir();
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.path().join("saga.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let missing = SqliteStore::verify(pool.clone()).await.unwrap_err().to_string();
    assert!(missing.contains("sql/sqlite"), "{missing}");
    for prefix in ["one_", "other_"] {
        let store = SqliteStore::builder(pool.clone()).table_prefix(prefix).build().await.unwrap();
        let saga = Saga::named("payment").step(Charge).build().unwrap();
        let worker = Orchestrator::new(store.clone()).register(saga).start().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        let started = worker.start_in(&mut *tx, "payment", "PAY-1", &7_u32).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!started.existed(), "{prefix}");
        assert_eq!(worker.wait(&started).await.unwrap(), Outcome::Completed);
        assert_eq!(store.list(&ListFilter::default()).await.unwrap().len(), 1);
    }
    SqliteStore::builder(pool).table_prefix("one_").verify().await.unwrap();
}

// proves: S-9
#[tokio::test]
async fn a_search_path_that_a_caller_or_a_step_changes_does_not_divert_a_record() {
    let database = testkit::Postgres::shared().database();
    let owner = pool(database.url()).await;
    raw_sql("CREATE TABLE notes (saga text); CREATE SCHEMA elsewhere").execute(&owner).await.unwrap();
    // The same tables where the changed path leads.
    PostgresStore::builder(owner.clone()).schema("elsewhere").build().await.unwrap();
    let worker = worker(PostgresStore::builder(owner.clone()).schema("public").build().await.unwrap()).await;
    let mut tx = owner.begin().await.unwrap();
    raw_sql("SET LOCAL search_path TO elsewhere").execute(&mut *tx).await.unwrap();
    let started = worker.start_in(&mut *tx, "payment", "PAY-1", &1_u32).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(worker.wait(&started).await.unwrap(), Outcome::Completed);
    let count =
        "SELECT (SELECT count(*) FROM public.saga_heads), (SELECT count(*) FROM elsewhere.saga_heads)";
    assert_eq!(sqlx::query_as::<_, (i64, i64)>(count).fetch_one(&owner).await.unwrap(), (1, 0));
}

#[tokio::test]
async fn the_connections_of_a_store_are_limited() {
    let database = testkit::Postgres::shared().database();
    let owner = pool(database.url()).await;
    raw_sql("CREATE TABLE notes (saga text)").execute(&owner).await.unwrap();
    let store =
        PostgresStore::builder(owner.clone()).connections(2).local_connections(1).build().await.unwrap();
    let worker = worker(store).await;
    let runs = (0..200_u32).map(|n| {
        let worker = &worker;
        async move { worker.run("payment", &format!("PAY-{n}"), &n).await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(runs).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Completed));
    let open = "SELECT count(*) FILTER (WHERE application_name = 'probity-saga'),
        count(*) FILTER (WHERE application_name = 'probity-saga-local')
        FROM pg_stat_activity WHERE datname = current_database()";
    let (engine, local): (i64, i64) = sqlx::query_as(open).fetch_one(&owner).await.unwrap();
    assert!(engine <= 3 && local <= 1, "{engine} and {local}");
}

#[tokio::test]
async fn hooks_of_the_pool_run_for_the_sessions_of_local_steps() {
    let database = testkit::Postgres::shared().database();
    let setup = pool(database.url()).await;
    raw_sql("CREATE TABLE notes (saga text DEFAULT current_setting('app.tenant', true), tenant text)")
        .execute(&setup)
        .await
        .unwrap();
    let tag = "CREATE FUNCTION tag() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        NEW.tenant := current_setting('app.tenant', true); RETURN NEW; END $$;
        CREATE TRIGGER tag BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION tag()";
    raw_sql(tag).execute(&setup).await.unwrap();
    let hooked = PgPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async move {
            raw_sql("SET app.tenant = 'acme'").execute(connection).await?;
            Ok(())
        })
    });
    let pool = hooked.connect(database.url()).await.unwrap();
    let worker = worker(PostgresStore::new(pool).await.unwrap()).await;
    assert_eq!(worker.run("payment", "PAY-1", &7_u32).await.unwrap(), Outcome::Completed);
    let tenant: String = sqlx::query_scalar("SELECT tenant FROM notes").fetch_one(&setup).await.unwrap();
    assert_eq!(tenant, "acme");
}

#[tokio::test]
async fn a_pooler_that_drops_the_settings_is_detected_and_named() {
    let database = testkit::Postgres::shared().database();
    let ignoring = ["ignore_startup_parameters = extra_float_digits,options"];
    for pooling in [Pooling::Session, Pooling::Transaction] {
        let pooler = PgBouncer::start_with(database.url(), pooling, &ignoring);
        let refused = PostgresStore::new(pool_without_statements(&pooler.url()).await).await.unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("a pooler between dropped them"), "{refused}");
        assert!(
            refused.contains("synchronous_commit") || refused.contains("enable_seqscan is on"),
            "{refused}"
        );
        let builder = PostgresStore::builder(pool_without_statements(&pooler.url()).await).behind_pooler();
        builder.build().await.unwrap();
    }
    // A pooler that refuses the settings reports that at once.
    let pooler = PgBouncer::start(database.url(), Pooling::Transaction);
    let refused =
        PostgresStore::new(pool_without_statements(&pooler.url()).await).await.unwrap_err().to_string();
    assert!(refused.contains("unsupported startup parameter"), "{refused}");
}

/// A trigger on the tables tells the setting that the statements of the store ran with.
#[tokio::test]
async fn asynchronous_commit_of_the_role_does_not_reach_the_store_behind_a_pooler() {
    let server = testkit::Postgres::start_with(&["synchronous_commit=off"]);
    let database = server.database();
    let pooler = PgBouncer::start(database.url(), Pooling::Transaction);
    let pool = pool_without_statements(&pooler.url()).await;
    let store = PostgresStore::builder(pool.clone()).behind_pooler().build().await.unwrap();
    let spy = "CREATE TABLE notes (saga text); CREATE TABLE seen (setting text);
        CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
        CREATE TRIGGER spy BEFORE INSERT OR UPDATE ON saga_heads FOR EACH ROW EXECUTE FUNCTION spy();
        CREATE TRIGGER spy BEFORE INSERT OR UPDATE ON saga_step_rows FOR EACH ROW EXECUTE FUNCTION spy()";
    raw_sql(spy).execute(&pool).await.unwrap();
    assert_eq!(worker(store).await.run("payment", "PAY-1", &7_u32).await.unwrap(), Outcome::Completed);
    assert_eq!(database.query("SELECT DISTINCT setting FROM seen"), "on");
}

async fn runs_behind(pooling: Pooling, server: &testkit::Postgres, database: &TestDatabase) {
    let pooler = PgBouncer::start_with(server.url(), pooling, &["default_pool_size = 12"]);
    let pool = pool_without_statements(&with_database_of(&pooler.url(), database.url())).await;
    raw_sql("CREATE TABLE IF NOT EXISTS notes (saga text)").execute(&pool).await.unwrap();
    let store = PostgresStore::builder(pool.clone()).behind_pooler().build().await.unwrap();
    let worker = worker(store).await;
    let runs = (0..40_u32).map(|n| {
        let worker = &worker;
        async move { worker.run("payment", &format!("{pooling:?}-{n}"), &7_u32).await.unwrap() }
    });
    assert!(futures_util::future::join_all(runs).await.iter().all(|outcome| *outcome == Outcome::Completed));
    let mut tx = pool.begin().await.unwrap();
    let id = format!("{pooling:?}-in");
    let started = worker.start_in(&mut *tx, "payment", &id, &7_u32).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(worker.wait(&started).await.unwrap(), Outcome::Completed);
    worker.drain().await.unwrap();
    let left =
        raw_sql("SELECT count(*)::text FROM pg_prepared_statements WHERE name <> ''").fetch_one(&pool).await;
    assert_eq!(left.unwrap().get::<String, _>(0), "0", "no statement stays in a session that others get");
}

// proves: S-7, S-9
#[tokio::test]
async fn sagas_run_behind_pgbouncer_in_both_modes() {
    let (server, _) = pooled_server();
    let database = server.database();
    runs_behind(Pooling::Session, server, &database).await;
    runs_behind(Pooling::Transaction, server, &database).await;
}

#[tokio::test]
async fn more_connections_than_a_server_can_have_are_refused_with_the_limit() {
    let builder = || PostgresStore::builder(PgPool::connect_lazy("postgres://localhost:1/nowhere").unwrap());
    for many in [builder().connections(u32::MAX), builder().local_connections(262_144)] {
        let refused = many.build().await.unwrap_err().to_string();
        assert!(refused.contains("at most 262,143 connections"), "{refused}");
    }
}

struct PayOut(&'static tokio::sync::Notify, &'static tokio::sync::Notify);

impl ForwardStep for PayOut {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "PayOut";

    async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
        self.0.notify_one();
        self.1.notified().await;
        Ok(7)
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

// proves: S-7
#[tokio::test]
async fn a_result_is_kept_while_the_role_may_not_connect() {
    let database = testkit::Postgres::shared().database();
    let owner = pool(database.url()).await;
    PostgresStore::new(owner.clone()).await.unwrap();
    let role = database.role();
    grant(&owner, role.name(), "public", "saga_").await;
    let store = PostgresStore::builder(pool(role.url()).await).verify().await.unwrap();
    let (reached, go_on) = (Box::leak(Box::default()), Box::leak(Box::default()));
    let saga = Saga::named("payment").pivot(PayOut(reached, go_on)).build().unwrap();
    let orchestrator = Orchestrator::new(store).register(saga).start().await.unwrap();
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    reached.notified().await;
    let name = sqlx::query_scalar::<_, String>("SELECT current_database()").fetch_one(&owner).await.unwrap();
    let role = role.name();
    let shut = format!(
        "REVOKE CONNECT ON DATABASE \"{name}\" FROM PUBLIC, {role};
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    );
    raw_sql(AssertSqlSafe(shut)).execute(&owner).await.unwrap();
    go_on.notify_one();
    // Longer than five tries of a record that the store cannot take.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    raw_sql(AssertSqlSafe(format!("GRANT CONNECT ON DATABASE \"{name}\" TO {role}")))
        .execute(&owner)
        .await
        .unwrap();
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
}
