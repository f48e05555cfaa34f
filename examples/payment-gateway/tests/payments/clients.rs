//! The clients that integrators copy (`examples/clients`), against a running platform.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use super::platform::{Merchant, Platform};
use super::{charges, setup};

/// Runs a client with the environment that its own text asks for.
async fn run(merchant: &Merchant, program: &str, arguments: &[&str]) -> Output {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients");
    let mut command = Command::new(program);
    command.current_dir(folder).args(arguments).env("PROBITY_GATEWAY", &merchant.base);
    command.env("PROBITY_API_KEY", &merchant.api_key).env("PROBITY_API_SECRET", &merchant.secret);
    match command.output().await {
        Ok(output) => output,
        Err(error) => {
            panic!("{program} cannot be run ({error}); on Debian: apt-get install bash curl openssl python3")
        }
    }
}

/// Runs the client in Python, and reads what it prints.
async fn python(merchant: &Merchant, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = run(merchant, "python3", &[&["probity_client.py"], arguments].concat()).await;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn the_client_in_python_pays_shows_gives_back_and_lists() {
    let (platform, merchant) = setup(&[]).await;
    let (code, paid) = python(&merchant, &["pay", "PY-1", "4990", "EUR", "card_ok"]).await;
    assert_eq!((code, &paid["status"]), (Some(0), &Value::from("success")), "{paid}");
    let (_, again) = python(&merchant, &["pay", "PY-1", "4990", "EUR", "card_ok"]).await;
    assert_eq!(again, paid, "the key of an order is its number");
    assert_eq!(charges(&platform).await, 1);
    let number = paid["payment_no"].as_str().unwrap();
    let (code, refund) = python(&merchant, &["refund", number, "1000", "EUR"]).await;
    assert_eq!((code, &refund["amount"]), (Some(0), &Value::from(1000)), "{refund}");
    let (code, shown) = python(&merchant, &["show", number]).await;
    assert_eq!((code, &shown["payment_no"]), (Some(0), &paid["payment_no"]), "{shown}");
    let (code, listed) = python(&merchant, &["list"]).await;
    assert_eq!((code, listed.as_array().map(Vec::len)), (Some(0), Some(1)), "{listed}");
    let (code, problem) = python(&merchant, &["cancel", number]).await;
    assert_eq!((code, &problem["status"]), (Some(1), &Value::from(409)), "{problem}");
    let (code, usage) = python(&merchant, &["pay", "PY-2"]).await;
    assert!(code == Some(2) && usage.as_str().unwrap().contains("standard library"), "{usage}");
}

#[tokio::test]
async fn the_client_in_python_repeats_a_payment_whose_answer_was_lost() {
    let platform = Platform::start().await;
    let base = super::gateway(&platform, &[]).await;
    let merchant = platform.merchant(&base).await;
    let to_gateway = testkit::Proxy::before(base.strip_prefix("http://").unwrap().parse().unwrap());
    let behind = Merchant { base: format!("http://{}", to_gateway.address()), ..merchant };
    platform.gate.keep_answers();
    let paying =
        tokio::spawn(async move { python(&behind, &["pay", "PY-1", "4990", "EUR", "card_ok"]).await });
    // The channel has charged, and nobody has heard of it yet: the connection of the client breaks.
    platform.gate.answered(1).await;
    to_gateway.cut();
    platform.gate.answer_again();
    to_gateway.restore();
    let (code, paid) = paying.await.unwrap();
    assert_eq!((code, &paid["status"]), (Some(0), &Value::from("success")), "{paid}");
    assert_eq!(charges(&platform).await, 1);
}

#[tokio::test]
async fn the_checks_of_idempotency_in_the_shell_hold() {
    let (platform, merchant) = setup(&[]).await;
    let output = run(&merchant, "bash", &["test-idempotency.sh"]).await;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("every check holds\n") && text.matches("holds: ").count() >= 14, "{text}");
    assert_eq!(charges(&platform).await, 2, "{text}");
    // A check that cannot fail proves nothing: with a secret that is not the merchant's, none of the first holds.
    let stranger = Merchant { secret: "not-the-secret".to_owned(), ..merchant };
    let output = run(&stranger, "bash", &["test-idempotency.sh"]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && text.contains("DOES NOT HOLD: a payment answers 201"),
        "{text}"
    );
}
