use probity_saga::{Evidence, LocalStep, Saga, StepContext, StepError};
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

fn main() {
    let _ = Saga::named("order").local_pivot(Reserve).build();
}
