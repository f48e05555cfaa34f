use probity_saga::{ForwardStep, Saga, StepContext, StepError};

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
    let _ = Saga::named("payment").step(Pay).build();
    let _ = Saga::named("payment").step(Pay).pivot(Pay);
}
