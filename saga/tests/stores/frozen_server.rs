//! PostgreSQL is frozen under load, for longer than a lease and than any statement may take, and goes on: its
//! connections stay open, and statements that were sent to it are executed late.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_saga::{
    Backoff, Evidence, Executed, LocalStep, Orchestrator, Outcome, PostgresStore, Probe, Saga, SagaError,
    SagaStep, StepContext, StepError, StepPolicy,
};
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Beyond this only a defect takes so long.
const PATIENCE: Duration = Duration::from_secs(240);

/// The calls that the other side saw, in order: the business id and the call.
#[derive(Default)]
struct Channel(Mutex<Vec<(String, &'static str)>>);

impl Channel {
    fn saw(&self, cx: &StepContext<u64>, what: &'static str) {
        self.0.lock().unwrap().push((cx.business_id().to_owned(), what));
    }

    fn of(&self, business_id: &str) -> Vec<&'static str> {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|(id, _)| id == business_id).map(|(_, what)| *what).collect()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn policy() -> StepPolicy {
    let soon = Backoff::constant(100, Duration::from_millis(100));
    StepPolicy::default().retries(soon.clone()).undo_retries(soon)
}

macro_rules! step {
    ($name:ident, $done:literal, $undone:literal) => {
        struct $name(Arc<Channel>);
        impl SagaStep for $name {
            type Input = u64;
            type Output = ();
            const NAME: &'static str = stringify!($name);
            async fn execute(&self, cx: &StepContext<u64>) -> Result<(), StepError> {
                if Self::NAME == "Charge" && refuses(*cx.input()) {
                    return Err(StepError::rejected("refused"));
                }
                self.0.saw(cx, $done);
                Ok(())
            }
            async fn compensate(
                &self,
                cx: &StepContext<u64>,
                _: Executed<()>,
            ) -> Result<Evidence, StepError> {
                self.0.saw(cx, $undone);
                Ok(Evidence::new("undone"))
            }
            async fn probe(&self, cx: &StepContext<u64>) -> Result<Probe<()>, StepError> {
                let seen = self.0.of(cx.business_id()).contains(&$done);
                Ok(if seen { Probe::Applied(()) } else { Probe::NotSeenYet })
            }
            fn policy(&self) -> StepPolicy {
                policy()
            }
        }
    };
}

step!(Reserve, "reserved", "released");
step!(Charge, "charged", "refunded");

fn refuses(input: u64) -> bool {
    input % 4 == 3
}

/// Rows without a key: what happens twice is there twice.
struct Book;
impl LocalStep<Postgres> for Book {
    type Input = u64;
    type Output = ();
    const NAME: &'static str = "Book";

    async fn execute(&self, cx: &StepContext<u64>, tx: &mut PgConnection) -> Result<(), StepError> {
        book(cx, 1, tx).await
    }

    async fn compensate(
        &self,
        cx: &StepContext<u64>,
        (): (),
        tx: &mut PgConnection,
    ) -> Result<Evidence, StepError> {
        book(cx, -1, tx).await?;
        Ok(Evidence::new("undone"))
    }

    fn policy(&self) -> StepPolicy {
        policy()
    }
}

async fn book(cx: &StepContext<u64>, amount: i64, tx: &mut PgConnection) -> Result<(), StepError> {
    let row = sqlx::query("INSERT INTO booked (business_id, amount) VALUES ($1, $2)");
    row.bind(cx.business_id()).bind(amount).execute(tx).await?;
    Ok(())
}

/// Its lease is shorter than the server stands still, and long enough for a crowded machine.
async fn worker(pool: &PgPool, channel: &Arc<Channel>) -> Orchestrator {
    testkit::time_limit();
    let saga = Saga::named("payment").step(Reserve(Arc::clone(channel))).local_step(Book);
    let saga = saga.step(Charge(Arc::clone(channel))).build().unwrap();
    let builder = Orchestrator::new(PostgresStore::new(pool.clone()).await.unwrap());
    let builder = builder.lease(Duration::from_secs(10)).poll(Duration::from_millis(100));
    builder.register(saga).start().await.unwrap()
}

/// A caller who starts again until there is an answer.
async fn insist(orchestrator: Orchestrator, number: u64) -> (u64, Outcome) {
    loop {
        match orchestrator.run("payment", &format!("PAY-{number}"), &number).await {
            Ok(outcome) => return (number, outcome),
            Err(error) => assert!(matches!(error, SagaError::Store(_)), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn all(running: JoinSet<(u64, Outcome)>, who: &str) {
    let ended = timeout(PATIENCE, running.join_all()).await;
    for (number, outcome) in ended.unwrap_or_else(|_| panic!("{who} never end")) {
        match refuses(number) {
            false => assert_eq!(outcome, Outcome::Completed, "PAY-{number}"),
            true => {
                assert_eq!(outcome, Outcome::Compensated { reason: "Charge: refused".into() }, "PAY-{number}")
            }
        }
    }
}

// proves: S-2, S-4, S-6, S-7, S-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_frozen_longer_than_every_limit_loses_and_repeats_nothing() {
    let mut server = testkit::Postgres::start();
    let pool = PgPool::connect(server.url()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE booked (business_id text NOT NULL, amount bigint NOT NULL)")
        .execute(&pool)
        .await
        .unwrap();
    let channel = Arc::new(Channel::default());
    let workers = [worker(&pool, &channel).await, worker(&pool, &channel).await];
    let of = |number: u64| workers[usize::try_from(number % 2).unwrap()].clone();

    let mut running = JoinSet::new();
    (0..200).for_each(|number| drop(running.spawn(insist(of(number), number))));
    // In the middle of it.
    let begun = async {
        while channel.len() < 100 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, begun).await.expect("the sagas do not begin");
    server.pause();

    // It stands still until each of these callers has an answer: that is longer than its own limit for a statement, the
    // limit of the store for an answer, and the lease.
    let mut calling = JoinSet::new();
    for number in 200..208 {
        let orchestrator = of(number);
        calling.spawn(async move {
            orchestrator.start("payment", &format!("PAY-{number}"), &number).await.map(drop)
        });
    }
    let answers = timeout(PATIENCE, calling.join_all()).await.expect("a start hangs on a frozen server");
    for answer in answers {
        let error = answer.expect_err("the server stands still");
        assert!(matches!(error, SagaError::Store(_)), "{error}");
    }
    server.resume();

    let mut later = JoinSet::new();
    (200..232).for_each(|number| drop(later.spawn(insist(of(number), number))));
    all(running, "those that were under way").await;
    all(later, "those that were started later").await;

    for number in 0..232 {
        let (id, seen) = (format!("PAY-{number}"), channel.of(&format!("PAY-{number}")));
        if refuses(number) {
            // An undo whose record was lost is made again, with its key.
            assert_eq!(seen.first(), Some(&"reserved"), "{id}: {seen:?}");
            assert!(seen[1..].iter().all(|what| *what == "released") && seen.len() > 1, "{id}: {seen:?}");
            assert!(seen.len() <= 4, "{id}: {seen:?}");
        } else {
            assert_eq!(seen, ["reserved", "charged"], "{id}");
        }
        let booked = sqlx::query_scalar::<_, i64>(
            "SELECT amount FROM booked WHERE business_id = $1 ORDER BY amount DESC",
        );
        let booked = booked.bind(&id).fetch_all(&pool).await.unwrap();
        assert_eq!(booked, if refuses(number) { vec![1, -1] } else { vec![1] }, "{id}");
    }
    for worker in &workers {
        timeout(PATIENCE, worker.drain()).await.expect("a worker that cannot leave").unwrap();
    }
}

/// A port that accepts connections and never answers, as a frozen server does to a new client.
#[tokio::test(start_paused = true)]
async fn a_store_does_not_wait_for_ever_for_a_server_that_never_answers() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://postgres@{}/postgres", silent.local_addr().unwrap());
    for behind_pooler in [false, true] {
        let builder = PostgresStore::builder(PgPool::connect_lazy(&url).unwrap());
        let builder = if behind_pooler { builder.behind_pooler() } else { builder };
        let opened = timeout(Duration::from_secs(60), builder.build()).await.expect("it waits for ever");
        let refused = opened.unwrap_err().to_string();
        assert!(refused.contains("does not answer"), "{refused}");
    }
}
