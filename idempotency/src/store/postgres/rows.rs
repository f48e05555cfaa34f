//! Binding of values, and decoding of records.

use super::classify::classify;
use crate::error::StoreError;
use crate::store::rows::StoredRow;
use crate::store::sql::dialect::{Value, impl_rows};

impl_rows!(sqlx::Postgres);
