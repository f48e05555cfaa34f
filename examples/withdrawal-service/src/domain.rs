//! Withdrawals: pure rules, no clock, no SQL. All money is minor units in `i64`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_shell::{Currency, Id, Money, MoneyError, Problem, text_enum};
use utoipa::ToSchema;

text_enum! {
    /// The speed at which the money is wanted; it decides the fee.
    pub enum Speed {
        /// 0.1 %.
        Normal = "normal",
        /// 0.5 %.
        Urgent = "urgent",
        /// 0.05 %.
        Scheduled = "scheduled",
    }
}

text_enum! {
    /// The status of a withdrawal.
    pub enum Status {
        /// Waits for approvals.
        Pending = "pending",
        /// All who had to approve have.
        Approved = "approved",
        /// The money is on its way, and no person may stop it by hand.
        Processing = "processing",
        /// The bank has it.
        Completed = "completed",
        /// The bank refused it, or there was not enough; nothing left.
        Failed = "failed",
        /// An operator said no.
        Rejected = "rejected",
        /// The merchant took it back in time.
        Cancelled = "cancelled",
    }
}

impl Speed {
    /// In hundred-thousandths of the amount.
    fn rate(self) -> i64 {
        match self {
            Speed::Normal => 100,
            Speed::Urgent => 500,
            Speed::Scheduled => 50,
        }
    }

    /// The fee of an amount, rounded half up, at least 1.00 and at most 100.00 of its currency.
    #[must_use]
    pub fn fee(self, money: Money) -> i64 {
        let unit = money.currency().minor_per_major();
        // At most 10^14 * 500: far from the end of an i64.
        let exact = (money.amount() * self.rate() + 50_000) / 100_000;
        exact.clamp(unit, 100 * unit)
    }
}

/// The number of people who must approve an amount: two from 100,000.00, three from 1,000,000.00.
#[must_use]
pub fn approvals_required(money: Money) -> i64 {
    let major = money.amount() / money.currency().minor_per_major();
    match major {
        ..100_000 => 1,
        100_000..1_000_000 => 2,
        _ => 3,
    }
}

/// A merchant's account at a bank.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct BankAccount {
    /// The id.
    pub id: Id,
    /// Whose it is, in the bank's books.
    pub holder: String,
    /// The account's number there.
    pub account: String,
    /// The only currency it takes.
    pub currency: String,
    /// Used when a withdrawal names no account; exactly one per merchant.
    pub is_default: bool,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
}

/// The balance of a merchant in one currency.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Balance {
    /// ISO 4217.
    pub currency: String,
    /// Can be withdrawn.
    pub available: i64,
    /// On its way to a bank.
    pub frozen: i64,
}

/// A withdrawal as shown.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Withdrawal {
    /// The id.
    pub id: Id,
    /// The public number; also what the bank knows.
    pub withdrawal_no: String,
    /// Whose money.
    pub merchant_id: Id,
    /// To which account.
    pub bank_account_id: Id,
    /// The amount that the bank receives.
    pub amount: i64,
    /// The fee, on top of the amount.
    pub fee: i64,
    /// ISO 4217.
    pub currency: String,
    /// The speed.
    pub speed: Speed,
    /// The status.
    pub status: Status,
    /// The number of people who must approve.
    #[schema(minimum = 1, maximum = 3)]
    pub approvals_required: i64,
    /// The number of people who have approved.
    pub approvals: i64,
    /// The reason of a rejection or a failure.
    pub reason: Option<String>,
    /// The bank's own number, once it has the money.
    pub bank_reference: Option<String>,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// By the database's clock.
    pub updated_at: DateTime<Utc>,
}

/// The accounts of a merchant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BankAccounts {
    pub(crate) bank_accounts: Vec<BankAccount>,
}

/// The balances of a merchant, one per currency.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Balances {
    pub(crate) balances: Vec<Balance>,
}

/// A page of withdrawals.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Withdrawals {
    pub(crate) withdrawals: Vec<Withdrawal>,
    /// The `after` of the next page; null at the end.
    pub(crate) next: Option<Id>,
}

/// The body by which a merchant adds an account.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBankAccount {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub holder: String,
    /// 1 to 64 visible ASCII characters.
    #[schema(min_length = 1, max_length = 64)]
    pub account: String,
    /// ISO 4217.
    pub currency: String,
    #[schema(default = false)]
    /// True makes the account the default; the first account always is.
    #[serde(default)]
    pub is_default: bool,
}

