//! The guarded statements. Times are microseconds of the database's own clock; `$1` is the record, `$2` the token.

/// Declares every statement of a store.
macro_rules! templates {
    ($($statement:ident)+) => {
        /// Every statement of a store, for one database: as written here, or with the names of a store.
        #[derive(Debug)]
        pub(crate) struct Templates<S = &'static str> {
            $(pub(crate) $statement: S,)+
        }

        impl Templates {
            pub(crate) fn map<S>(&self, make: impl Fn(&'static str) -> S) -> Templates<S> {
                Templates { $($statement: make(self.$statement),)+ }
            }
        }
    };
}

templates! {
    claim claim_once read renew mark complete tombstone release resolve_done resolve_absent purge
}

/// Makes the row of a claim out of the one that it meets.
macro_rules! taken_over {
    () => {
        concat!(
            "fence = CASE WHEN r.state = 'in_flight' AND r.token = excluded.token THEN r.fence ",
            "  WHEN r.fence >= excluded.fence THEN r.fence + 1 ELSE excluded.fence END, ",
            "attempt = CASE WHEN r.state = 'in_flight' AND r.token = excluded.token THEN r.attempt ",
            "  WHEN r.state IN ('in_flight', 'released') THEN r.attempt + 1 ELSE 1 END, ",
            "lease_until = CASE WHEN r.state = 'in_flight' AND r.token = excluded.token ",
            "  AND r.cap_until < excluded.lease_until THEN r.cap_until ELSE excluded.lease_until END, ",
            "cap_until = CASE WHEN r.state = 'in_flight' AND r.token = excluded.token ",
            "  THEN r.cap_until ELSE excluded.cap_until END, ",
            "expires_at = CASE WHEN r.state = 'in_flight' AND r.token = excluded.token ",
            "  THEN r.expires_at ELSE excluded.expires_at END, ",
            "effect_at = CASE WHEN r.state = 'in_flight' AND r.token = excluded.token ",
            "  THEN r.effect_at ELSE NULL END, ",
            "created_at = CASE WHEN r.state = 'in_flight' THEN r.created_at ELSE excluded.created_at END, ",
            "token = excluded.token, fingerprint = excluded.fingerprint, effects = excluded.effects, ",
            "state = 'in_flight', status = NULL, headers = NULL, body = NULL, location = NULL, reason = NULL, ",
            "finished_at = NULL "
        )
    };
}

/// Says whether the claim named `$claim` may have the row `r`: it is free (released, or its retention is over), the
/// same token asks again, or the lease is over and nothing can have happened.
macro_rules! may_be_taken {
    ($claim:literal, $now:expr) => {
        concat!(
            "(r.state = 'released' ",
            "OR (r.state IN ('completed', 'tombstoned') AND r.expires_at <= ",
            $now,
            ") ",
            "OR (r.state = 'in_flight' AND r.fingerprint = ",
            $claim,
            ".fingerprint AND (r.token = ",
            $claim,
            ".token OR (r.lease_until <= ",
            $now,
            " AND r.effects <> 'opaque' AND r.effect_at IS NULL))))"
        )
    };
}
#[cfg(feature = "postgres")]
pub(crate) use {may_be_taken, taken_over};

/// The assignment of a column that a claim changes if it may, and writes again as it is if it may not.
macro_rules! if_taken {
    ($may:expr, $column:literal, $taken:expr) => {
        concat!($column, " = CASE WHEN ", $may, " THEN ", $taken, " ELSE r.", $column, " END")
    };
    // A column that a repetition of the same claim leaves unchanged.
    ($may:expr, $column:literal, unless_repeated $taken:expr) => {
        if_taken!(
            $may,
            $column,
            concat!(
                "CASE WHEN r.state = 'in_flight' AND r.token = excluded.token THEN r.",
                $column,
                " ELSE ",
                $taken,
                " END"
            )
        )
    };
}

