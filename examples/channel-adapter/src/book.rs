//! The statements of a book: payments (money in) and transfers (money out) follow the same rules in two
//! pairs of tables, so the SQL is written once.

use service_shell::sql_now;

use crate::domain::Status;

/// One direction of money: its statements and its word for "it happened".
#[derive(Debug)]
pub struct Book {
    /// The name of the number in requests: `payment_no`, `transfer_no`.
    pub number: &'static str,
    /// The status of a row whose effect took place.
    pub done: Status,
    /// True if a cancel may undo an effect that took place: a card charge can be voided, a bank transfer cannot.
    pub voidable: bool,
    /// The prefix of the types of its webhooks, if it sends any.
    pub(crate) events: Option<&'static str>,
    pub(crate) lock: &'static str,
    pub(crate) find_number: &'static str,
    pub(crate) find_key: &'static str,
    pub(crate) find_rows: &'static str,
    pub(crate) insert: &'static str,
    pub(crate) count_attempt: &'static str,
    pub(crate) close_number: &'static str,
    pub(crate) void_rows: &'static str,
}

macro_rules! book {
    ($numbers:literal, $entries:literal, $number:literal, $done:expr, $voidable:literal, $events:expr) => {
        Book {
            number: $number,
            done: $done,
            voidable: $voidable,
            events: $events,
            // Takes the row's lock on both databases, and creates the row when it is the first to come.
            lock: concat!(
                "INSERT INTO ",
                $numbers,
                " (",
                $number,
                ", status, mode) VALUES ($1, 'open', $2)
                 ON CONFLICT (",
                $number,
                ") DO UPDATE SET updated_at = ",
                sql_now!(),
                " WHERE ",
                $numbers,
                ".mode = excluded.mode RETURNING status"
            ),
            find_number: concat!("SELECT status FROM ", $numbers, " WHERE ", $number, " = $1 AND mode = $2"),
            find_key: concat!(
                "SELECT idempotency_key, ",
                $number,
                ", method, amount, currency, status, reason,
                        channel_order_no, attempts
                   FROM ",
                $entries,
                " WHERE idempotency_key = $1"
            ),
            find_rows: concat!(
                "SELECT idempotency_key, ",
                $number,
                ", method, amount, currency, status, reason,
                        channel_order_no, attempts
                   FROM ",
                $entries,
                " WHERE ",
                $number,
                " = $1 ORDER BY created_at"
            ),
            insert: concat!(
                "INSERT INTO ",
                $entries,
                " (idempotency_key, ",
                $number,
                ", method, amount, currency, status,
                                             reason, channel_order_no)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (idempotency_key) DO NOTHING"
            ),
            count_attempt: concat!(
                "UPDATE ",
                $entries,
                " SET attempts = attempts + 1, updated_at = ",
                sql_now!(),
                " WHERE idempotency_key = $1"
            ),
            close_number: concat!(
                "UPDATE ",
                $numbers,
                " SET status = 'cancelled', updated_at = ",
                sql_now!(),
                " WHERE ",
                $number,
                " = $1"
            ),
            void_rows: concat!(
                "UPDATE ",
                $entries,
                " SET status = 'cancelled', updated_at = ",
                sql_now!(),
                " WHERE ",
                $number,
                " = $1 AND status = 'charged'"
            ),
        }
    };
}

/// Money in.
pub static PAYMENTS: Book =
    book!("channel_payments", "channel_charges", "payment_no", Status::Charged, true, Some("payment"));

/// Money out.
pub static TRANSFERS: Book =
    book!("channel_transfer_orders", "channel_transfers", "transfer_no", Status::Sent, false, None);
