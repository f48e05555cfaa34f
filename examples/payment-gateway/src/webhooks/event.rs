//! A channel's event, without a database: what it says, and what cannot be read.

use serde::Deserialize;
use serde_json::Value;
use service_shell::signature::body_sha256;
use service_shell::text_enum;

text_enum! {
    /// The fate of a webhook.
    pub enum Fate {
        /// It speaks of a payment or refund that is not here yet.
        Parked = "parked",
        /// It was news.
        Applied = "applied",
        /// It said nothing that was not known, or came too late to change anything.
        Unchanged = "unchanged",
        /// Its type is none that the gateway acts on.
        Ignored = "ignored",
        /// Its amount or currency is not the payment's.
        Mismatch = "mismatch",
        /// It says the opposite of what the gateway knows for good: a person has to look.
        Contradicts = "contradicts",
        /// It is not an event.
        Unreadable = "unreadable",
    }
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) news: News,
}

/// The content of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The money of a payment was taken.
    Charged(PaymentNews),
    /// The channel refused a payment.
    Refused(PaymentNews),
    /// A charge was voided, or made impossible.
    Voided(PaymentNews),
    /// A refund was made.
    Refunded(RefundNews),
    /// The channel refused a refund.
    RefundRefused(RefundNews),
    /// Something else.
    Other,
    /// It cannot be read.
    Unreadable,
}

/// The part of a payment's event that the gateway uses. A channel may send more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct PaymentNews {
    pub(crate) payment_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) channel_order_no: Option<String>,
    pub(crate) reason: Option<String>,
}

/// The part of a refund's event that the gateway uses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RefundNews {
    pub(crate) refund_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

impl Event {
    /// Reads a body whose signature was checked. What is no event is named by its hash, so that it too is stored once.
    pub(crate) fn read(body: &[u8]) -> Event {
        let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
        let Some(Envelope { id, kind, data }) = envelope.filter(|it| is_plain(&it.id) && is_plain(&it.kind))
        else {
            let id = format!("sha256:{}", body_sha256(body));
            return Event { id, kind: "unreadable".to_owned(), news: News::Unreadable };
        };
        let payment = |news: fn(PaymentNews) -> News| {
            let read = serde_json::from_value::<PaymentNews>(data.clone()).ok();
            let plain = read.filter(|it| is_plain(&it.payment_no) && has_plain_words(it));
            plain.map_or(News::Unreadable, news)
        };
        let refund = |news: fn(RefundNews) -> News| {
            let read = serde_json::from_value::<RefundNews>(data.clone()).ok();
            read.filter(|it| is_plain(&it.refund_no)).map_or(News::Unreadable, news)
        };
        let news = match kind.as_str() {
            "payment.charged" => payment(News::Charged),
            "payment.refused" => payment(News::Refused),
            "payment.cancelled" => payment(News::Voided),
            "refund.refunded" => refund(News::Refunded),
            "refund.refused" => refund(News::RefundRefused),
            _ => News::Other,
        };
        Event { id, kind, news }
    }

    /// The number of the payment or refund that it speaks of.
    pub(crate) fn subject(&self) -> Option<&str> {
        match &self.news {
            News::Charged(news) | News::Refused(news) | News::Voided(news) => Some(&news.payment_no),
            News::Refunded(news) | News::RefundRefused(news) => Some(&news.refund_no),
            News::Other | News::Unreadable => None,
        }
    }
}

/// Ids, types and numbers are words: they go into logs and into columns of both databases.
fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn has_plain_words(news: &PaymentNews) -> bool {
    news.channel_order_no.as_deref().is_none_or(is_plain) && news.reason.as_deref().is_none_or(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: &str, data: Value) -> Event {
        Event::read(json!({"id": "evt_1", "type": kind, "data": data}).to_string().as_bytes())
    }

    #[test]
    fn an_event_says_what_its_type_says_and_may_say_more() {
        let data = json!({"payment_no": "PAY-1", "amount": 5, "currency": "USD", "channel_order_no": "ch_1", "more": []});
        let event = read("payment.charged", data.clone());
        assert!(matches!(&event.news, News::Charged(news) if news.amount == 5), "{event:?}");
        assert_eq!(event.subject(), Some("PAY-1"));
        assert!(matches!(read("payment.refused", data.clone()).news, News::Refused(_)));
        assert!(matches!(read("payment.cancelled", data.clone()).news, News::Voided(_)));
        assert_eq!(read("payment.disputed", data).news, News::Other);
        let refund = json!({"refund_no": "REF-1", "amount": 5, "currency": "USD"});
        assert!(matches!(read("refund.refunded", refund.clone()).news, News::Refunded(_)));
        assert!(matches!(read("refund.refused", refund).news, News::RefundRefused(_)));
    }

    #[test]
    fn a_body_that_is_no_event_is_unreadable_and_has_a_name() {
        let endless = json!({"id": "e".repeat(200), "type": "x"}).to_string();
        let nul = json!({"id": "evt\u{0}", "type": "x"}).to_string();
        for body in ["", "{", "[]", "{\"id\": 1, \"type\": \"x\"}", endless.as_str(), nul.as_str()] {
            let event = Event::read(body.as_bytes());
            assert!(event.id.starts_with("sha256:") && event.news == News::Unreadable, "{event:?}");
        }
        let event = read("payment.charged", json!({"payment_no": "PAY 1", "amount": 5, "currency": "USD"}));
        assert_eq!((event.id.as_str(), event.news), ("evt_1", News::Unreadable));
    }
}
