//! Act one: a merchant registers, and gets both of its keys with their secrets, once.

use serde_json::{Value, json};
use service_shell::random_text;

use crate::console::Console;
use crate::fleet::{Fleet, Service};
use crate::merchant_client::MerchantClient;
use crate::story::Failure;

/// Registers a merchant and returns its program, signing with the test key.
pub(crate) async fn register(
    console: &mut Console,
    fleet: &Fleet,
    gateway: &str,
) -> Result<MerchantClient, Failure> {
    console.act("A merchant registers");
    // A database that is kept from one run to the next already has a merchant; each address registers once.
    let email = format!("owner-{}@corner-shop.example", random_text(6).to_lowercase());
    let body = json!({"name": "Corner Shop", "email": email});
    console.sent(format!("POST /api/v1/merchants/register {body}"));
    let url = format!("{}/api/v1/merchants/register", fleet.url(Service::Merchant));
    let answer = reqwest::Client::builder().no_proxy().build()?.post(url).json(&body).send().await?;
    let status = answer.status().as_u16();
    let merchant: Value = answer.json().await?;
    console.received(format!("{status}, merchant {}", merchant["merchant"]["id"].as_str().unwrap_or("?")));
    console.checked("the merchant was created", status, 201)?;
    let keys = merchant["api_keys"].as_array().cloned().unwrap_or_default();
    let mut modes: Vec<&str> = keys.iter().filter_map(|key| key["mode"].as_str()).collect();
    modes.sort_unstable();
    console.checked(
        "it has one test and one production key, whose secrets are shown this once",
        modes,
        vec!["production", "test"],
    )?;
    let text = |field: &str| {
        keys.iter()
            .find(|key| key["mode"] == "test")
            .and_then(|key| key[field].as_str())
            .map(str::to_owned)
            .ok_or_else(|| Failure::Setup(format!("the merchant's test key has no `{field}`")))
    };
    MerchantClient::new(gateway, text("api_key")?, text("api_secret")?)
}
