//! The scope of a request's key, and the refusal of a request that has none.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;

use crate::core::key::{KeyError, Scope};

/// Derives the scope of a request from what authentication left in its extensions.
pub(crate) type ScopeFn = dyn Fn(&Parts) -> Result<Scope, Refusal> + Send + Sync;

/// A layer that was not told yet whose keys these are. It is not a `Layer` yet, so an application without a scope does not
/// compile.
#[derive(Debug, Clone, Copy)]
pub struct Unscoped;

/// A layer that derives the scope of every request.
#[derive(Clone)]
pub struct Scoped(pub(crate) Arc<ScopeFn>);

impl fmt::Debug for Scoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scoped")
    }
}

/// The reason why the scope function names no scope: usually the request is not authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
}

impl Refusal {
    /// Refuses with this status and a sentence for the client.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// 401: the request is not authenticated.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authenticate first; idempotency keys belong to a caller")
    }
}

impl From<KeyError> for Refusal {
    /// A scope that cannot be one is the server's mistake, not the client's.
    fn from(error: KeyError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the server derived an unusable scope: {error}"))
    }
}