impl NewBankAccount {
    /// Checks every field.
    ///
    /// # Errors
    /// 422 naming the field.
    pub fn checked(self) -> Result<NewBankAccount, Problem> {
        let holder = text("holder", &self.holder, 100)?;
        if !is_number(&self.account) {
            return Err(Problem::invalid("account", "must have 1 to 64 visible ASCII characters"));
        }
        currency(&self.currency)?;
        Ok(NewBankAccount { holder, ..self })
    }
}

/// The body by which a merchant withdraws.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWithdrawal {
    /// Minor units; what the bank receives. The fee is on top.
    #[schema(minimum = 1)]
    pub amount: i64,
    /// Must be the account's.
    pub currency: String,
    /// `normal`, `urgent` or `scheduled`.
    pub speed: Speed,
    /// The default account if absent.
    pub bank_account_id: Option<Id>,
}

impl NewWithdrawal {
    /// The amount, if it can be withdrawn.
    ///
    /// # Errors
    /// 422 naming the field.
    pub fn money(&self) -> Result<Money, Problem> {
        money(self.amount, &self.currency)
    }
}

/// The body by which a settlement is booked on a merchant's balance.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredit {
    /// 1 to 64 visible ASCII characters; booked once per merchant.
    #[schema(min_length = 1, max_length = 64)]
    pub credit_no: String,
    /// Minor units.
    #[schema(minimum = 1)]
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
}

impl NewCredit {
    /// Checks every field.
    ///
    /// # Errors
    /// 422 naming the field.
    pub fn checked(&self) -> Result<Money, Problem> {
        if !is_number(&self.credit_no) {
            return Err(Problem::invalid("credit_no", "must have 1 to 64 visible ASCII characters"));
        }
        money(self.amount, &self.currency)
    }
}

/// A text that people wrote, trimmed.
///
/// # Errors
/// 422 naming the field.
pub(crate) fn text(field: &str, value: &str, longest: usize) -> Result<String, Problem> {
    let value = value.trim();
    if !(1..=longest).contains(&value.chars().count()) || value.chars().any(char::is_control) {
        let detail = format!("must have 1 to {longest} characters, none of them control characters");
        return Err(Problem::invalid(field, detail));
    }
    Ok(value.to_owned())
}

fn money(amount: i64, code: &str) -> Result<Money, Problem> {
    Money::new(amount, currency(code)?).map_err(|error| Problem::invalid("amount", error))
}

fn currency(code: &str) -> Result<Currency, Problem> {
    code.parse().map_err(|error: MoneyError| Problem::invalid("currency", error))
}

fn is_number(value: &str) -> bool {
    (1..=64).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(amount: i64) -> Money {
        Money::new(amount, "USD".parse().unwrap()).unwrap()
    }

    #[test]
    fn fees_are_whole_numbers_between_their_bounds() {
        let fee = |amount, speed: Speed| speed.fee(usd(amount));
        assert_eq!(fee(200_000, Speed::Normal), 200);
        assert_eq!(fee(200_000, Speed::Urgent), 1_000);
        assert_eq!(fee(400_000, Speed::Scheduled), 200);
        assert_eq!(fee(1, Speed::Urgent), 100, "at least 1.00");
        assert_eq!(fee(500_000_000, Speed::Normal), 10_000, "at most 100.00");
        assert_eq!(fee(200_449, Speed::Normal), 200, "rounded down below a half");
        assert_eq!(fee(200_450, Speed::Normal), 200);
        assert_eq!(fee(200_500, Speed::Normal), 201, "rounded up from a half");
        assert_eq!(fee(100_000_000_000_000, Speed::Urgent), 10_000, "nothing overflows");
    }

    #[test]
    fn bounds_follow_the_decimals_of_the_currency() {
        let yen = Money::new(1_000, "JPY".parse().unwrap()).unwrap();
        assert_eq!(Speed::Normal.fee(yen), 1);
        let dinar = Money::new(100_000_000, "KWD".parse().unwrap()).unwrap();
        assert_eq!(approvals_required(dinar), 2);
        assert_eq!(Speed::Urgent.fee(dinar), 100_000);
    }

    #[test]
    fn more_money_needs_more_people() {
        let required = |amount| approvals_required(usd(amount));
        assert_eq!(required(1), 1);
        assert_eq!(required(9_999_999), 1);
        assert_eq!(required(10_000_000), 2);
        assert_eq!(required(99_999_999), 2);
        assert_eq!(required(100_000_000), 3);
    }
}
