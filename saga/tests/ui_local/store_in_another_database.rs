use probity_saga::{Evidence, LocalStep, MemoryStore, Orchestrator, Saga, SqliteStore, StepContext, StepError};
use sqlx::{PgConnection, Postgres};

struct Reserve;
impl LocalStep<Postgres> for Reserve {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Reserve";
    async fn execute(&self, _: &StepContext<u32>, _: &mut PgConnection) -> Result<(), StepError> {
        Ok(())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: (), _: &mut PgConnection) -> Result<Evidence, StepError> {
        Ok(Evidence::new("released"))
    }
}

fn on_sqlite(store: SqliteStore) {
    let saga = Saga::named("order").local_step(Reserve).build().unwrap();
    let _ = Orchestrator::new(store).register(saga);
}

fn in_memory() {
    let saga = Saga::named("order").local_step(Reserve).build().unwrap();
    let _ = Orchestrator::new(MemoryStore::new()).register(saga);
}

fn main() {}
