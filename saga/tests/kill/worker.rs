//! A worker in a process of its own: this test binary, started again with orders.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use probity_saga::{Orchestrator, PostgresStore};
use sqlx::PgPool;
use testkit::{Program, Worker};

use super::channel::Channel;
use super::steps::saga;

/// The number of sagas that a worker starts which is killed, and one that is to be found at work.
pub(crate) const SHARE: u64 = 16;
pub(crate) const MOST: u64 = 64;
const LEASE: Duration = Duration::from_secs(1);
const WORKER: Worker = Worker::named("worker::a_worker_without_orders_does_nothing");

/// The line that a worker writes when a write of it was refused, and counted.
pub(crate) const REFUSED: &str = "a zombie's write was refused";

pub(crate) async fn worker(url: &str) -> Orchestrator {
    let store = PostgresStore::new(PgPool::connect(url).await.unwrap()).await.unwrap();
    let builder = Orchestrator::new(store).lease(LEASE).poll(Duration::from_millis(100));
    builder.register(saga(&Channel::connect(url).await)).start().await.unwrap()
}

/// Reports the one counter that matters here.
struct Refusals;

impl CounterFn for Refusals {
    #[expect(clippy::print_stdout, reason = "the parent reads it")]
    fn increment(&self, by: u64) {
        (0..by).for_each(|_| println!("{REFUSED}"));
    }
    fn absolute(&self, _: u64) {}
}

impl Recorder for Refusals {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "probity_saga_fenced_writes_total" => Counter::from_arc(Arc::new(Self)),
            _ => Counter::noop(),
        }
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The worker, when it is told its work; on its own it has none.
#[test]
fn a_worker_without_orders_does_nothing() {
    let Some(orders) = WORKER.orders() else { return };
    let [url, first, last] = orders.split('|').collect::<Vec<_>>()[..] else { panic!("{orders}") };
    let numbers = first.parse::<u64>().unwrap()..last.parse::<u64>().unwrap();
    metrics::set_global_recorder(Refusals).unwrap();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
        async {
            let orchestrator = worker(url).await;
            for number in numbers {
                // A start whose answer was lost is started again: it is the same saga.
                while orchestrator.start("payment", &format!("PAY-{number}"), &number).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
            // Until it is killed it drives sagas of dead workers.
            std::future::pending::<()>().await;
        },
    );
}

/// The worker of a round starts so many sagas of that round.
pub(crate) fn spawn(url: &str, round: u64, sagas: u64) -> Program {
    let first = round * MOST;
    WORKER.start(&format!("{url}|{first}|{}", first + sagas))
}

/// Counts the writes of this worker that were refused so far.
pub(crate) fn refusals(worker: &Program) -> i64 {
    i64::try_from(worker.output().matches(REFUSED).count()).unwrap()
}
