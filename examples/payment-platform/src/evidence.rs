//! Evidence from the databases and the channel's ledger, read beside the running services.
//!
//! The story never believes an answer: every claim it prints is compared with these rows.

use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Column, Row, ValueRef};
use tokio::time::Instant;

use crate::fleet::{Fleet, Service};
use crate::story::Failure;

/// The three statements that operators run by hand, with the payment number still open in the second.
pub(crate) const OPERATOR_STATEMENTS: [&str; 3] = [
    "SELECT * FROM saga_instances ORDER BY created_at DESC LIMIT 10;",
    "SELECT si.*, ss.* FROM saga_instances si LEFT JOIN saga_steps ss ON si.id = ss.saga_id \
     WHERE si.business_id = '{payment_no}' ORDER BY ss.step_order;",
    "SELECT order_no, COUNT(*) FROM payments GROUP BY order_no HAVING COUNT(*) > 1;",
];

/// Read-only connections to three of the five databases.
#[derive(Debug)]
pub(crate) struct Evidence {
    gateway: SqlitePool,
    orders: SqlitePool,
    channel: SqlitePool,
}

/// One payment with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) payment_no: String,
    pub(crate) order_no: String,
    pub(crate) payment: String,
    pub(crate) order: String,
    pub(crate) saga: String,
    /// Charges at the channel that were not given back.
    pub(crate) charges: i64,
}

impl Evidence {
    pub(crate) async fn open(fleet: &Fleet) -> Result<Self, Failure> {
        let open = async |service| {
            let options = SqliteConnectOptions::new().filename(fleet.database(service)).read_only(true);
            SqlitePool::connect_with(options).await
        };
        Ok(Self {
            gateway: open(Service::Gateway).await?,
            orders: open(Service::Order).await?,
            channel: open(Service::Channel).await?,
        })
    }

    /// Closes the connections, so that the services can check-point and remove their side files.
    pub(crate) async fn close(self) {
        self.gateway.close().await;
        self.orders.close().await;
        self.channel.close().await;
    }

    /// Every payment, oldest first, joined across the databases as no service could.
    pub(crate) async fn traces(&self) -> Result<Vec<Traces>, Failure> {
        let payments =
            sqlx::query("SELECT payment_no, order_no, status FROM payments ORDER BY created_at, payment_no")
                .fetch_all(&self.gateway)
                .await?;
        let mut traces = Vec::with_capacity(payments.len());
        for row in payments {
            let payment_no: String = row.try_get("payment_no")?;
            traces.push(Traces {
                order_no: row.try_get("order_no")?,
                payment: row.try_get("status")?,
                order: self.order(&payment_no).await?,
                saga: self.saga(&payment_no).await?,
                charges: self.charges(&payment_no).await?,
                payment_no,
            });
        }
        Ok(traces)
    }

    /// The traces of the payment with this order number of the merchant.
    pub(crate) async fn trace(&self, order_no: &str) -> Result<Option<Traces>, Failure> {
        Ok(self.traces().await?.into_iter().find(|traces| traces.order_no == order_no))
    }

    /// Charges of a payment that were not given back.
    pub(crate) async fn charges(&self, payment_no: &str) -> Result<i64, Failure> {
        Ok(sqlx::query_scalar(
            "SELECT COUNT(*) FROM channel_charges WHERE payment_no = $1 AND status = 'charged'",
        )
        .bind(payment_no)
        .fetch_one(&self.channel)
        .await?)
    }

    /// The sum that the channel has given back of a payment.
    pub(crate) async fn given_back(&self, payment_no: &str) -> Result<i64, Failure> {
        Ok(sqlx::query_scalar(
            "SELECT COALESCE(SUM(amount), 0) FROM channel_refunds WHERE payment_no = $1 AND status = 'refunded'",
        )
        .bind(payment_no)
        .fetch_one(&self.channel)
        .await?)
    }

    /// Counts the rows of the refunds table.
    pub(crate) async fn refunds(&self) -> Result<i64, Failure> {
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM refunds").fetch_one(&self.gateway).await?)
    }

    /// Counts the requests to charge a payment that the channel got, whatever became of them.
    pub(crate) async fn demands(&self, payment_no: &str) -> Result<i64, Failure> {
        Ok(sqlx::query_scalar("SELECT COALESCE(SUM(attempts), 0) FROM channel_charges WHERE payment_no = $1")
            .bind(payment_no)
            .fetch_one(&self.channel)
            .await?)
    }

    /// All charges in the ledger, of whatever payment: a charge that no payment knows would show here.
    pub(crate) async fn charges_in_all(&self) -> Result<i64, Failure> {
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM channel_charges WHERE status = 'charged'")
            .fetch_one(&self.channel)
            .await?)
    }

    /// Rows of the payments table.
    pub(crate) async fn payments(&self) -> Result<i64, Failure> {
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM payments").fetch_one(&self.gateway).await?)
    }

    /// The steps of a payment's saga: name and status, in order.
    pub(crate) async fn steps(&self, payment_no: &str) -> Result<Vec<(String, String)>, Failure> {
        Ok(sqlx::query_as(
            "SELECT ss.step_name, ss.status FROM saga_instances si JOIN saga_steps ss ON si.id = ss.saga_id \
             WHERE si.business_id = $1 ORDER BY ss.step_order",
        )
        .bind(payment_no)
        .fetch_all(&self.gateway)
        .await?)
    }

    /// Waits until the payment of this order has created its order and is now at the channel.
    pub(crate) async fn wait_until_at_the_channel(&self, order_no: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(traces) = self.trace(order_no).await?
                && traces.order != "-"
                && !self.steps(&traces.payment_no).await?.is_empty()
            {
                return Ok(traces.payment_no);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Failure::Setup(format!("the payment of order {order_no} did not reach the channel within 20 s")))
    }

    /// Runs one of the operators' statements as it stands; the first row is the column names.
    pub(crate) async fn statement(&self, text: &str) -> Result<Vec<Vec<String>>, Failure> {
        // The statement is one of the constants above with a payment number of ours.
        let rows = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).fetch_all(&self.gateway).await?;
        let names =
            rows.first().map(|row| row.columns().iter().map(|column| column.name().to_owned()).collect());
        let cells = rows.iter().map(|row| (0..row.len()).map(|index| shown(row, index)).collect());
        Ok(names.into_iter().chain(cells).collect())
    }

    async fn order(&self, payment_no: &str) -> Result<String, Failure> {
        let status = sqlx::query_scalar("SELECT status FROM orders WHERE payment_no = $1")
            .bind(payment_no)
            .fetch_optional(&self.orders)
            .await?;
        Ok(status.unwrap_or_else(|| "-".to_owned()))
    }

    async fn saga(&self, payment_no: &str) -> Result<String, Failure> {
        let status = sqlx::query_scalar("SELECT status FROM saga_instances WHERE business_id = $1")
            .bind(payment_no)
            .fetch_optional(&self.gateway)
            .await?;
        Ok(status.unwrap_or_else(|| "-".to_owned()))
    }
}

fn shown(row: &sqlx::sqlite::SqliteRow, index: usize) -> String {
    match row.try_get_raw(index) {
        Ok(value) if value.is_null() => "-".to_owned(),
        Ok(_) => row.try_get_unchecked::<String, _>(index).unwrap_or_else(|_| {
            format!("{} bytes", row.try_get_unchecked::<Vec<u8>, _>(index).map_or(0, |b| b.len()))
        }),
        Err(_) => "?".to_owned(),
    }
}