/// Makes the row of a claim out of the one that it meets where the statement must say in one statement what it found:
/// the row is written in any case, because only a row that is written is returned.
macro_rules! taken_or_kept {
    ($may:expr) => {
        concat!(
            if_taken!($may, "fence", unless_repeated
                "CASE WHEN r.fence >= excluded.fence THEN r.fence + 1 ELSE excluded.fence END"), ", ",
            if_taken!($may, "attempt", unless_repeated
                "CASE WHEN r.state IN ('in_flight', 'released') THEN r.attempt + 1 ELSE 1 END"), ", ",
            if_taken!($may, "lease_until", "CASE WHEN r.state = 'in_flight' AND r.token = excluded.token \
                AND r.cap_until < excluded.lease_until THEN r.cap_until ELSE excluded.lease_until END"), ", ",
            if_taken!($may, "cap_until", unless_repeated "excluded.cap_until"), ", ",
            if_taken!($may, "expires_at", unless_repeated "excluded.expires_at"), ", ",
            if_taken!($may, "effect_at", unless_repeated "NULL"), ", ",
            if_taken!($may, "created_at", "CASE WHEN r.state = 'in_flight' THEN r.created_at \
                ELSE excluded.created_at END"), ", ",
            if_taken!($may, "token", "excluded.token"), ", ",
            if_taken!($may, "fingerprint", "excluded.fingerprint"), ", ",
            if_taken!($may, "effects", "excluded.effects"), ", ",
            if_taken!($may, "state", "'in_flight'"), ", ",
            if_taken!($may, "status", "NULL"), ", ",
            if_taken!($may, "headers", "NULL"), ", ",
            if_taken!($may, "body", "NULL"), ", ",
            if_taken!($may, "location", "NULL"), ", ",
            if_taken!($may, "reason", "NULL"), ", ",
            if_taken!($may, "finished_at", "NULL"), " "
        )
    };
}

