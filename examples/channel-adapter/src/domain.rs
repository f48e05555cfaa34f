//! The rules of the channel, without a database: what each test method does, and what a caller may learn.

use service_shell::text_enum;

text_enum! {
    /// The behaviour that a test payment method or test account chooses, like a provider's test cards.
    pub enum Behaviour {
        /// Takes effect and answers at once.
        Ok = "ok",
        /// Refuses; no effect.
        Declined = "declined",
        /// Takes effect at once, but the first answer does not come in time. A repeat is answered at once.
        Hangs = "hangs",
        /// Takes effect after a delay, whether or not the caller still waits.
        Slow = "slow",
        /// Neither takes effect nor answers in time.
        NeverArrives = "never_arrives",
    }
}

impl Behaviour {
    /// The behaviour a method stands for: `card_*` for payments, `acct_*` for transfers.
    ///
    /// # Examples
    /// ```
    /// use channel_adapter::Behaviour;
    /// assert_eq!(Behaviour::of("card_declined"), Some(Behaviour::Declined));
    /// assert_eq!(Behaviour::of("card_unheard_of"), None);
    /// ```
    #[must_use]
    pub fn of(method: &str) -> Option<Behaviour> {
        method.strip_prefix("card_").or_else(|| method.strip_prefix("acct_"))?.parse().ok()
    }
}

/// A request of a caller: move this much under this number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The caller's idempotency key; the same key never moves money twice.
    pub key: String,
    /// The caller's payment or transfer number.
    pub number: String,
    /// The test method, see [`Behaviour::of`].
    pub method: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
}

text_enum! {
    /// The state of one ledger row, or of a number that was cancelled.
    pub enum Status {
        /// Money was taken.
        Charged = "charged",
        /// Money was sent.
        Sent = "sent",
        /// Money was given back.
        Refunded = "refunded",
        /// No money was taken, and none ever will be; or a cancel gave it back.
        Cancelled = "cancelled",
        /// The channel said no. No effect.
        Refused = "refused",
    }
}

/// One row of the ledger, which is also the answer a caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The request.
    pub demand: Demand,
    /// The outcome.
    pub status: Status,
    /// The reason of a refusal.
    pub reason: Option<String>,
    /// The channel's own number.
    pub channel_order_no: String,
    /// The number of times this key arrived.
    pub attempts: i64,
}

/// The answer to a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a refusal or a reused key is not a charge"]
pub enum Answer {
    /// The row of this key, new or found. `entry.status` says whether money moved.
    Entry(Entry),
    /// The key came before with another demand.
    KeyReused,
    /// The number is one of the other mode.
    NumberTaken,
}

/// The row that the channel has for a number, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "never seen is not the same as never will be"]
pub enum Known {
    /// The row that decides.
    Entry(Entry),
    /// Cancelled before any demand arrived: a demand that comes late is refused, so this is final.
    CancelledUnseen,
    /// No demand arrived *yet*. One may still be on its way, so this proves nothing.
    NeverSeen,
}

/// The answer to a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a cancel may be refused"]
pub enum Cancelled {
    /// The charge does not stand, and never will. `voided` says whether money had been taken.
    Done {
        /// True when a charge existed and was given back.
        voided: bool,
    },
    /// Money was sent or refunded already; this cannot be taken back.
    TooLate(Status),
    /// The number is one of the other mode, so there is none.
    NeverSeen,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_method_is_known_for_both_directions() {
        for name in ["ok", "declined", "hangs", "slow", "never_arrives"] {
            let card = Behaviour::of(&format!("card_{name}"));
            assert!(card.is_some(), "{name}");
            assert_eq!(card, Behaviour::of(&format!("acct_{name}")));
        }
        assert_eq!(Behaviour::of("ok"), None);
        assert_eq!(Behaviour::of("card_"), None);
    }
}
