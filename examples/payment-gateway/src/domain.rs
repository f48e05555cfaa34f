//! The rules of a payment, without a database: what a merchant may ask for, and what they are shown.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_shell::{Currency, Money, Problem, text_enum};
use utoipa::ToSchema;

text_enum! {
    /// The state of a payment as merchants see it.
    pub enum Status {
        /// Known, not started.
        Pending = "pending",
        /// Its saga runs, or waits for an operator.
        Processing = "processing",
        /// The money was taken, once.
        Success = "success",
        /// No money was taken, or it was given back by the undo.
        Failed = "failed",
        /// Cancelled by the merchant before it took effect.
        Cancelled = "cancelled",
        /// Not paid in time.
        Expired = "expired",
    }
}

impl Status {
    /// Returns true if a merchant need not ask again.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Status::Pending | Status::Processing)
    }
}

text_enum! {
    /// The state of the notification of an end.
    pub enum NotifyStatus {
        /// There is no address to tell, or no end yet.
        None = "none",
        /// It is on its way.
        Pending = "pending",
        /// The merchant's server has it.
        Sent = "sent",
        /// It was tried for a day; an operator can send it again.
        Failed = "failed",
    }
}

/// One line of what is paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The name of the item.
    pub name: String,
    /// The quantity.
    pub quantity: i64,
    /// Minor units for one of them.
    pub unit_price: i64,
}

/// `POST /api/v1/payments`, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentBody {
    /// The merchant's own number, unique per merchant.
    pub order_no: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The payment method, in the channel's word for it.
    pub payment_method: String,
    /// Which channel; `card` unless told.
    pub channel: Option<String>,
    /// For the customer's statement.
    pub description: Option<String>,
    /// The address to be told of the end of the payment and of its refunds.
    pub notify_url: Option<String>,
    /// The items that are paid for; one line over the whole amount if there are none.
    pub items: Option<Vec<Item>>,
}

/// A payment that may be made: every rule was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPayment {
    /// The merchant's own number.
    pub order_no: String,
    /// The amount to be paid.
    pub money: Money,
    /// The payment method.
    pub payment_method: String,
    /// Which channel.
    pub channel: String,
    /// For the customer's statement.
    pub description: Option<String>,
    /// The address to be told of the end.
    pub notify_url: Option<String>,
    /// At least one line; together they are the amount.
    pub items: Vec<Item>,
}

impl TryFrom<PaymentBody> for NewPayment {
    type Error = Problem;

    fn try_from(body: PaymentBody) -> Result<NewPayment, Problem> {
        let currency: Currency =
            body.currency.parse().map_err(|error| Problem::invalid("currency", error))?;
        let money = Money::new(body.amount, currency).map_err(|error| Problem::invalid("amount", error))?;
        let order_no = text("order_no", body.order_no, 64)?;
        let plain = order_no.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || !order_no.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err(Problem::invalid(
                "order_no",
                "must be visible ASCII characters without spaces, and begin with a letter or digit",
            ));
        }
        let description = body.description.map(|given| text("description", given, 200)).transpose()?;
        let channel = body.channel.unwrap_or_else(|| CHANNEL.to_owned());
        if channel != CHANNEL {
            return Err(Problem::invalid("channel", format!("must be `{CHANNEL}`, or left out")));
        }
        let payment_method = word("payment_method", body.payment_method)?;
        if !payment_method.starts_with("card_") {
            return Err(Problem::invalid("payment_method", "must be one of the channel's, such as card_ok"));
        }
        let items = match body.items {
            Some(items) => checked(items, money)?,
            None => vec![Item {
                name: description.clone().unwrap_or_else(|| format!("Order {order_no}")),
                quantity: 1,
                unit_price: money.amount(),
            }],
        };
        let notify_url = body.notify_url.map(notify_address).transpose()?;
        Ok(NewPayment { money, payment_method, channel, order_no, description, notify_url, items })
    }
}

