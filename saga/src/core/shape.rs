//! The part of a definition that the machine knows.

/// The structure of a saga, as far as the machine cares.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) steps: Vec<StepShape>,
}

impl Shape {
    /// Once it has happened there is no way back.
    pub(crate) fn pivot(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.pivot)
    }

    /// Tells whether a step stands at the pivot or behind it.
    pub(crate) fn is_final(&self, at: usize) -> bool {
        self.pivot().is_some_and(|pivot| pivot <= at)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct StepShape {
    pub(crate) name: &'static str,
    /// False for steps declared without compensation, for the pivot, and for everything after it.
    pub(crate) undo: bool,
    pub(crate) pivot: bool,
    /// Its effect and its record commit together, so nothing ever leaves it unknown.
    pub(crate) local: bool,
    /// If its undo fails, the steps before it are not undone until that is resolved.
    pub(crate) holds_undo: bool,
    pub(crate) retries_max: u32,
}
