//! Internal ids: UUIDv7, readable in both databases.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use utoipa::ToSchema;
use uuid::Uuid;

/// A UUIDv7 that is `TEXT` in SQLite, so that operators can read and type it, and `UUID` in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = "uuid", description = "A UUIDv7.")]
pub struct Id(pub Uuid);

impl Id {
    /// A new id, ordered by time.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default that differs at every call would surprise")]
    pub fn new() -> Id {
        Id(Uuid::now_v7())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Id {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Id, uuid::Error> {
        text.parse().map(Id)
    }
}

#[cfg(not(feature = "postgres"))]
type Stored = String;
#[cfg(feature = "postgres")]
type Stored = Uuid;

type Db = crate::Database;

impl sqlx::Type<Db> for Id {
    fn type_info() -> <Db as sqlx::Database>::TypeInfo {
        <Stored as sqlx::Type<Db>>::type_info()
    }

    fn compatible(ty: &<Db as sqlx::Database>::TypeInfo) -> bool {
        <Stored as sqlx::Type<Db>>::compatible(ty)
    }
}

impl<'q> sqlx::Encode<'q, Db> for Id {
    fn encode_by_ref(
        &self,
        buffer: &mut <Db as sqlx::Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        #[cfg(not(feature = "postgres"))]
        let stored = self.0.to_string();
        #[cfg(feature = "postgres")]
        let stored = self.0;
        <Stored as sqlx::Encode<'q, Db>>::encode(stored, buffer)
    }
}

impl<'r> sqlx::Decode<'r, Db> for Id {
    fn decode(value: <Db as sqlx::Database>::ValueRef<'r>) -> Result<Id, BoxDynError> {
        let stored = <Stored as sqlx::Decode<'r, Db>>::decode(value)?;
        #[cfg(not(feature = "postgres"))]
        let stored = stored.parse::<Uuid>()?;
        Ok(Id(stored))
    }
}
