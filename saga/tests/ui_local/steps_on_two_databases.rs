use probity_saga::{Evidence, LocalForwardStep, LocalStep, Saga, StepContext, StepError};
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};

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

struct Pay;
impl LocalForwardStep<Sqlite> for Pay {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Pay";
    async fn execute(&self, _: &StepContext<u32>, _: &mut SqliteConnection) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let _ = Saga::named("order").local_step(Reserve).local_pivot(Pay).build();
}
