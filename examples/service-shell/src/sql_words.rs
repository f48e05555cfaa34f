//! Pieces of SQL as literals for `concat!`: the few words that the two databases spell differently, and the question
//! how a saga ended.

/// The database's own clock, as it is stored in a timestamp column. Always UTC.
///
/// # Examples
/// ```
/// let sql = concat!("UPDATE orders SET paid_at = ", service_shell::sql_now!(), " WHERE id = $1");
/// assert!(sql.ends_with("WHERE id = $1"));
/// ```
#[cfg(not(feature = "postgres"))]
#[macro_export]
macro_rules! sql_now {
    () => {
        "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    };
}

/// The database's own clock, as it is stored in a timestamp column. Always UTC.
///
/// # Examples
/// ```
/// let sql = concat!("UPDATE orders SET paid_at = ", service_shell::sql_now!(), " WHERE id = $1");
/// assert!(sql.ends_with("WHERE id = $1"));
/// ```
#[cfg(feature = "postgres")]
#[macro_export]
macro_rules! sql_now {
    () => {
        "clock_timestamp()"
    };
}

/// The time some seconds before the database's own clock, comparable with a timestamp column. The seconds are a number, or
/// a parameter such as `"$1"`.
#[cfg(not(feature = "postgres"))]
#[macro_export]
macro_rules! sql_ago {
    ($seconds:literal) => {
        concat!("strftime('%Y-%m-%d %H:%M:%f', 'now', (0 - ", $seconds, ") || ' seconds')")
    };
}

/// The time some seconds before the database's own clock, comparable with a timestamp column. The seconds are a number, or
/// a parameter such as `"$1"`.
#[cfg(feature = "postgres")]
#[macro_export]
macro_rules! sql_ago {
    ($seconds:literal) => {
        concat!("(clock_timestamp() - CAST(", $seconds, " AS BIGINT) * interval '1 second')")
    };
}

/// The database's own clock in whole Unix seconds, for windows that are computed with.
#[cfg(not(feature = "postgres"))]
#[macro_export]
macro_rules! sql_unix_now {
    () => {
        "CAST(strftime('%s', 'now') AS INTEGER)"
    };
}

/// The database's own clock in whole Unix seconds, for windows that are computed with.
#[cfg(feature = "postgres")]
#[macro_export]
macro_rules! sql_unix_now {
    () => {
        "CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT)"
    };
}

/// The condition that the saga of a row is in this state: its business type and the column that holds its business id.
///
/// # Examples
/// ```
/// let sql = concat!("SELECT 1 FROM payments WHERE ", service_shell::sql_saga_is!("payment", "payments.no", "completed"));
/// assert!(sql.ends_with("business_id = payments.no AND saga_instances.status = 'completed')"));
/// ```
#[macro_export]
macro_rules! sql_saga_is {
    ($business_type:literal, $business_id:literal, $status:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM saga_instances WHERE business_type = '",
            $business_type,
            "' AND business_id = ",
            $business_id,
            " AND saga_instances.status = '",
            $status,
            "')"
        )
    };
}
