//! The token of a run, and how its result is written beside it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::Error as _;

use crate::backend::Backend;
use crate::error::Misuse;
use crate::json_round_trip;
use crate::token_table::TokenTable;

/// The longest token: an index entry has to hold it.
const LENGTH_MAX: usize = 200;

/// A token, with the two functions that the runner needs of the result's type.
pub(crate) struct Token<T> {
    pub(crate) text: String,
    pub(crate) table: TokenTable,
    pub(crate) encode: fn(&T) -> Result<String, serde_json::Error>,
    pub(crate) decode: fn(&str) -> Result<T, serde_json::Error>,
}

impl<T: Serialize + DeserializeOwned> Token<T> {
    pub(crate) fn new(text: String, table: TokenTable) -> Self {
        let encode = |value: &T| {
            json_round_trip::check(value).map_err(serde_json::Error::custom)?;
            serde_json::to_string(value)
        };
        Self { text, table, encode, decode: |text| serde_json::from_str(text) }
    }
}

impl<T> Token<T> {
    pub(crate) fn check<DB: Backend>(&self) -> Result<(), Misuse> {
        if !(1..=LENGTH_MAX).contains(&self.text.len()) {
            return Err(Misuse::Token);
        }
        self.table.name::<DB>().map(drop)
    }
}
