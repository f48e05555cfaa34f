//! One page of a list.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::{Id, Problem};

/// The query of a list: where it goes on, and how many rows it shows.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// The `next` of the page before.
    pub after: Option<Id>,
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<i64>,
}

impl Page {
    /// The number of rows, 50 unless told.
    ///
    /// # Errors
    /// 422 when it is not from 1 to 100.
    ///
    /// # Examples
    /// ```
    /// let page: service_shell::Page = serde_json::from_str(r#"{"limit": 101}"#)?;
    /// assert_eq!(page.limit().unwrap_err().detail(), "limit must be from 1 to 100");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn limit(self) -> Result<i64, Problem> {
        let limit = self.limit.unwrap_or(50);
        if (1..=100).contains(&limit) {
            Ok(limit)
        } else {
            Err(Problem::invalid("limit", "must be from 1 to 100"))
        }
    }
}
