//! The rules of an order, without a database: what can be ordered, and which change follows which.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_shell::{Currency, Money, Problem, text_enum};
use utoipa::ToSchema;

const ITEMS_MAX: usize = 200;
const TEXT_MAX: usize = 200;

text_enum! {
    /// The state of an order: `pending → paid → (completed | refunded)`, or `cancelled`, or `expired`.
    pub enum Status {
        /// Created, not paid.
        Pending = "pending",
        /// Paid.
        Paid = "paid",
        /// Paid and delivered.
        Completed = "completed",
        /// Paid, and given back.
        Refunded = "refunded",
        /// Will never be paid.
        Cancelled = "cancelled",
        /// Was not paid in time.
        Expired = "expired",
    }
}

text_enum! {
    /// The money of an order, beside its state: a cancelled order was never paid, a completed one stays paid.
    pub enum PayStatus {
        /// No money came.
        Unpaid = "unpaid",
        /// The money came.
        Paid = "paid",
        /// The money came, and was given back.
        Refunded = "refunded",
    }
}

/// A change that a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Money arrived.
    Pay,
    /// It will not be paid.
    Cancel,
    /// The money was given back.
    Refund,
}

/// The meaning of a change for an order in some state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a refused change changed nothing"]
pub enum Verdict {
    /// Change it.
    Apply,
    /// It is so already; saying yes again changes nothing.
    Already,
    /// It cannot follow.
    Refuse,
}

impl Change {
    /// The only state this change starts from; the guard of its UPDATE.
    #[must_use]
    pub fn from(self) -> Status {
        match self {
            Change::Pay | Change::Cancel => Status::Pending,
            Change::Refund => Status::Paid,
        }
    }

    /// The status to which it leads.
    #[must_use]
    pub fn to(self) -> Status {
        match self {
            Change::Pay => Status::Paid,
            Change::Cancel => Status::Cancelled,
            Change::Refund => Status::Refunded,
        }
    }

    /// Judges this change in a state. A refunded order needs no cancel: its money is back already.
    pub fn verdict(self, status: Status) -> Verdict {
        match (self, status) {
            (_, status) if status == self.from() => Verdict::Apply,
            (_, status) if status == self.to() => Verdict::Already,
            (Change::Cancel, Status::Refunded | Status::Expired) => Verdict::Already,
            (Change::Pay | Change::Cancel | Change::Refund, _) => Verdict::Refuse,
        }
    }
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The name of the item.
    pub name: String,
    /// The quantity, at least one.
    pub quantity: i64,
    /// Minor units for one of them.
    pub unit_price: i64,
}

/// An order as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderBody {
    /// The merchant's own number, unique per merchant.
    pub order_no: String,
    /// The payment it is made for.
    pub payment_no: Option<String>,
    /// Minor units; the sum of the items.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// At least one.
    pub items: Vec<Item>,
}

/// An order that may be stored: every rule was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// The merchant's own number.
    pub order_no: String,
    /// The payment it is made for.
    pub payment_no: Option<String>,
    /// The amount to be paid.
    pub money: Money,
    /// At least one; together they are the amount.
    pub items: Vec<Item>,
}

impl TryFrom<OrderBody> for NewOrder {
    type Error = Problem;

    fn try_from(body: OrderBody) -> Result<NewOrder, Problem> {
        let currency: Currency =
            body.currency.parse().map_err(|error| Problem::invalid("currency", error))?;
        let money = Money::new(body.amount, currency).map_err(|error| Problem::invalid("amount", error))?;
        let total = total(&body.items)?;
        if total != money.amount() {
            return Err(Problem::invalid(
                "amount",
                format!("must be the sum of the items, which is {total} minor units"),
            ));
        }
        Ok(NewOrder {
            order_no: number("order_no", body.order_no)?,
            payment_no: body.payment_no.map(|text| number("payment_no", text)).transpose()?,
            money,
            items: body.items,
        })
    }
}

/// A public number: short, printable, without spaces.
///
/// # Errors
/// A 422 problem naming the field.
pub(crate) fn number(field: &str, text: String) -> Result<String, Problem> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text) } else { Err(Problem::invalid(field, "must be 1 to 64 visible ASCII characters")) }
}

fn total(items: &[Item]) -> Result<i64, Problem> {
    if !(1..=ITEMS_MAX).contains(&items.len()) {
        return Err(Problem::invalid("items", format!("must be a list of 1 to {ITEMS_MAX} items")));
    }
    items.iter().try_fold(0_i64, |sum, item| {
        if !(1..=TEXT_MAX).contains(&item.name.len()) || item.name.chars().any(char::is_control) {
            let rule = format!("need a name of 1 to {TEXT_MAX} bytes without control characters each");
            return Err(Problem::invalid("items", rule));
        }
        if item.quantity < 1 || item.unit_price < 0 {
            return Err(Problem::invalid(
                "items",
                "need a quantity of at least 1 and a unit_price of at least 0",
            ));
        }
        item.quantity
            .checked_mul(item.unit_price)
            .and_then(|line| line.checked_add(sum))
            .ok_or_else(|| Problem::invalid("items", "add up to more than any amount can be"))
    })
}

/// An order as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// The merchant's own number.
    pub order_no: String,
    /// The payment it was made for or paid by.
    pub payment_no: Option<String>,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The status.
    pub status: Status,
    /// The state of its money.
    pub pay_status: PayStatus,
    /// The items that were ordered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// By the database's clock.
    pub updated_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(amount: i64, items: &[(i64, i64)]) -> OrderBody {
        OrderBody {
            order_no: "A-1".to_owned(),
            payment_no: None,
            amount,
            currency: "USD".to_owned(),
            items: items
                .iter()
                .map(|&(quantity, unit_price)| Item { name: "tea".to_owned(), quantity, unit_price })
                .collect(),
        }
    }

    #[test]
    fn an_order_needs_items_that_add_up() {
        assert!(NewOrder::try_from(body(700, &[(2, 300), (1, 100)])).is_ok());
        for wrong in [
            body(700, &[]),
            body(700, &[(2, 300)]),
            body(0, &[(1, 0)]),
            body(700, &[(0, 700)]),
            body(700, &[(1, 800), (1, -100)]),
            body(700, &[(i64::MAX, 2)]),
            body(-1, &[(1, 1)]),
        ] {
            assert_eq!(NewOrder::try_from(wrong.clone()).unwrap_err().status(), 422, "{wrong:?}");
        }
    }

    #[test]
    fn every_change_has_one_verdict_in_every_state() {
        use Status::*;
        use Verdict::*;
        let states = [Pending, Paid, Completed, Refunded, Cancelled, Expired];
        assert_eq!(Status::ALL, states);
        let row = |change: Change| states.map(|status| change.verdict(status));
        assert_eq!(row(Change::Pay), [Apply, Already, Refuse, Refuse, Refuse, Refuse]);
        assert_eq!(row(Change::Cancel), [Apply, Refuse, Refuse, Already, Already, Already]);
        assert_eq!(row(Change::Refund), [Refuse, Apply, Refuse, Already, Refuse, Refuse]);
    }
}