impl NewPayment {
    /// Returns true if the address to be told is on this machine or in a private network, or is not encrypted: no merchant
    /// of a platform that others can reach may have it called.
    #[must_use]
    pub fn notifies_inside(&self) -> bool {
        let Some(Ok(url)) = self.notify_url.as_deref().map(reqwest::Url::parse) else { return false };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let inside = match host.parse() {
            Ok(IpAddr::V4(ip)) => {
                ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
            }
            Ok(IpAddr::V6(ip)) => !matches!(ip.segments()[0], 0x2000..0x4000),
            Err(_) => host == "localhost" || host.ends_with(".localhost") || !host.contains('.'),
        };
        inside || url.scheme() != "https"
    }
}

fn notify_address(given: String) -> Result<String, Problem> {
    let given = text("notify_url", given, 500)?;
    let is_web = |url: &reqwest::Url| matches!(url.scheme(), "https" | "http") && url.username().is_empty();
    match reqwest::Url::parse(&given) {
        Ok(url) if is_web(&url) && url.password().is_none() => Ok(url.into()),
        _ => Err(Problem::invalid("notify_url", "must be an https:// address without a user in it")),
    }
}

/// The one channel there is.
pub(crate) const CHANNEL: &str = "card";

/// Checks a text that is stored and shown.
pub(crate) fn text(field: &str, given: String, bytes_max: usize) -> Result<String, Problem> {
    let fits = (1..=bytes_max).contains(&given.len()) && !given.chars().any(char::is_control);
    if fits {
        Ok(given)
    } else {
        Err(Problem::invalid(field, format!("must be 1 to {bytes_max} bytes without control characters")))
    }
}

fn word(field: &str, given: String) -> Result<String, Problem> {
    let fits = (1..=64).contains(&given.len())
        && given.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if fits { Ok(given) } else { Err(Problem::invalid(field, "must be 1 to 64 of the characters a-z 0-9 _")) }
}

fn checked(items: Vec<Item>, money: Money) -> Result<Vec<Item>, Problem> {
    if !(1..=200).contains(&items.len()) {
        return Err(Problem::invalid("items", "must be a list of 1 to 200 items, or left out"));
    }
    let mut total = 0_i64;
    for item in &items {
        let named = (1..=200).contains(&item.name.len()) && !item.name.chars().any(char::is_control);
        if !named || item.quantity < 1 || item.unit_price < 0 {
            return Err(Problem::invalid(
                "items",
                "need a name of 1 to 200 bytes without control characters, a quantity of at least 1 and a \
                 unit_price of at least 0",
            ));
        }
        let line = item.quantity.checked_mul(item.unit_price);
        total = line
            .and_then(|line| line.checked_add(total))
            .ok_or_else(|| Problem::invalid("items", "add up to more than any amount can be"))?;
    }
    if total == money.amount() {
        Ok(items)
    } else {
        Err(Problem::invalid("amount", format!("must be the sum of the items, which is {total} minor units")))
    }
}

/// A payment as it is stored and shown to its merchant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, ToSchema)]
pub struct Payment {
    /// Our number for it: unique and unguessable.
    pub payment_no: String,
    /// The merchant's own number.
    pub order_no: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// Which channel.
    pub channel: String,
    /// The payment method.
    pub payment_method: String,
    /// `test` or `production`, from the API key.
    pub mode: String,
    /// For the customer's statement.
    pub description: Option<String>,
    /// The status.
    pub status: Status,
    /// The reason of a failure.
    pub failure_reason: Option<String>,
    /// The channel's own number.
    pub channel_order_no: Option<String>,
    /// The sum that the channel has given back, in minor units.
    pub refunded_amount: i64,
    /// The state of the notification of its end.
    pub notify_status: NotifyStatus,
    /// The address to be told of the end; not shown.
    #[serde(skip)]
    pub notify_url: Option<String>,
    /// The mode that its saga tells its neighbours; not shown.
    #[serde(skip)]
    pub peer_mode: Option<String>,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// By the database's clock.
    pub updated_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> PaymentBody {
        PaymentBody {
            order_no: "A-1".to_owned(),
            amount: 1250,
            currency: "USD".to_owned(),
            payment_method: "card_ok".to_owned(),
            channel: None,
            description: None,
            notify_url: None,
            items: None,
        }
    }

