//! The books: what the databases of four services say about the same money.

use std::collections::BTreeMap;

use service_shell::Pool;

use crate::customers::{CREDIT, Told};
use crate::neighbours::Neighbours;

/// The rows of all services, read one service after the other: exact only while nothing moves. What has an end does not
/// move.
#[derive(Debug)]
pub(crate) struct Books {
    payments: Vec<Payment>,
    withdrawals: Vec<Withdrawal>,
    /// Charges at the channel that no payment knows.
    strangers: usize,
    /// The balance of the one merchant.
    available: i64,
    frozen: i64,
}

#[derive(Debug)]
struct Payment {
    number: String,
    status: String,
    saga: String,
    order: Option<String>,
    /// Charges that were not voided.
    charged: usize,
    /// Charges that ever were.
    charges: usize,
    refunded: bool,
}

#[derive(Debug)]
struct Withdrawal {
    number: String,
    id: String,
    status: String,
    saga: Option<String>,
    total: i64,
    hold: Option<String>,
    sent: usize,
}

/// Number, id, status, total, the state of its hold and of its saga.
type Withdrawn = (String, String, String, i64, Option<String>, Option<String>);

async fn rows<R>(pool: &Pool, sql: &'static str) -> Vec<R>
where
    R: for<'r> sqlx::FromRow<'r, <service_shell::Database as sqlx::Database>::Row> + Send + Unpin,
{
    let rows = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
    pool.close().await;
    rows
}

impl Books {
    /// Reads the services that decide before those that act: what has an end there had its effects before.
    pub(crate) async fn read(neighbours: &Neighbours) -> Books {
        let open = async |name| neighbours.database(name).await;
        let payments: Vec<(String, String, String)> = rows(
            &open("payment-gateway").await,
            "SELECT p.payment_no, p.status, si.status FROM payments p
               JOIN saga_instances si ON si.business_id = p.payment_no
                AND si.business_type = 'payment' ORDER BY p.payment_no",
        )
        .await;
        let withdrawals: Vec<Withdrawn> = rows(
            &open("withdrawal-service").await,
            "SELECT w.withdrawal_no, CAST(w.id AS TEXT), w.status, w.amount + w.fee, h.status, si.status
               FROM withdrawals w
               LEFT JOIN balance_entries h ON h.kind = 'withdrawal' AND h.reference = w.withdrawal_no
               LEFT JOIN saga_instances si ON si.business_id = w.withdrawal_no ORDER BY w.id",
        )
        .await;
        let balance: Vec<(i64, i64)> =
            rows(&open("withdrawal-service").await, "SELECT available, frozen FROM balances").await;
        let orders: Vec<(String, String)> = rows(
            &open("order-service").await,
            "SELECT payment_no, status FROM orders WHERE payment_no IS NOT NULL",
        )
        .await;
        let charges: Vec<(String, String)> = rows(
            &open("channel-adapter").await,
            "SELECT payment_no, status FROM channel_charges WHERE status <> 'refused'",
        )
        .await;
        let refunds: Vec<(String,)> = rows(
            &open("channel-adapter").await,
            "SELECT payment_no FROM channel_refunds WHERE status = 'refunded'",
        )
        .await;
        let transfers: Vec<(String,)> = rows(
            &open("channel-adapter").await,
            "SELECT transfer_no FROM channel_transfers WHERE status = 'sent'",
        )
        .await;
        let orders: BTreeMap<String, String> = orders.into_iter().collect();
        let known = |number: &String| payments.iter().any(|(payment_no, ..)| payment_no == number);
        let strangers = charges.iter().filter(|(number, _)| !known(number)).count();
        let payment = |(number, status, saga): (String, String, String)| Payment {
            order: orders.get(&number).cloned(),
            charged: charges.iter().filter(|(of, state)| *of == number && state == "charged").count(),
            charges: charges.iter().filter(|(of, _)| *of == number).count(),
            refunded: refunds.iter().any(|(of,)| *of == number),
            number,
            status,
            saga,
        };
        let payments = payments.clone().into_iter().map(payment).collect();
        let withdrawal = |(number, id, status, total, hold, saga): Withdrawn| Withdrawal {
            sent: transfers.iter().filter(|(of,)| *of == number).count(),
            number,
            id,
            status,
            saga,
            total,
            hold,
        };
        let withdrawals = withdrawals.into_iter().map(withdrawal).collect();
        let (available, frozen) = balance[0];
        Books { payments, withdrawals, strangers, available, frozen }
    }

    /// Fails unless whatever has an end has it everywhere: charged ⇔ success and paid, sent ⇔ debited. The rest is open.
    pub(crate) fn assert_honest(&self) {
        for payment in &self.payments {
            assert!(payment.charges <= 1, "charged twice: {payment:?}");
            let order = payment.order.as_deref();
            match payment.status.as_str() {
                "success" => {
                    assert_eq!(payment.charged, 1, "a success without a charge: {payment:?}");
                    assert!(matches!(order, Some("paid" | "refunded")), "not paid: {payment:?}");
                    assert_eq!(payment.saga, "completed", "{payment:?}");
                }
                "failed" | "expired" => {
                    assert_eq!(payment.charged, 0, "a charge with a failed payment: {payment:?}");
                    assert!(matches!(order, None | Some("cancelled" | "refunded")), "{payment:?}");
                    assert_eq!(payment.saga, "compensated", "{payment:?}");
                }
                open => assert_eq!(open, "processing", "{payment:?}"),
            }
        }
        for withdrawal in &self.withdrawals {
            assert!(withdrawal.sent <= 1, "sent twice: {withdrawal:?}");
            let hold = withdrawal.hold.as_deref();
            match withdrawal.status.as_str() {
                "completed" => assert_eq!((withdrawal.sent, hold), (1, Some("booked")), "{withdrawal:?}"),
                "failed" => {
                    assert_eq!(withdrawal.sent, 0, "sent, and told as failed: {withdrawal:?}");
                    assert!(matches!(hold, None | Some("cancelled")), "{withdrawal:?}");
                }
                _ => assert!(hold != Some("cancelled") || withdrawal.sent == 0, "{withdrawal:?}"),
            }
        }
    }

    /// Fails unless every answer that a customer got is still true, every request has its one row, and no charge is
    /// without a payment.
    pub(crate) fn assert_told(&self, told: &[Told]) {
        assert_eq!(self.strangers, 0, "the channel charged what no payment knows");
        let payment = |number: &str| self.payments.iter().find(|payment| payment.number == number).unwrap();
        for told in told {
            match told {
                Told::Payment { payment_no, status } => {
                    let payment = payment(payment_no);
                    assert!(status == "processing" || *status == payment.status, "{status}, but {payment:?}");
                }
                Told::Refunded { payment_no } => {
                    let payment = payment(payment_no);
                    assert_eq!(
                        (payment.refunded, payment.order.as_deref()),
                        (true, Some("refunded")),
                        "{payment:?}"
                    );
                }
                Told::Withdrawal { id } => {
                    let found = self.withdrawals.iter().find(|withdrawal| withdrawal.id == *id).unwrap();
                    assert!(
                        ["completed", "failed", "processing"].contains(&found.status.as_str()),
                        "{found:?}"
                    );
                }
            }
        }
        let paid = told.iter().filter(|told| matches!(told, Told::Payment { .. })).count();
        assert_eq!(self.payments.len(), paid, "one payment per request, however often it was sent");
        let refunds = told.iter().filter(|told| matches!(told, Told::Refunded { .. })).count();
        assert_eq!(self.payments.iter().filter(|payment| payment.refunded).count(), refunds);
        let total = |state: &str| -> i64 {
            let of = self.withdrawals.iter().filter(|withdrawal| withdrawal.hold.as_deref() == Some(state));
            of.map(|withdrawal| withdrawal.total).sum()
        };
        let owned = (self.available, self.frozen);
        assert_eq!(owned, (CREDIT - total("booked") - total("frozen"), total("frozen")), "the balance");
    }

    /// Sagas that wait for a person, as `payment/NUMBER` and `withdrawal/NUMBER`.
    pub(crate) fn stuck(&self) -> Vec<String> {
        let rests = |saga: &str| matches!(saga, "stuck" | "paused");
        let payments = self.payments.iter().filter(|payment| rests(&payment.saga));
        let withdrawals = self.withdrawals.iter();
        let withdrawals = withdrawals.filter(|withdrawal| withdrawal.saga.as_deref().is_some_and(rests));
        let payments = payments.map(|payment| format!("payment/{}", payment.number));
        payments.chain(withdrawals.map(|withdrawal| format!("withdrawal/{}", withdrawal.number))).collect()
    }

    /// The number of payments and withdrawals without an end.
    pub(crate) fn open(&self) -> usize {
        self.moving().len()
    }

    /// Lists the payments and withdrawals without an end, for a person to read.
    pub(crate) fn moving(&self) -> Vec<String> {
        let ended = |status: &str| matches!(status, "success" | "failed" | "expired" | "completed");
        let payments = self.payments.iter().filter(|payment| !ended(&payment.status));
        let withdrawals = self.withdrawals.iter().filter(|withdrawal| !ended(&withdrawal.status));
        let payments = payments.map(|payment| format!("{payment:?}"));
        payments.chain(withdrawals.map(|withdrawal| format!("{withdrawal:?}"))).collect()
    }

    fn count(&self, status: &str) -> usize {
        let payments = self.payments.iter().filter(|payment| payment.status == status).count();
        payments + self.withdrawals.iter().filter(|withdrawal| withdrawal.status == status).count()
    }

    /// Counts the ends, for a person to read.
    pub(crate) fn summary(&self) -> String {
        let [success, failed, completed] =
            ["success", "failed", "completed"].map(|status| self.count(status));
        format!(
            "{} payments and {} withdrawals: {success} success, {completed} completed, {failed} failed, {} open: {:?}",
            self.payments.len(),
            self.withdrawals.len(),
            self.open(),
            self.moving(),
        )
    }

    /// Fails if the test would prove nothing, because no customer paid or too little came to an end.
    pub(crate) fn assert_says_something(&self) {
        assert!(self.count("success") > 0, "nobody paid: {}", self.summary());
        let all = self.payments.len() + self.withdrawals.len();
        assert!(self.open() * 10 <= all, "more than one in ten is open: {}", self.summary());
    }
}
