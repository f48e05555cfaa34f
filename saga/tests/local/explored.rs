//! Sagas with local steps, cut before and after each of their commits; the rows are compared with the records.

use std::sync::Arc;

use probity_saga::store::SagaStore;
use probity_saga::testing::{Explored, Report, explore_on, explore_rows_on};
use probity_saga::{
    BuildError, Evidence, LocalForwardStep, LocalStep, MemoryStore, Saga, SagaView, StepContext, StepError,
    StepStatus,
};

use super::stores;

macro_rules! on {
    ($name:ident, $db:ty, $make:path) => {
        mod $name {
            use super::*;

            type Db = $db;
            type Pool = sqlx::Pool<Db>;
            type Connection = <Db as sqlx::Database>::Connection;

            async fn put(cx: &StepContext<u32>, step: &str, tx: &mut Connection) -> Result<(), StepError> {
                let put = sqlx::query("INSERT INTO effects (saga, step) VALUES ($1, $2)");
                put.bind(cx.saga_id().to_string()).bind(step).execute(tx).await?;
                Ok(())
            }

            macro_rules! step {
                ($step:ident) => {
                    struct $step;
                    impl LocalStep<Db> for $step {
                        type Input = u32;
                        type Output = ();
                        const NAME: &'static str = stringify!($step);
                        async fn execute(
                            &self,
                            cx: &StepContext<u32>,
                            tx: &mut Connection,
                        ) -> Result<(), StepError> {
                            put(cx, Self::NAME, tx).await
                        }
                        async fn compensate(
                            &self,
                            cx: &StepContext<u32>,
                            _: (),
                            tx: &mut Connection,
                        ) -> Result<Evidence, StepError> {
                            let gone = sqlx::query("DELETE FROM effects WHERE saga = $1 AND step = $2");
                            let gone =
                                gone.bind(cx.saga_id().to_string()).bind(Self::NAME).execute(tx).await?;
                            assert_eq!(gone.rows_affected(), 1, "an undo of what is not there");
                            Ok(Evidence::new("gone"))
                        }
                    }
                };
            }

            step!(Reserve);
            step!(Book);

            struct Close;
            impl LocalForwardStep<Db> for Close {
                type Input = u32;
                type Output = ();
                const NAME: &'static str = "Close";
                async fn execute(&self, cx: &StepContext<u32>, tx: &mut Connection) -> Result<(), StepError> {
                    put(cx, Self::NAME, tx).await
                }
            }

            /// The rows of a saga are exactly those that its records say.
            async fn rows_are_as_recorded(pool: &Pool, saga: &SagaView) -> Result<(), String> {
                let rows = sqlx::query_scalar("SELECT step FROM effects WHERE saga = $1 ORDER BY step");
                let rows: Vec<String> = rows
                    .bind(saga.instance.id.to_string())
                    .fetch_all(pool)
                    .await
                    .map_err(|error| error.to_string())?;
                let done = saga.steps.iter().filter(|row| row.status == StepStatus::Succeeded);
                let mut done: Vec<&str> = done.map(|row| &*row.name).collect();
                done.sort_unstable();
                if rows == done { Ok(()) } else { Err(format!("rows {rows:?}, records {done:?}")) }
            }

            // proves: S-2, S-3, S-4, S-5, S-6, S-7, S-9
            #[tokio::test]
            async fn rows_and_records_agree_under_every_cut() {
                let (pool, store, _guard) = $make().await;
                let saga =
                    || Saga::named("order").local_step(Reserve).local_step(Book).local_pivot(Close).build();
                let check = async |saga: &SagaView| rows_are_as_recorded(&pool, saga).await;
                let report = explore_rows_on(Arc::new(store), 1_u32, saga, check).await.unwrap();
                // Two store calls for the start, and three points for each of three transactions.
                assert!(report.schedules > 3 * 11, "{report:?}");
                assert!(report.completed > 0 && report.compensated > 0, "{report:?}");
                assert_eq!(report.waiting, 0, "{report:?}");
            }

            /// Has its effect outside the transaction that it was given.
            struct Beside(Pool);
            impl LocalStep<Db> for Beside {
                type Input = u32;
                type Output = ();
                const NAME: &'static str = "Beside";
                async fn execute(&self, cx: &StepContext<u32>, _: &mut Connection) -> Result<(), StepError> {
                    beside(&self.0, cx).await
                }
                async fn compensate(
                    &self,
                    _: &StepContext<u32>,
                    _: (),
                    _: &mut Connection,
                ) -> Result<Evidence, StepError> {
                    Ok(Evidence::new("gone"))
                }
            }

            async fn beside(pool: &Pool, cx: &StepContext<u32>) -> Result<(), StepError> {
                let put = sqlx::query("INSERT INTO elsewhere (saga, step) VALUES ($1, 'Beside')");
                put.bind(cx.saga_id().to_string()).execute(pool).await?;
                Ok(())
            }

            #[tokio::test]
            async fn an_effect_outside_of_the_transaction_is_found() {
                let (_pool, store, _guard) = $make().await;
                let (elsewhere, _, _guard_too) = $make().await;
                sqlx::query("CREATE TABLE elsewhere (saga TEXT, step TEXT)")
                    .execute(&elsewhere)
                    .await
                    .unwrap();
                let saga = || -> Result<Saga<Db>, BuildError> {
                    Saga::named("order").local_step(Beside(elsewhere.clone())).build()
                };
                let check = async |saga: &SagaView| {
                    let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM elsewhere WHERE saga = $1");
                    let rows = rows.bind(saga.instance.id.to_string()).fetch_one(&elsewhere).await.unwrap();
                    let records = saga.steps.iter().filter(|row| row.status == StepStatus::Succeeded).count();
                    if usize::try_from(rows).unwrap() == records { Ok(()) } else { Err("they differ".into()) }
                };
                let explored = explore_rows_on(Arc::new(store), 1_u32, saga, check).await;
                assert!(matches!(&explored, Err(Explored::Broken(_))), "{explored:?}");
            }

            #[tokio::test]
            async fn a_store_without_transactions_is_refused() {
                let saga = || Saga::named("order").local_step(Reserve).build();
                let memory: Arc<dyn SagaStore> = Arc::new(MemoryStore::new());
                let explored: Result<Report, _> = explore_on(memory, 1_u32, saga).await;
                assert!(matches!(explored, Err(Explored::Unbuildable(BuildError::NoTransaction { .. }))));
            }
        }
    };
}

on!(sqlite, sqlx::Sqlite, stores::sqlite);
on!(postgres, sqlx::Postgres, stores::postgres);
