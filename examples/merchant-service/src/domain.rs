//! Merchants and their keys: pure rules, no clock, no SQL.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_shell::{Id, Problem, random_text, text_enum};
use utoipa::ToSchema;

text_enum! {
    /// The data that a key may touch.
    pub enum Mode {
        /// No money moves.
        Test = "test",
        /// Money moves.
        Production = "production",
    }
}

text_enum! {
    /// The standing of a merchant: it may call or not.
    pub enum MerchantStatus {
        /// May call.
        Active = "active",
        /// May not call until an operator changes it.
        Suspended = "suspended",
        /// May never call again.
        Closed = "closed",
    }
}

text_enum! {
    /// The standing of a key: it signs requests or not.
    pub enum KeyStatus {
        /// It does.
        Active = "active",
        /// Never again.
        Revoked = "revoked",
    }
}

/// A merchant as shown.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct Merchant {
    /// The id; also what other services know.
    pub id: Id,
    /// The name.
    pub name: String,
    /// Lower case, unique.
    pub email: String,
    /// The standing of the merchant.
    pub status: MerchantStatus,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// By the database's clock.
    pub updated_at: DateTime<Utc>,
}

/// A key as shown after its creation: without the secret.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct ApiKey {
    /// The id, for rotate and revoke.
    pub id: Id,
    /// Whose it is.
    pub merchant_id: Id,
    /// The value for `X-API-Key`.
    pub api_key: String,
    /// The data that it may touch.
    pub mode: Mode,
    /// The standing of the key.
    pub status: KeyStatus,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// When its secret was last replaced.
    pub rotated_at: Option<DateTime<Utc>>,
    /// When it stopped signing.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A key with its secret: exists only in the response that creates or rotates it.
#[derive(Clone, Serialize, ToSchema)]
pub struct IssuedKey {
    /// The key.
    #[serde(flatten)]
    pub key: ApiKey,
    /// Signs requests; cannot be shown again.
    pub api_secret: String,
}

impl fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A merchant and its two keys, as shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Registered {
    pub(crate) merchant: Merchant,
    /// One key of each mode.
    #[schema(min_items = 2, max_items = 2)]
    pub(crate) api_keys: Vec<IssuedKey>,
}

/// A page of merchants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Merchants {
    pub(crate) merchants: Vec<Merchant>,
    /// The `after` of the next page; null at the end.
    pub(crate) next: Option<Id>,
}

/// The keys of a merchant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeys {
    pub(crate) api_keys: Vec<ApiKey>,
}

/// The body that changes the standing of a merchant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewStatus {
    pub(crate) status: MerchantStatus,
}

/// The body that adds a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    pub(crate) mode: Mode,
}

/// A fresh name for a key.
pub(crate) fn new_api_key(mode: Mode) -> String {
    match mode {
        Mode::Test => format!("pk_test_{}", random_text(24)),
        Mode::Production => format!("pk_live_{}", random_text(24)),
    }
}

/// A fresh secret: 200 random bits, more than HMAC-SHA256 can be attacked for.
pub(crate) fn new_secret(mode: Mode) -> String {
    match mode {
        Mode::Test => format!("sk_test_{}", random_text(40)),
        Mode::Production => format!("sk_live_{}", random_text(40)),
    }
}

/// The body by which a merchant or an operator creates a merchant.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMerchant {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Unique among merchants.
    #[schema(max_length = 254)]
    pub email: String,
}

impl NewMerchant {
    /// Trims, lower-cases the address and checks both.
    ///
    /// # Errors
    /// 422 naming the field.
    pub fn checked(self) -> Result<NewMerchant, Problem> {
        let (name, email) = (self.name.trim().to_owned(), self.email.trim().to_lowercase());
        if !(1..=100).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(Problem::invalid(
                "name",
                "must have 1 to 100 characters, none of them control characters",
            ));
        }
        if !is_email(&email) {
            return Err(Problem::invalid("email", "must be an address such as shop@example.com"));
        }
        Ok(NewMerchant { name, email })
    }
}

/// Only what a mail server could accept at all; whether it exists is for a confirmation mail to find out.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let plain = |part: &str| part.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '@');
    text.len() <= 254
        && (1..=64).contains(&local.len())
        && plain(local)
        && plain(domain)
        && domain.split('.').count() >= 2
        && domain.split('.').all(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, email: &str) -> Result<NewMerchant, Problem> {
        NewMerchant { name: name.to_owned(), email: email.to_owned() }.checked()
    }

    #[test]
    fn a_merchant_is_trimmed_and_its_address_is_lower_case() {
        let merchant = checked("  Corner Shop ", "Shop@Example.COM").unwrap();
        assert_eq!((merchant.name.as_str(), merchant.email.as_str()), ("Corner Shop", "shop@example.com"));
    }

    #[test]
    fn a_bad_name_or_address_is_named() {
        for name in ["", "   ", "a\u{7}b", &"x".repeat(101)] {
            assert!(checked(name, "a@b.c").expect_err("refused").detail().starts_with("name "), "{name:?}");
        }
        for email in
            ["", "a", "a@b", "@b.c", "a@b..c", "a b@c.d", "a@@b.c", &format!("{}@b.c", "x".repeat(65))]
        {
            assert!(checked("n", email).expect_err("refused").detail().starts_with("email "), "{email:?}");
        }
    }

    #[test]
    fn keys_and_secrets_show_their_mode_and_never_repeat() {
        assert!(new_api_key(Mode::Test).starts_with("pk_test_"));
        assert!(new_secret(Mode::Production).starts_with("sk_live_"));
        assert_ne!(new_secret(Mode::Test), new_secret(Mode::Test));
    }
}
