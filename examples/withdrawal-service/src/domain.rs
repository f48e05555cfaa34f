//! Withdrawals: pure rules, no clock, no SQL. All money is minor units in `i64`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_shell::{Currency, Id, Mode, Money, MoneyError, Problem, text_enum};
use utoipa::{IntoParams, ToSchema};

text_enum! {
    /// The kind of a change of a balance.
    pub enum EntryKind {
        /// Money that came, such as a settled payment.
        Credit = "credit",
        /// Money that left, such as a refund.
        Debit = "debit",
        /// Money that another service may spend or give back.
        Freeze = "freeze",
        /// A freeze of a withdrawal of this service.
        Withdrawal = "withdrawal",
    }
}

text_enum! {
    /// The status of an entry.
    pub enum EntryStatus {
        /// Neither available nor gone.
        Frozen = "frozen",
        /// Come or gone.
        Booked = "booked",
        /// Given back, or cancelled before it came.
        Cancelled = "cancelled",
    }
}

/// A change of a balance: one row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Movement {
    /// The status that the entry reaches by it.
    pub(crate) status: EntryStatus,
    pub(crate) available: i64,
    pub(crate) frozen: i64,
}

impl EntryKind {
    /// The movement of a new entry.
    pub(crate) fn begin(self, amount: i64) -> Movement {
        let (status, available, frozen) = match self {
            EntryKind::Credit => (EntryStatus::Booked, amount, 0),
            EntryKind::Debit => (EntryStatus::Booked, -amount, 0),
            EntryKind::Freeze | EntryKind::Withdrawal => (EntryStatus::Frozen, -amount, amount),
        };
        Movement { status, available, frozen }
    }

    /// The movement that spends what is frozen.
    pub(crate) fn confirm(self, amount: i64) -> Movement {
        let Movement { frozen, .. } = self.begin(amount);
        Movement { status: EntryStatus::Booked, available: 0, frozen: -frozen }
    }

    /// The movement that gives everything back.
    pub(crate) fn cancel(self, amount: i64) -> Movement {
        let Movement { available, frozen, .. } = self.begin(amount);
        Movement { status: EntryStatus::Cancelled, available: -available, frozen: -frozen }
    }
}

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
    /// Used when a withdrawal names no account; exactly one per merchant and mode.
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
    /// `test` or `production`.
    pub mode: Mode,
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

/// The body by which a service changes a merchant's balance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// Whose balance.
    pub merchant_id: Id,
    /// `test` or `production`.
    pub mode: Mode,
    /// ISO 4217.
    pub currency: String,
    /// Minor units.
    #[schema(minimum = 1)]
    pub amount: i64,
    /// 1 to 64 visible ASCII characters; it changes a balance once, whoever sends it how often.
    #[schema(min_length = 1, max_length = 64)]
    pub reference: String,
}

impl NewEntry {
    /// Checks every field.
    ///
    /// # Errors
    /// 422 naming the field.
    pub fn checked(self) -> Result<NewEntry, Problem> {
        checked_reference(&self.reference)?;
        money(self.amount, &self.currency)?;
        Ok(self)
    }
}

/// A reference of an entry.
///
/// # Errors
/// 422 naming the field.
pub(crate) fn checked_reference(reference: &str) -> Result<(), Problem> {
    if is_number(reference) {
        return Ok(());
    }
    Err(Problem::invalid("reference", "must have 1 to 64 visible ASCII characters"))
}

/// An entry of a balance as shown. One that was cancelled before it came has a reference and a status only.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Entry {
    /// The caller's own.
    pub reference: String,
    /// Whose balance.
    pub merchant_id: Option<Id>,
    /// `test` or `production`.
    pub mode: Option<Mode>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// Minor units.
    pub amount: Option<i64>,
    /// `booked`, `frozen` or `cancelled`.
    pub status: EntryStatus,
}

impl Entry {
    /// The request that made it; none if only its cancel has come.
    pub(crate) fn body(&self) -> Option<NewEntry> {
        Some(NewEntry {
            merchant_id: self.merchant_id?,
            mode: self.mode?,
            currency: self.currency.clone()?,
            amount: self.amount?,
            reference: self.reference.clone(),
        })
    }
}

/// Asks for the balances of a merchant.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Whose {
    pub(crate) merchant_id: Id,
    pub(crate) mode: Mode,
}

/// The input of the saga. It is stored with the saga and survives deploys: only ever add optional fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub(crate) struct Payout {
    pub(crate) withdrawal_id: Id,
    /// The saga's business id, and what the bank knows.
    pub(crate) withdrawal_no: String,
    pub(crate) merchant_id: Id,
    pub(crate) mode: Mode,
    /// The amount that the bank receives.
    pub(crate) amount: i64,
    /// The sum that leaves the merchant's balance: the amount and the fee.
    pub(crate) total: i64,
    pub(crate) currency: String,
    pub(crate) account: String,
}

impl Payout {
    /// The total as an entry of the balance.
    pub(crate) fn entry(&self) -> NewEntry {
        NewEntry {
            merchant_id: self.merchant_id,
            mode: self.mode,
            currency: self.currency.clone(),
            amount: self.total,
            reference: self.withdrawal_no.clone(),
        }
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
