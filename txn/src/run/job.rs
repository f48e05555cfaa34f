//! The parts of a run that its attempts share.

use std::sync::Arc;

use sqlx::Pool;

use crate::backend::Backend;
use crate::error::Error;
use crate::failure::Failure;
use crate::run::admission::Permit;
use crate::run::ambiguity::LostCommit;
use crate::run::token::Token;
use crate::settings::Settings;

/// A run without its closure.
pub(super) struct Job<'p, DB: Backend, T> {
    pub(super) pool: &'p Pool<DB>,
    pub(super) settings: Arc<Settings>,
    pub(super) token: Option<Token<T>>,
    pub(super) permit: Permit,
}

/// The end of one attempt.
pub(super) enum Attempt<T, E> {
    Done(T),
    Failed(Error<E>),
    /// The attempt wrote nothing; a fresh transaction may fare better.
    Again(Failure),
    /// The deadline passed during this; nothing was written.
    Late(Failure),
    /// The COMMIT got no answer; the token will tell.
    Lost(LostCommit),
}