/// The statements with `$now` as the clock, `$fence_column` and `$fence` as the column and value of a new row's fence
/// where it is not the column's default, `$skip` as the suffix that skips locked rows, and `$patience` as the condition,
/// always true, that limits how long the statement waits for a lock.
///
/// `claim` inserts, or takes the row over if the state machine permits it. It never waits for anything but the row
/// itself.
macro_rules! statements {
    ($now:expr, $fence_column:literal, $fence:expr, $skip:literal, $patience:literal) => {
        Templates {
            claim: concat!(
                "INSERT INTO idempotency_records AS r (id, token, fingerprint, effects, state, ", $fence_column, "attempt, ",
                "created_at, lease_until, cap_until, expires_at) ",
                "SELECT $1, $2, $3, $4, 'in_flight', ", $fence, "1, ",
                $now, ", ", $now, " + $5, ", $now, " + $6, ", $now, " + $6 + $7 WHERE true", $patience, " ",
                "ON CONFLICT (id) DO UPDATE SET ",
                taken_over!(), "WHERE ", may_be_taken!("excluded", $now), " ",
                "RETURNING fence, attempt, lease_until - ", $now
            ),
            claim_once: concat!(
                "INSERT INTO idempotency_records AS r (id, token, fingerprint, effects, state, ", $fence_column, "attempt, ",
                "created_at, lease_until, cap_until, expires_at) ",
                "SELECT $1, $2, $3, $4, 'in_flight', ", $fence, "1, ",
                $now, ", ", $now, " + $5, ", $now, " + $6, ", $now, " + $6 + $7 WHERE true", $patience, " ",
                "ON CONFLICT (id) DO UPDATE SET ",
                taken_or_kept!(may_be_taken!("excluded", "excluded.created_at")),
                "RETURNING fingerprint, effects, state, token, fence, attempt, effect_at, lease_until, cap_until, ",
                "expires_at, status, headers, body, location, reason, ", $now, " AS now"
            ),
            read: concat!(
                "SELECT fingerprint, effects, state, token, fence, attempt, effect_at, lease_until, cap_until, ",
                "expires_at, status, headers, body, location, reason, ", $now, " AS now ",
                "FROM idempotency_records WHERE id = $1"
            ),
            renew: concat!(
                "UPDATE idempotency_records SET lease_until = ",
                "CASE WHEN cap_until < ", $now, " + $3 THEN cap_until ELSE ", $now, " + $3 END ",
                "WHERE id = $1 AND token = $2 AND state = 'in_flight'", $patience, " RETURNING lease_until - ", $now
            ),
            mark: concat!(
                "UPDATE idempotency_records SET effect_at = ", $now, " ",
                "WHERE id = $1 AND token = $2 AND state = 'in_flight' AND effect_at IS NULL", $patience
            ),
            complete: concat!(
                "UPDATE idempotency_records SET state = 'completed', finished_at = ", $now, ", ",
                "expires_at = ", $now, " + $3, status = $4, headers = $5, body = $6 ",
                "WHERE id = $1 AND token = $2 AND state = 'in_flight'", $patience
            ),
            tombstone: concat!(
                "UPDATE idempotency_records SET state = 'tombstoned', finished_at = ", $now, ", ",
                "expires_at = ", $now, " + $3, status = $4, location = $5, reason = $6 ",
                "WHERE id = $1 AND token = $2 AND state = 'in_flight'", $patience
            ),
            release: concat!(
                "UPDATE idempotency_records SET state = 'released', finished_at = ", $now, ", ",
                "expires_at = ", $now, " + $3 ",
                "WHERE id = $1 AND token = $2 AND state = 'in_flight' AND effect_at IS NULL", $patience
            ),
            resolve_done: concat!(
                "UPDATE idempotency_records SET state = 'completed', finished_at = ", $now, ", ",
                "expires_at = ", $now, " + $3, status = $4, headers = $5, body = $6 ",
                "WHERE id = $1 AND fence = $2 AND state = 'in_flight' AND lease_until <= ", $now, $patience
            ),
            resolve_absent: concat!(
                "UPDATE idempotency_records SET state = 'released', finished_at = ", $now, ", ",
                "expires_at = ", $now, " + $3 ",
                "WHERE id = $1 AND fence = $2 AND state = 'in_flight' AND lease_until <= ", $now, $patience
            ),
            purge: concat!(
                "DELETE FROM idempotency_records WHERE id IN (SELECT id FROM idempotency_records ",
                "WHERE expires_at <= ", $now, " AND (state <> 'in_flight' ",
                "OR (effects <> 'opaque' AND effect_at IS NULL)) LIMIT $1", $skip, ")"
            ),
        }
    };
}

/// SQLite: its clock has milliseconds, and stands still within one statement.
#[cfg(feature = "sqlite")]
macro_rules! sqlite_now {
    () => {
        "(CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000)"
    };
}

#[cfg(feature = "sqlite")]
pub(crate) use sqlite_now;

/// A new row's fence is above those of all rows that were deleted, of which the table `idempotency_fences` knows the
/// highest. Statements that write follow one another, so no other row comes in between.
#[cfg(feature = "sqlite")]
pub(crate) static SQLITE: Templates = statements!(
    sqlite_now!(),
    "fence, ",
    concat!("max(", sqlite_now!(), ", (SELECT highest + 1 FROM idempotency_fences)), "),
    "",
    ""
);

/// PostgreSQL: the start of the statement, so time spent waiting for a row never makes a lease look older.
#[cfg(feature = "postgres")]
macro_rules! postgres_now {
    () => {
        "((extract(epoch FROM statement_timestamp()) * 1000000)::bigint)"
    };
}
#[cfg(feature = "postgres")]
pub(crate) use postgres_now;

/// The claim of the caller's transactions: the caller chooses how long it waits. The column draws a new row's fence by
/// itself.
#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Templates = statements!(postgres_now!(), "", "", " FOR UPDATE SKIP LOCKED", "");

/// For connections of the store's own: an open transaction of others must not keep them. The setting is local to the
/// statement, and made before the statement locks a row.
#[cfg(feature = "postgres")]
pub(crate) static PATIENT_POSTGRES: Templates = statements!(
    postgres_now!(),
    "",
    "",
    " FOR UPDATE SKIP LOCKED",
    " AND set_config('lock_timeout', '2s', true) IS NOT NULL"
);
