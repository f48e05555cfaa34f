//! Money: an integer of minor units and an ISO 4217 currency. There is no float anywhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The largest amount of one [`Money`]: sums of many of them still fit an `i64`.
const AMOUNT_MAX: i64 = 100_000_000_000_000;

/// Code and number of decimal places, sorted by code.
const SUPPORTED: [(&str, u32); 16] = [
    ("AUD", 2),
    ("BHD", 3),
    ("BRL", 2),
    ("CAD", 2),
    ("CHF", 2),
    ("CNY", 2),
    ("EUR", 2),
    ("GBP", 2),
    ("HKD", 2),
    ("INR", 2),
    ("JPY", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("NOK", 2),
    ("SGD", 2),
    ("USD", 2),
];

/// A currency this platform supports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Currency(u8);

impl Currency {
    /// All supported codes.
    pub fn supported() -> impl Iterator<Item = &'static str> {
        SUPPORTED.iter().map(|(code, _)| *code)
    }

    /// The three letters.
    #[must_use]
    pub fn code(self) -> &'static str {
        SUPPORTED[usize::from(self.0)].0
    }

    /// The number of decimal places of its minor unit: 2 for USD, 0 for JPY, 3 for BHD.
    #[must_use]
    pub fn decimals(self) -> u32 {
        SUPPORTED[usize::from(self.0)].1
    }

    /// Minor units in one major unit: 100 for USD.
    #[must_use]
    pub fn minor_per_major(self) -> i64 {
        10_i64.pow(self.decimals())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Currency, MoneyError> {
        SUPPORTED
            .iter()
            .position(|(code, _)| *code == text)
            .and_then(|index| u8::try_from(index).ok())
            .map(Currency)
            .ok_or(MoneyError::UnsupportedCurrency)
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Currency, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount that can be charged: greater than 0, and small enough to be summed without overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Money {
    amount: i64,
    currency: Currency,
}

impl Money {
    /// Checks an amount in minor units.
    ///
    /// # Errors
    /// [`MoneyError`] says which bound was crossed.
    ///
    /// # Examples
    /// ```
    /// use service_shell::{Currency, Money};
    /// let usd: Currency = "USD".parse()?;
    /// assert_eq!(Money::new(12_34, usd)?.to_string(), "12.34 USD");
    /// assert!(Money::new(-1, usd).is_err());
    /// # Ok::<(), service_shell::MoneyError>(())
    /// ```
    pub fn new(amount: i64, currency: Currency) -> Result<Money, MoneyError> {
        match amount {
            ..=0 => Err(MoneyError::NotPositive),
            1..=AMOUNT_MAX => Ok(Money { amount, currency }),
            _ => Err(MoneyError::TooLarge),
        }
    }

    /// Minor units, always greater than 0.
    #[must_use]
    pub fn amount(self) -> i64 {
        self.amount
    }

    /// The currency.
    #[must_use]
    pub fn currency(self) -> Currency {
        self.currency
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.currency.minor_per_major();
        let (major, minor) = (self.amount / unit, self.amount % unit);
        match self.currency.decimals() {
            0 => write!(f, "{major} {}", self.currency),
            decimals => write!(f, "{major}.{minor:0width$} {}", self.currency, width = decimals as usize),
        }
    }
}

/// The reason for which an amount or a currency was refused, in words for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// Zero or negative.
    #[error("must be greater than 0, in minor units (1234 for 12.34 USD)")]
    NotPositive,
    /// More than any single payment may be.
    #[error("must be at most {AMOUNT_MAX} minor units")]
    TooLarge,
    /// Not in the list.
    #[error("must be one of {}", SUPPORTED.map(|(code, _)| code).join(", "))]
    UnsupportedCurrency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_bounded_on_both_sides() {
        let usd: Currency = "USD".parse().unwrap();
        assert_eq!(Money::new(0, usd), Err(MoneyError::NotPositive));
        assert_eq!(Money::new(i64::MIN, usd), Err(MoneyError::NotPositive));
        assert_eq!(Money::new(AMOUNT_MAX + 1, usd), Err(MoneyError::TooLarge));
        assert_eq!(Money::new(AMOUNT_MAX, usd).unwrap().amount(), AMOUNT_MAX);
    }

    #[test]
    fn only_listed_upper_case_codes_are_currencies() {
        for text in ["", "usd", "XXX", "DOLLAR", "ÄÖÜ"] {
            assert_eq!(text.parse::<Currency>(), Err(MoneyError::UnsupportedCurrency), "{text}");
        }
        assert!(MoneyError::UnsupportedCurrency.to_string().ends_with("SGD, USD"));
        for code in Currency::supported() {
            assert_eq!(code.parse::<Currency>().unwrap().code(), code);
        }
    }

    #[test]
    fn money_is_shown_with_the_decimals_of_its_currency() {
        let shown = |amount, code: &str| Money::new(amount, code.parse().unwrap()).unwrap().to_string();
        assert_eq!(shown(5, "USD"), "0.05 USD");
        assert_eq!(shown(500, "JPY"), "500 JPY");
        assert_eq!(shown(1234, "BHD"), "1.234 BHD");
    }
}
