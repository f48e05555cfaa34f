use probity_saga::{Evidence, Executed, ForwardStep, Saga, SagaStep, StepContext, StepError};

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

struct Pay;
impl ForwardStep for Pay {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Pay";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
}

fn main() {
    let _ = Saga::named("payment").pivot(Reserve).build();
    let _ = Saga::named("payment").pivot(Pay).step(Reserve).build();
}
