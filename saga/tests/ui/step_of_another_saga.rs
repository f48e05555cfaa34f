use probity_saga::{Evidence, Executed, Saga, SagaStep, StepContext, StepError};

struct Reserve;
impl SagaStep for Reserve {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Reserve";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("released"))
    }
}

fn main() {
    let _ = Saga::named::<String>("payment").step(Reserve).build();
}
