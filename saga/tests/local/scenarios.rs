//! One scenario each, on both databases.

use std::sync::Arc;
use std::time::Duration;

use probity_saga::store::SagaStore;
use probity_saga::{
    Backoff, BuildError, Evidence, Executed, ForwardStep, LocalForwardStep, LocalStep, MemoryStore,
    Orchestrator, Outcome, Saga, SagaStep, Status, StepContext, StepError, StepPolicy, StepStatus,
};

use super::script::{Fate, Script, soon};
use super::stores;

macro_rules! on {
    ($name:ident, $db:ty, $make:path, $broken:literal) => {
        pub(crate) mod $name {
            use super::*;

            type Db = $db;
            type Pool = sqlx::Pool<Db>;
            type Connection = <Db as sqlx::Database>::Connection;

            pub(crate) async fn put(tx: &mut Connection, saga: &str, step: &str) -> Result<(), sqlx::Error> {
                let insert = sqlx::query("INSERT INTO effects (saga, step) VALUES ($1, $2)");
                insert.bind(saga).bind(step).execute(tx).await.map(drop)
            }

            /// The committed effects of a saga, in order of their names.
            pub(crate) async fn effects(pool: &Pool, saga: &str) -> Vec<String> {
                let effects = sqlx::query_scalar("SELECT step FROM effects WHERE saga = $1 ORDER BY step");
                effects.bind(saga).fetch_all(pool).await.unwrap()
            }

            async fn befall(fate: Fate, script: &Script, tx: &mut Connection) -> Result<String, StepError> {
                match fate {
                    Fate::Works | Fate::WorksOutside | Fate::ProvesNothing => {}
                    Fate::FailsOutside => return Err(StepError::rejected("no ".repeat(5000))),
                    Fate::Fails => return Err(std::io::Error::other("the step went wrong").into()),
                    Fate::FailsElsewhere => return Err(sqlx::Error::PoolTimedOut.into()),
                    Fate::Panics => panic!("as the test wants it"),
                    Fate::Hangs => std::future::pending().await,
                    Fate::Rejects => return Err(StepError::rejected("no")),
                    Fate::Swallows => {
                        let _swallowed = sqlx::query($broken).execute(tx).await;
                    }
                    Fate::Commits => {
                        let _done = sqlx::query("COMMIT").execute(tx).await?;
                    }
                    Fate::RollsBack => {
                        let _done = sqlx::query("ROLLBACK").execute(tx).await?;
                    }
                    Fate::Overflows | Fate::OverflowsOutside => return Ok("x".repeat(2 * 1024 * 1024)),
                    Fate::LosesItsConnection => {
                        let kill = "SELECT pg_terminate_backend(pg_backend_pid())";
                        let _done = sqlx::query(kill).execute(tx).await?;
                    }
                    Fate::Conflicts => {
                        let conflict = "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$";
                        let _done = sqlx::query(conflict).execute(tx).await?;
                    }
                    Fate::Waits => script.wait().await,
                }
                Ok("taken".into())
            }

            pub(crate) struct Take {
                pub(crate) does: &'static Script,
                pub(crate) undoes: &'static Script,
                pub(crate) policy: StepPolicy,
            }

            impl LocalStep<Db> for Take {
                type Input = u32;
                type Output = String;
                const NAME: &'static str = "Take";

                async fn execute(&self, cx: &StepContext<u32>, tx: &mut Connection) -> Result<String, StepError> {
                    put(tx, cx.business_id(), "Take").await?;
                    let fate = self.does.next(cx.attempt());
                    if matches!(fate, Fate::FailsOutside | Fate::WorksOutside | Fate::OverflowsOutside) {
                        cx.effect_acknowledged("mail m-1");
                    }
                    befall(fate, self.does, tx).await
                }

                async fn compensate(
                    &self,
                    cx: &StepContext<u32>,
                    done: String,
                    tx: &mut Connection,
                ) -> Result<Evidence, StepError> {
                    put(tx, cx.business_id(), "Undo").await?;
                    let fate = self.undoes.next(cx.attempt());
                    befall(fate, self.undoes, tx).await?;
                    let proof = if fate == Fate::ProvesNothing { " ".into() } else { format!("{done} given back") };
                    Ok(Evidence::new(proof))
                }

                fn policy(&self) -> StepPolicy {
                    self.policy.clone()
                }
            }

            impl Take {
                /// Is waited for as long as a test lasts.
                pub(crate) fn patient(self) -> Self {
                    Self { policy: self.policy.timeout(Duration::from_secs(600)), ..self }
                }
            }

            /// Not local, and reads what was local.
            pub(crate) struct Ship {
                pub(crate) refuses: bool,
            }

            impl SagaStep for Ship {
                type Input = u32;
                type Output = ();
                const NAME: &'static str = "Ship";
                const USES: &'static [&'static str] = &["Take"];

                async fn execute(&self, cx: &StepContext<u32>) -> Result<(), StepError> {
                    assert_eq!(cx.output::<Take, _>()?, "taken");
                    if self.refuses { Err(StepError::rejected("no ship")) } else { Ok(()) }
                }

                async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
                    Ok(Evidence::new("called back"))
                }
            }

            struct Pay(&'static Script);

            impl LocalForwardStep<Db> for Pay {
                type Input = u32;
                type Output = String;
                const NAME: &'static str = "Pay";

                async fn execute(&self, cx: &StepContext<u32>, tx: &mut Connection) -> Result<String, StepError> {
                    put(tx, cx.business_id(), "Pay").await?;
                    befall(self.0.next(cx.attempt()), self.0, tx).await
                }

                fn policy(&self) -> StepPolicy {
                    soon()
                }
            }

            struct Tell;

            impl ForwardStep for Tell {
                type Input = u32;
                type Output = ();
                const NAME: &'static str = "Tell";
                const USES: &'static [&'static str] = &["Pay"];

                async fn execute(&self, cx: &StepContext<u32>) -> Result<(), StepError> {
                    assert_eq!(cx.output::<Pay, _>()?, "taken");
                    Ok(())
                }
            }

            pub(crate) fn take(does: &'static Script, undoes: &'static Script) -> Take {
                Take { does, undoes, policy: soon() }
            }

            /// Runs a saga of `Take` and `Ship`; answers its outcome and the effects that stay.
            async fn taken(take: Take, ship: Ship) -> (Outcome, Vec<String>) {
                let (pool, store, _guard) = $make().await;
                let saga = Saga::named("order").local_step(take).step(ship).build().unwrap();
                let orchestrator = Orchestrator::new(store).register(saga).start().await.unwrap();
                let outcome = orchestrator.run("order", "O-1", &1_u32).await.unwrap();
                let view = orchestrator.get("order", "O-1").await.unwrap().unwrap();
                let there = effects(&pool, "O-1").await;
                let on_record = view.steps.first().is_some_and(|row| row.status == StepStatus::Succeeded);
                assert_eq!(on_record, there == ["Take"], "{:?}, but {there:?}", view.steps);
                if let Outcome::Paused { reason } = &outcome
                    && reason.contains("mail m-1")
                {
                    let stored = view.instance.reason.unwrap();
                    assert!(stored.contains("mail m-1"), "an operator reads {stored}");
                }
                orchestrator.drain().await.unwrap();
                (outcome, there)
            }

            async fn first_attempt(fate: Fate) -> (Outcome, Vec<String>, u32) {
                let does = Script::of([fate]);
                let mut take = take(does, Script::of([]));
                if fate == Fate::Hangs {
                    take.policy = take.policy.timeout(Duration::from_millis(300));
                }
                let (outcome, there) = taken(take, Ship { refuses: false }).await;
                (outcome, there, does.calls())
            }

            // proves: S-9
            #[tokio::test]
            async fn a_local_effect_happens_once_and_later_steps_read_its_output() {
                let (outcome, there, calls) = first_attempt(Fate::Works).await;
                assert_eq!((outcome, there, calls), (Outcome::Completed, vec!["Take".into()], 1));
            }

            #[tokio::test]
            async fn rows_of_a_failed_attempt_are_rolled_back_before_the_next() {
                let (outcome, there, calls) = first_attempt(Fate::Fails).await;
                assert_eq!((outcome, there, calls), (Outcome::Completed, vec!["Take".into()], 2));
            }

            #[tokio::test]
            async fn rows_of_an_attempt_that_panicked_are_rolled_back_before_the_next() {
                let (outcome, there, calls) = first_attempt(Fate::Panics).await;
                assert_eq!((outcome, there, calls), (Outcome::Completed, vec!["Take".into()], 2));
            }

            // proves: S-5
            #[tokio::test]
            async fn an_undo_with_blank_evidence_is_rolled_back_and_waits_for_a_person() {
                let undoes = Script::of([Fate::ProvesNothing]);
                let (outcome, there) = taken(take(Script::of([]), undoes), Ship { refuses: true }).await;
                assert!(matches!(&outcome, Outcome::Paused { reason } if reason.contains("blank")), "{outcome:?}");
                assert_eq!(there, ["Take"]);
            }

            #[tokio::test]
            async fn a_panic_and_an_error_of_another_database_are_failures_of_the_step() {
                for fate in [Fate::Panics, Fate::FailsElsewhere] {
                    let does = Script::of([fate; 3]);
                    let policy = soon().retries(Backoff::constant(2, Duration::from_millis(5)));
                    let take = Take { policy, ..take(does, Script::of([])) };
                    let (outcome, there) = taken(take, Ship { refuses: false }).await;
                    assert!(matches!(outcome, Outcome::Compensated { .. }), "{fate:?}: {outcome:?}");
                    assert_eq!((there, does.calls()), (vec![], 3), "{fate:?}");
                }
            }

            #[tokio::test]
            async fn rows_of_an_attempt_that_timed_out_are_rolled_back_before_the_next() {
                let (outcome, there, calls) = first_attempt(Fate::Hangs).await;
                assert_eq!((outcome, there), (Outcome::Completed, vec!["Take".into()]));
                assert!(calls > 1, "{calls} calls");
            }

            #[tokio::test]
            async fn a_refusal_turns_the_saga_back_and_leaves_nothing_to_undo() {
                let (outcome, there, _) = first_attempt(Fate::Rejects).await;
                assert_eq!(outcome, Outcome::Compensated { reason: "Take: no".into() });
                assert_eq!(there, [""; 0]);
            }

            // proves: S-12
            #[tokio::test]
            async fn a_refusal_after_an_effect_outside_of_the_transaction_waits_for_a_person() {
                let (outcome, there, calls) = first_attempt(Fate::FailsOutside).await;
                let Outcome::Paused { reason } = outcome else { panic!("{outcome:?}") };
                assert!(reason.contains("mail m-1") && reason.contains("outside of its transaction"), "{reason}");
                assert_eq!((there, calls), (vec![], 1));
            }

            #[tokio::test]
            async fn an_output_that_cannot_be_stored_parks_the_saga_without_its_effect() {
                let (outcome, there, calls) = first_attempt(Fate::Overflows).await;
                assert!(matches!(&outcome, Outcome::Paused { reason } if reason.contains("cannot be stored")), "{outcome:?}");
                assert_eq!((there, calls), (vec![], 1));
            }

            // proves: S-12
            #[tokio::test]
            async fn an_output_that_cannot_be_stored_does_not_hide_an_effect_outside_of_the_transaction() {
                let (outcome, there, calls) = first_attempt(Fate::OverflowsOutside).await;
                let Outcome::Paused { reason } = outcome else { panic!("{outcome:?}") };
                assert!(reason.contains("cannot be stored") && reason.contains("mail m-1"), "{reason}");
                assert_eq!((there, calls), (vec![], 1));
            }

            #[tokio::test]
            async fn a_step_that_rolls_its_transaction_back_is_detected() {
                let (outcome, there, calls) = first_attempt(Fate::RollsBack).await;
                assert!(matches!(&outcome, Outcome::Paused { reason } if reason.contains("transaction is over")), "{outcome:?}");
                assert_eq!((there, calls), (vec![], 1));
            }

            #[tokio::test]
            async fn a_step_that_commits_by_itself_is_detected_and_the_worker_goes_on() {
                let (pool, store, _guard) = $make().await;
                let does = Script::of([Fate::Commits]);
                let saga = Saga::named("order").local_step(take(does, Script::of([]))).build().unwrap();
                let orchestrator = Orchestrator::new(store).register(saga).start().await.unwrap();
                let outcome = orchestrator.run("order", "O-1", &1_u32).await.unwrap();
                assert!(matches!(&outcome, Outcome::Paused { reason } if reason.contains("is unknown")), "{outcome:?}");
                assert_eq!(effects(&pool, "O-1").await, ["Take"]);
                for number in 2..5 {
                    let id = format!("O-{number}");
                    assert_eq!(orchestrator.run("order", &id, &1_u32).await.unwrap(), Outcome::Completed);
                    assert_eq!(effects(&pool, &id).await, ["Take"]);
                }
            }

            #[tokio::test]
            async fn an_undo_commits_with_its_evidence_and_happens_once() {
                let undoes = Script::of([Fate::Fails, Fate::Panics]);
                let (outcome, there) = taken(take(Script::of([]), undoes), Ship { refuses: true }).await;
                assert_eq!(outcome, Outcome::Compensated { reason: "Ship: no ship".into() });
                assert_eq!((there, undoes.calls()), (vec!["Take".into(), "Undo".into()], 3));
            }

            #[tokio::test]
            async fn an_undo_that_is_refused_waits_for_a_person_who_lets_it_try_again() {
                let (pool, store, _guard) = $make().await;
                let undoes = Script::of([Fate::Rejects]);
                let saga = Saga::named("order").local_step(take(Script::of([]), undoes)).step(Ship { refuses: true });
                let builder = Orchestrator::new(store).poll(Duration::from_millis(20));
                let orchestrator = builder.register(saga.build().unwrap()).start().await.unwrap();
                let outcome = orchestrator.run("order", "O-1", &1_u32).await.unwrap();
                assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
                assert_eq!(effects(&pool, "O-1").await, ["Take"]);
                orchestrator.operator("ann").retry_now("order", "O-1", "the shelf is open").await.unwrap();
                let started = orchestrator.start("order", "O-1", &1_u32).await.unwrap();
                let outcome = orchestrator.wait(&started).await.unwrap();
                assert!(matches!(outcome, Outcome::Compensated { .. }), "{outcome:?}");
                assert_eq!(effects(&pool, "O-1").await, ["Take", "Undo"]);
            }

            #[tokio::test]
            async fn a_local_pivot_commits_with_its_effect_and_past_it_a_refusal_waits_for_a_person() {
                let (pool, store, _guard) = $make().await;
                let pays = Script::of([Fate::Rejects]);
                let saga = Saga::named("order").local_pivot(Pay(pays)).step(Tell).build().unwrap();
                let again = Saga::named("late").pivot(Go).local_step(Pay(Script::of([Fate::Rejects])));
                let builder = Orchestrator::new(store).poll(Duration::from_millis(20));
                let builder = builder.register(saga).register(again.step(Tell).build().unwrap());
                let orchestrator = builder.start().await.unwrap();
                let outcome = orchestrator.run("order", "O-1", &1_u32).await.unwrap();
                assert_eq!(outcome, Outcome::Compensated { reason: "Pay: no".into() });
                assert_eq!(orchestrator.run("order", "O-2", &1_u32).await.unwrap(), Outcome::Completed);
                let outcome = orchestrator.run("late", "O-3", &1_u32).await.unwrap();
                assert_eq!(outcome, Outcome::Stuck { step: 2, reason: "Pay: no".into() });
                orchestrator.operator("ann").retry_now("late", "O-3", "paid in").await.unwrap();
                let started = orchestrator.start("late", "O-3", &1_u32).await.unwrap();
                assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
                for (id, expected) in [("O-1", vec![]), ("O-2", vec!["Pay"]), ("O-3", vec!["Pay"])] {
                    assert_eq!(effects(&pool, id).await, expected, "{id}");
                }
            }

            #[tokio::test]
            async fn a_store_of_another_database_is_refused_before_anything_runs() {
                let saga = Saga::named("order").local_step(take(Script::of([]), Script::of([])));
                let memory: Arc<dyn SagaStore> = Arc::new(MemoryStore::new());
                let refused = Orchestrator::shared(memory).register(saga.build().unwrap()).start().await;
                let Err(error @ BuildError::NoTransaction { .. }) = refused else { panic!("{refused:?}") };
                assert!(error.to_string().contains("use the saga store of that database"), "{error}");
            }

            #[tokio::test]
            async fn a_saga_released_before_its_next_attempt_is_not_probed() {
                let (pool, store, _guard) = $make().await;
                let does = Script::of([Fate::Fails]);
                // Longer than is waited for in memory, so the saga is released and claimed again.
                let waits = soon().retries(Backoff::constant(3, Duration::from_secs(11)));
                let take = Take { policy: waits, ..take(does, Script::of([])) };
                let saga = Saga::named("order").local_step(take).build().unwrap();
                let builder = Orchestrator::new(store).poll(Duration::from_millis(50));
                let orchestrator = builder.register(saga).start().await.unwrap();
                let started = orchestrator.start("order", "O-1", &1_u32).await.unwrap();
                let left = async || {
                    let view = orchestrator.get("order", "O-1").await.unwrap().unwrap();
                    view.steps.first().is_some_and(|row| row.status == StepStatus::Executing)
                };
                while !left().await {
                    tokio::task::yield_now().await;
                }
                let operator = orchestrator.operator("ann");
                let outcome = operator.cancel("order", "O-1", "never mind").await;
                assert!(outcome.is_ok(), "{outcome:?}");
                assert!(matches!(orchestrator.wait(&started).await.unwrap(), Outcome::Compensated { .. }));
                assert_eq!(effects(&pool, "O-1").await, [""; 0]);
                let view = orchestrator.get("order", "O-1").await.unwrap().unwrap();
                assert_eq!(view.instance.status, Status::Compensated);
                assert_eq!(does.calls(), 1);
            }
        }
    };
}

/// A pivot in another system.
struct Go;

impl ForwardStep for Go {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Go";

    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
}

on!(sqlite, sqlx::Sqlite, stores::sqlite, "INSERT INTO nowhere VALUES (1)");
on!(postgres, sqlx::Postgres, stores::postgres, "INSERT INTO nowhere VALUES (1)");
