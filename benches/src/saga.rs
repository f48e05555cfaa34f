//! A saga of two steps that do nothing, started and awaited: memory alone, SQLite against the three rows that it
//! cannot do without, each in a commit of its own.

use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaStep, SqliteStore, StepContext,
    StepError,
};
use sqlx::sqlite::SqlitePoolOptions;

use crate::closed_loop::{Rounds, alone, compare};

macro_rules! step {
    ($name:ident) => {
        struct $name;

        impl SagaStep for $name {
            type Input = u64;
            type Output = u64;
            const NAME: &'static str = stringify!($name);

            async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> {
                Ok(*cx.input())
            }

            async fn compensate(
                &self,
                _: &StepContext<u64>,
                _: Executed<u64>,
            ) -> Result<Evidence, StepError> {
                Ok(Evidence::new("nothing to undo"))
            }
        }
    };
}

step!(First);
step!(Second);

#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
async fn run(orchestrator: &Orchestrator) {
    let name = uuid::Uuid::now_v7().to_string();
    let outcome = orchestrator.run("bench", &name, &7_u64).await.expect("an outcome");
    assert_eq!(outcome, Outcome::Completed);
}

#[expect(clippy::expect_used, reason = "as above")]
pub(crate) async fn measure(rounds: Rounds) {
    let saga = || Saga::named("bench").step(First).step(Second).build().expect("a valid saga");
    let memory =
        Orchestrator::new(MemoryStore::new()).register(saga()).start().await.expect("start on memory");
    for tasks in [1, 64] {
        let orchestrator = memory.clone();
        let call = move |_, _| {
            let orchestrator = orchestrator.clone();
            async move { run(&orchestrator).await }
        };
        alone("saga, two steps, memory", tasks, rounds, call).await;
    }

    let folder = testkit::temp_dir();
    let options = probity_txn::sqlite::options(folder.path().join("bench.sqlite3"));
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.expect("open SQLite");
    sqlx::query("CREATE TABLE raw_records (id TEXT PRIMARY KEY, saga TEXT)")
        .execute(&pool)
        .await
        .expect("create");
    let store = SqliteStore::new(pool.clone()).await.expect("migrate");
    let sqlite = Orchestrator::new(store).register(saga()).start().await.expect("start on SQLite");
    for tasks in [1, 16, 64] {
        let (raw, orchestrator) = (pool.clone(), sqlite.clone());
        let baseline = move |_, _| {
            let pool = raw.clone();
            async move {
                for _ in 0..3 {
                    sqlx::query("INSERT INTO raw_records VALUES ($1, 'bench')")
                        .bind(uuid::Uuid::now_v7().to_string())
                        .execute(&pool)
                        .await
                        .expect("insert");
                }
            }
        };
        let call = move |_, _| {
            let orchestrator = orchestrator.clone();
            async move { run(&orchestrator).await }
        };
        compare("saga, two steps, SQLite", tasks, rounds, baseline, call).await;
    }
    sqlite.drain().await.expect("drain SQLite");
    memory.drain().await.expect("drain memory");
    pool.close().await;
}
