//! The SQL of merchants and keys. Every rule that two requests could break together is in a statement.

use service_shell::{Id, Pool, Problem, TxError, sql_now};

use crate::domain::{
    ApiKey, IssuedKey, Merchant, MerchantStatus, Mode, NewMerchant, new_api_key, new_secret,
};
use crate::sealing::Sealer;

const KEYS_MAX: i64 = 10;

const MERCHANT: &str = "SELECT id, name, email, status, created_at, updated_at FROM merchants WHERE id = $1";

type Tx<'t> = probity_txn::Tx<'t, service_shell::Database>;

/// Merchants, their keys, and the sealer of their secrets.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: Pool,
    sealer: Sealer,
}

impl Store {
    pub(crate) fn new(pool: Pool, sealer: Sealer) -> Store {
        Store { pool, sealer }
    }

    /// The merchant and exactly two keys, or nothing.
    pub(crate) async fn create(&self, new: &NewMerchant) -> Result<(Merchant, Vec<IssuedKey>), Problem> {
        let created = probity_txn::on(&self.pool, "merchant.create")
            .run(async |tx| -> Result<_, TxError> {
                let merchant = insert_merchant(tx, new).await?;
                let mut keys = Vec::with_capacity(Mode::ALL.len());
                for mode in Mode::ALL {
                    keys.push(insert_key(tx, &self.sealer, merchant.id, *mode).await?);
                }
                Ok((merchant, keys))
            })
            .await?;
        Ok(created)
    }

    pub(crate) async fn get(&self, id: Id) -> Result<Option<Merchant>, sqlx::Error> {
        sqlx::query_as(MERCHANT).bind(id).fetch_optional(&self.pool).await
    }

    /// In the order of creation, after the given one.
    pub(crate) async fn list(&self, after: Option<Id>, limit: i64) -> Result<Vec<Merchant>, sqlx::Error> {
        let nil = Id(uuid::Uuid::nil());
        sqlx::query_as(
            "SELECT id, name, email, status, created_at, updated_at FROM merchants
              WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after.unwrap_or(nil))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
    }

    /// `None`: there is no such merchant, or it is closed for good.
    pub(crate) async fn set_status(
        &self,
        id: Id,
        status: MerchantStatus,
    ) -> Result<Option<Merchant>, sqlx::Error> {
        // Each row is read: SQLite gives it before it commits, and the error of the commit comes after it.
        let changed = sqlx::query_as(concat!(
            "UPDATE merchants SET status = $2, updated_at = ",
            sql_now!(),
            " WHERE id = $1 AND (status <> 'closed' OR $2 = 'closed')
              RETURNING id, name, email, status, created_at, updated_at"
        ))
        .bind(id)
        .bind(status)
        .fetch_all(&self.pool)
        .await?;
        Ok(changed.into_iter().next())
    }

