//! What the machine knows of a definition.

/// The structure of a saga, as far as the machine cares.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) steps: Vec<StepShape>,
}

#[derive(Debug, Clone)]
pub(crate) struct StepShape {
    pub(crate) name: &'static str,
    /// False for steps declared without compensation, for the pivot, and for everything after it.
    pub(crate) undo: bool,
    pub(crate) pivot: bool,
    /// Its effect and its record commit together, so nothing ever leaves it unknown.
    pub(crate) local: bool,
    pub(crate) retries_max: u32,
}
