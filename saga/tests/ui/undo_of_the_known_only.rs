use probity_saga::{Evidence, Executed, SagaStep, StepContext, StepError};

struct Reserve;
impl SagaStep for Reserve {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Reserve";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, done: Executed<u32>) -> Result<Evidence, StepError> {
        match done {
            Executed::Applied(id) => Ok(Evidence::new(format!("released {id}"))),
        }
    }
}

fn main() {}
