//! The lease of running work: the handle that the work sees, the guard that owns it, claiming and renewal.
//!
//! [`execute`](crate::execute) and the layer use it for you. Use it yourself where work is not one function.

pub(crate) mod acquire;
pub(crate) mod guard;
pub(crate) mod handle;
pub(crate) mod inquiry;
pub(crate) mod renew;

pub use acquire::claim;
pub use guard::{LeaseGuard, Settlement};