    pub(crate) async fn keys(&self, merchant: Id) -> Result<Vec<ApiKey>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, merchant_id, api_key, mode, status, created_at, rotated_at, revoked_at
               FROM api_keys WHERE merchant_id = $1 ORDER BY id",
        )
        .bind(merchant)
        .fetch_all(&self.pool)
        .await
    }

    pub(crate) async fn key(&self, id: Id) -> Result<Option<ApiKey>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, merchant_id, api_key, mode, status, created_at, rotated_at, revoked_at
               FROM api_keys WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
    }

    /// One more key of a mode, up to ten active ones.
    pub(crate) async fn add_key(&self, merchant: Id, mode: Mode) -> Result<IssuedKey, Problem> {
        let key = probity_txn::on(&self.pool, "api-key.create")
            .run(async |tx| -> Result<_, TxError> {
                lock(tx, merchant).await?;
                let active: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM api_keys WHERE merchant_id = $1 AND mode = $2 AND status = 'active'",
                )
                .bind(merchant)
                .bind(mode)
                .fetch_one(&mut *tx)
                .await?;
                if active >= KEYS_MAX {
                    let detail = format!("there are {KEYS_MAX} active {mode} keys: revoke one first");
                    return Err(Problem::conflict("too-many-keys", detail).into());
                }
                insert_key(tx, &self.sealer, merchant, mode).await
            })
            .await?;
        Ok(key)
    }

    /// A new secret for a key; the old one stops at once.
    pub(crate) async fn rotate(&self, id: Id, mode: Mode) -> Result<Option<IssuedKey>, Problem> {
        let api_secret = new_secret(mode);
        let sealed = self.sealer.seal(id, &api_secret).map_err(|error| Problem::internal(&error))?;
        // Each row is read, as in `set_status`: a secret is shown only if it is stored.
        let rotated: Vec<ApiKey> = sqlx::query_as(concat!(
            "UPDATE api_keys SET sealed_secret = $2, rotated_at = ",
            sql_now!(),
            " WHERE id = $1 AND status = 'active'
              RETURNING id, merchant_id, api_key, mode, status, created_at, rotated_at, revoked_at"
        ))
        .bind(id)
        .bind(sealed)
        .fetch_all(&self.pool)
        .await?;
        Ok(rotated.into_iter().next().map(|key| IssuedKey { key, api_secret }))
    }

    /// Revokes a key unless it is the last active one of its mode: a merchant always has both.
    pub(crate) async fn revoke(&self, key: &ApiKey) -> Result<ApiKey, Problem> {
        let revoked: Option<ApiKey> = probity_txn::on(&self.pool, "api-key.revoke")
            .run(async |tx| -> Result<_, TxError> {
                // Without the lock, two requests could each see the other's key as the one that remains.
                lock(tx, key.merchant_id).await?;
                let revoked = sqlx::query_as(concat!(
                    "UPDATE api_keys SET status = 'revoked', revoked_at = COALESCE(revoked_at, ",
                    sql_now!(),
                    ") WHERE id = $1 AND (status = 'revoked' OR EXISTS (
                           SELECT 1 FROM api_keys other
                            WHERE other.merchant_id = api_keys.merchant_id AND other.mode = api_keys.mode
                              AND other.status = 'active' AND other.id <> api_keys.id))
                      RETURNING id, merchant_id, api_key, mode, status, created_at, rotated_at, revoked_at"
                ))
                .bind(key.id)
                .fetch_optional(&mut *tx)
                .await?;
                Ok(revoked)
            })
            .await?;
        revoked.ok_or_else(|| {
            let detail =
                format!("this is the only active {} key: rotate it, or create another one first", key.mode);
            Problem::conflict("last-key", detail)
        })
    }
}

async fn insert_merchant(tx: &mut Tx<'_>, new: &NewMerchant) -> Result<Merchant, TxError> {
    let id = Id::new();
    let inserted = sqlx::query(
        "INSERT INTO merchants (id, name, email) VALUES ($1, $2, $3) ON CONFLICT (email) DO NOTHING",
    )
    .bind(id)
    .bind(&new.name)
    .bind(&new.email)
    .execute(&mut *tx)
    .await?;
    if inserted.rows_affected() == 0 {
        let detail = "a merchant with this email exists: sign in with its API key, or use another address";
        return Err(Problem::conflict("email-taken", detail).into());
    }
    Ok(sqlx::query_as(MERCHANT).bind(id).fetch_one(&mut *tx).await?)
}

async fn insert_key(
    tx: &mut Tx<'_>,
    sealer: &Sealer,
    merchant: Id,
    mode: Mode,
) -> Result<IssuedKey, TxError> {
    let (id, api_secret) = (Id::new(), new_secret(mode));
    let sealed = sealer.seal(id, &api_secret).map_err(|error| Problem::internal(&error))?;
    let key = sqlx::query_as(
        "INSERT INTO api_keys (id, merchant_id, api_key, mode, sealed_secret) VALUES ($1, $2, $3, $4, $5)
         RETURNING id, merchant_id, api_key, mode, status, created_at, rotated_at, revoked_at",
    )
    .bind(id)
    .bind(merchant)
    .bind(new_api_key(mode))
    .bind(mode)
    .bind(sealed)
    .fetch_one(&mut *tx)
    .await?;
    Ok(IssuedKey { key, api_secret })
}

/// Holds the merchant's row until the commit: changes to one merchant's keys happen one after the other.
async fn lock(tx: &mut Tx<'_>, merchant: Id) -> Result<(), TxError> {
    let locked = sqlx::query(concat!("UPDATE merchants SET updated_at = ", sql_now!(), " WHERE id = $1"))
        .bind(merchant)
        .execute(&mut *tx)
        .await?;
    if locked.rows_affected() == 0 { Err(Problem::not_found("merchant").into()) } else { Ok(()) }
}