    fn refused(change: impl FnOnce(&mut PaymentBody)) -> String {
        let mut body = body();
        change(&mut body);
        let problem = NewPayment::try_from(body).expect_err("refused");
        assert_eq!(problem.status(), 422);
        problem.detail().to_owned()
    }

    #[test]
    fn a_payment_without_items_is_for_one_line_over_its_amount() {
        let new = NewPayment::try_from(body()).unwrap();
        assert_eq!(new.items, [Item { name: "Order A-1".to_owned(), quantity: 1, unit_price: 1250 }]);
        assert_eq!(new.channel, "card");
    }

    #[test]
    fn every_refusal_names_the_field_and_the_remedy() {
        assert!(refused(|body| body.amount = -5).starts_with("amount must be greater than 0"));
        assert!(refused(|body| body.amount = 0).starts_with("amount must be greater than 0"));
        assert!(refused(|body| body.amount = i64::MAX).starts_with("amount must be at most"));
        assert!(refused(|body| body.currency = "XXX".to_owned()).starts_with("currency must be one of"));
        assert!(refused(|body| body.order_no = String::new()).starts_with("order_no must be"));
        assert!(refused(|body| body.order_no = "a b".to_owned()).starts_with("order_no must be"));
        assert!(refused(|body| body.order_no = "..".to_owned()).starts_with("order_no must be"));
        assert!(
            refused(|body| body.payment_method = "Card!".to_owned()).starts_with("payment_method must be")
        );
        assert!(
            refused(|body| body.description = Some("a\nb".to_owned())).starts_with("description must be")
        );
        assert!(refused(|body| body.items = Some(Vec::new())).starts_with("items must be"));
        let item = |quantity, unit_price| Item { name: "tea".to_owned(), quantity, unit_price };
        assert!(
            refused(|body| body.items = Some(vec![item(1, 1)])).contains("the sum of the items, which is 1")
        );
        assert!(refused(|body| body.items = Some(vec![item(i64::MAX, 3)])).starts_with("items add up"));
        assert!(refused(|body| body.items = Some(vec![item(1, -1)])).starts_with("items need"));
    }

    #[test]
    fn an_address_to_be_told_at_is_of_the_web_and_known_to_be_outside_or_inside() {
        let told_at = |url: &str| {
            let body = PaymentBody { notify_url: Some(url.to_owned()), ..body() };
            NewPayment::try_from(body).map(|new| new.notifies_inside())
        };
        for outside in ["https://shop.example.com/hook", "https://93.184.215.14/x", "https://[2606:2800::1]/"]
        {
            assert_eq!(told_at(outside).ok(), Some(false), "{outside}");
        }
        for inside in [
            "http://shop.example.com/",
            "https://localhost/",
            "https://127.0.0.1:1/",
            "https://10.0.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/",
            "https://[::1]/",
            "https://[fd00::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://0.0.0.0/",
            "https://metadata/",
            "https://2130706433/",
        ] {
            assert_eq!(told_at(inside).ok(), Some(true), "{inside}");
        }
        for refused in [
            "",
            "shop.example.com",
            "ftp://shop.example.com/",
            "https://ann@shop.example.com/",
            "file:///etc",
        ] {
            assert_eq!(told_at(refused).expect_err("refused").status(), 422, "{refused}");
        }
    }

    #[test]
    fn only_pending_and_processing_may_still_change_by_themselves() {
        let open: Vec<_> = Status::ALL.iter().copied().filter(|status| !status.is_final()).collect();
        assert_eq!(open, [Status::Pending, Status::Processing]);
    }
}
