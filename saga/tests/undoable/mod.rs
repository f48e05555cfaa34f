//! Steps that return their input, and can be undone.

macro_rules! undoable {
    ($name:ident) => {
        struct $name;
        impl probity_saga::SagaStep for $name {
            type Input = u32;
            type Output = u32;
            const NAME: &'static str = stringify!($name);
            async fn execute(
                &self,
                cx: &probity_saga::StepContext<u32>,
            ) -> Result<u32, probity_saga::StepError> {
                Ok(*cx.input())
            }
            async fn compensate(
                &self,
                _: &probity_saga::StepContext<u32>,
                _: probity_saga::Executed<u32>,
            ) -> Result<probity_saga::Evidence, probity_saga::StepError> {
                Ok(probity_saga::Evidence::new("undone"))
            }
        }
    };
}
